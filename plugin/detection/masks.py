"""Instance masks in every form, and their overlaps.

Dense masks, as a model gives them, are packed to one bit per pixel: an intersection is then an AND
and a count of ones, far cheaper than encoding the masks. COCO's run-length encoding (RLE) and
polygons, as files have them, stay runs, which pycocotools intersects. Ground truth is converted to
the form of the predictions. Both ways count whole pixels, so that the IoU is the same to the last
bit.

Masks are read one image at a time, since a hundred dense ones are large. An object is stored as the
image rows that it touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from .inputs import Array, as_array, binary, check_values
from .matching import Bools, Floats, Indices, Pairs, Words
from .rle import Size, decode, run_areas, to_rle

_BLOCK = 16  # masks packed at once, to save memory
_ROOM = 64 * 2**20  # bytes of ground-truth masks that are kept


@dataclass(frozen=True, slots=True)
class Pixels:
    """Dense masks of one image, a tensor or array of shape (n, height, width)."""

    values: Any
    size: Size

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Runs:
    """Masks of one image as compressed RLE, checked by `run_areas`.

    Attributes:
        rles: in pycocotools' form.
        size: ``None`` if there is no mask.
        area: in pixels.
    """

    rles: list[dict[str, Any]]
    size: Size | None
    area: Indices

    def __len__(self) -> int:
        return len(self.rles)


Masks = Pixels | Runs


def read_masks(value: Any, size: Size | None) -> Masks:
    """Read one image's masks.

    Args:
        value: a tensor or array of shape (n, h, w) or (n, 1, h, w), bool, of two integers, or of
            probabilities with 0.5 as the threshold; or a sequence with, for each object, an RLE (a
            dict with ``size`` and ``counts``, compressed or not), a list of polygons
            (``[[x1, y1, x2, y2, …], …]``) or an array (h, w).
        size: the image's, which polygons need and which other masks must have.

    Raises:
        ValueError: if they are none of these, or of another size.
    """
    if hasattr(value, "shape") or (len(value) and all(hasattr(one, "shape") for one in value)):
        masks: Masks = _pixels(value)
    else:
        masks = _runs(value, size)
    if size is not None and masks.size not in (None, size):
        raise ValueError(f"the size {masks.size} differs from the image's, {size}")
    return masks


def _pixels(value: Any) -> Pixels:
    values = value if hasattr(value, "shape") else np.stack([as_array(one) for one in value])
    shape = tuple(values.shape)
    if len(shape) == 4 and shape[1] == 1:
        values = values[:, 0]
    elif len(shape) != 3:
        raise ValueError(f"the shape {shape} is not (n, height, width)")
    check_values(values)
    return Pixels(values, (shape[-2], shape[-1]))


def _runs(value: Sequence[Any], size: Size | None) -> Runs:
    rles = []
    for place, one in enumerate(value):
        try:
            rles.append(to_rle(one, size))
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"entry {place}: {error}") from None
    sizes = {tuple(rle["size"]) for rle in rles}
    if len(sizes) > 1:
        raise ValueError(f"the masks of one image have several sizes, {sorted(sizes)}")
    return Runs(rles, sizes.pop() if sizes else None, run_areas(rles))


@dataclass(frozen=True, slots=True)
class Packed:
    """Dense masks, a bit per pixel, row after row: shape (n, words)."""

    words: Words
    area: Indices


@dataclass(frozen=True, slots=True)
class Patch:
    """The rows of the image that one object touches: words of `Packed` from ``start`` on."""

    start: int
    words: Words


class Patches:
    """Objects as patches; the first of RLEs are kept for the next evaluation."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int, bytes], Patch] = {}
        self._room = _ROOM

    def of(self, masks: Masks) -> list[Patch]:
        """The objects' patches."""
        if isinstance(masks, Pixels):
            return [_patch(mask) for mask in binary(masks.values)]
        keys = [(*rle["size"], rle["counts"]) for rle in masks.rles]
        return [self._kept.get(key) or self._add(key) for key in keys]

    def _add(self, key: tuple[int, int, bytes]) -> Patch:
        height, width, counts = key
        patch = _patch(decode({"size": [height, width], "counts": counts}))
        if self._room >= patch.words.nbytes:
            self._room -= patch.words.nbytes
            self._kept[key] = patch
        return patch


