"""What a Trainer states, and the metrics that it hands its callbacks after an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

from boxscore import CATALOGUE
from boxscore.keys import further_split
from boxscore.warn import Warnings

ENDING = "_runtime"
"""Of the one metric that each evaluation has; the rest of its name is ``metric_key_prefix=``."""


def settings_of(args: Any, state: Any) -> dict[str, object]:
    """The settings of a training, from `TrainingArguments`, and in a training `TrainerState`."""
    return {
        "batch_size": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "learning_rate": f"{args.learning_rate:g}",
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "32",
        "epochs": f"{args.num_train_epochs:g}" if args.max_steps <= 0 else None,
        "steps": getattr(state, "max_steps", None),
    }


def prefix_of(metrics: Mapping[str, Any]) -> str:
    """The prefix of an evaluation's metrics, ``"eval"`` by default."""
    return next((name[: -len(ENDING)] for name in metrics if name.endswith(ENDING)), "eval")


def split_of(metrics: Mapping[str, Any]) -> str:
    """The split of an evaluation: ``"test"``, or a further test set by its prefix."""
    name = prefix_of(metrics).removeprefix("eval").strip("_")
    return further_split(name) if name else "test"


def add(
    values: Mapping[str, float], metrics: dict[str, Any], best: str | None, warnings: Warnings
) -> None:
    """Add ``values`` by catalogue name to the Trainer's ``metrics``, whose own values stay.

    The Trainer needs ``best``, its ``metric_for_best_model=``: NaN where that is undefined.
    """
    prefix = prefix_of(metrics)
    named = {f"{prefix}_{name}": value for name, value in values.items()}
    if taken := sorted(named.keys() & metrics.keys()):
        warnings.warn_once("taken", f"{', '.join(taken)}: the values of compute_metrics stay")
    metrics.update({**named, **metrics})
    if (wanted := (best or "").removeprefix("eval_")) in CATALOGUE:
        metrics.setdefault(f"{prefix}_{wanted}", nan)
