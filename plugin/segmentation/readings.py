"""How predictions were read, as logits or as probabilities, and what the user must know of a set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from boxscore.warn import Warnings

from .inputs import are_probabilities, within

PIXELS, IMAGES, WITHIN, PROBABLE, NOT_BELOW, NOT_ABOVE = range(6)
"""Columns of a table of images: their pixels, their number, and of these the number that lies in
[0, 1], that is probable to hold probabilities, that has no value below 0, and none above 0."""

ONE, SEVERAL = range(2)
"""Its rows: images of one channel, and of several."""

_LARGE = 0.5
"""The share of ignored pixels that is worth a warning."""


def tabulate(channels: int, pixels: int, ranges: Tensor) -> Tensor:
    """The table (2, 6) of images of ``pixels`` pixels each, from their `value_range`."""
    low, high, _ = ranges.unbind(1)
    images = torch.ones_like(low)
    columns = [
        pixels * images, images, within(low, high), are_probabilities(ranges), low >= 0, high <= 0
    ]  # fmt: skip
    row = torch.stack([column.long().sum() for column in columns])
    empty = torch.zeros_like(row)
    return torch.stack([row, empty] if channels == 1 else [empty, row])


def as_probabilities(seen: NDArray[Any]) -> bool:
    """Whether the images of one channel hold probabilities: each of them lies in [0, 1]."""
    return bool(0 < seen[ONE, IMAGES] == seen[ONE, WITHIN])


def warn_of_predictions(warnings: Warnings, seen: NDArray[Any], classes: Mapping[int, str]) -> None:
    """Warn of predictions that are no logits, or may be none."""
    one, several = seen
    pass_logits = "pass logits, as they are before sigmoid and softmax"
    if as_probabilities(seen) or 0 < several[IMAGES] == several[PROBABLE]:
        warnings.warn_once(
            "probabilities",
            "all predictions lie in [0, 1] as probabilities do, and are measured as probabilities; "
            f"if they are not, {pass_logits}",
        )
    elif 0 < several[PROBABLE]:
        warnings.warn_once(
            "some probabilities",
            f"{several[PROBABLE]} of {several[IMAGES]} images hold probabilities and the others "
            f"logits; each is measured as such; {pass_logits} for all",
        )
    elif 0 < several[IMAGES] == several[WITHIN]:
        warnings.warn_once(
            "within [0, 1]",
            "all predictions lie in [0, 1], and the channels of a pixel do not add up to 1, as after "
            f"one sigmoid per class; they are measured as logits, which is wrong for AP and AR "
            f"then; {pass_logits}",
        )
    elif 0 < one[WITHIN]:
        warnings.warn_once(
            "some within [0, 1]",
            f"{one[WITHIN]} of {one[IMAGES]} images lie in [0, 1]; they are measured as logits like "
            f"the others; if they are probabilities, {pass_logits} for all",
        )
    elif 0 < one[IMAGES] in (one[NOT_BELOW], one[NOT_ABOVE]):
        side, label = ("below", 1) if one[IMAGES] == one[NOT_BELOW] else ("above", 0)
        warnings.warn_once(
            "one-sided",
            f"no prediction is {side} 0, so that each pixel is predicted as {classes[label]!r}; if "
            f"these are masks of 0 and 255 or log-probabilities, {pass_logits}",
        )


def warn_of_ignored(
    warnings: Warnings,
    seen: NDArray[Any],
    pixels: NDArray[Any],
    classes: Mapping[int, str],
    ignore_index: int | None,
) -> None:
    """Warn of an ``ignore_index`` that takes the foreground, or most pixels, out of the metrics.

    Args:
        warnings: of the metric.
        seen: the table of images.
        pixels: (C,) valid pixels by true class.
        classes: names by label.
        ignore_index: of the metric.
    """
    whole = int(seen[:, PIXELS].sum())
    ignored = whole - int(pixels.sum())
    left = [classes[int(label)] for label in pixels.nonzero()[0]]
    if not ignored or (len(left) > 1 and (ignored / whole < _LARGE or ignore_index in classes)):
        return
    rest = (
        "no pixel is left to measure" if not left else f"all others are {left[0]!r}"
        if len(left) == 1 else "count nowhere"
    )  # fmt: skip
    warnings.warn_once(
        "ignored pixels",
        f"{ignored / whole:.2g} of all evaluated pixels have the ignore_index {ignore_index}, and {rest}; "
        f"if {ignore_index} marks a class, as in masks of 0 and 255, pass (masks > 0).long() as "
        "targets, or another ignore_index=",
    )
