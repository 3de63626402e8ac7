"""Semantic segmentation's metrics from one pass over the pixels."""

from .inputs import (
    are_probabilities,
    as_pixels,
    check_labels,
    label_range,
    two_channels,
    valid_pixels,
    value_range,
    waits,
)
from .metrics import SegmentationMetrics

__all__ = [
    "SegmentationMetrics",
    "are_probabilities",
    "as_pixels",
    "check_labels",
    "label_range",
    "two_channels",
    "valid_pixels",
    "value_range",
    "waits",
]
