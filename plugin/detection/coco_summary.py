"""From a match table to COCO's arrays (precision, recall and scores per class) and metrics.

Precision is needed only where recall rises, at the true positives: between two of them it falls.
The detections counted there are those inside the area range, corrected for those that matched: a
match with an object that counts is counted whatever the detection's own area, a match with an
ignored object never is. Of these precisions, those at the 101 recall points are kept; the number of
objects alone determines which true positive that is (`_needed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .inputs import Array
from .match_table import DETECTION, IMAGE, TRUTH, MatchTable
from .matching import AREAS, IOU_THRESHOLDS, Bools, Floats, Indices, sort_rows

RECALL_POINTS: Floats = np.linspace(0, 1, 101)
"""COCO's recalls, at which precision is read."""

_EPSILON = np.spacing(1)
_TEN = np.uint16(1023)
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
    """The detections of a table by class, then by falling score.

    Attributes:
        rows: the detections in that order.
        place: the place of each detection in that order.
        start: the first place of each class, and the end, shape (K + 1,).
    """

    rows: Indices
    place: Indices
    start: Indices


def rank(state: MatchTable, classes: int) -> Ranking:
    """Rank the detections of a table whose images are in order."""
    label = state.tables[DETECTION]["label"].astype(np.int64)
    rows = sort_rows(label, state.tables[DETECTION]["score"])
    place = np.empty_like(rows)
    place[rows] = np.arange(len(rows))
    start = np.cumsum([0, *np.bincount(label, minlength=classes)])
    return Ranking(rows, place, start)


def count_truths(state: MatchTable, kind: str, classes: int) -> Indices:
    """The number of objects that count, by area range and class, shape (A, K)."""
    truths = state.tables[TRUTH]
    outside = truths[f"{kind}_outside"]
    return np.stack(
        [
            np.bincount(truths["label"][outside >> area & 1 == 0], minlength=classes)
            for area in range(_A)
        ]
    )


def accumulate(
    state: MatchTable, ranking: Ranking, kind: str, classes: int, limits: Sequence[int]
) -> Arrays:
    """COCO's arrays of the ``"box"`` or ``"mask"`` matches of a table whose images are in order."""
    # laid out in the order of filling, and transposed to COCO's order at the end
    precision = np.full((_A, _T, classes, _R), -1.0)
    scores = np.full((_A, _T, classes, _R), -1.0)
    recall = np.full((_A, _T, len(limits), classes), -1.0)
    detections = state.tables[DETECTION]
    outside = detections[f"{kind}_outside"][ranking.rows]
    top = np.zeros(classes)
    filled = np.flatnonzero(np.diff(ranking.start))
    top[filled] = detections["score"][ranking.rows[ranking.start[filled]]]
    matches = _Matches.of(state, ranking, kind, limits)
    truths = count_truths(state, kind, classes)
    for area in range(_A):
        valid = np.flatnonzero(truths[area])
        precision[area, :, valid] = 0.0
        scores[area, :, valid] = 0.0
        scores[area, :, valid, 0] = top[valid, None]
        needed = np.stack([_needed(count) for count in truths[area].tolist()])
        side = _Range(matches, ranking, outside >> area & 1 == 0, area)
        for threshold in range(_T):
            hits = side.hits(threshold)
            for place, early in enumerate(side.early):
                found = np.bincount(hits.label[early[hits.match]], minlength=classes)
                recall[area, threshold, place, valid] = found[valid] / truths[area, valid]
            label = np.flatnonzero(hits.found)
            if len(label):
                precision[area, threshold, label], scores[area, threshold, label, 1:] = _at_recalls(
                    hits, side.score, needed[label], label
                )
    return Arrays(
        precision.transpose(1, 3, 2, 0),
        scores.transpose(1, 3, 2, 0),
        recall.transpose(1, 3, 0, 2),
        tuple(limits),
    )


@dataclass(frozen=True, slots=True)
class _Matches:
    """The detections that matched, in the ranking's order."""

    place: Indices
    label: Indices
    score: Array
    counted: Array
    ignored: Array
    early: list[Bools]  # per limit: whether the detection is within it, in its image and class

    @classmethod
    def of(cls, state: MatchTable, ranking: Ranking, kind: str, limits: Sequence[int]) -> _Matches:
        found, detections = state.tables[kind], state.tables[DETECTION]
        place = ranking.place[found["row"]]
        order = np.argsort(place)
        row = found["row"][order].astype(np.int64)
        sizes = state.tables[IMAGE]["detections"].astype(np.int64)
        first = np.repeat(_starts(sizes), sizes)[row]  # of its image
        label = detections["label"]
        early = [
            (row - limit < first) | (label[np.maximum(row - limit, 0)] != label[row])
            for limit in limits
        ]
        return cls(
            place[order],
            label[row].astype(np.int64),
            detections["score"][row],
            found["counted"][order],
            found["ignored"][order],
            early,
        )


