"""Whether predictions are logits or probabilities, and the warnings about a set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from boxscore.warn import Warnings

from .inputs import are_probabilities, within

PIXELS, IMAGES, WITHIN, PROBABLE, NOT_BELOW, NOT_ABOVE = range(6)
"""Columns: pixels, images, and the images in [0, 1], that are probabilities, >= 0, <= 0."""

_PASS = "pass logits, as they are before sigmoid and softmax"


def tabulate(channels: int, pixels: int, ranges: Tensor) -> Tensor:
    """The table (2, 6) of images of ``pixels`` pixels, from their `value_range`.

    Its first row are images of one channel, its second those of several.
    """
    low, high, _ = ranges.unbind(1)
    each = torch.ones_like(low)
    flags = within(low, high), are_probabilities(ranges), low >= 0, high <= 0
    table = torch.zeros(2, 6, dtype=torch.int64, device=low.device)
    table[int(channels > 1)] = torch.stack([
        column.long().sum() for column in (pixels * each.double(), each, *flags)
    ])  # fmt: skip
    return table


def as_probabilities(seen: NDArray[Any]) -> bool:
    """Whether the images of one channel hold probabilities: each of them lies in [0, 1]."""
    return bool(0 < seen[0, IMAGES] == seen[0, WITHIN])


def warn_of_predictions(warnings: Warnings, seen: NDArray[Any], classes: Mapping[int, str]) -> None:
    """Warn once of predictions that are not, or may not be, logits; ``seen`` is the whole table."""
    one, several = seen
    images, mixed = one[IMAGES] + several[IMAGES], one[WITHIN] + several[PROBABLE]
    if as_probabilities(seen) or 0 < several[IMAGES] == several[PROBABLE]:
        text = f"are measured as probabilities; if they are not, {_PASS}"
        warnings.warn_once("probabilities", f"all predictions lie in [0, 1] and {text}")
    elif mixed:
        text = f"{mixed} of {images} images hold values as of probabilities, the others logits"
        warnings.warn_once("mixed", f"{text}; {_PASS} for all")
    elif 0 < several[IMAGES] == several[WITHIN]:
        text = "do not add up to 1 over the channels, as after one sigmoid per class; AP and AR"
        text = f"{text} are measured as of logits; {_PASS}"
        warnings.warn_once("within", f"all predictions lie in [0, 1] and {text}")
    elif 0 < one[IMAGES] in (one[NOT_BELOW], one[NOT_ABOVE]):
        side, label = ("below", 1) if one[IMAGES] == one[NOT_BELOW] else ("above", 0)
        text = f"no prediction is {side} 0: each pixel is predicted as {classes[label]!r}"
        warnings.warn_once("one-sided", f"{text}; instead of masks or log-probabilities, {_PASS}")


def warn_of_ignored(
    warnings: Warnings,
    ignored: float,
    left: NDArray[Any],
    classes: Mapping[int, str],
    ignore_index: int | None,
) -> None:
    """Warn once of an ``ignore_index`` that takes the foreground, or most pixels, out of a set.

    ``ignored`` is the share of ignored pixels, ``left`` the labels of the others.
    """
    if ignored <= 0 or (len(left) > 1 and (ignored < 0.5 or ignore_index in classes)):
        return
    rest = f" and all others are {classes[int(left[0])]!r}" if len(left) == 1 else ""
    warnings.warn_once(
        "ignored pixels",
        f"{ignored:.2%} of the evaluated pixels have the ignore_index {ignore_index}{rest}; if "
        f"{ignore_index} marks a class, as in masks of 0 and 255, change the labels, "
        "(masks > 0).long(), or pass another ignore_index=",
    )
