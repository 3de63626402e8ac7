"""Which images of an evaluated set are drawn: a fixed choice, and the worst of the evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT = 8, 4
"""Images of the fixed choice, and of the worst."""


@dataclass(frozen=True, slots=True)
class Objects:
    """Boxes, and masks where there are, in pixels of a picture.

    Attributes:
        boxes: x1, y1, x2, y2, shape (n, 4).
        labels: shape (n,).
        scores: from 0 to 1, shape (n,); ones of ground truth.
        crowd: whether a region of many objects is meant, shape (n,).
        masks: shape (n, height, width), or None.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    crowd: NDArray[np.bool_]
    masks: NDArray[np.bool_] | None = None


LabelMap = NDArray[np.int64]
"""The class of each pixel of a picture, shape (height, width); -1 where none counts."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with what is drawn on it, small enough to be kept and sent between processes.

    Attributes:
        image_id: as text.
        error: of the prediction, from 0 to 1.
        image: RGB, shape (height, width, 3); drawn at another size.
        size: height and width of the picture, to which the following refer.
        truth: the ground truth.
        prediction: all that was predicted.
    """

    image_id: str
    error: float
    image: NDArray[np.uint8]
    size: tuple[int, int]
    truth: Objects | LabelMap
    prediction: Objects | LabelMap


@dataclass(slots=True)
class Samples:
    """The images that are drawn; samples merge as the evaluated sets that they are of.

    Attributes:
        fixed: how many have a fixed choice, the same in every run: those whose ids hash lowest.
        worst: how many are the worst of this evaluation.
        images: how many were offered, for ids of images without one.
    """

    fixed: int
    worst: int
    images: int = 0
    _kept: list[Sample] = field(default_factory=list)

    def wanted(self, ids: Sequence[str], errors: Sequence[float]) -> list[int]:
        """The places of images that belong to the chosen ones so far.

        Args:
            ids: of a batch's images.
            errors: of their predictions.
        """
        by_hash, by_error = self.chosen()
        has_room = len(by_hash) < self.fixed
        last_hash = _hash(by_hash[-1].image_id) if by_hash else b""
        least = (
            1.0 if not self.worst else by_error[-1].error if len(by_error) == self.worst else 0.0
        )
        return [
            place
            for place, (image_id, error) in enumerate(zip(ids, errors, strict=True))
            if has_room or _hash(image_id) < last_hash or error > least
        ]

    def add(self, sample: Sample) -> None:
        """Keep ``sample`` as long as it is one of the chosen."""
        if all(sample.image_id != kept.image_id for kept in self._kept):
            self._kept.append(sample)
            by_hash, by_error = self.chosen()
            self._kept = [*by_hash, *by_error]

    def merge(self, other: Samples) -> None:
        """Add the samples of ``other``."""
        for sample in other._kept:
            self.add(sample)
        self.images += other.images

    def chosen(self) -> tuple[list[Sample], list[Sample]]:
        """The fixed choice by hash, and of all others the worst, the worst first."""
        by_hash = sorted(self._kept, key=lambda one: _hash(one.image_id))
        rest = sorted(by_hash[self.fixed :], key=lambda one: -one.error)
        return by_hash[: self.fixed], [one for one in rest if one.error > 0][: self.worst]


def counts_of(pictures: bool | int | tuple[int, int]) -> tuple[int, int]:
    """How many pictures ``pictures=`` requests: of the fixed choice, and of the worst.

    Raises:
        ValueError: it is neither a bool nor a number of pictures nor a pair of such numbers.

    >>> counts_of(True), counts_of(False), counts_of(3), counts_of((2, 1))
    ((8, 4), (0, 0), (3, 0), (2, 1))
    """
    pair: Any = pictures
    if isinstance(pictures, bool):
        pair = DEFAULT if pictures else (0, 0)
    elif isinstance(pictures, int):
        pair = pictures, 0
    if len(pair) != 2 or not all(isinstance(n, int) and n >= 0 for n in pair):
        raise ValueError(
            f"pictures: {pictures!r} is neither True nor False nor a number of images nor a pair, "
            "such as (8, 4): 8 images that are the same each time, and the 4 worst"
        )
    fixed, worst = pair
    return fixed, worst


def _hash(image_id: str) -> bytes:
    return hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).digest()
