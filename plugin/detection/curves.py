"""Precision-recall curves and the best F1, from the state and without matching again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from .coco_summary import RECALL_POINTS, Arrays, Ranking, count_truths
from .match_table import DETECTION, MatchTable
from .matching import IOU_THRESHOLDS, Bools, Floats, Indices

if TYPE_CHECKING:
    from .confusion import Confusion

T = TypeVar("T")

MOST_CLASSES = 100
"""Of a table of curves and of a confusion matrix in it."""

CONFIDENCES = np.linspace(0, 1, 129, dtype=np.float32)
"""At which detections are counted: k / 128, exact in float32."""


@dataclass(frozen=True, slots=True)
class PerClass(Generic[T]):
    """A value per class that has one, and that of all classes together, ``None`` without any."""

    overall: T | None
    per_class: Mapping[str, T]


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and confidence over the 101 recall points, as COCO interpolates them.

    Attributes:
        recall: 0 to 1.
        precision: the greatest at this recall or beyond; 0 where the recall is not reached.
        confidence: the threshold of this recall; 0 where it is not reached.
    """

    recall: Floats
    precision: Floats
    confidence: Floats


@dataclass(frozen=True, slots=True)
class BestF1:
    """The confidence threshold with the greatest F1.

    Attributes:
        confidence: the threshold, inclusive.
        f1, precision, recall: at it.
    """

    confidence: float
    f1: float
    precision: float
    recall: float


def curves(arrays: Arrays, names: Sequence[str], iou: float) -> PerClass[Curve]:
    """The curves of the classes with objects at one of COCO's thresholds, and their mean.

    Raises:
        ValueError: if ``iou`` is none of them.
    """
    at = threshold(iou)
    precision, scores = arrays.precision[at, :, :, 0], arrays.scores[at, :, :, 0]
    defined = [place for place in range(len(names)) if precision[0, place] > -1]
    per_class = {
        names[place]: Curve(RECALL_POINTS, precision[:, place], scores[:, place])
        for place in defined
    }
    if not defined:
        return PerClass(None, {})
    means = precision[:, defined].mean(axis=1), scores[:, defined].mean(axis=1)
    return PerClass(Curve(RECALL_POINTS, *means), per_class)


def curve_table(
    found: PerClass[Curve],
    counted: list[dict[str, Any]],
    matrix: Confusion | None,
    confidence: float,
    kind: str,
) -> dict[str, Any]:
    """`boxscore.metric.TaskMetric.curve_table`, to four digits.

    Args:
        found: at IoU 0.5.
        counted: likewise, by `count_detections`.
        matrix: None leaves it out.
        confidence: of the detections in the matrix, at least.
        kind: ``"box"`` or ``"mask"``.
    """
    note = f"{kind} at IoU 0.5, as COCO interpolates it"
    named = ({"": found.overall} if found.overall else {}) | dict(
        islice(found.per_class.items(), MOST_CLASSES)
    )
    table: dict[str, Any] = {
        "classes": [
            {"name": name}
            | {axis: getattr(curve, axis).round(4).tolist() for axis in ("recall", "precision")}
            for name, curve in named.items()
        ],
        "counts": {"note": f"{kind} at IoU 0.5, counted", "classes": counted},
    }
    if matrix is not None and len(matrix.names) <= MOST_CLASSES:
        note += f"; the matrix is at confidence {confidence:.4f}, that of the best F1"
        table |= {"names": list(matrix.names), "confusion": matrix.at(confidence).tolist()}
    return table | {"note": note}


