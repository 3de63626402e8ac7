"""Instance masks in every form, and their overlaps.

Dense masks, as a model gives them, are packed to one bit per pixel; an intersection is then an AND
and a count of ones, far cheaper than encoding the masks. COCO's run-length encoding (RLE) and
polygons, as files have them, stay runs, and pycocotools intersects them. Ground truth takes the
form of the predictions that it is compared with. Both ways count whole pixels, so that the IoU is
the same to the last bit.

Masks are read one image at a time, since a hundred dense ones are large; of an object only the rows
of the image that it touches are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco

from .inputs import UNREADABLE, Array, as_array
from .matching import Bools, Floats, Indices, Pairs, Words

Size = tuple[int, int]
"""Height and width, in pixels."""

_BLOCK = 16  # masks packed at once, to save memory
_MOST_PIXELS = 2**32  # of an image: pycocotools counts runs in 32 bits
_SLACK = 0.01  # of probabilities in half precision
_FARTHEST = 1e6  # pixels, of a polygon's coordinate


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


class BrokenRLE(ValueError):
    """An RLE that is cut off or does not fill its size; ``entry`` is its place."""

    def __init__(self, entry: int) -> None:
        self.entry = entry
        self.problem = "the RLE is cut off, or its counts do not fill its size"
        super().__init__(f"entry {entry}: {self.problem}")


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
    _check_values(values)
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
    """One mask as compressed RLE; `run_areas` checks its counts.

    Raises:
        ValueError: if it is no mask in a form of `read_masks`.
    """
    if hasattr(mask, "shape"):
        _check_values(mask)
        return dict(coco.encode(np.asfortranarray(_binary(mask) != 0, np.uint8)))
    if not isinstance(mask, Mapping):
        return _from_polygons(mask, size)
    try:
        height, width = (int(side) for side in mask["size"])
        counts = mask["counts"]
    except (KeyError, *UNREADABLE):
        raise ValueError("an RLE needs 'size', two integers, and 'counts'") from None
    if height < 1 or width < 1 or height * width >= _MOST_PIXELS:
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


def _from_polygons(value: Any, size: Size | None) -> dict[str, Any]:
    if size is None:
        raise ValueError("a polygon needs the image's size: give orig_size, (height, width)")
    if size[0] * size[1] >= _MOST_PIXELS:
        raise ValueError(f"an image of size {size}")
    try:
        polygons = _polygons(value)
    except UNREADABLE:
        form = "an RLE {'size': …, 'counts': …} or a list of polygons [[x1, y1, x2, y2, …], …]"
        raise ValueError(f"must be {form}") from None
    if not polygons or any(len(one) < 6 or len(one) % 2 for one in polygons):
        raise ValueError("a polygon needs three points or more, [x1, y1, x2, y2, …]")
    if not all(abs(number) < _FARTHEST for polygon in polygons for number in polygon):
        raise ValueError("a polygon's coordinate is not finite, or far outside of any image")
    return dict(coco.merge(coco.frPyObjects(polygons, *size)))


def _polygons(value: Sequence[Any]) -> list[list[float]]:
    """COCO's ``[[x1, y1, …], …]``; also one flat polygon, and polygons of points ``[x, y]``."""

    def is_point(one: Any) -> bool:
        return len(one) == 2 and not isinstance(one[0], Sequence)

    if len(value) and (not isinstance(value[0], Sequence) or all(map(is_point, value))):
        value = [value]
    return [
        [float(n) for one in polygon for n in (one if isinstance(one, Sequence) else [one])]
        for polygon in value
    ]


def run_areas(rles: Sequence[Mapping[str, Any]]) -> Indices:
    """The area of each compressed RLE.

    pycocotools hangs on a broken one (`test_no_broken_rle_reaches_pycocotools`).

    Raises:
        BrokenRLE: for the first whose counts are cut off, or do not fill its size.
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
    """The runs of compressed RLEs, alternately of 0 and of 1.

    A count is written in groups of five bits, the sixth bit set if another group follows, and from
    the fourth count on as the difference to the one before the last (``rleFrString``).

    Returns:
        lengths, shape (rows, 2), and the first row of each RLE.
    """
    lengths = np.array([len(rle["counts"]) for rle in rles])
    code = np.frombuffer(b"".join([rle["counts"] for rle in rles]), np.uint8) - np.uint8(48)
    ends = np.cumsum(lengths)
    whole = lengths > 0
    whole[whole] = np.maximum.reduceat(code, (ends - lengths)[whole]) < 64
    whole[whole] &= code[ends[whole] - 1] < 32  # no group is to follow
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
    steps[2 * first] = 0  # the first count is no difference
    pairs = steps.reshape(-1, 2)
    runs = np.cumsum(pairs, axis=0)
    runs -= np.repeat((runs - pairs)[first], rows, axis=0)
    runs[first, 0] = value[np.cumsum(amount) - amount]
    runs[(first + rows - 1)[amount % 2 == 1], 1] = 0  # a run that does not exist
    _refuse(np.minimum.reduceat(runs, first, axis=0).min(axis=1) < 0)
    return runs, first


def decode(rle: Mapping[str, Any]) -> Array:
    """The pixels of an RLE, shape (height, width); its runs go down the columns."""
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
    """The rows of the image that one object touches: words of `Packed` from ``start`` on."""

    start: int
    words: Words


class Patches:
    """Objects as patches; those of RLEs are kept for the next evaluation."""

    def __init__(self, limit: int = 64 * 2**20) -> None:
        """Keep up to ``limit`` bytes, the first ones."""
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


def _check_values(values: Any) -> None:
    """Raise for masks that are neither probabilities nor of 0 and one other value each."""
    kind = str(values.dtype).rpartition(".")[2]
    if kind == "bool" or not math.prod(values.shape):
        return
    low, high = float(values.min()), float(values.max())
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    array = as_array(values)
    top = array.max(axis=(-2, -1), keepdims=True)
    if not (top.min() >= 0 and ((array == 0) | (array == top)).all()):
        wrong = low if low < 0 or math.isnan(low) else high
        raise ValueError(
            f"a mask holds {wrong:g}: give bool masks, or probabilities from 0 to 1; the mask of "
            "logits is logits > 0"
        )


def _binary(values: Any) -> Array:
    """Masks in NumPy, not 0 where they are set."""
    if str(values.dtype).rpartition(".")[2] not in ("bool", "uint8"):
        values = values > 0.5  # on the values' own device
    return as_array(values).view(np.uint8)


def pack(masks: Pixels) -> Packed:
    """Pack dense masks."""
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