def pack(masks: Pixels) -> Packed:
    """Pack dense masks."""
    height, width = masks.size
    pixels = height * width
    packed = np.zeros((len(masks), -(-pixels // 64) * 8), np.uint8)
    for start in range(0, len(masks), _BLOCK):
        block = binary(masks.values[start : start + _BLOCK])
        packed[start : start + _BLOCK, : -(-pixels // 8)] = np.packbits(
            block.reshape(len(block), pixels), axis=1
        )
    words = packed.view(np.uint64)
    return Packed(words, np.bitwise_count(words).sum(axis=1, dtype=np.int64))


def _patch(mask: Array) -> Patch:
    width = mask.shape[1]
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return Patch(0, np.zeros(0, np.uint64))
    begin, end = int(rows[0]) * width, int(rows[-1] + 1) * width
    start = begin // 64
    bits = np.zeros(-(-end // 64) * 64 - start * 64, np.uint8)
    bits[begin - start * 64 : end - start * 64] = mask[rows[0] : rows[-1] + 1].ravel()
    return Patch(start, np.packbits(bits).view(np.uint64))


def areas(masks: Masks) -> Indices:
    """The number of pixels of each mask."""
    return masks.area if isinstance(masks, Runs) else pack(masks).area


def as_runs(masks: Masks) -> Runs:
    """The masks as RLE."""
    if isinstance(masks, Runs):
        return masks
    dense = np.asfortranarray(binary(masks.values).transpose(1, 2, 0) != 0, np.uint8)
    rles = [dict(rle) for rle in coco.encode(dense)]
    return Runs(rles, masks.size, run_areas(rles))


def packed_overlaps(
    pairs: Pairs, detections: Packed, truths: Sequence[Patch], truth_area: Indices, crowd: Bools
) -> tuple[Pairs, Floats]:
    """The pairs whose IoU may be 0.5 or more, and their IoU.

    With a crowd region that is the intersection over the detection's own area.
    """
    least = np.minimum(detections.area[pairs.detection], truth_area[pairs.truth])
    pairs = _promising(pairs, least, detections.area, truth_area, crowd)
    shared = np.empty(len(pairs.truth), np.int64)
    bounds = np.searchsorted(pairs.truth, np.arange(len(truths) + 1)).tolist()
    for place, patch in enumerate(truths):
        here = slice(bounds[place], bounds[place + 1])
        there = slice(patch.start, patch.start + len(patch.words))
        both = detections.words[pairs.detection[here], there] & patch.words
        shared[here] = np.bitwise_count(both).sum(axis=1, dtype=np.int64)
    own = detections.area[pairs.detection]
    union = np.where(crowd[pairs.truth], own, own + truth_area[pairs.truth] - shared)
    return pairs, shared / union


def run_overlaps(
    pairs: Pairs, detections: Runs, truths: Runs, crowd: Bools
) -> tuple[Pairs, Floats]:
    """The same for RLE."""
    if not len(pairs.truth):
        return pairs, np.zeros(0)
    box, truth_box = coco.toBbox(detections.rles).T, coco.toBbox(truths.rles).T
    sides = [
        np.minimum((box[axis] + box[axis + 2])[pairs.detection], end[pairs.truth])
        - np.maximum(box[axis][pairs.detection], truth_box[axis][pairs.truth])
        for axis, end in ((0, truth_box[0] + truth_box[2]), (1, truth_box[1] + truth_box[3]))
    ]
    most = np.maximum(sides[0], 0) * np.maximum(sides[1], 0)
    most = np.minimum(most, detections.area[pairs.detection])
    most = np.minimum(most, truths.area[pairs.truth])
    pairs = _promising(pairs, most, detections.area, truths.area, crowd)
    iou = np.empty(len(pairs.truth))
    bounds = np.searchsorted(pairs.truth, np.arange(len(truths) + 1)).tolist()
    for place in np.unique(pairs.truth).tolist():
        here = slice(bounds[place], bounds[place + 1])
        rles = [detections.rles[row] for row in pairs.detection[here].tolist()]
        iou[here] = coco.iou(rles, [truths.rles[place]], [int(crowd[place])])[:, 0]
    return pairs, iou


def _promising(
    pairs: Pairs, most: Array, area: Indices, truth_area: Indices, crowd: Bools
) -> Pairs:
    """The pairs that reach IoU 0.5 if their intersection is ``most``."""
    own = area[pairs.detection]
    union = np.where(crowd[pairs.truth], own, own + truth_area[pairs.truth] - most)
    keep = np.flatnonzero((most > 0) & (2 * most >= union))
    return Pairs(pairs.detection[keep], pairs.truth[keep])
