"""Logits and label maps as they come, made tensors that fit each other; or a clear error."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_pixels(logits: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Check the shapes and types, which costs nothing on any device.

    Args:
        logits: floats (N, C, H, W), tensor or array; C = 1 means two classes through a sigmoid.
        targets: integers or booleans (N, H, W), tensor or array.

    Returns:
        the logits (N, C, H, W) with C of 2 or more, and the labels (N, H, W) as int64 on the
        logits' device.

    Raises:
        ValueError: if the shapes do not fit, the logits are no floats, or the targets are.
    """
    logits, targets = _as_tensor(logits), _as_tensor(targets)
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ValueError(
            f"logits are {logits.dtype} of shape {tuple(logits.shape)}; pass floats (N, C, H, W), "
            "as they are before softmax, sigmoid and argmax"
        )
    if targets.is_floating_point() or targets.is_complex():
        raise ValueError(f"targets are {targets.dtype}; pass integer labels, such as masks.long()")
    count, channels, *size = logits.shape
    if targets.ndim != 3 or len(targets) != count:
        raise ValueError(
            f"targets are of shape {tuple(targets.shape)}; logits {tuple(logits.shape)} want "
            f"{(count, *size)}, one integer per pixel"
        )
    if list(targets.shape[1:]) != size:
        wanted = tuple(targets.shape[1:])
        raise ValueError(
            f"logits are {size[0]}x{size[1]} and targets {wanted[0]}x{wanted[1]} (height x width); "
            f"bring the logits to the targets' size: torch.nn.functional.interpolate(logits, "
            f"size={wanted}, mode='bilinear')"
        )
    if channels == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)  # its softmax is the sigmoid
    return logits, targets.to(logits.device, torch.int64)


def _as_tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values
    array = np.asarray(values)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def waits(tensor: Tensor) -> bool:
    """Whether to read a value of it would make the training wait for its device."""
    return tensor.device.type != "cpu"


def valid_pixels(labels: Any, classes: int, ignore_index: int | None) -> Any:
    """Which pixels count, as a mask: those of a class, less ``ignore_index``; tensor or array."""
    valid = (labels >= 0) & (labels < classes)
    return valid if ignore_index is None else valid & (labels != ignore_index)


def label_range(labels: Tensor, ignore_index: int | None) -> Tensor:
    """Lowest and highest label of each image (N, H, W), ``ignore_index`` aside, as (N, 2)."""
    if ignore_index is not None:
        labels = labels.masked_fill(labels == ignore_index, 0)
    return torch.stack([labels.amin((1, 2)), labels.amax((1, 2))], dim=1)


def wrong_label(lowest: float, highest: float, classes: int, ignore_index: int | None) -> str:
    """What is wrong with an image whose labels span this range; ``""`` if nothing is."""
    if lowest >= 0 and highest < classes:
        return ""
    value = lowest if lowest < 0 else highest
    return (
        f"label {int(value)} in targets is neither a class (0 to {classes - 1}) nor the "
        f"ignore_index ({ignore_index})"
    )
