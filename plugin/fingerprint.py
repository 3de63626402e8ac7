"""The fingerprint of an evaluated set: a digest of its images and ground truth, in any order.

Metrics are comparable only on the same evaluated set. Batch size, order, loader and the size to
which a model resizes its input do not change a fingerprint. Masks are left out, so that Mask R-CNN
and Faster R-CNN have the same fingerprint on the same set.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Self

DIGITS = 12
"""Hex digits of a fingerprint; keys in the trackers use the first six."""


class Fingerprint:
    """The images of an evaluated set, each with its id and a digest of its ground truth.

    An image that repeats (same id, same ground truth) counts once. One id with two ground truths
    counts as two images. Images without an id all count.

    Attributes:
        anonymous: whether an image had no id.
    """

    def __init__(self) -> None:
        # id, ground truth without boxes, ground truth with boxes
        self._images: Counter[tuple[str | None, int, int]] = Counter()
        self._boxes_count = True
        self._areas_given = False
        self.anonymous = False

    @classmethod
    def of_detection(
        cls,
        ids: Iterable[object],
        content: Iterable[int],
        content_with_boxes: Iterable[int],
        *,
        boxes_count: bool,
        areas_given: bool,
    ) -> Self:
        """The fingerprint of a detection set.

        Args:
            ids: of the images, ``None`` where an image has none.
            content: per image, a digest of the objects' class names and crowd flags.
            content_with_boxes: per image, a digest of these and the boxes.
            boxes_count: whether all boxes lie on the lattice of 0.01 px. Other boxes change by a
                resize and back in float32, so that `digest` leaves them out.
            areas_given: whether an object's area differs from its box's.
        """
        self = cls()
        texts = [None if one is None else identifier(one) for one in ids]
        self._images.update(zip(texts, content, content_with_boxes, strict=True))
        self._boxes_count, self._areas_given = boxes_count, areas_given
        self.anonymous = None in texts
        return self

    def __len__(self) -> int:
        return self._images.total()

    @property
    def ids(self) -> frozenset[str]:
        """The images' ids as text; empty if an image had none."""
        return frozenset(self.contents)

    @property
    def contents(self) -> dict[str, str]:
        """A digest of the ground truth by image id; empty if an image had no id.

        The digest does not depend on the id, and is ``""`` for an image without objects.
        """
        images = () if self.anonymous else self._images
        return {str(text): f"{exact:016x}" if exact else "" for text, _, exact in images}

    def add(self, image_id: object, content: bytes = b"") -> None:
        """Add one image.

        Args:
            image_id: an integer, a text, a tensor of one element, or ``None``.
            content: its ground truth.
        """
        digest = int.from_bytes(hashlib.sha256(content).digest()[:8]) if content else 0
        self._add((None if image_id is None else identifier(image_id), digest, digest), 1)

    def merge(self, other: Fingerprint) -> None:
        """Add the images of ``other``."""
        for image, count in other._images.items():
            self._add(image, count)
        self._boxes_count &= other._boxes_count
        self._areas_given |= other._areas_given

    def digest(self, protocol: str = "") -> str:
        """Twelve hex digits.

        Args:
            protocol: what differs from the default evaluation protocol (`Metric.protocol`).

        >>> one, other = Fingerprint(), Fingerprint()
        >>> for image in (1, 2, "three"):
        ...     one.add(image)
        >>> for image in ("three", 2, 1):
        ...     other.add(image)
        >>> one.digest() == other.digest()
        True
        """
        lines = [
            f"{text!r} {exact if self._boxes_count else content:x}"
            for text, content, exact in self._images.elements()
        ]
        facts = f"{self._boxes_count:d} {self._areas_given:d} {protocol}"
        return hashlib.sha256("\n".join([*sorted(lines), facts]).encode()).hexdigest()[:DIGITS]

    def _add(self, image: tuple[str | None, int, int], count: int) -> None:
        self._images[image] = 1 if image[0] is not None else self._images[image] + count
        self.anonymous |= image[0] is None


def identifier(image_id: object) -> str:
    """An image's id as text: ``7``, ``7.0``, ``"7"`` and ``tensor(7)`` are the same image."""
    value = image_id.item() if hasattr(image_id, "item") else image_id
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)
