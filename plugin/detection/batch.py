"""A batch of predictions and targets, read into columns and checked as a whole.

Predictions and targets are dicts in torchvision's convention, one per image. Their small tensors
are concatenated before they are read: a check is one comparison per batch, a field one copy from
the GPU. A check that fails then searches the image that its error names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boxscore.warn import Warnings

from .inputs import (
    UNREADABLE,
    Array,
    Dicts,
    ImageId,
    as_array,
    image_name,
    image_size,
    is_empty,
    no_dict,
)
from .matching import Bools, Floats, Indices

_LACKING = -1e300  # the area of an object without one
_PLAIN = {"Tensor", "ndarray", "list", "tuple"}  # types without a box format of their own
_SUSPICIOUS = 10  # different predictions in [0, 1] that are an error; fewer are a warning


@dataclass(frozen=True, slots=True)
class Objects:
    """The predictions or the targets of a batch, one row per object, in the order of the images.

    Attributes:
        image: the image's index in the batch.
        label: the class's index among the classes by ascending label; -1 where it is ignored.
        box: x, y, width, height in pixels, shape (4, rows); (4, 0) where boxes are not measured.
        score: of predictions; float32, or float64 where float32 would lose digits.
        crowd: of targets, whether the object is a crowd region.
        area: in square pixels; ``None`` where no image gives areas, NaN where an object has none.
    """

    image: Indices
    label: Indices
    box: Floats
    score: Array
    crowd: Bools
    area: Floats | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Some images: their dicts, and the columns read from them."""

    ids: list[ImageId]
    predictions: Dicts
    targets: Dicts
    detections: Objects
    truths: Objects


@dataclass(slots=True)
class Reader:
    """Reads batches into columns.

    Attributes:
        labels: of the classes, ascending.
        boxes: whether to read boxes.
        ignore_unknown: whether predictions of other labels are ignored, or else an error.
        detection_areas: whether to read ``area`` of the predictions.
        in_pixels: which of ``prediction`` and ``target`` had a box outside [0, 1].
    """

    labels: Indices
    boxes: bool
    ignore_unknown: bool
    detection_areas: bool
    in_pixels: set[str] = field(default_factory=set)

    def read(
        self,
        predictions: Dicts,
        targets: Dicts,
        ids: list[ImageId],
        warnings: Warnings,
        *,
        is_strict: bool = True,
    ) -> Batch:
        """Read all but the masks.

        Args:
            predictions: one dict per image.
            targets: one dict per image.
            ids: of the images.
            warnings: for suspicious input.
            is_strict: whether normalised boxes are an error, or a warning.

        Raises:
            ValueError: naming image, field and value.
        """
        sides = _Side("prediction", predictions, ids), _Side("target", targets, ids)
        detections, truths = (self._objects(side, warnings, is_strict) for side in sides)
        for side in sides if self.boxes else ():
            side.check_canvas(targets)
        return Batch(ids, predictions, targets, detections, truths)

    def _objects(self, side: _Side, warnings: Warnings, is_strict: bool) -> Objects:
        predicted = side.word == "prediction"
        label = side.classes(self.labels, ignore_unknown=predicted and self.ignore_unknown)
        box = side.boxes() if self.boxes else np.zeros((4, 0))
        if side.word not in self.in_pixels and box.size:
            self._check_scale(side, box, warnings, is_strict)
        crowd = None if predicted else side.optional("iscrowd", 0)
        if crowd is not None and crowd.dtype.kind == "f":
            side.check("iscrowd", np.isnan(crowd), crowd, "is neither 0 nor 1")
        return Objects(
            side.images(),
            label,
            box,
            side.scores() if predicted else np.zeros(0),
            np.zeros(len(label), bool) if crowd is None else crowd != 0,
            side.areas() if self.detection_areas or not predicted else None,
        )

    def _check_scale(self, side: _Side, box: Floats, warnings: Warnings, is_strict: bool) -> None:
        """Refuse normalised boxes: all so far lie in [0, 1], and some have an area there."""
        if box.min() < 0 or box.max() > 1 or (box[:2] + box[2:]).max() > 1:
            self.in_pixels.add(side.word)
            return
        inside = np.logical_and.reduce(box[2:] > 0) & np.logical_or.reduce(box % 1 != 0)
        problem = (
            "lies in [0, 1], as all boxes so far: they look normalised, but must be in pixels of "
            "the original image"
        )
        try:
            side.check("boxes", inside, box.T, problem)
        except ValueError as error:
            boxes = np.unique(box[:, inside], axis=1).shape[1]
            if is_strict and (side.word == "target" or boxes >= _SUSPICIOUS):
                raise
            warnings.warn_once("normalised boxes", str(error))


