"""Which detection matches which object, for ten IoU thresholds and four area ranges at once.

COCO repeats its greedy matching for every threshold and area range: forty times. A match is a yes
or no in each of these cases, so that one 64-bit word holds them all: bit ``10 * area + threshold``.
Words also hold the cases in which an object does not count, and those in which it is unmatched so
far. One pass over words replaces forty passes over numbers.

Most objects need no pass. If the detections around an object overlap no other object of its class
(a *star*), the best-scored one takes the object at every threshold that its IoU reaches, the next
one at those that only it reaches, and so on: a running maximum over the whole batch. Only
detections that overlap several objects are matched one by one.

The rules are those of pycocotools' ``COCOeval.evaluateImg``, ties included.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Words = NDArray[np.uint64]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]

IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""COCO's ten, in float64: in float32 an IoU of exactly 3/5 would miss 0.6."""

AREAS = ("all", "small", "medium", "large")
"""Area ranges: up to 32² px is small, from 32² to 96² medium, from 96² large, bounds inclusive."""

_REACHED = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
_EDGES = (32.0**2, 96.0**2, 1e5**2)

# out of [all, small, medium, large]: bits 0 to 3, by the place of an area among the edges
_OUTSIDE: Bytes = np.array([0b1100, 0b1000, 0b1010, 0b0010, 0b0110, 0b0110, 0b1111], np.uint8)

ALL_AREAS = 0b1111
"""The area bits of crowd regions, which count in no range."""

_ONCE_PER_AREA = sum(1 << 10 * area for area in range(4))
_TEN = (1 << 10) - 1
_ALL = _TEN * _ONCE_PER_AREA

REACHING: Words = np.array([((1 << n) - 1) * _ONCE_PER_AREA for n in range(11)], np.uint64)
"""The word of a pair by the number of thresholds that its IoU reaches."""

IN_AREAS: Words = np.array(
    [sum(_TEN << 10 * area for area in range(4) if bits >> area & 1) for bits in range(16)],
    np.uint64,
)
"""The word that area bits stand for: all ten thresholds of each range."""


class Pairs(NamedTuple):
    """Detections and objects that may match: row indices, by object, then by detection."""

    detection: Indices
    truth: Indices


class Matches(NamedTuple):
    """The detections that matched, each once, with words of the forty cases.

    Attributes:
        row: the detection's row in the batch.
        counted: the cases in which it matched an object that counts: a true positive.
        ignored: the cases in which it matched a crowd or an object out of the area range.
    """

    row: Indices
    counted: Words
    ignored: Words


def outside(area: Floats) -> Bytes:
    """The area ranges in which each area (in pixels) does not lie, a bit each."""
    place = np.zeros(len(area), np.uint8)
    for edge in _EDGES:
        place += area > edge
        place += area >= edge
    return _OUTSIDE[place]


def sort_rows(group: Indices, score: NDArray[np.floating]) -> Indices:
    """The stable order by group, then by falling score.

    Group, float32 score and row mostly fit one 64-bit word, and words sort far faster than columns.
    ``group`` is not negative.
    """
    places = len(group).bit_length()
    groups = int(group.max(initial=0)).bit_length()
    if score.dtype != np.float32 or groups + 32 + places > 64:
        return np.lexsort((-score, group))
    bits = (score + np.float32(0)).view(np.uint32)  # -0 becomes 0
    falling = np.where(bits >> 31, bits, ~(bits | np.uint32(1 << 31)))
    words = group.astype(np.uint64) << np.uint64(32 + places)
    words |= falling.astype(np.uint64) << np.uint64(places)
    words |= np.arange(len(group), dtype=np.uint64)
    words.sort()
    return (words & np.uint64((1 << places) - 1)).astype(np.int64)


def pair(detection_group: Indices, truth_group: Indices) -> Pairs:
    """Every detection with every object of its group; ``detection_group`` ascends."""
    first = np.searchsorted(detection_group, truth_group, "left")
    count = np.searchsorted(detection_group, truth_group, "right") - first
    start = np.cumsum(count) - count
    detection = np.arange(count.sum()) - np.repeat(start - first, count)
    return Pairs(detection, np.repeat(np.arange(len(truth_group)), count))


