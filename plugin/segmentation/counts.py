"""One pass over the pixels: a confusion matrix and two histograms of scores per class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .inputs import two_channels, valid_pixels, waits
from .thresholds import PER_128, THRESHOLDS, places

AT_ONCE = 2**23
"""Scores in work at a time, 32 MB of them: little memory, whatever the size of the images."""


def count_pixels(
    counts: Tensor, values: Tensor, labels: Tensor, probable: Any, ignore_index: int | None
) -> Tensor:
    """Add a batch to ``counts``, int64 (C, C + 2T): confusion, own and all pixels by threshold.

    Args:
        counts: of any earlier batches, on the device of the values.
        values: logits or probabilities (N, C, H, W); one channel is counted as logits.
        labels: int64 (N, H, W).
        probable: which images hold probabilities: N booleans, or (N,) on the device of a GPU.
        ignore_index: the label of pixels that count nowhere.

    Returns:
        the counts less those as logits of the probable images of one channel, if these are read as
        probabilities; a scalar 0 for no such image.
    """
    change = torch.zeros((), dtype=torch.int64, device=values.device)
    for image, truth, likely in zip(values, labels, probable, strict=True):
        if values.shape[1] > 1 or likely is False:
            _add_image(counts, image, truth, likely, ignore_index)
        else:
            readings = torch.zeros_like(counts), torch.zeros_like(counts)
            for table, reading in zip(readings, (False, True), strict=True):
                _add_image(table, image, truth, reading, ignore_index)
            counts += readings[0]
            change = change + (readings[1] - readings[0]) * likely
    return change


def _add_image(
    counts: Tensor, image: Tensor, truth: Tensor, likely: Any, ignore_index: int | None
) -> None:
    pixels = max(1, AT_ONCE // len(image))
    parts = torch.split(image.flatten(1), pixels, 1), torch.split(truth.flatten(), pixels)
    for part, true in zip(*parts, strict=True):
        _add_pixels(counts, part, true, likely, ignore_index)


def _add_pixels(
    counts: Tensor, values: Tensor, truth: Any, likely: Any, ignore_index: int | None
) -> None:
    """Count pixels of values (C, n) and labels (n,); ``likely``: whether as probabilities."""
    if likely is True and len(values) == 1:
        values = torch.cat([1 - values.float(), values.float()])
    values = two_channels(values[None])[0]
    classes, steps = len(values), len(THRESHOLDS)
    taken: Any = values.max(0).indices
    scores: Any = _scores(values.float(), likely)
    table: Any = counts
    if not waits(values):
        # torch runs each of these many short steps in several threads, which on a busy machine wait
        # for each other up to twenty times as long as a step takes
        scores, taken, truth, table = (t.numpy() for t in (scores, taken, truth, counts))
    valid = valid_pixels(truth, classes, ignore_index)
    confusion = _histogram(truth * classes + taken, valid, classes * classes)
    table[:, :classes] += confusion.reshape(classes, classes)
    for label, row in enumerate(scores):
        reached = places(row)
        table[label, classes:-steps] += _histogram(reached, valid & (truth == label), steps)
        table[label, -steps:] += _histogram(reached, valid, steps)


def _scores(values: Tensor, likely: Any) -> Tensor:
    """The classes' probabilities, float32."""
    if likely is True:
        return values.clamp(0, 1)
    scores = values.softmax(0)
    return torch.where(likely, values.clamp(0, 1), scores) if isinstance(likely, Tensor) else scores


def _histogram(values: Any, among: Any, size: int) -> Any:
    """How often each of 0..size-1 occurs where ``among`` is true."""
    if isinstance(values, np.ndarray):
        return np.bincount(values[among], minlength=size)
    # on a GPU, bincount and a mask synchronise, as they need the number of elements
    counts = torch.zeros(size + 1, dtype=torch.int64, device=values.device)
    kept = values.long().masked_fill(~among, size)
    return counts.scatter_add_(0, kept, torch.ones_like(kept))[:size]


def content_hashes(labels: Tensor) -> Tensor:
    """One int64 for each label map (N, H, W): a wrapping sum of label times weight of the pixel.

    It depends on the labels in their order alone, not on dtype, stride or device, and reads no
    value of a GPU.
    """
    weights = torch.arange(1, labels[0].numel() + 1, device=labels.device) * -7046029254386353131
    weights = (weights ^ (weights >> 29)) * -4658895280553007687
    weights = (weights ^ (weights >> 32)) | 1
    return torch.stack([(label_map.flatten() * weights).sum() for label_map in labels])


def counted_per_128(confusion: Any, own: Any, every: Any, names: dict[int, str]) -> Any:
    """True and false positives of classes at the scores k/128, in JSON's types.

    Args:
        confusion: pixels (C, C) by true and predicted class.
        own: pixels of the class (C, T), by threshold.
        every: all pixels likewise.
        names: of the classes that are counted, by label.

    Returns:
        ``name``, ``tp``, ``fp``, ``truths`` and ``others`` of each class, and before them of all
        of these classes together, under ``""``.
    """
    labels = list(names)
    tp, taken = (t[labels, ::-1].cumsum(1)[:, ::-1][:, PER_128] for t in (own, every))
    truths = confusion.sum(1)[labels]
    columns = {"tp": tp, "fp": taken - tp, "truths": truths, "others": confusion.sum() - truths}
    whole = {name: column.sum(0).tolist() for name, column in columns.items()}
    each = [
        {"name": name} | {key: column[row].tolist() for key, column in columns.items()}
        for row, name in enumerate(names.values())
    ]
    return [{"name": ""} | whole, *each] if each else []
