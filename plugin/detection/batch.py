"""A batch as a trainer hands it over, read into columns and checked as a whole.

Predictions and targets come as one dict per image, in torchvision's convention. Sixteen images
hold some hundred small tensors: they are joined before they are looked at, so that a check costs
one comparison per batch and a GPU is asked once per field. Only where something is wrong is the
culprit searched for, and named with its image, field and value.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .matching import Bools, Floats, Indices

Array = NDArray[Any]
ImageId = int | str | None


@dataclass(frozen=True, slots=True)
class Detections:
    """The predictions of a batch, one row each, image by image as they came.

    Attributes:
        image: the image's place in the batch.
        label: the class's place among the classes, by ascending label.
        box: x, y, width, height in pixels, shape (4, rows); none where not asked for.
        score: float32, or float64 where float32 would lose something.
    """

    image: Indices
    label: Indices
    box: Floats
    score: Array


@dataclass(frozen=True, slots=True)
class Truths:
    """The ground truth of a batch, one row each, image by image as it came.

    Attributes:
        image, label, box: as in `Detections`.
        crowd: whether it is a crowd region.
        area: in pixels; ``None`` where no target of the batch gives it, NaN where one does not.
    """

    image: Indices
    label: Indices
    box: Floats
    crowd: Bools
    area: Floats | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Some images: their dicts as they came, and what was read of them."""

    ids: list[ImageId]
    predictions: Sequence[Mapping[str, Any]]
    targets: Sequence[Mapping[str, Any]]
    detections: Detections
    truths: Truths


def as_array(value: Any) -> Array:
    """``value`` in NumPy: a tensor from any device, bfloat16 as float32; an array; a list."""
    if not hasattr(value, "detach"):  # no tensor
        return np.asarray(value)
    try:
        return np.asarray(value.numpy(force=True))
    except TypeError:  # NumPy has no bfloat16
        return np.asarray(value.float().numpy(force=True))


def image_name(image_id: ImageId, place: int) -> str:
    """How an error speaks of an image."""
    return f"image at place {place} of the batch" if image_id is None else f"image {image_id!r}"


def image_ids(targets: Sequence[Mapping[str, Any]]) -> list[ImageId]:
    """Each target's ``image_id`` as an integer or a string, ``None`` where it has none.

    Raises:
        ValueError: if an id is something else.
    """
    ids = []
    for place, target in enumerate(targets):
        given = target.get("image_id")
        value: Any = given
        if hasattr(value, "item") and np.size(as_array(value)) == 1:
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, int | str | None):
            raise ValueError(
                f"{image_name(None, place)}, target image_id: {given!r} is neither an integer "
                "nor a string"
            )
        ids.append(value)
    return ids


def read_batch(
    predictions: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    ids: list[ImageId],
    labels: Indices,
    *,
    boxes: bool,
) -> Batch:
    """Read all but the masks.

    Args:
        predictions: with ``scores``, ``labels`` and ``boxes`` or ``boxes_xywh``.
        targets: with ``labels`` and boxes likewise, perhaps ``iscrowd`` and ``area``.
        ids: of the images.
        labels: of the classes, ascending.
        boxes: whether boxes are wanted.

    Raises:
        ValueError: naming image, field and value.
    """
    detections = _detections(_Side("prediction", predictions, ids), labels, boxes=boxes)
    truths = _truths(_Side("target", targets, ids), labels, boxes=boxes)
    return Batch(ids, predictions, targets, detections, truths)


def _detections(side: _Side, labels: Indices, *, boxes: bool) -> Detections:
    score = side.column("scores")
    side.check("scores", ~np.isfinite(score), score, "is not finite")
    if score.dtype.kind != "f" or score.dtype.itemsize > 4:
        score = _compact(score.astype(np.float64))
    return Detections(
        side.images(),
        side.classes(labels),
        side.boxes() if boxes else np.zeros((4, 0)),
        score.astype(np.float32) if score.dtype.itemsize < 4 else score,
    )


def _truths(side: _Side, labels: Indices, *, boxes: bool) -> Truths:
    crowd = side.optional("iscrowd", 0)
    area = side.optional("area", np.nan)
    if area is not None:
        area = area.astype(np.float64)
        wrong = ~((area >= 0) & (area < np.inf)) & ~side.lacks("area")
        side.check("area", wrong, area, "is not a finite number of 0 or more")
    return Truths(
        side.images(),
        side.classes(labels),
        side.boxes() if boxes else np.zeros((4, 0)),
        np.zeros(sum(side.counts), bool) if crowd is None else crowd != 0,
        area,
    )


def _compact(score: Floats) -> Array:
    """Scores in float32 where nothing is lost by it, so that the state is half as large."""
    with np.errstate(over="ignore"):
        single = score.astype(np.float32)
    return single if (single == score).all() else score


