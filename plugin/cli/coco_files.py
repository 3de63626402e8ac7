"""COCO's files: ground truth and results, checked entry by entry, as batches for the metrics.

Boxes stay as the files have them (x, y, width, height in float64), so that the figures are those
of pycocotools on the same files to the last bit. Polygons become RLE once, when they are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from boxscore.detection.masks import BrokenRLE, Size, run_areas, to_rle

Id = int | str
Entry = Mapping[str, Any]
Columns = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Ground truth, and results on it.

    Attributes:
        classes: names by category id, as `DetectionMetrics` takes them.
        sizes: (height, width) by image id, ``None`` where the file does not tell.
        targets: by image id, in `DetectionMetrics`' convention.
        predictions: likewise.
    """

    classes: dict[int, str]
    sizes: dict[Id, Size | None]
    targets: dict[Id, Columns]
    predictions: dict[Id, Columns] = field(default_factory=dict)

    def batches(self, size: int = 16) -> Iterator[tuple[list[Columns], list[Columns]]]:
        """Predictions and targets of ``size`` images at a time."""
        images = list(self.sizes)
        for start in range(0, len(images), size):
            ids = images[start : start + size]
            yield [self.predictions[one] for one in ids], [self.targets[one] for one in ids]


def read(
    annotations: Path, predictions: Path | None = None, *, boxes: bool = True, masks: bool = False
) -> Dataset:
    """Read COCO's ``instances`` file, and a results file on the same images.

    Args:
        annotations: an object with ``images``, ``annotations`` and ``categories``.
        predictions: an array of results, each with ``image_id``, ``category_id``, ``score`` and
            ``bbox`` or ``segmentation``. (As pycocotools does, the box of a result that has none
            is the mask's.) Without a file no image has predictions.
        boxes: whether to read boxes.
        masks: whether to read masks.

    Raises:
        ValueError: in one line that names file and entry, if a file is not JSON or not of COCO's
            form, an image or category id is unknown, a number is none or not finite, or a mask is
            broken.
        OSError: if a file cannot be read.
    """
    truth = _File(annotations)
    if not isinstance(truth.content, dict):
        raise truth.error("", "is not COCO: it holds no object with images and annotations")
    classes: dict[int, str] = {}
    for at, entry in truth.entries("categories"):
        label = truth.required(entry, "id", at)
        if isinstance(label, bool) or not isinstance(label, int) or label < 0 or label in classes:
            raise truth.error(at, f"id {label!r} is no integer of 0 or more, or not the first such")
        classes[label] = str(truth.required(entry, "name", at))
    sizes: dict[Id, Size | None] = {}
    for at, entry in truth.entries("images"):
        image_id = truth.required(entry, "id", at)
        if isinstance(image_id, bool) or not isinstance(image_id, int | str) or image_id in sizes:
            raise truth.error(at, f"id {image_id!r} is no integer or text, or not the first such")
        height, width = entry.get("height"), entry.get("width")
        sizes[image_id] = None
        if isinstance(height, int) and isinstance(width, int):
            sizes[image_id] = height, width
    targets = truth.objects("annotations", classes, sizes, boxes=boxes, masks=masks)
    for image_id, target in targets.items():
        target["image_id"] = image_id
    dataset = Dataset(classes, sizes, targets)
    if predictions is None:
        found = {image_id: _columns([], "scores", boxes, masks) for image_id in sizes}
    else:
        results = _File(predictions)
        if not isinstance(results.content, list):
            raise results.error("", "is not COCO: it holds no array of results")
        found = results.objects("", classes, sizes, boxes=boxes, masks=masks)
    dataset.predictions.update(found)
    return dataset


