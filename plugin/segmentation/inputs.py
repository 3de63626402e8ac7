"""Predictions and label maps as tensors of matching shapes, or an error that names the mismatch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

_BEYOND = 1e-3
"""How far interpolated probabilities may lie outside [0, 1]."""

_SUM = 0.01
"""How far rounded probabilities of one pixel may add up to something other than 1."""


def as_pixels(predictions: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Check shapes and types, without reading a value.

    Args:
        predictions: floats (N, C, H, W), tensor or array of any stride and byte order; C = 1 means
            two classes through a sigmoid.
        targets: integers or booleans (N, H, W), likewise.

    Returns:
        the predictions as a tensor, and the labels as int64 on its device.

    Raises:
        ValueError: if the shapes do not fit, the predictions are no floats, or the targets are.
    """
    values, labels = _as_tensor(predictions, "logits"), _as_tensor(targets, "targets")
    shape, wanted = tuple(values.shape), tuple(labels.shape)
    if values.ndim != 4 or not values.is_floating_point():
        raise ValueError(
            f"logits are {values.dtype} of shape {shape}; pass floats (N, C, H, W), as they are "
            "before softmax, sigmoid and argmax"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"targets are {labels.dtype}; pass integer labels, such as masks.long()")
    if labels.ndim != 3 or wanted[0] != shape[0]:
        raise ValueError(
            f"targets are of shape {wanted}; logits {shape} need {(shape[0], *shape[2:])}, one "
            "integer per pixel: squeeze(1) a channel axis, argmax(1) one-hot labels"
        )
    if shape[2:] != wanted[1:]:
        if shape[1:3] == wanted[1:]:
            remedy = (
                "their channels are last: pass them as (N, C, H, W), logits.permute(0, 3, 1, 2)"
            )
        else:
            remedy = (
                "bring the logits to the targets' size: torch.nn.functional.interpolate(logits, "
                f"size={wanted[1:]}, mode='bilinear')"
            )
        raise ValueError(
            f"logits {shape} are {shape[2]}x{shape[3]} and targets {wanted[1]}x{wanted[2]} "
            f"(height x width); {remedy}"
        )
    return values, labels.to(values.device, torch.int64)


def _as_tensor(values: Any, name: str) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        array = np.asarray(values)
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} are {type(values).__name__}, no tensor or array: {error}"
        ) from None


def two_channels(logits: Tensor) -> Tensor:
    """Logits (N, C, H, W) with C of 2 or more: the softmax of (0, x) is the sigmoid of x."""
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def waits(tensor: Tensor) -> bool:
    """Whether reading a value of ``tensor`` waits for its device."""
    return tensor.device.type != "cpu"


def valid_pixels(labels: Any, classes: int, ignore_index: int | None) -> Any:
    """A mask of the pixels with the label of a class, less ``ignore_index``; tensor or array."""
    valid = (labels >= 0) & (labels < classes)
    return valid if ignore_index is None else valid & (labels != ignore_index)


def label_range(labels: Tensor, ignore_index: int | None) -> Tensor:
    """Lowest and highest label of each image (N, H, W), ``ignore_index`` aside, as (N, 2)."""
    if ignore_index is not None:
        labels = labels.masked_fill(labels == ignore_index, 0)
    return torch.stack([labels.amin((1, 2)), labels.amax((1, 2))], dim=1)


def value_range(values: Tensor) -> Tensor:
    """Of each image: its lowest and highest value, and the worst sum over the channels, (N, 3).

    The last is the largest distance of a pixel's sum from 1: 0 for one channel, and infinite,
    without being measured, where the values lie outside [0, 1] anyway.
    """
    low, high = values.amin((1, 2, 3)).float(), values.amax((1, 2, 3)).float()
    far = torch.zeros_like(low)
    if values.shape[1] > 1:
        far = far + math.inf
        if waits(values) or within(low, high).any():
            far = (values.sum(1) - 1).abs().amax((1, 2)).float()
    return torch.stack([low, high, far], dim=1)


def within(low: Tensor, high: Tensor) -> Tensor:
    """Whether values between ``low`` and ``high`` lie in [0, 1]."""
    return (low >= -_BEYOND) & (high <= 1 + _BEYOND)


def are_probabilities(ranges: Tensor) -> Tensor:
    """Which images (N,) hold probabilities, from their `value_range`.

    Of several channels that is certain: in [0, 1] and 1 in sum. Of one channel it is not, since
    logits that are all of little confidence lie in [0, 1] as well.
    """
    low, high, far = ranges.unbind(1)
    return within(low, high) & (far <= _SUM)


def check_labels(ranges: Tensor, classes: int, ignore_index: int | None, which: str) -> None:
    """Raise `ValueError` if an image's `label_range` is not within the classes."""
    for image, (lowest, highest) in enumerate(ranges.tolist()):
        if lowest < 0 or highest >= classes:
            raise ValueError(
                f"image {image} of {which}: label {int(lowest if lowest < 0 else highest)} in "
                f"targets is neither a class (0 to {classes - 1}) nor the ignore_index "
                f"({ignore_index})"
            )
