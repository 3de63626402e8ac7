"""Batches of logits and label maps, and metrics of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from boxscore.segmentation import SegmentationMetrics


def names(count: int) -> list[str]:
    return [f"class {label}" for label in range(count)]


def batch(*shape: int, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (N, C, H, W) that are often right about the labels (N, H, W)."""
    count, channels, *size = shape
    random = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, max(channels, 2), (count, *size), generator=random)
    logits = torch.randn(shape, generator=random)
    if channels > 1:
        logits += 1.5 * one_hot(targets, channels).permute(0, 3, 1, 2)
    else:
        logits += 3.0 * targets[:, None] - 1.5
    return logits * scale, targets


def as_logits(labels: Any, classes: int) -> Tensor:
    """Logits (1, C, H, W) whose argmax is the label map (H, W)."""
    return 20.0 * one_hot(torch.tensor(labels), classes).permute(2, 0, 1)[None].float()


def measured(logits: Any, targets: Any, **options: Any) -> SegmentationMetrics:
    metric = SegmentationMetrics(names(max(logits.shape[1], 2)), **options)
    metric.update(logits, targets)
    return metric


def counted(metric: SegmentationMetrics) -> tuple[Any, ...]:
    """All numbers that a metric gives."""
    curves = [np.stack(curve).tobytes() for curve in metric.curves().values()]
    return metric.compute(), curves, metric.confusion_matrix(normalised=False).tolist()


def state(metric: SegmentationMetrics) -> tuple[Any, ...]:
    """All that can be read of a metric, the evaluated set included."""
    return *counted(metric), metric.evaluated.digest(metric.protocol)
