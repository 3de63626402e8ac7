"""What was taken for what: detections against objects of any class, and the background.

Detections are matched once, whatever their class: the best-scored first, each with the free object
that it overlaps most, from IoU 0.5 on. Since a lower score never takes an object from a higher one,
that one matching holds for every confidence, which can be chosen afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from .batch import Array, Truths
from .match_table import DETECTION, TRUTH, Table, Tally
from .matching import Floats, Indices, Pairs

BACKGROUND = "background"
"""The name of the row of what was no object, and of the column of what was not found."""


def confuse(pairs: Pairs, iou: Floats, score: Array, truths: Truths, classes: int) -> Table:
    """Match the detections of a batch with objects of any class of their image.

    Args:
        pairs: of one image each.
        iou: of each pair.
        score: of each detection.
        truths: the objects; a crowd region takes what finds no object, and is not used up.
        classes: how many there are; stands for the class of a crowd region.

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
    _truth: Indices  # of each detection: a class's place; K background; -1 nothing, a crowd
    _objects: Indices  # how many there are of each class

    @classmethod
    def of(cls, tally: Tally, kind: str, names: list[str]) -> Self:
        """Read it off a tally that kept the class-agnostic matches."""
        detections, truths = tally.tables[DETECTION], tally.tables[TRUTH]
        table = tally.tables["confusion"]
        truth = np.full(len(detections["score"]), len(names), np.int64)
        found = table["truth"].astype(np.int64)
        truth[table["row"]] = np.where(found == len(names), -1, found)
        counting = truths[f"{kind}_outside"] & 1 == 0
        objects = np.bincount(truths["label"][counting], minlength=len(names))
        label = detections["label"].astype(np.int64)
        return cls((*names, BACKGROUND), detections["score"], label, truth, objects)

    def at(self, confidence: float) -> Indices:
        """The matrix of the detections with this confidence or more, shape (K + 1, K + 1).

        Rows are what was there, columns what was predicted, by ascending label and background
        last. What lies on a crowd region is counted nowhere.
        """
        size = len(self.names)
        sure = (self._score >= confidence) & (self._truth >= 0)
        cells = self._truth[sure] * size + self._label[sure]
        matrix = np.bincount(cells, minlength=size * size).reshape(size, size)
        matrix[:-1, -1] = self._objects - matrix[:-1].sum(axis=1)
        return matrix
