"""Semantic segmentation's metrics from one pass over the pixels."""

from .metrics import SegmentationMetrics

__all__ = ["SegmentationMetrics"]