class _File:
    """One file, and how to speak of its entries."""

    def __init__(self, path: Path) -> None:
        self._name = Path(path).name
        try:
            self.content = json.loads(Path(path).read_bytes())
        except (ValueError, RecursionError) as error:
            raise self.error("", f"is not JSON: {error}") from None

    def error(self, at: str, problem: str) -> ValueError:
        """What is wrong with the entry ``at``, or with the file."""
        return ValueError(f"{self._name}: {at}: {problem}" if at else f"{self._name} {problem}")

    def entries(self, key: str) -> Iterator[tuple[str, Entry]]:
        """The entries of an array, with how to call each; the file itself for ``""``."""
        array = self.content.get(key) if key else self.content
        if not isinstance(array, list):
            raise self.error("", f"is not COCO: it has no array {key!r}")
        for place, entry in enumerate(array):
            at = f"{key}[{place}]"
            if not isinstance(entry, dict):
                raise self.error(at, "is no object")
            yield at, entry

    def required(self, entry: Entry, name: str, at: str) -> Any:
        """A field that must be there."""
        if entry.get(name) is None:
            raise self.error(at, f"has no {name!r}")
        return entry[name]

    def objects(
        self,
        key: str,
        classes: Mapping[int, str],
        sizes: Mapping[Id, Size | None],
        *,
        boxes: bool,
        masks: bool,
    ) -> dict[Id, Columns]:
        """Annotations, or without a ``key`` results, as columns by image."""
        rows: dict[Id, list[Columns]] = {image_id: [] for image_id in sizes}
        rles = []
        for at, entry in self.entries(key):
            image_id = self._known(entry, "image_id", sizes, at)
            row: Columns = {"labels": self._known(entry, "category_id", classes, at)}
            if key:
                row["iscrowd"] = self._number(entry.get("iscrowd", 0), "iscrowd", at) != 0
                if entry.get("area") is not None:
                    row["area"] = self._number(entry["area"], "area", at, least=0)
            else:
                row["scores"] = self._number(self.required(entry, "score", at), "score", at)
            boxless = boxes and not key and not entry.get("bbox")
            if masks or boxless:
                row["masks"] = self._mask(entry, sizes[image_id], at)
                rles.append((at, row["masks"]))
            if boxes and not boxless:
                row["boxes_xywh"] = self._box(entry, at)
            rows[image_id].append(row)
        self._check([at for at, _ in rles], [rle for _, rle in rles])
        kind = "iscrowd" if key else "scores"
        return {image_id: _columns(some, kind, boxes, masks) for image_id, some in rows.items()}

    def _known(self, entry: Entry, name: str, known: Mapping[Any, Any], at: str) -> Any:
        value = self.required(entry, name, at)
        if isinstance(value, bool | dict | list) or value not in known:
            raise self.error(at, f"{name} {value!r} is unknown")
        return value

    def _number(self, value: Any, name: str, at: str, least: float = -math.inf) -> float:
        if isinstance(value, bool) and name == "iscrowd":
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(at, f"{name} {value!r} is no number")
        if not math.isfinite(value) or value < least:
            below = "" if least == -math.inf else f", or below {least}"
            raise self.error(at, f"{name} {value!r} is not finite{below}")
        return value

    def _box(self, entry: Entry, at: str) -> list[float]:
        box = self.required(entry, "bbox", at)
        if not isinstance(box, list) or len(box) != 4:
            raise self.error(at, f"bbox {box!r} is not [x, y, width, height]")
        corner = [self._number(value, "bbox", at) for value in box[:2]]
        return corner + [self._number(value, "bbox", at, least=0) for value in box[2:]]

    def _mask(self, entry: Entry, size: Size | None, at: str) -> Columns:
        segmentation = self.required(entry, "segmentation", at)
        try:
            return to_rle(segmentation, size)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.error(at, f"segmentation: {error}") from None

    def _check(self, names: Sequence[str], rles: Sequence[Columns]) -> None:
        block = 4096  # what lies between is several times as large as the masks
        for start in range(0, len(rles), block):
            try:
                run_areas(rles[start : start + block])
            except BrokenRLE as error:
                at = names[start + error.entry]
                raise self.error(at, f"segmentation: {error.problem}") from None


def _columns(rows: Sequence[Columns], kind: str, boxes: bool, masks: bool) -> Columns:
    """One image's rows as columns."""
    if boxes and rows:
        for row in rows:
            if "boxes_xywh" not in row:
                row["boxes_xywh"] = coco.toBbox(row["masks"]).tolist()
    names = ["labels", kind, *(["boxes_xywh"] * boxes), *(["masks"] * masks)]
    if kind == "iscrowd" and all("area" in row for row in rows):
        names.append("area")
    return {name: [row[name] for row in rows] for name in names}
