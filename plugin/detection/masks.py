"""Instance masks in every form that they come in, and how much two of them share.

A model gives dense masks: they are packed to one bit per pixel, and what two share is an AND and a
count of ones, far cheaper than encoding them first. Files hold COCO's run-length encoding (RLE) or
polygons: those stay runs, and pycocotools counts what they share. Ground truth takes the form of
the predictions that it meets. Either way whole pixels are counted, so that the IoU is the same to
the last bit.

One image is looked at at a time, since a hundred dense masks are large; of an object only the rows
of the image that it touches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from .batch import Array, as_array
from .matching import Bools, Floats, Indices, Pairs, Words

Size = tuple[int, int]
"""Height and width, in pixels."""

_BLOCK = 16  # masks packed at once: what lies between is small


@dataclass(frozen=True, slots=True)
class Pixels:
    """Dense masks of one image, a tensor or array of shape (n, height, width)."""

    values: Any
    size: Size

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Runs:
    """Masks of one image as compressed RLE; checked, since a broken one can hang pycocotools.

    Attributes:
        rles: as pycocotools takes them.
        size: ``None`` if there is no mask to tell it.
        area: in pixels.
    """

    rles: list[dict[str, Any]]
    size: Size | None
    area: Indices

    def __len__(self) -> int:
        return len(self.rles)


Masks = Pixels | Runs


class BrokenRLE(ValueError):
    """An RLE that is cut off or not of the size that it names; ``entry`` is its place."""

    def __init__(self, entry: int) -> None:
        self.entry = entry
        self.problem = "the RLE is cut off, or not of the size that it names"
        super().__init__(f"entry {entry}: {self.problem}")


def read_masks(value: Any, size: Size | None) -> Masks:
    """Read one image's masks.

    Args:
        value: a tensor or array of shape (n, h, w) or (n, 1, h, w), bool, integer, or float with
            0.5 as the threshold; or a sequence with, for each object, an RLE (a dict with ``size``
            and ``counts``, compressed or not), a list of polygons (``[[x1, y1, x2, y2, …], …]``)
            or an array (h, w).
        size: the image's, which polygons need and others are compared with.

    Raises:
        ValueError: saying what is wrong.
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


def to_rle(mask: Any, size: Size | None) -> dict[str, Any]:
    """One mask as compressed RLE; whether its counts are sound, `run_areas` tells.

    Raises:
        ValueError: saying what is wrong.
    """
    if hasattr(mask, "shape"):
        return dict(coco.encode(np.asfortranarray(_binary(mask) != 0, np.uint8)))
    if not isinstance(mask, Mapping):
        return _from_polygons(mask, size)
    try:
        height, width = (int(side) for side in mask["size"])
        counts = mask["counts"]
    except (KeyError, TypeError, ValueError):
        raise ValueError("an RLE needs 'size', two integers, and 'counts'") from None
    if height < 0 or width < 0:
        raise ValueError(f"an RLE of size {(height, width)}")
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    if not isinstance(counts, bytes):
        counts = [int(count) for count in counts]
        if min(counts, default=0) < 0 or sum(counts) != height * width:
            raise ValueError(f"the RLE's counts do not sum to {height} x {width} pixels")
        runs = {"size": [height, width], "counts": counts}
        counts = coco.frPyObjects(runs, height, width)["counts"]
    return {"size": [height, width], "counts": counts}


def _from_polygons(polygons: Any, size: Size | None) -> dict[str, Any]:
    if size is None:
        raise ValueError("a polygon needs the image's size: give orig_size, (height, width)")
    read = [[float(number) for number in polygon] for polygon in polygons]
    if not read or any(len(polygon) < 6 or len(polygon) % 2 for polygon in read):
        raise ValueError("a polygon needs three points or more, [x1, y1, x2, y2, …]")
    if not all(math.isfinite(number) for polygon in read for number in polygon):
        raise ValueError("a polygon's coordinate is not finite")
    return dict(coco.merge(coco.frPyObjects(read, *size)))


def run_areas(rles: Sequence[Mapping[str, Any]]) -> Indices:
    """The area of each compressed RLE.

    Raises:
        BrokenRLE: for the first whose counts are cut off, or no counts of its size.
    """
    if not rles:
        return np.zeros(0, np.int64)
    runs, first = _runs_of(rles)
    zeros: Indices
    ones: Indices
    zeros, ones = np.add.reduceat(runs, first, axis=0).T
    _refuse(zeros + ones != [rle["size"][0] * rle["size"][1] for rle in rles])
    return ones