class _Side:
    """The predictions or the targets of a batch; its errors name image and field."""

    def __init__(self, word: str, dicts: Dicts, ids: Sequence[ImageId]) -> None:
        self.word, self._ids = word, ids
        self._ignored: Bools | None = None
        self._dicts, self._has_canvas = dicts, False
        for place, one in enumerate(dicts):
            if not hasattr(one, "get"):
                raise no_dict(one, word, ids[place], place)
        self._counts = self._lengths("labels", self._values("labels"))

    def images(self) -> Indices:
        """The index in the batch of each row's image."""
        return np.repeat(np.arange(len(self._counts)), self._counts)

    def classes(self, labels: Indices, *, ignore_unknown: bool) -> Indices:
        """Each row's index among the ascending ``labels``, -1 for an unknown label."""
        given = self._column("labels")
        if given.size and given.dtype.kind not in "iu":
            kinds = [as_array(value).dtype.kind in "iu" for value in self._values("labels")]
            self.check("labels", ~np.repeat(kinds, self._counts), given, "is not an integer")
        place = _places(labels, given)
        if ignore_unknown:
            self._ignored = place < 0
        hint = '; DetectionMetrics(…, unknown="ignore") drops such predictions'
        problem = "is not the label of a class" + hint * (self.word == "prediction")
        self.check("labels", place < 0, given, problem)
        return place

    def scores(self) -> Array:
        """Each row's score."""
        score = self._column("scores")
        self.check("scores", ~np.isfinite(score), score, "is not finite")
        if self._ignored is not None:
            score = np.where(self._ignored, 0, score)
        if score.dtype.kind == "f" and score.dtype.itemsize <= 4:
            return score.astype(np.float32, copy=False)
        score = score.astype(np.float64, copy=False)
        with np.errstate(over="ignore"):
            single = score.astype(np.float32)
        return single if (single == score).all() else score

    def optional(self, name: str, default: float) -> Array | None:
        """One number per row, or ``default``; ``None`` where all images lack the field.

        An image without the field, or with ``None``, lacks it; in a list ``None`` is one object.
        """
        values = [one.get(name) for one in self._dicts]
        if not any(value is not None for value in values):
            return None
        for place, value in enumerate(values):
            if value is None:
                values[place] = np.full(self._counts[place], default)
            elif isinstance(value, (list, tuple)):
                values[place] = [default if one is None else one for one in value]
        return self._column(name, values)

    def areas(self) -> Floats | None:
        """Each row's area, NaN where it is lacking."""
        area = self.optional("area", _LACKING)
        if area is None:
            return None
        area = area.astype(np.float64, copy=False)
        wrong = ~((area >= 0) & (area < np.inf))
        if wrong.any():
            lacking = area == _LACKING
            self.check("area", wrong & ~lacking, area, "is not a finite number of 0 or more")
            area[lacking] = np.nan
        return area

    def boxes(self) -> Floats:
        """Each row's box as x, y, width, height, shape (4, rows)."""
        names = ["boxes_xywh" if "boxes_xywh" in one else "boxes" for one in self._dicts]
        values = self._values(*names)
        forms = ["XYXY"]
        if "boxes_xywh" in names or not {one.__name__ for one in {*map(type, values)}} <= _PLAIN:
            forms = [
                self._format(place, *pair)
                for place, pair in enumerate(zip(names, values, strict=True))
            ]
        arrays = self._arrays(names, values, (4,))
        if len({*forms}) > 1:
            arrays = [as_array(value) for value in values]
        else:
            forms = forms[:1] * len(arrays)
        sized = [_sized(array, form) for array, form in zip(arrays, forms, strict=True)]
        boxes = np.concatenate(sized, axis=1) if len(sized) > 1 else sized[0]
        if self._ignored is not None:
            boxes[:, self._ignored] = 0
        if not (np.isfinite(boxes).all() and (boxes[2:] >= 0).all()):
            given = np.concatenate([as_array(value).reshape(-1, 4) for value in values])
            infinite = np.logical_or.reduce(~np.isfinite(boxes))
            self.check(names, infinite, given, "is not finite")
            problem = "has x2 < x1 or y2 < y1: a width or height below 0"
            self.check(names, np.logical_or.reduce(boxes[2:] < 0), given, problem)
        return boxes

    def _format(self, place: int, field_name: str, value: Any) -> str:
        """The format of a value: its field's, or the one that ``tv_tensors.BoundingBoxes`` name."""
        if field_name == "boxes_xywh":
            return "XYWH"
        self._has_canvas |= hasattr(value, "canvas_size")
        given = getattr(value, "format", "XYXY")
        name = "XYXY" if callable(given) else str(getattr(given, "name", given)).upper()
        if name not in ("XYXY", "XYWH", "CXCYWH"):
            raise self._error(place, "boxes", f"has format {name}, not XYXY, XYWH or CXCYWH")
        return name

    def check_canvas(self, targets: Dicts) -> None:
        """Raise if boxes name another image size than the target does."""
        for place, one in enumerate(self._dicts if self._has_canvas else ()):
            canvas = getattr(one.get("boxes"), "canvas_size", None)
            if canvas is None:
                continue
            size = image_size(targets[place], "orig_size")
            if size not in (None, tuple(canvas)):
                problem = f"has canvas_size {tuple(canvas)}, but the target's image is {size}"
                hint = "give boxes in pixels of the original image"
                raise self._error(place, "boxes", f"{problem}; {hint}")

    def check(self, name: str | list[str], wrong: Bools, values: Array, problem: str) -> None:
        """Raise for the first row that is wrong, if any."""
        if self._ignored is not None:
            wrong = wrong & ~self._ignored
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        place = int(np.searchsorted(np.cumsum(self._counts), row, "right"))
        within = row - sum(self._counts[:place])
        raise self._error(place, name, f"entry {within}, {values[row].tolist()!r}, {problem}")

    def _column(self, name: str, values: list[Any] | None = None) -> Array:
        """One number per row."""
        arrays = self._arrays(name, self._values(name) if values is None else values, ())
        column = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        return column if column.dtype.isnative else column.astype(column.dtype.newbyteorder("="))

    def _values(self, *names: str) -> list[Any]:
        """A field's value in each image, or the field of each image."""
        names = names * len(self._dicts) if len(names) == 1 else names
        values = [one.get(name) for one, name in zip(self._dicts, names, strict=True)]
        for place, value in enumerate(values):
            if value is None:
                fields = ("labels", "boxes", "boxes_xywh", "masks")
                given = [self._dicts[place].get(one) for one in fields]
                if not all(map(is_empty, given)) or (
                    self.word == "prediction" and given[0] is None
                ):
                    raise self._error(place, names[place], "is missing")
                values[place] = ()  # an image without objects
        return values

    def _lengths(self, name: str | list[str], values: Sequence[Any]) -> list[int]:
        try:
            return [0 if 0 in value.shape else value.shape[0] for value in values]
        except (AttributeError, IndexError):  # lists, or no sequence at all
            lengths = []
        for place, value in enumerate(values):
            try:
                lengths.append(0 if np.size(as_array(value[:1])) == 0 else len(value))
            except TypeError:
                problem = f"must have one entry per object, not be a {type(value).__name__}"
                raise self._error(place, name, problem) from None
        return lengths

    def _arrays(self, name: str | list[str], values: list[Any], shape: tuple[int, ...]) -> Any:
        """The values in NumPy, at least one array; each entry is a number or of ``shape``."""
        try:
            fast = [value.shape[0] for value in values]
        except (AttributeError, IndexError):  # lists, or no sequence at all
            fast = []
        if fast != self._counts and (lengths := self._lengths(name, values)) != self._counts:
            place = next(p for p, count in enumerate(self._counts) if lengths[p] != count)
            problem = f"has {lengths[place]} entries for {self._counts[place]} labels"
            raise self._error(place, name, problem)
        try:
            arrays = _joined(values)
            if all(_fits(array, shape) for array in arrays):
                return arrays
        except UNREADABLE:
            pass  # the image is searched for
        for place, value in enumerate(values):
            problem = (
                "must be numbers of shape (n, 4)" if shape else "must be one number per object"
            )
            try:
                array = as_array(value)
                found = "" if _fits(array, shape) else f"{array.dtype} of shape {array.shape}"
            except UNREADABLE:
                found = f"a {type(value).__name__} of something else"
            if found:
                raise self._error(place, name, f"{problem}, not {found}")
        raise AssertionError("unreachable")

    def _error(self, place: int, name: str | list[str], problem: str) -> ValueError:
        name = name if isinstance(name, str) else name[place]
        image = image_name(self._ids[place], place)
        return ValueError(f"{image}, {self.word} {name}: {problem}")


