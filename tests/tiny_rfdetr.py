"""Tiny trainings with RF-DETR, of random weights on images made here; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rfdetr.config import (
    KeypointTrainConfig,
    RFDETRKeypointPreviewConfig,
    RFDETRNanoConfig,
    RFDETRSegNanoConfig,
    SegmentationTrainConfig,
    TrainConfig,
)
from rfdetr.models.backbone import dinov2
from rfdetr.training import RFDETRDataModule, RFDETRModelModule, build_trainer

HEIGHT, WIDTH = 96, 128
CATEGORIES = ((3, "things", "none"), (5, "pale", "things"), (9, "dark", "things"))
"""Ids with gaps, and a category that groups the others, as Roboflow exports them."""

CROWD = [0, 20, 76, 20, HEIGHT * WIDTH - 116]
"""The run lengths of a region of 20 x 2 pixels in the corner."""


def shrink(monkeypatch: pytest.MonkeyPatch, layers: int = 3) -> None:
    """Have RF-DETR make its backbone 24 wide."""
    get = dinov2.get_config
    small = {"hidden_size": 24, "num_hidden_layers": layers, "num_attention_heads": 2}
    monkeypatch.setattr(dinov2, "get_config", lambda *args: get(*args) | small)
    monkeypatch.setitem(dinov2.size_to_width, "small", 24)


def write_data(folder: Path, *, train: int = 8, test: int = 5, keypoints: bool = False) -> Path:
    """Images of one or two rectangles and, on the first, a crowd, in COCO's format.

    With ``keypoints`` two corners of each, of one class.
    """
    rng = np.random.default_rng(0)
    for split, count in {"train": train, "valid": test, "test": 3}.items():
        (folder / split).mkdir(parents=True)
        images: list[Any] = []
        objects: list[Any] = []
        for number in range(count):
            pixels = rng.integers(0, 80, (HEIGHT, WIDTH, 3)).astype("uint8")
            for place in range(1 + number % 2):
                x, y, w, h = (int(v) for v in rng.integers([0, 0, 30, 20], [60, 40, 60, 50]))
                pixels[y : y + h, x : x + w] = 200 if place else (40, 200, 250)
                outline = [x, y, x + w, y, x + w, y + h, x, y + h]
                objects.append({
                    "id": len(objects) + 1, "image_id": number, "category_id": 9 if place else 5,
                    "bbox": [x, y, w, h], "area": w * h, "segmentation": [outline], "iscrowd": 0,
                })  # fmt: skip
            Image.fromarray(pixels).save(folder / split / f"{number}.png")
            name = {"file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT}
            images.append({"id": number, **name})
        region = {"size": [HEIGHT, WIDTH], "counts": CROWD}
        objects.append({
            "id": len(objects) + 1, "image_id": 0, "category_id": 5, "bbox": [0, 0, 2, 20],
            "area": 40, "segmentation": region, "iscrowd": 1,
        })  # fmt: skip
        if keypoints:
            objects = [_with_corners(one) for one in objects if one["category_id"] == 5]
        names = [{"id": i, "name": name, "supercategory": of} for i, name, of in CATEGORIES]
        if keypoints:
            names = [{**names[1], "keypoints": ["start", "end"], "skeleton": []}]
        content = {"images": images, "annotations": objects, "categories": names}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def _with_corners(one: Any) -> Any:
    x, y, w, h = one["bbox"]
    return {**one, "keypoints": [x + 1, y + 1, 2, x + w - 1, y + h - 1, 2], "num_keypoints": 2}


KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "boxes": (RFDETRNanoConfig, TrainConfig, {"resolution": 64}),
    "masks": (RFDETRSegNanoConfig, SegmentationTrainConfig, {"resolution": 96}),
    "keypoints": (
        *(RFDETRKeypointPreviewConfig, KeypointTrainConfig),
        {"resolution": 96, "num_keypoints_per_class": [2]},
    ),
}
"""The configurations of a model and of its training, and settings of the former."""


def configs(data: Path, kind: str = "boxes", **settings: Any) -> tuple[Any, Any]:
    """Of a tiny model of one of the `KINDS`, and of its training in the folder of ``data``."""
    of_model, of_training, own = KINDS[kind]
    model = of_model(
        pretrain_weights=None, num_classes=2, device="cpu", num_queries=12, num_select=12,
        group_detr=2, hidden_dim=32, sa_nheads=2, ca_nheads=2, out_feature_indexes=[1, 2, 3],
        dec_layers=2, **own,
    )  # fmt: skip
    quiet = {"tensorboard": False, "accelerator": "cpu", "num_workers": 0, "seed": 3}
    given = {"epochs": 2, "batch_size": 2, "grad_accum_steps": 2, "multi_scale": False}
    kept = {"output_dir": str(data.parent / "trained"), "ema_tau": 0, "ema_decay": 0.5}
    return model, of_training(dataset_dir=str(data), **{**quiet, **given, **kept, **settings})


def made(model: Any, train: Any, *callbacks: Any) -> tuple[Any, Any, Any]:
    """The trainer, with ``callbacks`` added, the module and the data module."""
    trainer: Any = build_trainer(
        train, model, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.callbacks += callbacks
    return trainer, RFDETRModelModule(model, train), RFDETRDataModule(model, train)
