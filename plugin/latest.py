"""The latest and the best values of a run's main test set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isnan, nan

from . import keys
from .catalogue import CATALOGUE
from .records import Point


@dataclass(slots=True)
class Latest:
    """Values by catalogue name.

    Attributes:
        split: the main split, the first test set that is evaluated.
        latest: the last values; NaN where they could not be measured.
        best: the best values so far.
    """

    split: str | None = None
    latest: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)

    def is_main(self, split: str) -> bool:
        """Whether ``split`` is the main one; the first test set becomes it."""
        if self.split is None and split != "train":
            self.split = split
        return split == self.split

    def update(self, values: Mapping[str, float], step: int) -> list[Point]:
        """Keep ``values``, and return the points that summarise the metrics among them.

        Their names never change, for queries and sorting.
        """
        points: dict[str, float] = {}
        for name in [name for name, value in self.latest.items() if isnan(value)]:
            del self.latest[name]  # of an evaluation that failed
        self.latest.update(values)
        for name, value in values.items():
            lower = name in CATALOGUE and CATALOGUE[name].better == "lower"
            best = self.best.get(name)
            is_better = best is None or (value < best if lower else value > best)
            is_better &= not isnan(value)
            if is_better:
                self.best[name] = value
            if not (name in CATALOGUE and CATALOGUE[name].kind == "loss"):
                points[name] = value
                if is_better:
                    points |= {f"best_{name}": value, f"best_{name}_step": float(step)}
        return [Point(keys.summary(name), value, step, "") for name, value in points.items()]

    def fail(self, names: Iterable[str]) -> None:
        """Mark ``names`` as not measured."""
        self.latest.update(dict.fromkeys(names, nan))