class _Range:
    """The matches that change a count in one area range."""

    def __init__(self, matches: _Matches, ranking: Ranking, inside: Bools, area: int) -> None:
        shift = np.uint64(10 * area)
        counted = (matches.counted >> shift).astype(np.uint16) & _TEN
        ignored = (matches.ignored >> shift).astype(np.uint16) & _TEN
        own = inside[matches.place]
        more, less = np.where(own, 0, counted), np.where(own, ignored, 0)
        self._used = np.flatnonzero(counted | less)
        self._counted, self._more = counted[self._used], more[self._used]
        self._less = less[self._used]
        self.label = matches.label[self._used]
        self.score = matches.score[self._used]
        self.early = [early[self._used] for early in matches.early]
        so_far = np.zeros(len(inside) + 1, np.int32)
        np.cumsum(inside, out=so_far[1:])
        before = so_far[ranking.start[self.label]]
        self._in_range = so_far[matches.place[self._used] + 1] - before
        self._classes = len(ranking.start) - 1
        self._first = _starts(np.bincount(self.label, minlength=self._classes))

    def hits(self, threshold: int) -> _Hits:
        """The true positives at a threshold."""
        match = np.flatnonzero(self._counted >> threshold & 1)
        label = self.label[match]
        change = (self._more >> threshold & 1).astype(np.int8)
        change -= (self._less >> threshold & 1).astype(np.int8)
        changed = np.zeros(len(change) + 1, np.int32)
        np.cumsum(change, out=changed[1:])
        considered = self._in_range[match] + changed[match + 1]
        considered -= changed[self._first][label]
        found = np.bincount(label, minlength=self._classes)
        number = np.arange(1, len(match) + 1) - _starts(found)[label]
        return _Hits(match, label, found, number / (considered + _EPSILON))


@dataclass(frozen=True, slots=True)
class _Hits:
    """The true positives of an area range and a threshold, by class, then by falling score."""

    match: Indices  # their indices among the matches of the range
    label: Indices
    found: Indices  # their number per class, shape (K,)
    precision: Floats


def _starts(counts: Indices) -> Indices:
    return np.cumsum(counts) - counts


def _at_recalls(
    hits: _Hits, score: Array, needed: Indices, label: Indices
) -> tuple[Floats, Floats]:
    """Precision at the recall points, and scores at all but the first, of the classes ``label``."""
    found, start = hits.found[label, None], _starts(hits.found)[label, None]
    reached = needed <= found
    at = np.minimum(needed, found)
    at += start - 1
    best = np.maximum.reduceat(hits.precision, at.ravel()).reshape(at.shape)
    # before the recall points that are not reached become 0: the last true positive may lie beyond
    # the last point that is reached, and raise it
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    return best * reached, (score[hits.match][at] * reached)[:, 1:]


@lru_cache(maxsize=8192)
def _needed(truths: int) -> Indices:
    """The number of objects to be found for each recall point, at least 1."""
    recall = np.arange(1, truths + 1) / max(truths, 1)
    return np.searchsorted(recall, RECALL_POINTS, "left") + 1


def summarize(arrays: Arrays) -> dict[str, float]:
    """COCO's twelve metrics, by name without the kind, as in ``COCOeval.summarize``.

    With a detection limit of 10 or less there are fewer recalls. Undefined ones are absent.
    """
    means = {name: _mean(cells) for name, cells in _cells(arrays).items()}
    return {name: mean for name, mean in means.items() if mean is not None}


def summarize_per_class(arrays: Arrays) -> list[dict[str, float]]:
    """The same metrics of each class alone, by ascending label."""
    classes = arrays.precision.shape[2]
    result: list[dict[str, float]] = [{} for _ in range(classes)]
    for name, cells in _cells(arrays).items():
        rows = np.ascontiguousarray(np.moveaxis(cells, -1, 0)).reshape(classes, -1)
        for label in np.flatnonzero(rows[:, 0] > -1).tolist():
            result[label][name] = float(np.mean(rows[label]))
    return result


def _cells(arrays: Arrays) -> dict[str, Floats]:
    """The cells whose mean is each metric; classes are the last axis."""
    precision, recall, every = arrays.precision, arrays.recall, AREAS.index("all")
    cells = {
        "AP": precision[..., every],
        "AP50": precision[:1, ..., every],
        "AP75": precision[5:6, ..., every],
    }
    cells |= {f"AP_{area}": precision[..., place] for place, area in enumerate(AREAS) if place}
    cells |= {f"AR{limit}": recall[..., every, at] for at, limit in enumerate(arrays.limits)}
    return cells | {f"AR_{area}": recall[..., at, -1] for at, area in enumerate(AREAS) if at}


def _mean(cells: Floats) -> float | None:
    defined = cells[cells > -1]
    return float(np.mean(defined)) if defined.size else None
