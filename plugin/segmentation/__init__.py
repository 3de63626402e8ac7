"""Semantic segmentation's metrics from one pass over the pixels."""

from . import inputs
from .metrics import SegmentationMetrics

__all__ = ["SegmentationMetrics", "inputs"]
