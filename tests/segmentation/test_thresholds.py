"""The fixed thresholds, and the index of a score among them."""

from itertools import pairwise

import numpy as np
import torch

from boxscore.segmentation import SegmentationMetrics
from boxscore.segmentation.thresholds import THRESHOLDS, places


def test_thresholds_are_dense_at_both_ends_and_hold_every_256th() -> None:
    thresholds = SegmentationMetrics(["a", "b"]).thresholds
    assert set(np.arange(256, dtype=np.float32) / 256) <= set(thresholds)
    assert all(low < high for low, high in pairwise(thresholds))
    for edge in (1e-6, 1e-3, 1 - 1e-3, 1 - 1e-6):
        gap = np.diff(thresholds)[np.searchsorted(thresholds, edge) - 1]
        assert gap <= min(edge, 1 - edge) / 16
    assert (thresholds[0], thresholds[-1]) == (0, 1)


def test_a_score_counts_from_its_threshold_on() -> None:
    """Scores of exactly a threshold, and the floats next to it: places, like ``score >= t``."""
    above, below = (np.nextafter(THRESHOLDS, np.float32(end)) for end in (2, -1))
    scores = np.concatenate([THRESHOLDS, above[above <= 1], below[below >= 0]])
    expected = np.searchsorted(THRESHOLDS, scores, side="right") - 1
    assert places(scores).tolist() == expected.tolist()
    assert places(torch.from_numpy(scores)).tolist() == expected.tolist()
