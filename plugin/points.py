"""How losses and figures become points: their names, scopes and splits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .losses import Losses
from .names import legal
from .records import Point

if TYPE_CHECKING:
    from .evaluation import Results


def of_losses(losses: Losses, group: str, split: str, step: int) -> list[Point]:
    """The losses of one point, and the framework's own where several fold into one measure."""
    now = time.time()
    return [
        Point(name, value, step, split, now, f"loss {group}")
        for name, value in losses.measures.items()
    ] + [
        Point(legal(name), value, step, split, now, f"native {group}")
        for name, value in losses.framework.items()
    ]


def of_figures(results: Results, dataset: str, split: str, step: int) -> list[Point]:
    """The figures of an evaluated set, of each class too; the set's name is in their scope."""
    now = time.time()
    scope = f"{legal(dataset)}-{split} {legal(results.digest[:6])}"
    return [
        Point(name, value, step, split, now, f"metric {scope}")
        for name, value in results.figures.items()
    ] + [
        Point(f"{name} {legal(of)}", value, step, split, now, f"class {scope}")
        for of, values in results.per_class.items()
        for name, value in values.items()
    ]


def of_summary(figures: Mapping[str, float], better: list[str], step: int) -> list[Point]:
    """The latest figures under names that never change, and those that are the best so far."""
    now = time.time()
    points = [Point(f"summary/{name}", value, step, "", now) for name, value in figures.items()]
    for name in better:
        points.append(Point(f"summary/best_{name}", figures[name], step, "", now))
        points.append(Point(f"summary/best_{name}_step", step, step, "", now))
    return points
