"""The confusion matrix: objects by true and predicted class, and the background.

Detections are matched once, across classes: in the order of their scores, each with the unmatched
object of the greatest IoU, at least 0.5. A lower score never takes an object from a higher one, so
that this one matching holds for every confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from .batch import Objects
from .inputs import Array
from .match_table import DETECTION, TRUTH, MatchTable, Table
from .matching import Floats, Indices, Pairs

BACKGROUND = "background"
"""The name of the row of detections without an object, and of the column of missed objects."""


def confuse(pairs: Pairs, iou: Floats, score: Array, truths: Objects, classes: int) -> Table:
    """Match the detections of a batch with objects of any class of their image.

    Args:
        pairs: of one image each.
        iou: of each pair.
        score: of each detection.
        truths: the objects; any number of detections without another object match a crowd region.
        classes: the number of classes; stands for the class of a crowd region.

    Returns:
        the columns ``row``, of the detections that matched, and ``truth``, their objects' classes.
    """
    near = np.flatnonzero(iou >= 0.5)
    detection, truth = pairs.detection[near], pairs.truth[near]
    order = np.lexsort((-truth, -iou[near], truths.crowd[truth], detection, -score[detection]))
    crowd = truths.crowd.tolist()
    found: dict[int, int] = {}
    taken: set[int] = set()
    for row, one in zip(detection[order].tolist(), truth[order].tolist(), strict=True):
        if row not in found and one not in taken:
            found[row] = one
            if not crowd[one]:
                taken.add(one)
    objects = np.array(list(found.values()), np.int64)
    labels = np.where(truths.crowd[objects], classes, truths.label[objects])
    return {
        "row": np.array(list(found), np.uint32),
        "truth": labels.astype(np.min_scalar_type(classes)),
    }


@dataclass(frozen=True, slots=True)
class Confusion:
    """The confusion matrix of an evaluated set, for any confidence.

    Attributes:
        names: of the classes, by ascending label, then `BACKGROUND`: rows and columns.
    """

    names: tuple[str, ...]
    _score: Array
    _label: Indices
    _truth: Indices  # of each detection's object: the class's index; K background; -1 a crowd
    _objects: Indices  # their number per class

    @classmethod
    def of(cls, state: MatchTable, kind: str, names: list[str]) -> Self:
        """The matrix of a state with the class-agnostic matches."""
        detections, truths = state.tables[DETECTION], state.tables[TRUTH]
        table = state.tables["confusion"]
        truth = np.full(len(detections["score"]), len(names), np.int64)
        found = table["truth"].astype(np.int64)
        truth[table["row"]] = np.where(found == len(names), -1, found)
        counting = truths[f"{kind}_outside"] & 1 == 0
        objects = np.bincount(truths["label"][counting], minlength=len(names))
        label = detections["label"].astype(np.int64)
        return cls((*names, BACKGROUND), detections["score"], label, truth, objects)

    def at(self, confidence: float) -> Indices:
        """The matrix of the detections with this confidence or more, shape (K + 1, K + 1).

        Rows are true classes, columns predicted ones, by ascending label and background last.
        Detections on a crowd region do not count.
        """
        size = len(self.names)
        kept = (self._score >= confidence) & (self._truth >= 0)
        cells = self._truth[kept] * size + self._label[kept]
        matrix = np.bincount(cells, minlength=size * size).reshape(size, size)
        matrix[:-1, -1] = self._objects - matrix[:-1].sum(axis=1)
        return matrix
