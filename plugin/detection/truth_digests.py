"""Digests of each image's ground truth, from the columns that a batch was read into.

An image's digest is the sum of its objects' digests, so that the objects' order does not count.
All are 64 bits wide and computed for a whole batch at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from .batch import Objects
from .match_table import Table
from .matching import Bools, Floats, Indices, Words

OFF_LATTICE = 1
"""The fact that an image has a box off the lattice of 0.01 px."""

AREA_GIVEN = 2
"""The fact that an object of the image has another area than its box."""

_PER_PIXEL = 100
_LARGEST = 8192.005  # pixels, between two lattice points; beyond, float32 does not keep 0.01 px
_FACTORS: Words = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64
)[:, None]


def name_digests(names: Iterable[str]) -> Words:
    """A digest of each class name."""
    digests = [hashlib.sha256(name.encode()).digest()[:8] for name in names]
    return np.array([int.from_bytes(digest) for digest in digests], np.uint64)


def digest_truths(truths: Objects, images: int, names: Words, mask_area: Floats | None) -> Table:
    """Describe the ground truth of each image of a batch.

    Args:
        truths: of the batch.
        images: the number of images.
        names: the digests of the class names.
        mask_area: in pixels, where no boxes are measured.

    Returns:
        the columns ``content``, a digest of class names and crowd flags; ``content_with_boxes``,
        of these and the boxes, rounded to 0.01 px (or of the masks' areas, where there are no
        boxes); ``facts``, the bits `OFF_LATTICE` and `AREA_GIVEN`.
    """
    bounds = np.searchsorted(truths.image, np.arange(images + 1))
    objects, facts = _mixed(names[truths.label] + truths.crowd), np.zeros(images, np.uint8)
    if mask_area is None:
        box = np.clip(truths.box, -1e15, 1e15)
        steps = box * _PER_PIXEL
        lattice = np.rint(steps)
        # a resize and back in float32 moves a coordinate by far less than a quarter of a step
        off = np.logical_or.reduce((np.abs(steps - lattice) > 0.25) | (box > _LARGEST))
        facts[truths.image[off]] |= OFF_LATTICE
        if truths.area is not None:
            facts[truths.image[_differs(truths.area, box)]] |= AREA_GIVEN
    else:
        lattice = mask_area[None]
        facts[truths.image] |= OFF_LATTICE
    terms = lattice.astype(np.int64).view(np.uint64) * _FACTORS[: len(lattice)]
    return {
        "content": _sums(objects, bounds),
        "content_with_boxes": _sums(_mixed(objects + np.add.reduce(terms)), bounds),
        "facts": facts,
    }


def _differs(area: Floats, box: Floats) -> Bools:
    """Whether an area is another than the box's, beyond float32 noise; NaN is no area."""
    width, height = box[2:]
    own = width * height
    return np.abs(area - own) > 0.005 * (width + height) + 1e-4 * own + 1e-4


def _sums(values: Words, bounds: Indices) -> Words:
    """The sum of each image's values, modulo 2**64."""
    total = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values, out=total[1:])
    return np.diff(total[bounds])


def _mixed(values: Words) -> Words:
    """The finalizer of SplitMix64 (Steele et al., 2014): each input bit changes every output."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
