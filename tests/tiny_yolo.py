"""Tiny trainings with Ultralytics, of random weights on images made here; nothing is downloaded."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

os.environ.setdefault("YOLO_OFFLINE", "true")
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.models.yolo.model import YOLO

SIZES = ((96, 128), (80, 64), (64, 64))
"""Heights and widths of the images: resized, and letterboxed on either side."""


def write_data(folder: Path, *, train: int = 8, test: int = 6) -> str:
    """Images with one bright rectangle each, of two classes; returns the path of the YAML."""
    rng = np.random.default_rng(0)
    for split, count in {"train": train, "val": test}.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            height, width = SIZES[number % len(SIZES)]
            left, top = (int(value) for value in rng.integers(4, 20, 2))
            image = rng.integers(0, 80, (height, width, 3)).astype("uint8")
            image[top : top + 40, left : left + 36] = 200 if number % 2 else (40, 200, 250)
            Image.fromarray(image).save(folder / "images" / split / f"{split}{number}.png")
            x, y = (left / width, (left + 36) / width), (top / height, (top + 40) / height)
            corners = [x[0], y[0], x[1], y[0], x[1], y[1], x[0], y[1]]
            line = " ".join([str(number % 2), *(f"{value:.6f}" for value in corners)])
            (folder / "labels" / split / f"{split}{number}.txt").write_text(line + "\n")
    path = folder / "shapes.yaml"
    path.write_text(
        f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n  0: pale\n  1: dark\n"
    )
    return str(path)


HEADS = {
    "yolo11n": "[[2, 3, 4], 1, Detect, [nc]]",
    "yolo11n-seg": "[[2, 3, 4], 1, Segment, [nc, 8, 16]]",
    "yolo26n": "[[2, 3, 4], 1, Detect, [nc]]",
    "yolo26n-sem": "[[2, 3], 1, SemanticSegment, [nc]]",
}


def tiny(folder: Path, name: str = "yolo11n") -> Any:
    """A `YOLO` of random weights with the head of ``name`` and five convolutions before it."""
    layers = "".join(f"  - [-1, 1, Conv, [{width}, 3, 2]]\n" for width in (8, 16, 16, 24, 32))
    end_to_end = "end2end: True\nreg_max: 1\n" if name == "yolo26n" else ""
    path = folder / f"{name}.yaml"
    path.write_text(f"nc: 80\n{end_to_end}backbone:\n{layers}head:\n  - {HEADS[name]}\n")
    return YOLO(str(path))


def train(model: Any, data: str, **settings: Any) -> Any:
    """Train ``model``, a `YOLO`; returns its trainer."""
    project = str(Path(data).parent / "trained")
    given = {"epochs": 2, "imgsz": 64, "batch": 4, "nbs": 4, "device": "cpu", "workers": 0}
    quiet = {"plots": False, "verbose": False, "project": project, "seed": 3}
    model.train(data=data, **{**given, **quiet, **settings})
    return model.trainer


class Planted(DetectionValidator):
    """Predicts the ground truth, shaken, with false alarms; random weights find nothing."""

    def preprocess(self, batch: Any) -> Any:
        self.batch = super().preprocess(batch)
        return self.batch

    def postprocess(self, preds: Any) -> list[dict[str, Any]]:
        return [self.planted(place) for place in range(len(self.batch["img"]))]

    def planted(self, place: int) -> dict[str, Any]:
        """The same of an image each time, however it is batched."""
        batch, name = self.batch, Path(self.batch["im_file"][place]).name
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        mine = batch["batch_idx"] == place
        height, width = batch["img"].shape[2:]
        x, y, w, h = batch["bboxes"][mine][0].cpu().numpy() * ([width, height] * 2)
        true = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        boxes = np.concatenate([true + rng.normal(0, 2.5, (3, 4)), rng.uniform(0, 64, (2, 4))])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 4)
        label = float(batch["cls"][mine][0])
        values = {
            "bboxes": boxes,
            "conf": np.sort(rng.uniform(0.1, 1, 5))[::-1].copy(),
            "cls": np.array([label, 1 - label, label, 0, 1]),
        }
        return {n: torch.tensor(v, dtype=torch.float32) for n, v in values.items()}


class PlantedTrainer(DetectionTrainer):
    """Validates with planted predictions."""

    def get_validator(self) -> Any:
        return Planted(
            self.test_loader, save_dir=self.save_dir, args=self.args, _callbacks=self.callbacks
        )
