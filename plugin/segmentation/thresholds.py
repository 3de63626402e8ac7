"""Score thresholds that are dense at both ends, and the index of a score among them.

The scores of a trained model lie next to 0 and 1, where evenly spaced thresholds do not separate
them. These are spaced as floats are: a fixed number for each halving of the distance to 0 or to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_DROPPED = 12
"""Lower bits of a float32 that are dropped: 2,048 fine steps remain in each octave."""

_HALF = 0x3F000000 >> _DROPPED
"""The fine step of 0.5, counted from 0."""

_SCALE = 24
"""Scores are multiplied by 2**24 before their bits are read, so that subnormal ones have octaves.

It is also the number of octaves between 0.5 and 1, the end of float32's resolution there.
"""

_LOW = _HALF + (_SCALE << (23 - _DROPPED))
"""The number of fine steps below 0.5."""

_TOP = _LOW + (_SCALE << (23 - _DROPPED))
"""The fine step of 1.0, the last one."""


def _ladder(*steps: tuple[int, int]) -> Iterator[float]:
    """Distances to an end: pairs (octaves, steps in each), downwards from 0.5."""
    top = 0.5
    for octaves, count in steps:
        for _ in range(octaves):
            top /= 2
            yield from (top * (1 + step / count) for step in range(count))


def _thresholds() -> NDArray[np.float32]:
    low = [*_ladder((5, 2048), (7, 256), (12, 64), (124, 32))]
    high = 1 - np.array([*_ladder((5, 2048), (_SCALE - 5, 1024))])
    every = np.concatenate([[0, 0.5, 1], low, high])
    return np.unique(every[every.astype(np.float32) == every]).astype(np.float32)


THRESHOLDS = _thresholds()
"""Ascending from 0 to 1, exact in float32, every k/256 among them."""

PER_256 = np.searchsorted(THRESHOLDS, np.arange(256, dtype=np.float32) / 256)
"""The indices of the thresholds k/256, k = 0..255."""

PER_128 = np.append(PER_256[::2], len(THRESHOLDS) - 1)
"""The indices of the thresholds k/128, k = 0..128."""


def places(scores: Any) -> Any:
    """The index of the highest threshold that each score is not below.

    Args:
        scores: float32 in [0, 1], array or tensor; the index of NaN is legal and means nothing.

    Returns:
        int32 of the same shape and kind.
    """
    # The upper bits of a positive float count its octave and the step within it. From 0.5 on they
    # are those of the distance to 1, exact in float32, the upper end of each step included.
    xp: Any = torch if isinstance(scores, Tensor) else np
    low = (scores * 2.0**_SCALE).view(xp.int32) >> _DROPPED
    high = _LOW + _HALF - 1 - (((1 - scores).view(xp.int32) - 1) >> _DROPPED)
    fine = xp.where(scores < 0.5, low, high)
    if xp is np:
        return _OF_FINE.take(fine, mode="clip")
    return _of_device(scores.device)[fine.clip(0, _TOP)]


def _of_fine() -> NDArray[np.int32]:
    steps = np.arange(_LOW + 1, dtype=np.int32) << _DROPPED
    low = steps.view(np.float32).astype(np.float64) / 2**_SCALE
    starts = np.concatenate([low[:-1], 1 - low[:_HALF:-1], [1.0]])
    below = np.searchsorted(THRESHOLDS.astype(np.float64), starts, side="right") - 1
    return below.astype(np.int32)


_OF_FINE = _of_fine()
"""The threshold of each fine step."""


@cache
def _of_device(device: torch.device) -> Tensor:
    return torch.from_numpy(_OF_FINE).to(device)
