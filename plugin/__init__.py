"""The scorekeeper of computer-vision training.

A callback is added to a trainer; every documented loss and metric of object detection, instance
segmentation and semantic segmentation then lands in TensorBoard and MLflow, under names by which
only comparable curves share a chart.
"""

from __future__ import annotations

from .catalogue import CATALOGUE, Measure
from .identity import Identity
from .logger import Logger
from .losses import canonical
from .metric import Metric
from .records import File, Point, Tag
from .run import Run
from .schedule import Every

__all__ = [
    "CATALOGUE",
    "Every",
    "File",
    "Identity",
    "Logger",
    "Measure",
    "Metric",
    "Point",
    "Run",
    "Tag",
    "canonical",
]
