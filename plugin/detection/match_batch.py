"""One batch, from its columns to the match table of its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from .batch import Batch, Objects
from .confusion import confuse
from .mask_pairs import measure_masks
from .masks import Patches
from .match_table import DETECTION, IMAGE, TRUTH, MatchTable, Table
from .matching import (
    ALL_AREAS,
    Floats,
    Indices,
    Pairs,
    Words,
    box_overlaps,
    match,
    outside,
    pair,
    sort_rows,
)
from .truth_digests import digest_truths

Kind = Literal["box", "mask"]


def match_batch(
    batch: Batch,
    kinds: Sequence[Kind],
    names: Words,
    *,
    limit: int,
    confusion: bool,
    patches: Patches,
) -> MatchTable:
    """Match the detections of a batch with its objects.

    Args:
        batch: with boxes where ``kinds`` holds ``"box"``.
        kinds: of regions to match by.
        names: digests of the classes (`truth_digests.name_digests`).
        limit: the number of detections per image and class that count.
        confusion: whether to match across classes too, by the first kind.
        patches: keeps ground-truth masks for the next evaluation.

    Raises:
        ValueError: for a mask, naming image, field and value.
    """
    truths, found, images = batch.truths, batch.detections, len(batch.ids)
    classes = len(names) // 2
    rows = _best(found, classes, limit)
    image, label, score = found.image[rows], found.label[rows], found.score[rows]
    narrow = np.min_scalar_type(classes)
    detection: Table = {"score": score, "label": label.astype(narrow)}
    truth: Table = {"label": truths.label.astype(narrow)}
    tables: dict[str, Table] = {DETECTION: detection, TRUTH: truth}
    for kind in kinds:
        if across := confusion and kind == kinds[0]:
            pairs = pair(image, truths.image)
        else:
            pairs = pair(image * classes + label, truths.image * classes + truths.label)
        if kind == "box":
            box, given = found.box[:, rows], truths.box
            pairs, iou = box_overlaps(pairs, box, given, truths.crowd)
            area, truth_area = box[2] * box[3], given[2] * given[3]
        else:
            pairs, iou, area, truth_area = measure_masks(pairs, batch, rows, patches)
        if kind == kinds[0]:
            own_area = truth_area
        if across:
            tables["confusion"] = confuse(pairs, iou, score, truths, classes)
            same = np.flatnonzero(label[pairs.detection] == truths.label[pairs.truth])
            pairs, iou = Pairs(pairs.detection[same], pairs.truth[same]), iou[same]
        truth_outside = outside(_given(truths.area, truth_area))
        truth_outside[truths.crowd] = ALL_AREAS
        matches = match(pairs, iou, truth_outside, truths.crowd)
        detection[f"{kind}_outside"] = outside(_given(found.area, area, rows))
        truth[f"{kind}_outside"] = truth_outside
        tables[kind] = matches._asdict() | {"row": matches.row.astype(np.uint32)}
    counts = np.bincount(truths.image, minlength=images)
    ignored = np.bincount(found.image[found.label < 0], minlength=images)
    tables[IMAGE] = {
        "detections": np.bincount(image, minlength=images).astype(np.uint32),
        "truths": counts.astype(np.uint32),
        "ignored": ignored.astype(np.uint32),
    } | digest_truths(truths, counts, names, own_area)
    return MatchTable(batch.ids, tables)


def _best(found: Objects, classes: int, limit: int) -> Indices:
    """The rows by image, class and falling score, up to the limit of each, less the ignored."""
    group, score = found.image * classes + found.label, found.score
    if found.label.min(initial=0) < 0:
        known = np.flatnonzero(found.label >= 0)
        rows = known[sort_rows(group[known], score[known])]
    else:
        rows = sort_rows(group, score)
    group = group[rows]
    over = group[limit:] == group[:-limit]
    return np.concatenate([rows[:limit], rows[limit:][~over]]) if over.any() else rows


def _given(given: Floats | None, area: Floats, rows: Indices | slice = slice(None)) -> Floats:
    """The areas that were given, and the regions' where none was."""
    return area if given is None else np.where(np.isnan(given[rows]), area, given[rows])
