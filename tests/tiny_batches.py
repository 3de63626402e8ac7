"""Batches for the models of `tiny_transformers`, and what they give for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.tiny_transformers import CLASSES, SIZE, model

BOXES_AND_MASKS = ("detr_segmentation", "rf_detr_segmentation")
MASKS = ("mask2former", "maskformer", "oneformer", "eomt")
MAPS = ("segformer", "upernet", "beit")
"""Models by what they are trained on; the others on boxes."""


def box_batch() -> dict[str, Any]:
    """Two images with three objects."""
    labels = [
        {
            "class_labels": torch.tensor([1, 0]),
            "boxes": torch.tensor([[0.5, 0.5, 0.3, 0.3], [0.3, 0.3, 0.2, 0.2]]),
        },
        {"class_labels": torch.tensor([2]), "boxes": torch.tensor([[0.5, 0.5, 0.3, 0.3]])},
    ]
    return {"pixel_values": torch.rand(2, 3, SIZE, SIZE), "labels": labels}


def mask_batch() -> dict[str, Any]:
    """Two images with three masks, which overlap nowhere."""
    masks = torch.zeros(3, SIZE, SIZE)
    masks[0, 4:30, 4:40] = masks[1, 32:60, 8:24] = masks[2, 10:50, 10:50] = 1
    return {
        "pixel_values": torch.rand(2, 3, SIZE, SIZE),
        "mask_labels": [masks[:2], masks[2:]],
        "class_labels": [torch.tensor([0, 1]), torch.tensor([2])],
    }


def box_and_mask_batch() -> dict[str, Any]:
    """The objects of `box_batch`, with masks that fill their boxes."""
    batch = box_batch()
    for label in batch["labels"]:
        label["masks"] = torch.zeros(len(label["boxes"]), SIZE, SIZE, dtype=torch.bool)
        for mask, (x, y, width, height) in zip(label["masks"], label["boxes"] * SIZE, strict=True):
            rows = slice(round(float(y - height / 2)), round(float(y + height / 2)))
            mask[rows, round(float(x - width / 2)) : round(float(x + width / 2))] = True
    return batch


def map_batch() -> dict[str, Any]:
    """Two images and their label maps."""
    return {
        "pixel_values": torch.rand(2, 3, SIZE, SIZE),
        "labels": torch.randint(0, CLASSES, (2, SIZE, SIZE)),
    }


def built(name: str, **options: Any) -> Any:
    """A model with the same random weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model(name, **options)


def forward(built: Any, batch: dict[str, Any]) -> tuple[Any, list[dict[str, Tensor]]]:
    """Outputs, and what a hook on the model's criterion saw."""
    seen: list[dict[str, Tensor]] = []
    criterion = getattr(built, "criterion", None)
    hook = criterion and criterion.register_forward_hook(lambda m, i, found: seen.append(found))
    try:
        return built(**batch), seen
    finally:
        if hook:
            hook.remove()


def batch_of(name: str) -> dict[str, Any]:
    """A batch with labels for the model of that name."""
    if name in MAPS:
        return map_batch()
    if name in MASKS:
        task = {"task_inputs": torch.ones(2, 4, dtype=torch.long)} if name == "oneformer" else {}
        return {**mask_batch(), **task}
    return box_and_mask_batch() if name in BOXES_AND_MASKS else box_batch()


def evaluated(name: str, **options: Any) -> tuple[Any, dict[str, Any], Any]:
    """A model in eval mode, its batch, and its outputs."""
    made, batch = built(name, **options).eval(), batch_of(name)
    return made, batch, forward(made, batch)[0]
