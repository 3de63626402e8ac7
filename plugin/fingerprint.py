"""Which images and ground truth were evaluated: a digest that does not depend on their order.

Metrics may be compared only on one and the same evaluated set. A fingerprint is gathered while
the set is evaluated, from the ids and the ground truth in the original image's frame; batch size,
order, loader and the size to which a model resizes leave it as it is. Masks are left out, so that a
Mask R-CNN and a Faster R-CNN on one set agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

DIGITS = 12
"""Hex digits of a fingerprint; names in the trackers show the first six."""


class Fingerprint:
    """The digests of a set's images, gathered image by image.

    Without ids an image is known by its content, and images seen twice count twice.
    """

    def __init__(self) -> None:
        self._images: dict[str, str] = {}
        self.anonymous = False

    def __len__(self) -> int:
        return len(self._images)

    @property
    def contents(self) -> dict[str, str]:
        """The images' digests by id; none where images came without."""
        return {} if self.anonymous else dict(self._images)

    @property
    def ids(self) -> frozenset[str]:
        """The images' ids as text; none where images came without."""
        return frozenset() if self.anonymous else frozenset(self._images)

    def add(self, image_id: object, content: bytes = b"") -> None:
        """Take in one image by its id and the bytes that describe its ground truth."""
        self.anonymous |= image_id is None
        text = "" if image_id is None else identifier(image_id)
        key = text if text else f"\0{len(self._images)}"
        self._images[key] = hashlib.sha256(text.encode() + b"\0" + content).hexdigest()

    def merge(self, other: Fingerprint) -> None:
        """Take in the images of ``other``."""
        self.anonymous |= other.anonymous
        for key, digest in other._images.items():
            self._images[f"\0{len(self._images)}" if key.startswith("\0") else key] = digest

    def digest(self, protocol: str = "") -> str:
        """Twelve hex digits, for the images so far under ``protocol`` (what is not the default).

        >>> one, other = Fingerprint(), Fingerprint()
        >>> for image in (1, 2, "three"):
        ...     one.add(image)
        >>> for image in ("three", 2, 1):
        ...     other.add(image)
        >>> one.digest() == other.digest()
        True
        """
        whole = hashlib.sha256("\n".join(sorted(self._images.values())).encode())
        whole.update(protocol.encode())
        return whole.hexdigest()[:DIGITS]


def identifier(image_id: object) -> str:
    """An image's id as text: ``7``, ``"7"`` and ``tensor(7)`` are one image."""
    value = image_id.item() if hasattr(image_id, "item") else image_id
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def as_array(values: Any) -> np.ndarray[Any, Any]:
    """Interim."""
    from .detection.batch import as_array as read

    return read(values)


def detection_content(target: Mapping[str, Any], names: Mapping[int, str]) -> bytes:
    """The objects of one image as bytes: class names, crowd flags, boxes and areas.

    Args:
        target: ``boxes`` (N, 4) xyxy in pixels of the original image, or ``boxes_xywh`` (x, y,
            width, height); ``labels`` (N,), and where they are given ``iscrowd`` (N,) and
            ``area`` (N,).
        names: the classes by label.

    Boxes are rounded to 0.01 px. Areas, which are large and seldom round numbers, are taken in
    steps of 5 %: enough to tell a mask's area from its box's. The objects' order does not count.
    """
    boxes = np.rint(_corners(target) * 100)
    count = len(boxes)
    labels = as_array(target["labels"]).reshape(-1)
    crowd = as_array(target.get("iscrowd", np.zeros(count))).reshape(-1)
    sides = (boxes[:, 2:] - boxes[:, :2]) / 100
    area = as_array(target.get("area", sides[:, 0] * sides[:, 1])).reshape(-1).astype(np.float64)
    rows = np.column_stack([
        [_name_number(names[int(label)]) for label in labels],
        crowd.astype(np.int64),
        boxes,
        _area_steps(area),
    ]).astype(np.int64)  # fmt: skip
    return rows[np.lexsort(rows.T)].tobytes() if count else b""


def label_map_content(target: object, names: Mapping[int, str]) -> bytes:
    """A label map (H, W) as bytes, with its shape and the names of the classes."""
    labels = as_array(target)
    shape = f"{labels.shape}{sorted(names.items())}".encode()
    return shape + np.ascontiguousarray(labels, dtype=np.int32).tobytes()


def _corners(target: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    xywh = "boxes_xywh" in target
    boxes = as_array(target["boxes_xywh" if xywh else "boxes"]).reshape(-1, 4).astype(np.float64)
    if xywh:
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    return boxes


def _area_steps(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """In steps of 5 %: float32 noise of a resize and back almost never crosses one."""
    steps: np.ndarray[Any, Any] = np.rint(np.log(np.maximum(values, 1e-6)) / np.log(1.05))
    return steps


@cache
def _name_number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
