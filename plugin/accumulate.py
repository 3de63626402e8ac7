"""From a tally to COCO's figures: precision, recall and scores over the classes.

Precision need only be known where recall rises, at the true positives: between two of them it
falls. There, the detections that count so far are those inside the area range, put right for those
that matched: one that found an object counts wherever its own area lies, one that found a thing to
be ignored does not. And it need only be kept where recall reaches one of the 101 recall points.
Which true positive that is follows from the number of objects alone, so that a table tells it
(`_needed`).

All ten thresholds of an area range go through together: a *lane* is a threshold and a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .batch import Array, Bools
from .matching import AREAS, IOU_THRESHOLDS, Floats, Indices, sort_rows
from .tally import DETECTION, IMAGE, TRUTH, Tally

RECALL_POINTS: Floats = np.linspace(0, 1, 101)
"""The recalls at which precision is read, COCO's own."""

_EPSILON = np.spacing(1)
_T, _R, _A = len(IOU_THRESHOLDS), len(RECALL_POINTS), len(AREAS)


@dataclass(frozen=True, slots=True)
class Arrays:
    """COCO's arrays, equal to those of ``COCOeval.eval`` cell for cell; -1 where undefined.

    T thresholds `IOU_THRESHOLDS`, R `RECALL_POINTS`, K classes by ascending label, A `AREAS`,
    M detection limits.

    Attributes:
        precision: [T, R, K, A], with the greatest detection limit.
        scores: [T, R, K, A], the confidence at which that recall is reached.
        recall: [T, K, A, M].
        limits: the M limits of detections per image and class, ascending.
    """

    precision: Floats
    scores: Floats
    recall: Floats
    limits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The detections of a tally by class, then by falling score.

    Attributes:
        rows: the detections in that order.
        place: of each detection in that order.
        start: the first place of each class, and the end: shape (K + 1,).
    """

    rows: Indices
    place: Indices
    start: Indices


def rank(tally: Tally, classes: int) -> Ranking:
    """Rank a tally's detections; its images are in order."""
    label = tally.tables[DETECTION]["label"].astype(np.int64)
    rows = sort_rows(label, tally.tables[DETECTION]["score"])
    place = np.empty_like(rows)
    place[rows] = np.arange(len(rows))
    start = np.cumsum([0, *np.bincount(label, minlength=classes)])
    return Ranking(rows, place, start)


def count_truths(tally: Tally, kind: str, classes: int) -> Indices:
    """How many objects count, by area range and class, shape (A, K)."""
    truths = tally.tables[TRUTH]
    outside = truths[f"{kind}_outside"]
    return np.stack(
        [
            np.bincount(truths["label"][outside >> area & 1 == 0], minlength=classes)
            for area in range(_A)
        ]
    )


def accumulate(
    tally: Tally, ranking: Ranking, kind: str, classes: int, limits: Sequence[int]
) -> Arrays:
    """COCO's arrays of the ``"box"`` or ``"mask"`` matches; the tally's images are in order."""
    arrays = Arrays(
        np.full((_T, _R, classes, _A), -1.0),
        np.full((_T, _R, classes, _A), -1.0),
        np.full((_T, classes, _A, len(limits)), -1.0),
        tuple(limits),
    )
    matches = _Matches.of(tally, ranking, kind, limits)
    outside = tally.tables[DETECTION][f"{kind}_outside"][ranking.rows]
    score = tally.tables[DETECTION]["score"]
    top = np.zeros(classes)
    filled = np.flatnonzero(np.diff(ranking.start))
    top[filled] = score[ranking.rows[ranking.start[filled]]]

    truths = count_truths(tally, kind, classes)
    for area in range(_A):
        valid = np.flatnonzero(truths[area])
        for array in (arrays.precision, arrays.scores):
            array[:, :, valid, area] = 0.0
        arrays.scores[:, 0, valid, area] = top[valid]
        hits = _hits(matches, ranking, outside >> area & 1 == 0, area)
        found = np.stack(
            [
                np.bincount(hits.lane[early[hits.match]], minlength=_T * classes)
                for early in matches.early
            ],
            axis=-1,
        ).reshape(_T, classes, len(limits))
        arrays.recall[:, valid, area] = found[:, valid] / truths[area, valid, None]
        _read_at_recalls(arrays, hits, matches.score, truths[area], area)
    return arrays


