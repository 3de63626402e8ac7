"""Curves for a chart: smoothed, then thinned out without losing an extreme."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

POINTS = 8_000
"""Points of one chart, shared by its curves."""

_FEWEST, _MOST = 100, 800  # of one curve


def points_per_curve(curves: int) -> int:
    """How many points a chart of so many curves can show of each."""
    return max(_FEWEST, min(_MOST, POINTS // max(curves, 1)))


def in_steps(data: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps in rising order and their values; of repeated steps the value that was written last."""
    steps = np.array([point.step for point in data], np.int64)
    values = np.array([point.value for point in data], np.float64)
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    is_last = np.append(steps[1:] != steps[:-1], True)[: len(steps)]
    return steps[is_last], values[is_last]


def smooth(values: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """Exponential moving average as TensorBoard has it: unbiased, leaving out what is not finite.

    Args:
        values: one for each step.
        weight: of the past, in [0, 1).
    """
    mean, total, result = 0.0, 0.0, []
    for value in values.tolist():
        if isfinite(value):
            mean = mean * weight + value * (1 - weight)
            total = total * weight + (1 - weight)
            result.append(mean / total)
        else:
            result.append(value)
    return np.array(result)


def sample(values: NDArray[np.float64], points: int) -> NDArray[np.int64]:
    """Indices of at most ``points`` values: first, last, lowest and highest of each bucket."""
    count = len(values)
    if count <= points:
        return np.arange(count)
    low, high = np.nan_to_num(values, nan=np.inf), np.nan_to_num(values, nan=-np.inf)
    kept: set[int] = set()
    for start, end in pairwise(np.linspace(0, count, points // 4 + 1).astype(int).tolist()):
        kept |= {start, end - 1}
        kept |= {start + int(low[start:end].argmin()), start + int(high[start:end].argmax())}
    return np.array(sorted(kept))


def within(steps: NDArray[np.int64], first: float | None, last: float | None) -> slice:
    """The steps from ``first`` to ``last``, and one more on either side so that lines go on."""
    start = 0 if first is None else max(int(np.searchsorted(steps, first)) - 1, 0)
    end = None if last is None else int(np.searchsorted(steps, last, "right")) + 1
    return slice(start, end)


def numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Values as they were logged, in single precision; None where not finite."""
    shortest = map(str, values.astype(np.float32))
    return [
        float(text) if finite else None
        for text, finite in zip(shortest, np.isfinite(values).tolist(), strict=True)
    ]
