"""How a batch is read: its images, their ids, a part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

IMAGES = ("pixel_values", "images", "image", "img", "inputs", "x")
TARGETS = ("labels", "targets", "target", "mask_labels", "masks", "mask", "label", "seg")
"""Usual names in batches that are mappings."""


class BatchReader:
    """Reads batches (images, targets, …) and mappings by the usual names.

    A framework whose batches are of another form replaces it.
    """

    def images(self, batch: Any) -> Any:
        """The images: a tensor (N, C, H, W), a list of N tensors, or None."""
        if isinstance(batch, Mapping):
            return next((batch[name] for name in IMAGES if batch.get(name) is not None), None)
        return batch[0] if isinstance(batch, list | tuple) and batch else batch

    def targets(self, batch: Any) -> Any:
        """The targets of the N images, or None."""
        if isinstance(batch, Mapping):
            return next((batch[name] for name in TARGETS if batch.get(name) is not None), None)
        return batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None

    def count(self, batch: Any) -> int:
        """How many images the batch holds, 0 where that is not known."""
        return length(self.images(batch))

    def ids(self, batch: Any) -> list[Any]:
        """The ids in the targets of the N images, None for those without; empty without targets."""
        targets = self.targets(batch)
        return ids_of(targets) if isinstance(targets, list | tuple) else []

    def part(self, batch: Any, picked: Sequence[int]) -> Any:
        """The ``picked`` images of the batch, with all that belongs to them."""
        count = self.count(batch)
        if isinstance(batch, Mapping):
            return {n: rows(v, picked) if length(v) == count else v for n, v in batch.items()}
        if isinstance(batch, list | tuple):
            return tuple(rows(v, picked) if length(v) == count else v for v in batch)
        return batch


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