@dataclass(frozen=True, slots=True)
class _Matches:
    """The detections that matched, in the ranking's order."""

    place: Indices
    label: Indices
    score: Array
    counted: Array
    ignored: Array
    early: list[Bools]  # for each limit: whether it is within it, in its image and class

    @classmethod
    def of(cls, tally: Tally, ranking: Ranking, kind: str, limits: Sequence[int]) -> _Matches:
        table, detections = tally.tables[kind], tally.tables[DETECTION]
        place = ranking.place[table["row"]]
        order = np.argsort(place)
        row = table["row"][order].astype(np.int64)
        ends = np.cumsum(tally.tables[IMAGE]["detections"], dtype=np.int64)
        starts = np.concatenate([[0], ends])
        first = starts[np.searchsorted(ends, row, "right")]
        label = detections["label"]
        early = [
            (row - limit < first) | (label[np.maximum(row - limit, 0)] != label[row])
            for limit in limits
        ]
        return cls(
            place[order],
            label[row].astype(np.int64),
            detections["score"][row],
            table["counted"][order],
            table["ignored"][order],
            early,
        )


@dataclass(frozen=True, slots=True)
class _Hits:
    """The true positives of one area range, by lane, then by falling score."""

    match: Indices  # its place among the matches
    lane: Indices  # threshold * K + class
    number: Indices  # of the true positives of its lane so far, itself included
    precision: Floats


def _hits(matches: _Matches, ranking: Ranking, inside: Bools, area: int) -> _Hits:
    classes = len(ranking.start) - 1
    so_far = np.concatenate([[0], np.cumsum(inside)])
    in_range = so_far[matches.place + 1] - so_far[ranking.start[matches.label]]
    own = inside[matches.place]

    bits = np.arange(10 * area, 10 * area + _T, dtype=np.uint64)[:, None]
    one = np.uint64(1)
    counted = (matches.counted >> bits & one).astype(bool)
    ignored = (matches.ignored >> bits & one).astype(bool)
    change = (counted & ~own).astype(np.int8) - (ignored & own).astype(np.int8)
    changed = np.zeros((_T, len(own) + 1), np.int64)
    np.cumsum(change, axis=1, out=changed[:, 1:])
    first = np.searchsorted(matches.label, matches.label)
    considered = in_range + changed[:, 1:] - changed[:, first]

    threshold, match = np.nonzero(counted)
    lane = threshold * classes + matches.label[match]
    number = np.arange(1, len(lane) + 1) - np.searchsorted(lane, lane)
    precision = number / (considered[threshold, match] + _EPSILON)
    return _Hits(match, lane, number, precision)


def _read_at_recalls(
    arrays: Arrays, hits: _Hits, score: Array, truths: Indices, area: int
) -> None:
    """Write precision and scores where recall reaches the recall points."""
    lanes, start, found = np.unique(hits.lane, return_index=True, return_counts=True)
    if not len(lanes):
        return
    threshold, label = np.divmod(lanes, len(truths))
    needed = np.stack([_needed(count) for count in truths[label].tolist()])
    reached = needed <= found[:, None]
    at = start[:, None] + np.minimum(needed, found[:, None]) - 1
    best = np.maximum.reduceat(hits.precision, at.ravel()).reshape(at.shape)
    # before what is not reached is cut off: the last true positive may lie beyond the last recall
    # point that is reached, and still raise it
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    arrays.precision[threshold, :, label, area] = np.where(reached, best, 0.0)
    confidence = np.where(reached, score[hits.match[at]], 0.0)
    arrays.scores[threshold, 1:, label, area] = confidence[:, 1:]


@lru_cache(maxsize=8192)
def _needed(truths: int) -> Indices:
    """How many of so many objects must be found for each recall point, at least 1."""
    recall = np.arange(1, truths + 1) / truths
    return np.searchsorted(recall, RECALL_POINTS, "left") + 1
