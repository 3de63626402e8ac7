"""Digests of each image's ground truth, from the columns that a batch was read into.

An image's digest is the sum of its objects' digests, so that the objects' order does not count.
All are 64 bits wide and computed for a whole batch at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from .batch import Objects
from .match_table import Table
from .matching import Floats, Indices, Words

OFF_LATTICE = 1
"""The fact that a box of the image, or of its batch, is off the lattice of 0.01 px."""

AREA_GIVEN = 2
"""The fact that an object of the image, or of its batch, has another area than its box."""

_LARGEST = 8192.005  # pixels, between two steps; beyond, float32 does not keep 0.01 px
_FACTORS: Words = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64
)[:, None]


def name_digests(names: Sequence[str]) -> Words:
    """Digests of an object of each class, then of a crowd region of each class."""
    texts = [f"{name}\0{crowd}" for crowd in (0, 1) for name in names]
    digests = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
    return np.array([int.from_bytes(digest) for digest in digests], np.uint64)


def digest_truths(truths: Objects, counts: Indices, names: Words, area: Floats) -> Table:
    """Describe the ground truth of each image of a batch.

    Args:
        truths: of the batch.
        counts: the number of objects of each image.
        names: what `name_digests` gives.
        area: of each object's box, or where no boxes are measured of its mask, in pixels.

    Returns:
        the columns ``content``, a digest of class names and crowd flags; ``content_with_boxes``,
        of these and the boxes, rounded to 0.01 px (or of the masks' areas, where there are no
        boxes); ``facts``, the bits `OFF_LATTICE` and `AREA_GIVEN`.
    """
    facts, ends = 0, np.cumsum(counts)
    if not truths.box.size:
        lattice = area[None]
        facts = OFF_LATTICE if area.size else 0
    else:
        largest = max(truths.box.max(), -truths.box.min())
        steps = truths.box * 100 if largest < 1e15 else truths.box.clip(-1e15, 1e15) * 100
        lattice = np.rint(steps)
        # a resize and back in float32 moves a coordinate by far less than a quarter of a step
        if largest > _LARGEST or np.abs(steps - lattice).max() > 0.25:
            facts |= OFF_LATTICE
        # NaN is no area
        if truths.area is not None and (np.abs(truths.area - area) > 0.01 * area + 0.1).any():
            facts |= AREA_GIVEN
    total = np.zeros((2, len(area) + 1), np.uint64)
    objects = total[0, 1:] = names[truths.label + len(names) // 2 * truths.crowd]
    terms = lattice.astype(np.int64).view(np.uint64) * _FACTORS[: len(lattice)]
    total[1, 1:] = _mixed(np.add.reduce(terms) + objects)
    sums = total.cumsum(axis=1)[:, ends]  # modulo 2**64
    sums[:, 1:] -= sums[:, :-1].copy()
    return {
        "content": sums[0],
        "content_with_boxes": sums[1],
        "facts": np.full(len(counts), facts, np.uint8),
    }


def _mixed(values: Words) -> Words:
    """Spread each bit over the word, so that sums of different objects differ."""
    values ^= values >> np.uint64(32)
    values *= np.uint64(0xD6E8FEB86659FD93)
    values ^= values >> np.uint64(29)
    return values
