"""The metrics that a Trainer hands its callbacks after an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

from boxscore import CATALOGUE
from boxscore.keys import further_split
from boxscore.warn import Warnings

TIME = "_runtime"
"""The end of a name that every evaluation has."""


def prefix_of(metrics: Mapping[str, Any]) -> str:
    """The ``metric_key_prefix=`` of an evaluation, ``"eval"`` by default."""
    return next((name[: -len(TIME)] for name in metrics if name.endswith(TIME)), "eval")


def split_of(prefix: str) -> str:
    """The split of an evaluation: the test set, or a further one by its name."""
    name = prefix.removeprefix("eval").strip("_")
    return further_split(name) if name else "test"


def add(
    values: Mapping[str, float], metrics: dict[str, Any], best: str | None, warnings: Warnings
) -> None:
    """Add ``values`` by catalogue name to the Trainer's ``metrics``, whose own values stay.

    Where ``best``, its ``metric_for_best_model=``, is of the catalogue, the Trainer needs it: it is
    NaN where it is undefined.
    """
    prefix = prefix_of(metrics)
    named = {f"{prefix}_{name}": value for name, value in values.items()}
    if taken := sorted(named.keys() & metrics.keys()):
        warnings.warn_once("taken", f"{', '.join(taken)}: the values of compute_metrics stay")
    metrics.update({**named, **metrics})
    if (wanted := (best or "").removeprefix("eval_")) in CATALOGUE:
        metrics.setdefault(f"{prefix}_{wanted}", nan)
