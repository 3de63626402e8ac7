"""The three losses of semantic segmentation, as measures and as training criteria.

All take logits, compute in float32 for any precision of the model, and average over the valid
pixels of the whole batch. Without a valid pixel loss and gradient are 0.

A label outside the classes raises on the CPU. On a GPU, where reading it would make the training
wait, the loss is NaN instead, and its gradient 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from boxscore.segmentation import inputs
from boxscore.warn import Warnings

_IGNORED = -100
"""The label of pixels that do not count, once prepared."""

_WARNINGS = Warnings()
"""Of the criteria, which belong to no run."""


def cross_entropy_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int | None = 255,
    weight: Tensor | Sequence[float] | None = None,
) -> Tensor:
    """Mean over the valid pixels of -log p(true class), in nats; 0 and up.

    Equal to `torch.nn.functional.cross_entropy`, and for one channel to
    `binary_cross_entropy_with_logits`.

    Args:
        logits: floats (N, C, H, W), before softmax; C = 1 means two classes through a sigmoid.
        targets: integers (N, H, W), each a channel's index or ``ignore_index``.
        ignore_index: pixels with this label count nowhere; `None` for no such label.
        weight: (C,) a weight per class, two for C = 1; the mean is then weighted by it too.

    Raises:
        ValueError: if shapes or types do not fit, or (on the CPU) a label is outside the classes.
    """
    logits, labels, wrong = _prepared(logits, targets, ignore_index)
    weights = _per_class(weight, logits, "weight")
    summed = F.cross_entropy(logits, labels, weights, ignore_index=_IGNORED, reduction="sum")
    valid = labels != _IGNORED
    size = valid.sum() if weights is None else (weights[labels * valid] * valid).sum()
    return _mean(summed, size).masked_fill(wrong, torch.nan)


def focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int | None = 255,
    gamma: float = 2.0,
    alpha: float | Tensor | Sequence[float] | None = None,
) -> Tensor:
    """Mean over the valid pixels of α(1-p)^γ · CE, p the probability of the true class; 0 and up.

    Lin et al., Focal Loss for Dense Object Detection (2017), equation 5, with the softmax over the
    classes. As there, α weighs the terms and not the mean.

    Args:
        logits: floats (N, C, H, W), before softmax; C = 1 means two classes through a sigmoid.
        targets: integers (N, H, W), each a channel's index or ``ignore_index``.
        ignore_index: pixels with this label count nowhere; `None` for no such label.
        gamma: how much less a pixel counts that is right with confidence; 0 gives cross-entropy.
        alpha: (C,) a weight per class; for two classes also one number, the weight of class 1,
            while class 0 has ``1 - alpha``.

    Raises:
        ValueError: if shapes or types do not fit, or (on the CPU) a label is outside the classes.
    """
    logits, labels, wrong = _prepared(logits, targets, ignore_index)
    if isinstance(alpha, int | float):
        alpha = (1 - alpha, alpha)
    weights = _per_class(alpha, logits, "alpha")
    entropy = F.cross_entropy(logits, labels, ignore_index=_IGNORED, reduction="none")
    # 1 - p would lose all digits of a confident p; the floor keeps the power's slope finite
    doubt = (-torch.expm1(-entropy)).clamp_min(torch.finfo(entropy.dtype).tiny)
    terms = doubt**gamma * entropy
    valid = labels != _IGNORED
    if weights is not None:
        terms = terms * weights[labels * valid]
    return _mean(terms.sum(), valid.sum()).masked_fill(wrong, torch.nan)


def dice_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int | None = 255,
    weight: Tensor | Sequence[float] | None = None,
) -> Tensor:
    """1 - soft Dice, averaged over the classes present in the target; 0 perfect, 1 disjoint.

    Soft Dice of a class is 2 Σ p·t / (Σ p + Σ t) over the valid pixels of the batch, p its
    probability and t 1 where it is true: Milletari et al., V-Net (2016), section 3, without squares
    and without smoothing. A class without a pixel in the target has no Dice and is left out.

    Args:
        logits: floats (N, C, H, W), before softmax; C = 1 means two classes through a sigmoid.
        targets: integers (N, H, W), each a channel's index or ``ignore_index``.
        ignore_index: pixels with this label count nowhere; `None` for no such label.
        weight: (C,) a weight per class in the average, two for C = 1; ``(0, 1)`` leaves the
            background out.

    Raises:
        ValueError: if shapes or types do not fit, or (on the CPU) a label is outside the classes.
    """
    logits, labels, wrong = _prepared(logits, targets, ignore_index)
    weights = _per_class(weight, logits, "weight")
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    truth = labels.unsqueeze(1) == classes
    scores = logits.softmax(1) * (labels != _IGNORED).unsqueeze(1)
    shared = (scores * truth).sum((0, 2, 3))
    true = truth.sum((0, 2, 3))
    # where a class is absent nothing is shared; the 1 only keeps 0/0 out of the gradient
    dice = 2 * shared / (scores.sum((0, 2, 3)) + true + (true == 0))
    shares = (true > 0) * (1.0 if weights is None else weights)
    return _mean(((1 - dice) * shares).sum(), shares.sum()).masked_fill(wrong, torch.nan)


def semantic_losses(
    predictions: Any, targets: Any, *, ignore_index: int | None = 255
) -> dict[str, Tensor]:
    """Focal, cross-entropy and Dice loss of one batch, as scalars on its device, without gradient.

    Args:
        predictions: logits (N, C, H, W); C = 1 means two classes through a sigmoid. Probabilities
            are measured as such: several channels in [0, 1] with sum 1 in the whole batch, or one
            channel in [0, 1] in the whole batch. `SegmentationMetrics` warns of both.
        targets: integers (N, H, W).
        ignore_index: pixels with this label count nowhere; `None` for no such label.

    Raises:
        ValueError: if shapes or types do not fit, or (on the CPU) a label is outside the classes.
    """
    with torch.no_grad():
        values, labels = inputs.as_pixels(predictions, targets)
        likely = inputs.are_probabilities(inputs.value_range(values)).all()
        if inputs.waits(values) or likely:
            chances = values.float().clamp(2.0**-126, 1 - 2.0**-24)
            logits = chances.logit() if values.shape[1] == 1 else chances.log()
            values = torch.where(likely, logits, values)
        return {
            "focal": focal_loss(values, labels, ignore_index=ignore_index),
            "cross_entropy": cross_entropy_loss(values, labels, ignore_index=ignore_index),
            "dice": dice_loss(values, labels, ignore_index=ignore_index),
        }


def count_valid(targets: Any, ignore_index: int | None) -> Any:
    """How many pixels of ``targets`` (N, H, W) count, on their device."""
    return math.prod(targets.shape) if ignore_index is None else (targets != ignore_index).sum()


def _prepared(
    predictions: Any, targets: Any, ignore_index: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in float32, labels with `_IGNORED` where none counts, and whether any is wrong."""
    values, labels = inputs.as_pixels(predictions, targets)
    is_readable = not inputs.waits(values) and len(values) > 0
    if is_readable and inputs.are_probabilities(inputs.value_range(values)).all():
        _WARNINGS.warn_once(
            "probabilities",
            "all predictions of a batch lie in [0, 1] as probabilities do; focal_loss, "
            "cross_entropy_loss and dice_loss take logits, as they are before sigmoid and softmax",
        )
    half = values.dtype in (torch.float16, torch.bfloat16)
    logits = inputs.two_channels(values.float() if half else values)
    classes = logits.shape[1]
    valid = inputs.valid_pixels(labels, classes, ignore_index)
    wrong = (~valid if ignore_index is None else ~valid & (labels != ignore_index)).any()
    if not inputs.waits(wrong) and wrong:
        ranges = inputs.label_range(labels, ignore_index)
        inputs.check_labels(ranges, classes, ignore_index, "the batch")
    return logits, labels.masked_fill(~valid, _IGNORED), wrong


def _per_class(values: Tensor | Sequence[float] | None, logits: Tensor, name: str) -> Tensor | None:
    if values is None:
        return None
    weights = torch.as_tensor(values, dtype=logits.dtype, device=logits.device)
    if weights.shape != logits.shape[1:2]:
        problem = f"{logits.shape[1]} classes need as many numbers"
        raise ValueError(f"{name} is of shape {tuple(weights.shape)}; {problem}")
    return weights


def _mean(summed: Tensor, size: Tensor) -> Tensor:
    return summed / size.masked_fill(size == 0, 1)
