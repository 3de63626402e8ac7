"""How wrong the detections of each image are, for choosing the images that are looked at."""

from __future__ import annotations

import numpy as np

from .match_table import DETECTION, IMAGE, TRUTH, MatchTable
from .matching import Bools, Indices


def image_errors(table: MatchTable, kind: str) -> list[float]:
    """One minus the best F1 of each image over all confidences, at IoU 0.5 and any size.

    Of an image without objects that count, the highest score; 0 without detections.

    Args:
        table: of the images.
        kind: ``"box"`` or ``"mask"``.
    """
    images, found, truths = (table.tables[name] for name in (IMAGE, DETECTION, TRUTH))
    count = len(table.ids)
    image = np.repeat(np.arange(count), images["detections"])
    image_of_truth = np.repeat(np.arange(count), images["truths"])
    objects = np.bincount(image_of_truth[truths[f"{kind}_outside"] & 1 == 0], minlength=count)
    matches, bit = table.tables[kind], np.uint64(1)
    hit, counts = np.zeros(len(image), bool), np.ones(len(image), bool)
    hit[matches["row"][(matches["counted"] & bit).astype(bool)]] = True
    counts[matches["row"][(matches["ignored"] & bit).astype(bool)]] = False
    order = np.lexsort((-found["score"], image))
    image, hit, counts, score = image[order], hit[order], counts[order], found["score"][order]
    first = np.searchsorted(image, np.arange(count))
    right, kept = (_running(flags, image, first) for flags in (hit, counts))
    best = np.zeros(count)
    np.maximum.at(best, image, 2 * right / np.maximum(kept + objects[image], 1))
    highest = np.zeros(count)
    np.maximum.at(highest, image[counts], score[counts])
    errors: list[float] = np.where(objects > 0, 1 - best, np.clip(highest, 0, 1)).tolist()
    return errors


def _running(flags: Bools, image: Indices, first: Indices) -> Indices:
    """How many ``flags`` are set so far, within each image."""
    before = np.concatenate([[0], np.cumsum(flags)])
    counts: Indices = before[1:] - before[first[image]]
    return counts