def count_detections(
    state: MatchTable, ranking: Ranking, kind: str, names: Sequence[str], iou: float
) -> list[dict[str, Any]]:
    """True and false positives at `CONFIDENCES`, in JSON's types.

    Raises:
        ValueError: if ``iou`` is none of COCO's thresholds.

    Returns:
        ``name``, ``tp``, ``fp`` and ``truths`` of each class with objects, and before them of all
        of these classes together, under ``""``.
    """
    hit, counts = _outcomes(state, kind, threshold(iou))
    score = state.tables[DETECTION]["score"]
    truths = count_truths(state, kind, len(names))[0]
    found: dict[str, tuple[Indices, Indices, int]] = {}
    for place in np.flatnonzero(truths).tolist():
        rows = ranking.rows[ranking.start[place] : ranking.start[place + 1]]
        kept = len(rows) - np.searchsorted(score[rows][::-1], CONFIDENCES)
        tp, counted = (np.append(0, np.cumsum(column[rows]))[kept] for column in (hit, counts))
        found[names[place]] = tp, counted - tp, int(truths[place])
    if not found:
        return []
    tps, fps, objects = zip(*found.values(), strict=True)
    found = {"": (sum(tps), sum(fps), sum(objects))} | found
    return [
        {"name": name, "tp": tp.tolist(), "fp": fp.tolist(), "truths": truths}
        for name, (tp, fp, truths) in found.items()
    ]


def best_f1s(
    state: MatchTable, ranking: Ranking, kind: str, names: Sequence[str], iou: float
) -> PerClass[BestF1]:
    """The best F1 per class with a true positive, and that of the counts of all classes together.

    Raises:
        ValueError: if ``iou`` is none of COCO's thresholds.
    """
    at = threshold(iou)
    hit, counts = _outcomes(state, kind, at)
    score = state.tables[DETECTION]["score"]
    truths = count_truths(state, kind, len(names))[0]
    per_class = {}
    for place in np.flatnonzero(truths).tolist():
        rows = ranking.rows[ranking.start[place] : ranking.start[place + 1]]
        best = _best(score[rows], hit[rows], counts[rows], int(truths[place]))
        if best:
            per_class[names[place]] = best
    counted = np.isin(state.tables[DETECTION]["label"], np.flatnonzero(truths))
    rows = np.flatnonzero(counted)[np.argsort(-score[counted], kind="stable")]
    return PerClass(_best(score[rows], hit[rows], counts[rows], int(truths.sum())), per_class)


def threshold(iou: float) -> int:
    """The index of an IoU among COCO's thresholds.

    Raises:
        ValueError: if it is none of them.
    """
    near = np.flatnonzero(np.isclose(IOU_THRESHOLDS, iou, rtol=0, atol=1e-6))
    if not len(near):
        raise ValueError(f"iou {iou!r} is none of COCO's thresholds, 0.5, 0.55, … 0.95")
    return int(near[0])


def _outcomes(state: MatchTable, kind: str, at: int) -> tuple[Bools, Bools]:
    """Of each detection at a threshold, any size: whether it is a true positive, and counts."""
    outside = state.tables[DETECTION][f"{kind}_outside"]
    table = state.tables[kind]
    bit = np.uint64(at)
    hit, counts = np.zeros(len(outside), bool), outside & 1 == 0
    found = (table["counted"] >> bit & np.uint64(1)).astype(bool)
    void = (table["ignored"] >> bit & np.uint64(1)).astype(bool)
    hit[table["row"][found]] = True
    counts[table["row"][found]] = True
    counts[table["row"][void]] = False
    return hit, counts


def _best(score: Floats, hit: Bools, counts: Bools, truths: int) -> BestF1 | None:
    """The best F1 of these detections, which are ordered by falling score."""
    if not hit.any():
        return None
    last: Indices = np.flatnonzero(np.append(score[1:] != score[:-1], True))  # of equal ones
    found, kept = np.cumsum(hit)[last], np.cumsum(counts)[last]
    f1 = 2 * found / (kept + truths)
    best = int(np.argmax(f1))
    return BestF1(
        float(score[last[best]]),
        float(f1[best]),
        float(found[best] / kept[best]) if kept[best] else 0.0,
        float(found[best] / truths),
    )
