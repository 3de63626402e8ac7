"""From a framework's losses of one point to the catalogue's: parts, and the total.

`total` is the sum of the parts, always. Where the framework's own objective is known and differs
from the parts, the difference is the part `other`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from boxscore import keys
from boxscore.catalogue import CATALOGUE
from boxscore.records import Point

from .names import canonical

MEASURED = ("focal", "cross_entropy", "dice")
"""Measured from logits beside the objective: under these names, not parts of it."""

NEGLIGIBLE = 1e-5
"""Share of the objective up to which a difference is rounding, and not the part `other`."""


@dataclass(slots=True)
class Losses:
    """The losses of one point.

    Attributes:
        measures: by catalogue name, `total` last.
        framework: by the framework's names, where several add up to one measure.
    """

    measures: dict[str, float] = field(default_factory=dict)
    framework: dict[str, float] = field(default_factory=dict)

    def points(self, group: str, split: str, step: int) -> list[Point]:
        """The losses of ``group`` at ``step``, and the framework's own where several fold."""
        now, scopes = time.time(), (keys.loss_scope(group), keys.loss_scope(group, native=True))
        measures = [Point(n, v, step, split, now, scopes[0]) for n, v in self.measures.items()]
        own = self.framework.items()
        return measures + [Point(keys.legal(n), v, step, split, now, scopes[1]) for n, v in own]


def fold(
    values: Mapping[str, float], *, task: str, decoupled: bool = False, epsilon: float = 0.0
) -> Losses:
    """Name and add up ``values``, a framework's losses by its own names.

    Args:
        values: floats by framework or catalogue name; diagnostics are left out.
        task: of a semantic model the whole criterion is the classification loss.
        decoupled: the optimizer decays weights beside the objective, so that `regularization` is
            nominal and not summed.
        epsilon: the relative rounding of the values' dtype in training (`WeightedSums.epsilon`).

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
            losses.framework |= {name: values[name] for name in names}
    if objective is not None:
        # the framework's objective never holds the decay, which the optimizer applies
        found = {n: v for n, v in _parts(losses.measures).items() if n != "regularization"}
        rest = objective - sum(found.values())
        summands = sum(len(origins[name]) for name in found)
        if not found and task == "semantic-segmentation":
            losses.measures["classification"] = objective
        elif not abs(rest) <= max(NEGLIGIBLE, summands * epsilon / 2) * abs(objective):
            losses.measures["other"] = losses.measures.get("other", 0.0) + rest
    parts = _parts(losses.measures)
    if parts.keys() - {"regularization"}:  # which alone is no objective
        if decoupled:
            parts.pop("regularization", None)
        losses.measures["total"] = sum(parts.values())
    return losses


def criterion_parts(losses: Any) -> dict[str, Any]:
    """The losses of a semantic criterion, a scalar or a mapping, under names that are parts.

    ``focal``, ``cross_entropy`` and ``dice`` by these very names are measured from logits for every
    criterion; a criterion's own terms of these names become ``focal_loss`` and so on.
    """
    if not isinstance(losses, Mapping):
        return {"classification": losses}
    return {f"{name}_loss" if name in MEASURED else name: v for name, v in losses.items()}


def _measure(name: str, task: str) -> str | None:
    measure = canonical(name, task)
    if task != "semantic-segmentation" or name in MEASURED:
        return measure
    criterion = (*MEASURED, "mask", "localization", "objectness")
    return "classification" if measure in criterion else measure


def _parts(measures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in measures.items() if CATALOGUE[name].part}