def _runs_of(rles: Sequence[Mapping[str, Any]]) -> tuple[Indices, Indices]:
    """The runs of compressed RLEs, of 0 and of 1 by turns, and where each one's begin.

    Counts are written in groups of five bits, the sixth saying that more follow, and from the
    fourth on as the difference to the count before last (pycocotools' ``rleFrString``).

    Returns:
        lengths, shape (rows, 2), and the first row of each RLE.
    """
    lengths = np.array([len(rle["counts"]) for rle in rles])
    code = np.frombuffer(b"".join([rle["counts"] for rle in rles]), np.uint8) - np.uint8(48)
    ends = np.cumsum(lengths)
    whole = lengths > 0
    whole[whole] = np.maximum.reduceat(code, (ends - lengths)[whole]) < 64
    whole[whole] &= code[ends[whole] - 1] < 32  # nothing more is to follow
    _refuse(~whole)

    last = np.flatnonzero(code < 32)
    amount = np.diff(np.searchsorted(last, ends), prepend=0)  # of counts
    begin = np.concatenate([[0], last[:-1] + 1])
    groups = last - begin
    value = (code[begin] & 31).astype(np.int64)
    for group in range(1, int(groups.max()) + 1):
        longer = np.flatnonzero(groups >= group)
        if group > 6:
            _refuse(np.bincount(np.searchsorted(ends, last[longer], "right")) > 0)
        value[longer] |= (code[begin[longer] + group] & 31).astype(np.int64) << 5 * group
    below = np.flatnonzero(code[last] & 16)
    value[below] -= np.int64(32) << 5 * groups[below]

    rows = (amount + 1) // 2
    first = np.cumsum(rows) - rows
    place = np.arange(len(value)) + np.repeat(2 * first - (np.cumsum(amount) - amount), amount)
    steps = np.zeros(2 * int(rows.sum()), np.int64)
    steps[place] = value
    steps[2 * first] = 0  # the first count stands alone
    pairs = steps.reshape(-1, 2)
    runs = np.cumsum(pairs, axis=0)
    runs -= np.repeat((runs - pairs)[first], rows, axis=0)
    runs[first, 0] = value[np.cumsum(amount) - amount]
    runs[(first + rows - 1)[amount % 2 == 1], 1] = 0  # there is none
    _refuse(np.minimum.reduceat(runs, first, axis=0).min(axis=1) < 0)
    return runs, first


def decode(rle: Mapping[str, Any]) -> Array:
    """The pixels of an RLE, which runs down the columns."""
    counts = _runs_of([rle])[0].ravel()
    height, width = rle["size"]
    return np.repeat(np.arange(len(counts), dtype=np.uint8) & 1, counts).reshape(width, height).T


def _refuse(wrong: Bools) -> None:
    if wrong.any():
        raise BrokenRLE(int(np.argmax(wrong)))


@dataclass(frozen=True, slots=True)
class Packed:
    """Dense masks, a bit per pixel, row after row: shape (n, words)."""

    words: Words
    area: Indices


@dataclass(frozen=True, slots=True)
class Patch:
    """The rows of the image that one object touches, as in `Packed` from word ``start`` on."""

    start: int
    words: Words


class Patches:
    """Objects made ready to meet dense masks; those that came as RLE are kept for the next time."""

    def __init__(self, limit: int = 64 * 2**20) -> None:
        """Keep up to ``limit`` bytes; the first come stay."""
        self._kept: dict[tuple[int, int, bytes], Patch] = {}
        self._room = limit

    def of(self, masks: Masks) -> list[Patch]:
        """The objects' patches."""
        if isinstance(masks, Pixels):
            return [_patch(mask) for mask in _binary(masks.values)]
        keys = [(*rle["size"], rle["counts"]) for rle in masks.rles]
        return [self._kept.get(key) or self._add(key) for key in keys]

    def _add(self, key: tuple[int, int, bytes]) -> Patch:
        height, width, counts = key
        patch = _patch(decode({"size": [height, width], "counts": counts}))
        if self._room >= patch.words.nbytes:
            self._room -= patch.words.nbytes
            self._kept[key] = patch
        return patch


def _binary(values: Any) -> Array:
    """Masks in NumPy, whatever is not 0 being set: floats and the like by the threshold."""
    if str(values.dtype).rpartition(".")[2] not in ("bool", "uint8"):
        real = "float" in str(values.dtype) and math.prod(values.shape) > 0
        if real and math.isnan(float(values.max())):
            raise ValueError("a mask holds NaN")
        values = values > 0.5  # on the values' own device
    return as_array(values).view(np.uint8)


def pack(masks: Pixels) -> Packed:
    """Pack dense masks.

    Raises:
        ValueError: if a value is NaN.
    """
    height, width = masks.size
    pixels = height * width
    packed = np.zeros((len(masks), -(-pixels // 64) * 8), np.uint8)
    for start in range(0, len(masks), _BLOCK):
        block = _binary(masks.values[start : start + _BLOCK])
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
    dense = np.asfortranarray(_binary(masks.values).transpose(1, 2, 0) != 0, np.uint8)
    rles = [dict(rle) for rle in coco.encode(dense)]
    return Runs(rles, masks.size, run_areas(rles))


def packed_overlaps(
    pairs: Pairs, detections: Packed, truths: Sequence[Patch], truth_area: Indices, crowd: Bools
) -> tuple[Pairs, Floats]:
    """The pairs whose IoU may be 0.5 or more, and it; with a crowd, the share of the detection."""
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
    """Likewise, for masks that are RLE."""
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
    """The pairs that can reach IoU 0.5 if they share as much as ``most``."""
    own = area[pairs.detection]
    union = np.where(crowd[pairs.truth], own, own + truth_area[pairs.truth] - most)
    keep = np.flatnonzero((most > 0) & (2 * most >= union))
    return Pairs(pairs.detection[keep], pairs.truth[keep])
