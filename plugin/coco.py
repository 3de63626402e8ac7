"""COCO's files: ground truth and results, checked entry by entry, as batches for the metrics.

Boxes stay as the files have them (x, y, width, height in float64), so that the figures are those
of pycocotools on the same files to the last bit. Polygons become RLE once, when they are read.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .masks import BrokenRLE, Size, run_areas, to_rle

Entry = Mapping[str, Any]
Dicts = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Ground truth, and results on it, by image.

    Attributes:
        classes: names by category id, as ``DetectionMetrics`` takes them.
        images: ids, ascending where they are numbers, as in the file otherwise.
        targets: by image id, in `DetectionMetrics`' convention.
        predictions: likewise.
    """

    classes: Mapping[int, str]
    images: Sequence[int | str]
    targets: Mapping[int | str, dict[str, Any]]
    predictions: Mapping[int | str, dict[str, Any]]

    def batches(self, size: int = 16) -> Iterator[tuple[Dicts, Dicts]]:
        """Predictions and targets of ``size`` images at a time."""
        for start in range(0, len(self.images), size):
            ids = self.images[start : start + size]
            yield [self.predictions[one] for one in ids], [self.targets[one] for one in ids]


def read(annotations: Path, predictions: Path | None = None, *, masks: bool = False) -> Dataset:
    """Read COCO's ``instances`` file, and a results file on the same images.

    Args:
        annotations: an object with ``images``, ``annotations`` and ``categories``.
        predictions: an array of results, each with ``image_id``, ``category_id``, ``score`` and
            ``bbox`` or ``segmentation``; without it there are no predictions.
        masks: whether to read ``segmentation`` too; without it boxes are wanted.

    Raises:
        ValueError: in one line that names file and entry, where a file is no JSON or not of COCO's
            form, an image or category id is unknown, a number is none, or an RLE is broken.
        OSError: if a file cannot be read.
    """
    truth = _File(annotations)
    content = truth.content
    if not isinstance(content, dict):
        raise truth.error("", "is no COCO file: it holds no object with images and annotations")
    classes = {
        truth.integer(entry, "id", at): str(truth.field(entry, "name", at))
        for at, entry in truth.entries("categories")
    }
    sizes: dict[int | str, Size | None] = {}
    for at, entry in truth.entries("images"):
        image_id = truth.field(entry, "id", at)
        if isinstance(image_id, bool) or not isinstance(image_id, int | str):
            raise truth.error(at, f"id {image_id!r} is neither an integer nor a string")
        if image_id in sizes:
            raise truth.error(at, f"id {image_id!r} names another image already")
        sizes[image_id] = _size(entry)
    targets = truth.objects("annotations", sizes, classes, masks=masks, scored=False)
    results = _File(predictions) if predictions else None
    if results and not isinstance(results.content, list):
        raise results.error("", "is no COCO results file: it holds no array of results")
    found = (
        results.objects("", sizes, classes, masks=masks, scored=True)
        if results
        else _columns((), sizes, masks=masks, scored=True)
    )
    for image_id, target in targets.items():
        target["image_id"] = image_id
    images = list(sizes)
    if all(isinstance(image_id, int) for image_id in images):
        images.sort(key=int)
    return Dataset(classes, images, targets, found)


def _size(image: Entry) -> Size | None:
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _columns(
    rows: Sequence[tuple[int | str, dict[str, Any]]],
    images: Mapping[int | str, Any],
    *,
    masks: bool,
    scored: bool,
) -> dict[int | str, dict[str, Any]]:
    """Rows gathered by image, each field a list."""
    fields = ["labels", "scores"] if scored else ["labels", "iscrowd", "area"]
    fields += ["masks"] if masks else ["boxes_xywh"]
    gathered: dict[int | str, dict[str, Any]] = {
        image_id: {field: [] for field in fields} for image_id in images
    }
    both: dict[int | str, bool] = defaultdict(lambda: True)
    for image_id, row in rows:
        for field, value in row.items():
            gathered[image_id].setdefault(field, []).append(value)
        both[image_id] &= "boxes_xywh" in row
    return gathered


class _File:
    """One file, and how to speak of its entries."""

    def __init__(self, path: Path) -> None:
        self._name = Path(path).name
        try:
            self.content = json.loads(Path(path).read_bytes())
        except (ValueError, RecursionError) as error:
            raise self.error("", f"is no JSON: {error}") from None

    def error(self, at: str, problem: str) -> ValueError:
        """What is wrong with the entry ``at``."""
        return ValueError(f"{self._name}: {at} {problem}" if at else f"{self._name} {problem}")
