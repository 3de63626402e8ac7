"""How a batch is read: its images, their ids, a part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

IMAGES = ("pixel_values", "images", "image", "img", "inputs", "x")
TARGETS = ("labels", "targets", "target", "mask_labels", "masks", "mask", "label", "seg")
"""Usual names in batches that are mappings."""

BOXES = ("boxes", "bbox_xyxy", "bboxes", "bbox")
BOX_LABELS = ("labels", "label", "classes", "class_labels", "categories")
BOX_FORMATS = ("box_format", "bbox_format", "box_mode", "format")
"""Usual names beside the boxes of a mapping; some names of boxes state no format."""


class BatchReader:
    """Reads batches (images, targets, …) and mappings by the usual names.

    A framework whose batches are of another form replaces it.
    """

    def images(self, batch: Any) -> Any:
        """The images: a tensor (N, C, H, W), a list of N tensors, or None."""
        if isinstance(batch, Mapping):
            return batch[name] if (name := _first(IMAGES, batch)) else None
        return batch[0] if isinstance(batch, list | tuple) and batch else batch

    def targets(self, batch: Any) -> Any:
        """The targets of the N images, or None."""
        if isinstance(batch, Mapping):
            if (name := _first(BOXES, batch)) and isinstance(batch[name], list | tuple):
                return _box_targets(batch, name)
            return batch[name] if (name := _first(TARGETS, batch)) else None
        return batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None

    def count(self, batch: Any) -> int:
        """How many images the batch holds, 0 where that is not known."""
        return length(self.images(batch))

    def ids(self, batch: Any) -> list[Any]:
        """The ids in the targets of the N images, None for those without; empty without targets."""
        targets = self.targets(batch)
        return ids_of(targets) if isinstance(targets, list | tuple) else []

    def image(self, batch: Any, place: int) -> tuple[Any, tuple[int, int]]:
        """One image (C, H, W) without padding, and the size (height, width) of its original.

        Boxes and masks are measured in the original image's frame.
        """
        image, targets = self.images(batch)[place], self.targets(batch)
        target = targets[place] if isinstance(targets, list | tuple) else None
        facts = target if isinstance(target, Mapping) else {}
        height, width = image.shape[-2:]
        if isinstance(batch, Mapping) and (mask := batch.get("pixel_mask")) is not None:
            height, width = int(mask[place].any(1).sum()), int(mask[place].any(0).sum())
        original = facts.get("orig_size")
        size = (height, width) if original is None else (int(original[0]), int(original[1]))
        return image[..., :height, :width], size

    def part(self, batch: Any, picked: Sequence[int]) -> Any:
        """The ``picked`` images of the batch, with all that belongs to them."""
        count = self.count(batch)
        if isinstance(batch, Mapping):
            return {n: rows(v, picked) if length(v) == count else v for n, v in batch.items()}
        if isinstance(batch, list | tuple):
            return tuple(rows(v, picked) if length(v) == count else v for v in batch)
        return batch


class Pair(NamedTuple):
    """A batch that was adapted."""

    images: Any
    targets: Any


class AdaptedReader(BatchReader):
    """Reads batches through a function of the user's.

    Args:
        adapt: ``batch -> (images, targets)``.
    """

    def __init__(self, adapt: Callable[[Any], tuple[Any, Any]]) -> None:
        self._adapt = adapt

    def images(self, batch: Any) -> Any:
        """The images. Raises `ValueError` where the function returns no pair."""
        return self._pair(batch).images

    def targets(self, batch: Any) -> Any:
        """The targets of the N images."""
        return self._pair(batch).targets

    def part(self, batch: Any, picked: Sequence[int]) -> Any:
        """The ``picked`` images of the batch with their targets, as a pair."""
        return Pair(*(rows(values, picked) for values in self._pair(batch)))

    def _pair(self, batch: Any) -> Pair:
        if isinstance(batch, Pair):
            return batch
        pair = self._adapt(batch)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(f"batch= returned a {type(pair).__name__}, not (images, targets)")
        return Pair(*pair)


def _first(names: Sequence[str], batch: Mapping[str, Any]) -> str:
    return next((name for name in names if batch.get(name) is not None), "")


def _box_targets(batch: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Targets of N images, of a mapping that holds a list of N values under each name.

    Raises:
        ValueError: the boxes' format is not stated.
    """
    boxes, labels = batch[name], _first(BOX_LABELS, batch)
    stated = _first(BOX_FORMATS, batch)
    form = str(batch[stated] if stated else "").lower()
    if not stated and (name in ("boxes", "bbox_xyxy") or _states_format(boxes)):
        form = "xyxy"
    field = {"xyxy": "boxes", "pascal_voc": "boxes", "xywh": "boxes_xywh", "coco": "boxes_xywh"}
    if form not in field or not labels:
        lacking = (
            f"no labels beside {name!r}" if not labels else f"boxes {name!r} of no known format"
        )
        raise ValueError(
            f"a batch with the names {sorted(batch)} has {lacking}; pass batch=lambda b: (images, "
            "[{'boxes': xyxy, 'labels': labels}, …])"
        )
    entries = {field[form]: boxes, "labels": batch[labels]}
    for names, key in ((("masks", "mask"), "masks"), (("image_id", "image_ids"), "image_id")):
        if found := _first(names, batch):
            entries[key] = batch[found]
    return [{key: values[n] for key, values in entries.items()} for n in range(len(boxes))]


def _states_format(boxes: Any) -> bool:
    """Whether the boxes of every image state their format, as `tv_tensors.BoundingBoxes` do."""
    return all(hasattr(one, "canvas_size") for one in boxes)


def ids_of(targets: Any) -> list[Any]:
    """The ids that a batch's targets hold, None for those that hold none."""
    return [t.get("image_id") if isinstance(t, Mapping) else None for t in targets]


def rows(values: Any, picked: Sequence[int]) -> Any:
    """The ``picked`` of N ``values``, a tensor or a list."""
    return values[list(picked)] if hasattr(values, "shape") else [values[n] for n in picked]


def length(items: Any) -> int:
    """How many ``items`` there are, 0 where that is not known."""
    try:
        return len(items)
    except TypeError:
        return 0
