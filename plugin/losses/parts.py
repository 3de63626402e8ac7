"""From a framework's losses of one point to the catalogue's: folded parts, and the total.

`total` is the sum of the parts, always. Where the framework's own objective is known and differs
from the parts that were understood, the difference is the part `other`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from boxscore import keys
from boxscore.catalogue import CATALOGUE
from boxscore.records import Point

from .names import canonical

MEASURED = ("focal", "cross_entropy", "dice")
"""Measured from logits beside the objective; under these very names they are no parts."""

NEGLIGIBLE = 1e-5
"""Of the objective: float noise that does not make a part `other`."""


@dataclass(slots=True)
class Losses:
    """The losses of one point.

    Attributes:
        measures: by catalogue name, `total` last.
        natives: the framework's names where several fold into one measure.
    """

    measures: dict[str, float] = field(default_factory=dict)
    natives: dict[str, float] = field(default_factory=dict)

    def points(self, group: str, split: str, step: int) -> list[Point]:
        """The losses of ``group`` at ``step``, and the framework's own where several fold."""
        now, scopes = time.time(), (keys.loss_scope(group), keys.loss_scope(group, native=True))
        measures = [Point(n, v, step, split, now, scopes[0]) for n, v in self.measures.items()]
        natives = self.natives.items()
        return measures + [Point(keys.legal(n), v, step, split, now, scopes[1]) for n, v in natives]


def fold(values: Mapping[str, float], *, task: str, decoupled: bool = False) -> Losses:
    """Name, fold and sum ``values``, a framework's losses by its own names.

    Args:
        values: floats by native or catalogue name; diagnostics are passed over.
        task: a semantic model's criterion, however it is made up, is its classification loss.
        decoupled: the optimizer decays weights beside the objective, so that `regularization` is
            nominal and not summed.

    >>> fold({"loss_ce": 1.0, "loss_bbox": 0.5, "loss_giou": 0.25}, task="detection").measures
    {'classification': 1.0, 'localization': 0.75, 'total': 1.75}
    """
    losses = Losses()
    origins: dict[str, list[str]] = {}
    objective = None
    for name, value in values.items():
        measure = _measure(name, task)
        if measure == "total":
            objective = value
        elif measure is not None:
            losses.measures[measure] = losses.measures.get(measure, 0.0) + value
            origins.setdefault(measure, []).append(name)
    for names in origins.values():
        if len(names) > 1:
            losses.natives |= {name: values[name] for name in names}
    if objective is not None:
        _complete(losses.measures, objective, task)
    parts = {name: value for name, value in losses.measures.items() if CATALOGUE[name].part}
    if parts.keys() - {"regularization"}:  # which alone is no objective
        if decoupled:
            parts.pop("regularization", None)
        losses.measures["total"] = sum(parts.values())
    return losses


def _measure(name: str, task: str) -> str | None:
    measure = canonical(name, task)
    if task != "semantic-segmentation" or name in MEASURED:
        return measure
    criterion = (*MEASURED, "mask", "localization", "objectness")
    return "classification" if measure in criterion else measure


def _complete(measures: dict[str, float], objective: float, task: str) -> None:
    """Account for what the framework's objective holds beyond the parts that were understood."""
    # the framework's objective never holds the decay, which the optimizer applies
    parts = [v for n, v in measures.items() if CATALOGUE[n].part and n != "regularization"]
    if not parts and task == "semantic-segmentation":
        measures["classification"] = objective
    elif not abs(rest := objective - sum(parts)) <= NEGLIGIBLE * abs(objective):
        measures["other"] = measures.get("other", 0.0) + rest
