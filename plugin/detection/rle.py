"""COCO's run-length encoding (RLE) of masks, and its polygons: read and checked.

pycocotools hangs on a broken RLE (`test_no_broken_rle_reaches_pycocotools`): every RLE is checked
here first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from .inputs import UNREADABLE, Array, binary, check_values
from .matching import Bools, Indices

Size = tuple[int, int]
"""Height and width, in pixels."""

_MOST_PIXELS = 2**32  # of an image: pycocotools counts runs in 32 bits
_FARTHEST = 1e6  # pixels, of a polygon's coordinate


class BrokenRLE(ValueError):
    """An RLE that is cut off or does not fill its size; ``entry`` is its place."""

    def __init__(self, entry: int) -> None:
        self.entry = entry
        self.problem = "the RLE is cut off, or its counts do not fill its size"
        super().__init__(f"entry {entry}: {self.problem}")


def to_rle(mask: Any, size: Size | None) -> dict[str, Any]:
    """One mask as compressed RLE; `run_areas` checks its counts.

    Raises:
        ValueError: if it is no mask in a form of `read_masks`.
    """
    if hasattr(mask, "shape"):
        check_values(mask)
        return dict(coco.encode(np.asfortranarray(binary(mask) != 0, np.uint8)))
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
    """The pixels of a checked RLE, shape (height, width); its runs go down the columns.

    ``coco.decode`` gives a DeprecationWarning with NumPy 2.
    """
    counts = _runs_of([rle])[0].ravel()
    height, width = rle["size"]
    return np.repeat(np.arange(len(counts), dtype=np.uint8) & 1, counts).reshape(width, height).T


def _refuse(wrong: Bools) -> None:
    if wrong.any():
        raise BrokenRLE(int(np.argmax(wrong)))
