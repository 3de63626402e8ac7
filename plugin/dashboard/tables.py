"""Leaderboards of an evaluated set, and its classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxscore.catalogue import CATALOGUE

from .contents import Series, Source, run_id
from .curves import in_steps, numbers

Curve = tuple[NDArray[np.int64], NDArray[np.float64]]


def leaderboard(source: Source, series: Iterable[Series], by: str) -> list[dict[str, Any]]:
    """A row for each training that measured ``by``, best first.

    Args:
        source: the log folder.
        series: the metrics of one evaluated set.
        by: the metric that ranks.

    Returns:
        rows with ``run``, ``best``, ``best_step``, ``last``, ``last_step``, and with all metrics'
        figures of the last evaluation and of the one with the best ``by``.
    """
    curves: dict[str, dict[str, Curve]] = {}
    for one, curve in _read(source, series):
        curves.setdefault(one.folder, {})[one.key.measure] = curve
    better = CATALOGUE[by].better if by in CATALOGUE else "higher"
    rows = [_row(folder, own, by, better) for folder, own in curves.items() if by in own]
    ranked = [row for row in rows if row["best"] is not None]
    ranked.sort(key=lambda row: row["best"], reverse=better == "higher")
    return ranked + [row for row in rows if row["best"] is None]


def _row(folder: str, curves: dict[str, Curve], by: str, better: str) -> dict[str, Any]:
    steps, values = curves[by]
    row: dict[str, Any] = {"run": run_id(folder), "best": None, "best_step": None}
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite):
        among = values[finite] if better == "higher" else -values[finite]
        best = finite[int(among.argmax())]
        row |= {"best": numbers(values[[best]])[0], "best_step": int(steps[best])}
    row |= {"last": numbers(values[-1:])[0], "last_step": int(steps[-1])}
    for figures, step in (("at_last", row["last_step"]), ("at_best", row["best_step"])):
        row[figures] = {name: _at(curve, step) for name, curve in curves.items()}
    return row


def classes(source: Source, series: Iterable[Series], measure: str) -> dict[str, Any]:
    """The last value of ``measure`` by class and training, with the step of each training's."""
    values: dict[str, dict[str, float | None]] = {}
    last: dict[str, int] = {}
    read = [
        (one, curve)
        for one, curve in _read(source, (one for one in series if one.key.measure == measure))
    ]
    for one, (steps, _) in read:
        run = run_id(one.folder)
        last[run] = max(last.get(run, 0), int(steps[-1]))
    for one, curve in read:
        run = run_id(one.folder)
        values.setdefault(one.key.class_name, {})[run] = _at(curve, last[run])
    return {"classes": values, "steps": last}


def _at(curve: Curve, step: int | None) -> float | None:
    """The value at ``step``; an evaluation that did not measure it gives None."""
    steps, values = curve
    found = np.flatnonzero(steps == step)
    return numbers(values[found])[0] if len(found) else None


def _read(source: Source, series: Iterable[Series]) -> Iterator[tuple[Series, Curve]]:
    wanted = list(series)
    if not wanted:
        return
    read = source.read_scalars({one.tag for one in wanted}, {one.name for one in wanted})
    for one in wanted:
        if data := read.get(one.name, {}).get(one.tag):
            yield one, in_steps(data)
