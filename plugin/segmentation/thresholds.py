"""Score thresholds that are dense at both ends, and the place of a score among them.

A trained model's scores crowd next to 0 and 1, where thresholds at equal distances see nothing:
of a confident model the area under the curve then comes out five points too low. These follow the
floats themselves: so many steps per halving of the distance to 0, and the same towards 1.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MANTISSA = 17
"""Lower bits of a float32 that are dropped: 64 fine steps stay in each octave."""

_HALF = 0x3F000000 >> _MANTISSA
"""The fine step of 0.5; as many lie above it as below, and 1.0 has the last for itself."""


def _steps(octave: int) -> int:
    """Thresholds in the octave that ends at 2**-(octave + 1)."""
    return 64 if octave < 6 else 8 if octave < 23 else 1


def _thresholds() -> NDArray[np.float32]:
    low = np.array([
        2.0 ** -(octave + 2) * (1 + step / _steps(octave))
        for octave in range(125)
        for step in range(_steps(octave))
    ])  # fmt: skip
    high = 1 - low
    high = high[high.astype(np.float32) == high]  # float32 ends at 1 - 2**-24
    return np.unique(np.concatenate([[0.0], low, [0.5], high, [1.0]])).astype(np.float32)


THRESHOLDS = _thresholds()
"""Ascending from 0 to 1, exact in float32, every k/256 among them."""

PER_256 = np.searchsorted(THRESHOLDS, np.arange(256, dtype=np.float32) / 256)
"""Where the thresholds k/256, k = 0..255, lie among them."""


def places(scores: Any) -> Any:
    """How far each score reaches: the index of the highest threshold that it is not below.

    Args:
        scores: float32 in [0, 1], array or tensor; the place of NaN means nothing, but is legal.

    Returns:
        int16 of the same shape and kind.
    """
    # The upper bits of a positive float count its octave and the step within it. Above 0.5 the
    # distance to 1, exact in float32, is counted instead, the upper end of each step included.
    xp: Any = torch if isinstance(scores, Tensor) else np
    low = scores.view(xp.int32) >> _MANTISSA
    high = 2 * _HALF - 1 - (((1 - scores).view(xp.int32) - 1) >> _MANTISSA)
    fine = xp.where(scores < 0.5, low, high).clip(0, 2 * _HALF)
    return _of_device(scores.device)[fine] if xp is torch else _OF_FINE[fine]


def _of_fine() -> NDArray[np.int16]:
    steps = np.arange(_HALF + 1, dtype=np.int32) << _MANTISSA
    low = steps.view(np.float32).astype(np.float64)
    starts = np.concatenate([low[:-1], 1 - low[::-1]])
    below = np.searchsorted(THRESHOLDS.astype(np.float64), starts, side="right") - 1
    return below.astype(np.int16)


_OF_FINE = _of_fine()
"""The threshold of each fine step."""


@cache
def _of_device(device: torch.device) -> Tensor:
    return torch.from_numpy(_OF_FINE).to(device)