def _fits(array: Array, shape: tuple[int, ...]) -> bool:
    kinds = "iuf" if shape else "biuf"
    return not array.size or (array.shape[1:] == shape and array.dtype.kind in kinds)


def _places(labels: Indices, given: Array) -> Indices:
    """Each one's index among the ascending ``labels``, -1 where it is none of them."""
    if labels[-1] < 1 << 16:  # a table is faster than a search
        table = np.full(labels[-1] + 3, -1)
        table[labels + 1] = np.arange(len(labels))
        return table.take(given.astype(np.int64, copy=False) + 1, mode="clip")
    place = np.minimum(np.searchsorted(labels, given), len(labels) - 1)
    return np.where(labels[place] == given, place, -1)


def _joined(values: list[Any]) -> list[Array]:
    """The values in NumPy, at least one; as a single array where they are tensors of one type."""
    types = {getattr(value, "dtype", None) for value in values}
    torch = sys.modules.get("torch")  # tensors exist only after its import
    if torch and len(types) == 1 and isinstance(types.pop(), torch.dtype):
        try:
            return [as_array(torch.cat(values))]
        except RuntimeError:  # of several shapes or devices
            pass
    # an empty list has no type of its own: the others decide
    return [array for array in map(as_array, values) if array.size] or [np.zeros(0)]


def _sized(boxes: Array, form: str) -> Floats:
    """Boxes as x, y, width, height in float64, shape (4, rows)."""
    if not boxes.size:
        return np.zeros((4, 0))
    if boxes.dtype.kind != "f" or boxes.dtype.itemsize < 4:
        boxes = boxes.astype(np.float32 if boxes.dtype.kind == "f" else np.float64)
    columns = boxes.T.copy()
    # in the type given, as torchvision's COCO evaluator does it, and only then in float64
    with np.errstate(invalid="ignore", over="ignore"):  # a check for finite numbers follows
        if form == "XYXY":
            columns[2:] -= columns[:2]
        elif form == "CXCYWH":
            columns[:2] -= columns[2:] / 2
    return columns.astype(np.float64)
