"""COCO's files, ground truth and results: read, checked entry by entry, and given as batches.

Boxes stay as they are in the files (x, y, width, height in float64), so that the metrics equal
pycocotools' on the same files to the last bit. Polygons become RLE once, when they are read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pycocotools import mask as coco

from boxscore.detection import BrokenRLE, Size, run_areas, to_rle
from boxscore.fingerprint import identifier
from boxscore.metric import NO_CLASS

Id = int | str
Entry = Mapping[str, Any]
Columns = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Ground truth, and results on it.

    Attributes:
        classes: names by category id, as `DetectionMetrics` takes them.
        sizes: (height, width) by image id, ``None`` where the file has no valid one.
        targets: by image id, in `DetectionMetrics`' convention; without ``area`` where no object of
            the image has one, and with ``None`` in it where one object has none.
        predictions: likewise.
        remarks: warnings about the files.
    """

    classes: dict[int, str]
    sizes: dict[Id, Size | None]
    targets: dict[Id, Columns]
    predictions: dict[Id, Columns]
    remarks: list[str] = field(default_factory=list)

    def batches(self, size: int = 16) -> Iterator[tuple[list[Columns], list[Columns]]]:
        """Predictions and targets of ``size`` images at a time."""
        images = list(self.sizes)
        for start in range(0, len(images), size):
            ids = images[start : start + size]
            yield [self.predictions[one] for one in ids], [self.targets[one] for one in ids]


def read(
    annotations: Path,
    predictions: Path | None = None,
    *,
    boxes: bool = True,
    masks: bool = False,
    ignore_unknown: bool = False,
    pycocotools_areas: bool = False,
) -> Dataset:
    """Read COCO's ``instances`` file, and a results file on the same images.

    Args:
        annotations: an object with ``images``, ``annotations`` and ``categories``.
        predictions: an array of results, each with ``image_id``, ``category_id``, ``score`` and
            ``bbox`` or ``segmentation``. The box of a result that has none is its mask's, and where
            other results have masks, the mask of one that has none is its box, as in pycocotools.
            Without a file no image has predictions.
        boxes: whether to read boxes.
        masks: whether to read masks.
        ignore_unknown: whether results may have unknown categories.
        pycocotools_areas: whether results get pycocotools' ``area``: that of their boxes if the
            first result has one, or else of their masks.

    Raises:
        ValueError: in one line that names file, entry, field and value, if a file is not JSON or
            not of COCO's form, an image or category id is unknown, a number is none or not finite,
            or a mask is broken or has an image without a valid size.
        OSError: if a file cannot be read.
    """
    reader = _Reader(_File(annotations), boxes, masks)
    targets = reader.annotations()
    used = {label for target in targets.values() for label in target["labels"]}
    classes = _distinct(reader.names, used)
    results = None if predictions is None else _File(predictions)
    found = reader.results(results, ignore_unknown, pycocotools_areas)
    return Dataset(classes, reader.sizes, targets, found, reader.remarks)


def _distinct(names: Mapping[int, str], used: Collection[int]) -> dict[int, str]:
    """The names by category id; the id is added to a shared name and to one that means no class.

    A name that one used category shares with unused ones, as exporters list them, keeps no id.
    """
    shared = Counter(names[label] for label in used)
    result: dict[int, str] = {}
    for label in sorted(names, key=lambda label: (label not in used, label)):
        name = names[label]
        is_free = shared[name] == 1 if label in used else name not in result.values()
        result[label] = name if is_free and name not in NO_CLASS else f"{name} ({label})"
    return result