class _Side:
    """The predictions or the targets of a batch, and how to speak of them."""

    def __init__(
        self, word: str, dicts: Sequence[Mapping[str, Any]], ids: Sequence[ImageId]
    ) -> None:
        self._word, self._dicts, self._ids = word, dicts, ids
        self.counts = self._lengths("labels", self._values("labels"))

    def images(self) -> Indices:
        """The place in the batch of each row's image."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def classes(self, labels: Indices) -> Indices:
        """Each row's place among the ascending ``labels``."""
        given = self.column("labels")
        if given.size and given.dtype.kind not in "iu":
            kinds = [as_array(value).dtype.kind in "iu" for value in self._values("labels")]
            wrong = ~np.repeat(kinds, self.counts)
            self.check("labels", wrong, given, "is not an integer")
        place = _places(labels, given)
        self.check("labels", place < 0, given, "is no label among the classes")
        return place

    def optional(self, field: str, default: float) -> Array | None:
        """One number per row, ``default`` in images that lack it; ``None`` where all lack it."""
        values = [one.get(field) for one in self._dicts]
        lacking = [place for place, value in enumerate(values) if value is None]
        if len(lacking) == len(values):
            return None
        for place in lacking:
            values[place] = np.full(self.counts[place], default)
        return self.column(field, values)

    def lacks(self, field: str) -> Bools:
        """Whether each row's image lacks a field."""
        return np.repeat([one.get(field) is None for one in self._dicts], self.counts)

    def column(self, field: str, values: list[Any] | None = None) -> Array:
        """One number per row."""
        values = self._values(field) if values is None else values
        self._same_length(field, values)
        arrays = _arrays(values)
        if any(array.ndim != 1 or array.dtype.kind not in "biuf" for array in arrays):
            each = [as_array(value) for value in values]
            wrong = [array.ndim != 1 or array.dtype.kind not in "biuf" for array in each]
            raise self._error(wrong.index(True), field, "must be one number per object")
        return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]

    def boxes(self) -> Floats:
        """All boxes as x, y, width, height, shape (4, rows)."""
        corners = not any("boxes_xywh" in one for one in self._dicts)
        field = "boxes" if corners else "boxes_xywh"  # the one or the other in all of a batch
        values = self._values(field)
        self._same_length(field, values)
        arrays = _arrays(values)
        if any(array.size and array.shape[1:] != (4,) for array in arrays):
            shapes = [as_array(value).shape for value in values]
            place = next(at for at, shape in enumerate(shapes) if shape[1:] != (4,))
            raise self._error(place, field, f"has shape {shapes[place]}, not (n, 4)")
        sized = [_sized(array, corners) for array in arrays]
        boxes = np.concatenate(sized, axis=1) if len(sized) > 1 else sized[0]
        if not (np.isfinite(boxes).all() and (boxes[2:] >= 0).all()):
            given = np.concatenate([as_array(value).reshape(-1, 4) for value in values])
            wrong: Bools = np.logical_or.reduce(~np.isfinite(boxes), axis=0)
            self.check(field, wrong, given, "is not finite")
            wrong = np.logical_or.reduce(boxes[2:] < 0, axis=0)
            problem = "has x2 < x1 or y2 < y1" if corners else "has a width or height below 0"
            self.check(field, wrong, given, problem)
        return boxes

    def check(self, field: str, wrong: Bools, values: Array, problem: str) -> None:
        """Raise for the first row that is wrong, if any."""
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        place = int(np.searchsorted(np.cumsum(self.counts), row, "right"))
        within = row - sum(self.counts[:place])
        raise self._error(place, field, f"entry {within}, {values[row].tolist()!r}, {problem}")

    def _values(self, field: str) -> list[Any]:
        values = [one.get(field) for one in self._dicts]
        for place, value in enumerate(values):
            if value is None:
                raise self._error(place, field, "is missing")
        return values

    def _lengths(self, field: str, values: Sequence[Any]) -> list[int]:
        try:
            return [value.shape[0] for value in values]
        except (AttributeError, IndexError):  # lists, or no sequence at all
            pass
        try:
            return [len(value) for value in values]
        except TypeError:
            place = [as_array(value).ndim for value in values].index(0)
            raise self._error(place, field, "must have one entry per object") from None

    def _same_length(self, field: str, values: Sequence[Any]) -> None:
        lengths = self._lengths(field, values)
        if lengths != self.counts:
            pairs = list(zip(lengths, self.counts, strict=True))
            place = next(at for at, (length, count) in enumerate(pairs) if length != count)
            length, count = pairs[place]
            raise self._error(place, field, f"has {length} entries for {count} labels")

    def _error(self, place: int, field: str, problem: str) -> ValueError:
        name = image_name(self._ids[place], place)
        return ValueError(f"{name}, {self._word} {field}: {problem}")


def _places(labels: Indices, given: Array) -> Indices:
    """Each one's place among the ascending ``labels``, -1 where it is none of them."""
    if labels[-1] < 1 << 16:  # a table is faster than a search
        table = np.full(labels[-1] + 3, -1)
        table[labels + 1] = np.arange(len(labels))
        return table.take(given.astype(np.int64, copy=False) + 1, mode="clip")
    place = np.minimum(np.searchsorted(labels, given), len(labels) - 1)
    return np.where(labels[place] == given, place, -1)


def _arrays(values: list[Any]) -> list[Array]:
    """The values in NumPy, one at least; as a single array where they are tensors of one type."""
    types = {getattr(value, "dtype", None) for value in values}
    torch = sys.modules.get("torch")  # whoever passes tensors has imported it
    if torch and len(types) == 1 and isinstance(types.pop(), torch.dtype):
        try:
            return [as_array(torch.cat(values))]
        except RuntimeError:  # of several shapes or devices
            pass
    # an empty list has no type of its own: what it is joined with decides
    return [array for array in map(as_array, values) if array.size] or [np.zeros(0)]


def _sized(boxes: Array, corners: bool) -> Floats:
    """Boxes as x, y, width, height in float64, shape (4, rows)."""
    if not boxes.size:
        return np.zeros((4, 0))
    if boxes.dtype.kind != "f" or boxes.dtype.itemsize < 4:
        boxes = boxes.astype(np.float32 if boxes.dtype.kind == "f" else np.float64)
    columns = boxes.T.copy()
    if corners:
        # in the type given, as torchvision's COCO evaluator does it, and only then in float64
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is told later
            columns[2:] -= columns[:2]
    return columns.astype(np.float64)
