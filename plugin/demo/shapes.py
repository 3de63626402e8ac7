"""The demo's own images: discs, squares and triangles on textured ground."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

SIDE = 160
"""Height and width in pixels."""

CLASSES = {1: "disc", 2: "square", 3: "triangle"}
COUNTS = {"train": 320, "test": 48}
SMALLEST, LARGEST = 6.0, 62.0
"""Half an object's extent in pixels: from COCO's small objects to its large ones."""

Array = np.ndarray[Any, Any]


def scene(seed: int) -> tuple[Array, Array, Array]:
    """One image, the same for the same ``seed``.

    Returns:
        image (3, H, W) float32 in [0, 1], masks (N, H, W) bool of the visible part of each
        object, labels (N,).
    """
    rng = np.random.default_rng(seed)
    image = _ground(rng)
    masks: list[Array] = []
    labels: list[int] = []
    for radius in sorted(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST), 4)), reverse=True):
        label = int(rng.integers(1, 4))
        mask = _shape(label, radius, rng)
        if any((mask & other).sum() > 0.3 * min(mask.sum(), other.sum()) for other in masks):
            continue
        colour = rng.uniform(0, 1, (3, 1))
        image[:, mask] = colour + rng.normal(0, 0.04, (3, int(mask.sum())))
        masks = [other & ~mask for other in masks] + [mask]
        labels.append(label)
    return image.clip(0, 1).astype(np.float32), np.array(masks), np.array(labels)


class Shapes(torch.utils.data.Dataset[tuple[Tensor, Any]]):
    """The images of one split, with detection targets or label maps."""

    ignore_index = 255

    def __init__(self, split: str, task: str) -> None:
        self.ids = [f"{split}-{n:03}" for n in range(COUNTS[split])]
        semantic = task == "semantic-segmentation"
        self.classes = {0: "ground", **CLASSES} if semantic else dict(CLASSES)
        first = 0 if split == "train" else 1_000_000
        make = label_map if semantic else objects
        scenes = (scene(first + n) for n in range(COUNTS[split]))
        self._items = [
            (torch.from_numpy(image), make(masks, labels, image_id))
            for image_id, (image, masks, labels) in zip(self.ids, scenes, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self._items[index]


def objects(masks: Array, labels: Array, image_id: str) -> dict[str, Any]:
    """A target in torchvision's convention."""
    boxes = [
        (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        for rows, columns in map(np.nonzero, masks)
    ]
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "labels": torch.from_numpy(labels),
        "masks": torch.from_numpy(masks),
        "area": torch.from_numpy(masks.sum((1, 2)).astype(np.float32)),
        "image_id": image_id,
    }


def label_map(masks: Array, labels: Array, _: str) -> Tensor:
    """The class of each pixel (H, W); 0 is the ground."""
    shown = np.zeros(masks.shape[1:], dtype=np.int64)
    for mask, label in zip(masks, labels, strict=True):
        shown[mask] = label
    return torch.from_numpy(shown)


def _ground(rng: np.random.Generator) -> Array:
    """Smooth coloured noise with grain."""
    coarse = rng.uniform(0.2, 0.8, (3, 6, 6))
    stretched: Array = torch.nn.functional.interpolate(
        torch.from_numpy(coarse)[None], size=(SIDE, SIDE), mode="bicubic", align_corners=False
    )[0].numpy()
    return stretched + rng.normal(0, 0.05, (3, SIDE, SIDE))


def _shape(label: int, radius: float, rng: np.random.Generator) -> Array:
    """The pixels of a disc, square or triangle that fits into the image."""
    row, column = rng.uniform(radius, SIDE - radius, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    down, across = (rows - row) / radius, (columns - column) / radius
    inside = {
        "disc": down**2 + across**2 <= 1,
        "square": np.maximum(abs(down), abs(across)) <= 0.9,
        "triangle": (down <= 0.85) & (down >= 2 * abs(across) - 0.95),
    }
    shape: Array = inside[CLASSES[label]]
    return shape