class _File:
    """One file; its errors name file and entry."""

    def __init__(self, path: Path) -> None:
        self.name = Path(path).name
        try:
            self.content = json.loads(Path(path).read_bytes())
        except (ValueError, RecursionError) as error:
            raise self.error("", f"is not JSON: {error}") from None

    def error(self, at: str, problem: str) -> ValueError:
        """The error for the entry ``at``, or for the file."""
        return ValueError(f"{self.name}: {at}: {problem}" if at else f"{self.name} {problem}")

    def entries(self, key: str = "") -> Iterator[tuple[str, Entry]]:
        """The entries of an array with their names; without a ``key`` the file is the array."""
        array = self.content.get(key) if key else self.content
        if not isinstance(array, list):
            raise self.error("", f"is not COCO: it has no array {key!r}")
        for place, entry in enumerate(array):
            if not isinstance(entry, dict):
                raise self.error(f"{key}[{place}]", f"{_short(entry)} is not an object")
            yield f"{key}[{place}]", entry

    def required(self, entry: Entry, name: str, at: str) -> Any:
        """A field's value, which must be there."""
        if entry.get(name) is None:
            raise self.error(at, f"has no {name!r}")
        return entry[name]

    def number(self, value: Any, name: str, at: str, least: float = -math.inf) -> float:
        """A finite number."""
        if isinstance(value, int | float) and not (isinstance(value, bool) and name != "iscrowd"):
            try:
                if math.isfinite(value) and value >= least:
                    return float(value)
            except OverflowError:  # an integer beyond all floats
                pass
        limit = "" if least == -math.inf else f" of {least} or more"
        raise self.error(at, f"{name} {_short(value)} is not a finite number{limit}")

    def box(self, entry: Entry, at: str) -> list[float]:
        """The box, x, y, width, height."""
        box = self.required(entry, "bbox", at)
        if not isinstance(box, list) or len(box) != 4:
            raise self.error(at, f"bbox {_short(box)} is not [x, y, width, height]")
        corner = [self.number(value, "bbox", at) for value in box[:2]]
        return corner + [self.number(value, "bbox", at, least=0) for value in box[2:]]


