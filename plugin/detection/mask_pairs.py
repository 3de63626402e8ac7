"""The masks of a batch: read, compared and freed image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .batch import Batch
from .inputs import image_name, image_size
from .masks import (
    Masks,
    Packed,
    Patches,
    Pixels,
    Runs,
    areas,
    as_runs,
    pack,
    packed_overlaps,
    read_masks,
    run_overlaps,
)
from .matching import Bools, Floats, Indices, Pairs
from .rle import Size


def measure_masks(
    pairs: Pairs, batch: Batch, rows: Indices, patches: Patches
) -> tuple[Pairs, Floats, Floats, Floats]:
    """The pairs whose masks may match, their IoU, and the areas of detections and ground truth.

    Args:
        pairs: places among ``rows`` and among the ground truth, image by image.
        batch: whose dicts hold ``masks``.
        rows: the detections that count, image by image.
        patches: keeps ground-truth masks for the next evaluation.

    Raises:
        ValueError: naming image, field and value.
    """
    places = np.arange(len(batch.ids) + 1)
    image = batch.detections.image
    first = np.searchsorted(image, places).tolist()
    kept = np.searchsorted(image[rows], places).tolist()
    objects = np.searchsorted(batch.truths.image, places).tolist()
    bounds = np.searchsorted(pairs.truth, objects).tolist()
    area, truth_area = np.zeros(len(rows)), np.zeros(objects[-1])
    kept_pairs, ious = [], []
    for place, image_id in enumerate(batch.ids):
        here, there = slice(*kept[place : place + 2]), slice(*objects[place : place + 2])
        counts = first[place + 1] - first[place], there.stop - there.start
        span = slice(*bounds[place : place + 2])
        local = Pairs(pairs.detection[span] - here.start, pairs.truth[span] - there.start)
        try:
            found = _read("prediction", batch.predictions[place], counts[0], None)
            size = found.size or image_size(batch.targets[place], "orig_size", "size")
            given = _read("target", batch.targets[place], counts[1], size)
            chosen = rows[here] - first[place]
            local, iou, area[here], truth_area[there] = _measure(
                local, (found, given), chosen, batch.truths.crowd[there], patches
            )
        except ValueError as error:
            raise ValueError(f"{image_name(image_id, place)}, {error}") from None
        kept_pairs.append(Pairs(local.detection + here.start, local.truth + there.start))
        ious.append(iou)
    return _chained(kept_pairs), np.concatenate([np.zeros(0), *ious]), area, truth_area


def _read(word: str, one: Mapping[str, Any], count: int, size: Size | None) -> Masks:
    value = one.get("masks")
    try:
        if value is None and count:
            raise ValueError("is missing, and masks=True needs it")
        if value is None or (hasattr(value, "shape") and 0 in value.shape and value.ndim < 3):
            value = []  # no masks, of no known size
        masks = read_masks(value, size)
        if len(masks) != count:
            raise ValueError(f"has {len(masks)} entries for {count} labels")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{word} masks: {error}") from None
    return masks


def _measure(
    pairs: Pairs, masks: tuple[Masks, Masks], rows: Indices, crowd: Bools, patches: Patches
) -> tuple[Pairs, Floats, Indices, Indices]:
    """One image's pairs, IoU and areas; ``rows`` are the detections that count."""
    found, given = masks
    if isinstance(found, Pixels):
        packed = pack(found)
        packed = Packed(packed.words[rows], packed.area[rows])
        ready = patches.of(given)
        truth_area = np.array(
            [np.bitwise_count(patch.words).sum(dtype=np.int64) for patch in ready], np.int64
        )
        return *packed_overlaps(pairs, packed, ready, truth_area, crowd), packed.area, truth_area
    if not len(pairs.truth):
        return pairs, np.zeros(0), found.area[rows], areas(given)
    runs = as_runs(given)
    chosen = Runs([found.rles[row] for row in rows.tolist()], found.size, found.area[rows])
    return *run_overlaps(pairs, chosen, runs, crowd), chosen.area, runs.area


def _chained(parts: Sequence[Pairs]) -> Pairs:
    none = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    detections, truths = zip(none, *parts, strict=True)
    return Pairs(np.concatenate(detections), np.concatenate(truths))