def box_overlaps(
    pairs: Pairs, detections: Floats, truths: Floats, crowd: Bools
) -> tuple[Pairs, Floats]:
    """The pairs whose boxes overlap, and their IoU; with a crowd, intersection over detection.

    Args:
        pairs: those that may overlap.
        detections: x, y, width, height in pixels as four rows, shape (4, detections).
        truths: likewise, shape (4, objects).
        crowd: whether an object is a crowd region, shape (objects,).
    """
    detection, truth = pairs
    (x, y, width, height), (truth_x, truth_y, truth_width, truth_height) = detections, truths
    wide = np.minimum((x + width)[detection], (truth_x + truth_width)[truth])
    wide -= np.maximum(x[detection], truth_x[truth])
    high = np.minimum((y + height)[detection], (truth_y + truth_height)[truth])
    high -= np.maximum(y[detection], truth_y[truth])
    meet = np.flatnonzero((wide > 0) & (high > 0))
    detection, truth = detection[meet], truth[meet]
    shared = wide[meet] * high[meet]
    own = (width * height)[detection]
    union = np.where(crowd[truth], own, own + (truth_width * truth_height)[truth] - shared)
    return Pairs(detection, truth), shared / union


def match(pairs: Pairs, iou: Floats, truth_outside: Bytes, crowd: Bools) -> Matches:
    """Match every detection of a batch as COCO does, in all forty cases.

    Args:
        pairs: of one class and image each; among them a detection's row grows as its score falls.
        iou: of each pair.
        truth_outside: area bits of each object, `ALL_AREAS` for a crowd.
        crowd: whether an object is a crowd region, which any number of detections matches.
    """
    near = np.flatnonzero(iou >= _REACHED[0])
    detection, truth, iou = pairs.detection[near], pairs.truth[near], iou[near]
    reached = np.searchsorted(_REACHED, iou, "right")
    ignore = IN_AREAS[truth_outside]

    contested = np.bincount(detection)[detection] > 1
    shared = np.zeros(len(truth_outside), bool)
    shared[truth[contested]] = True
    rest = shared[truth]
    alone = np.flatnonzero(~rest)
    stars = _match_stars(detection[alone], truth[alone], reached[alone], ignore, crowd)
    if len(alone) == len(truth):
        return stars
    order = np.flatnonzero(rest)
    # the best IoU first; among equal ones the last object, as in pycocotools
    order = order[np.lexsort((-truth[order], -iou[order], detection[order]))]
    ones = _match_one_by_one(
        detection[order].tolist(),
        truth[order].tolist(),
        REACHING[reached[order]].tolist(),
        ignore.tolist(),
        crowd.tolist(),
    )
    return Matches(*(np.concatenate(parts) for parts in zip(stars, ones, strict=True)))


def _match_stars(
    detection: Indices, truth: Indices, reached: Indices, ignore: Words, crowd: Bools
) -> Matches:
    """Match objects whose detections overlap no other; pairs by object, then by score."""
    furthest = np.maximum.accumulate(truth << 4 | reached)
    before = np.zeros(len(truth), np.int64)
    before[1:] = np.where(truth[1:] == truth[:-1], furthest[:-1] & 15, 0)
    before[crowd[truth]] = 0
    taken = REACHING[reached] & ~REACHING[before]
    some = np.flatnonzero(taken)
    taken, ignore = taken[some], ignore[truth[some]]
    return Matches(detection[some], taken & ~ignore, taken & ignore)


def _match_one_by_one(
    detections: list[int],
    truths: list[int],
    reaching: list[int],
    ignore: list[int],
    crowd: list[bool],
) -> Matches:
    """Match greedily, the best-scored detection first; each one's pairs by falling IoU."""
    rows, counted, ignored = [], [], []
    taken: dict[int, int] = {}
    start = 0
    while start < len(detections):
        row, end = detections[start], start
        while end < len(detections) and detections[end] == row:
            end += 1
        free, hit, void = _ALL, 0, 0
        for place in range(start, end):
            truth = truths[place]
            held = taken.get(truth, 0)
            if won := reaching[place] & free & ~ignore[truth] & ~held:
                taken[truth] = held | won
                hit |= won
                free &= ~won
        for place in range(start, end):  # objects that do not count come second
            truth = truths[place]
            held = 0 if crowd[truth] else taken.get(truth, 0)
            if won := reaching[place] & free & ignore[truth] & ~held:
                taken[truth] = held | won
                void |= won
                free &= ~won
        if hit | void:
            rows.append(row)
            counted.append(hit)
            ignored.append(void)
        start = end
    return Matches(
        np.array(rows, np.int64), np.array(counted, np.uint64), np.array(ignored, np.uint64)
    )