class _Reader:
    """Reads annotations and results of the images and categories of one file."""

    def __init__(self, file: _File, boxes: bool, masks: bool) -> None:
        self._truth, self._boxes, self._masks = file, boxes, masks
        if not isinstance(file.content, dict):
            raise file.error("", "is not COCO: it is not an object with images and annotations")
        self.remarks: list[str] = []
        self.names: dict[int, str] = {}
        for at, entry in file.entries("categories"):
            label = _integer(file.required(entry, "id", at))
            if label is None or not 0 <= label < 2**63 or label in self.names:
                problem = f"id {_short(entry['id'])} is not a new integer from 0 to 2**63 - 1"
                raise file.error(at, problem)
            self.names[label] = str(file.required(entry, "name", at))
        self.sizes: dict[Id, Size | None] = {}
        self._ids: dict[str, Id] = {}
        self._places: dict[Id, tuple[str, Entry]] = {}
        for at, entry in file.entries("images"):
            value = file.required(entry, "id", at)
            image_id = value if isinstance(value, str) else _integer(value)
            if image_id is None or identifier(image_id) in self._ids:
                raise file.error(at, f"id {_short(value)} is not a new integer or text")
            self._ids[identifier(image_id)] = image_id
            self._places[image_id] = at, entry
            sides = [_integer(entry.get(side)) or 0 for side in ("height", "width")]
            is_size = min(sides) > 0 and sides[0] * sides[1] < 2**32
            self.sizes[image_id] = (sides[0], sides[1]) if is_size else None

    def annotations(self) -> dict[Id, Columns]:
        """The targets by image id."""
        file = self._truth
        rows: dict[Id, list[tuple[str, Columns]]] = {image_id: [] for image_id in self.sizes}
        for at, entry in file.entries("annotations"):
            image_id, row = self._row(file, entry, at)
            crowd, area = entry.get("iscrowd"), entry.get("area")
            row["iscrowd"] = crowd is not None and file.number(crowd, "iscrowd", at) != 0
            row["area"] = None if area is None else file.number(area, "area", at, least=0)
            if self._boxes:
                row["boxes_xywh"] = file.box(entry, at)
            if self._masks:
                row["masks"] = self._mask(file, entry, at, image_id)
            rows[image_id].append((at, row))
        self._complete(file, rows)
        return {
            image_id: self._columns(some, "iscrowd") | {"image_id": image_id}
            for image_id, some in rows.items()
        }

    def results(
        self, file: _File | None, ignore_unknown: bool, pycocotools_areas: bool
    ) -> dict[Id, Columns]:
        """The predictions by image id."""
        rows: dict[Id, list[tuple[str, Columns]]] = {image_id: [] for image_id in self.sizes}
        if file is None:
            return {image_id: self._columns([], "scores") for image_id in rows}
        if not isinstance(file.content, list):
            raise file.error("", "is not COCO: it is not an array of results")
        entries = list(file.entries())
        by_mask = pycocotools_areas and bool(entries) and not entries[0][1].get("bbox")
        masked = sum(bool(entry.get("segmentation")) for _, entry in entries)
        both = any(entry.get("segmentation") and entry.get("bbox") for _, entry in entries)
        for at, entry in entries:
            image_id, row = self._row(file, entry, at, ignore_unknown)
            row["scores"] = file.number(file.required(entry, "score", at), "score", at)
            if entry.get("bbox"):
                row["boxes_xywh"] = file.box(entry, at)
            if self._masks or by_mask or "boxes_xywh" not in row:
                outline = None
                if masked and not entry.get("segmentation") and "boxes_xywh" in row:
                    x, y, width, height = row["boxes_xywh"]
                    right, low = x + width, y + height
                    outline = {"segmentation": [[x, y, x, low, right, low, right, y]]}
                row["masks"] = self._mask(file, outline or entry, at, image_id)
            rows[image_id].append((at, row))
        self._complete(file, rows)
        for _, row in (one for some in rows.values() for one in some if pycocotools_areas):
            width, height = row["boxes_xywh"][2:]
            row["area"] = row["mask_area"] if by_mask else width * height
        if self._masks and masked < len(entries):
            remark = f"{len(entries) - masked} results have no 'segmentation': their masks are"
            self.remarks.append(f"{file.name}: {remark} their boxes, as in pycocotools")
        if self._masks and both and not pycocotools_areas:
            self.remarks.append(
                f"{file.name}: results have 'bbox' and 'segmentation'; the mask metrics by size use"
                " the masks' areas, as COCO's server does. --pycocotools-areas uses the boxes'"
            )
        return {image_id: self._columns(some, "scores") for image_id, some in rows.items()}

    def _row(
        self, file: _File, entry: Entry, at: str, ignore_unknown: bool = False
    ) -> tuple[Id, Columns]:
        """An entry's image, and the columns with its label."""
        value = file.required(entry, "image_id", at)
        is_id = isinstance(value, str) or _integer(value) is not None
        if not is_id or identifier(value) not in self._ids:
            problem = f"image_id {_short(value)} is unknown: no image of {self._truth.name} has it"
            raise file.error(at, problem)
        label = _integer(file.required(entry, "category_id", at))
        if label is None or (label not in self.names and not ignore_unknown):
            hint = "; --ignore-unknown drops such results" * (file is not self._truth)
            problem = f"category_id {_short(entry['category_id'])} is unknown: no category of"
            raise file.error(at, f"{problem} {self._truth.name} has it{hint}")
        return self._ids[identifier(value)], {"labels": label if label in self.names else -1}

    def _mask(self, file: _File, entry: Entry, at: str, image_id: Id) -> Columns:
        value = file.required(entry, "segmentation", at)
        if not isinstance(value, dict) and self.sizes[image_id] is None:
            place, image = self._places[image_id]
            size = ", ".join(f"{side} {_short(image.get(side))}" for side in ("width", "height"))
            problem = f"{size} is not an image size in pixels, which polygons need"
            raise self._truth.error(place, problem)
        try:
            return to_rle(value, self.sizes[image_id])
        except (TypeError, ValueError, OverflowError) as error:
            raise file.error(at, f"segmentation: {error}") from None

    def _complete(self, file: _File, rows: Mapping[Id, list[tuple[str, Columns]]]) -> None:
        """Check the masks, a block at a time to save memory, and add their areas and boxes."""
        masked = [one for some in rows.values() for one in some if "masks" in one[1]]
        for start in range(0, len(masked), 4096):
            block = masked[start : start + 4096]
            try:
                areas = run_areas([row["masks"] for _, row in block])
            except BrokenRLE as error:
                problem = f"segmentation: {error.problem}"
                raise file.error(block[error.entry][0], problem) from None
            for (_, row), area in zip(block, areas.tolist(), strict=True):
                row["mask_area"] = area
                if "boxes_xywh" not in row:
                    row["boxes_xywh"] = coco.toBbox(row["masks"]).tolist()

    def _columns(self, rows: list[tuple[str, Columns]], kind: str) -> Columns:
        """One image's rows as columns."""
        names = ["labels", kind, *["boxes_xywh"] * self._boxes, *["masks"] * self._masks]
        names += ["area"] * any(row.get("area") is not None for _, row in rows)
        return {name: [row[name] for _, row in rows] for name in names}


def _integer(value: Any) -> int | None:
    """An integer, also one that was written as a float."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}… ({len(text)} characters)"
