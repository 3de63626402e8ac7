"""Log folders as trainings leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxscore import File, Identity, Run
from boxscore.keys import picture_name, pictures_scope
from boxscore.loggers import TensorBoardLogger

EIGHT = list(product(("FCOS", "RetinaNet"), (320, 640), ("MobileNetV3", "ResNet-18")))


def detection(
    folder: Path,
    identity: Identity,
    *,
    quality: float = 0.5,
    dataset: str = "bccd",
    classes: Mapping[int, str] = {1: "RBC", 2: "WBC", 3: "Platelets"},
    steps: int = 20,
    params: Mapping[str, str] | None = None,
    images: Sequence[str] = (),
) -> str:
    """Log a training whose boxes come closer by ``quality``; returns its id.

    Of each of the ``images`` there is a picture at every evaluation.
    """
    side = 60.0
    boxes = np.array([[20.0 + 90 * i, 20, 20 + 90 * i + side, 20 + side] for i in range(3)])
    labels = np.array([1 + i % len(classes) for i in range(3)])
    truth: dict[str, Any] = {"boxes": boxes, "labels": labels, "image_id": 1}
    loggers = [TensorBoardLogger(folder)]
    run = Run(
        identity, task="detection", dataset=dataset, classes=classes, loggers=loggers,
        log_every=1, params=params, on_error="raise",
    )  # fmt: skip
    with run:
        for step in range(1, steps + 1):
            parts = {"loss_cls": 2 / step + 0.1, "loss_bbox": 1 / step + (1 - quality)}
            run.record(parts, step=step)
            if step % 5 == 0:
                with run.evaluation(step=step) as evaluation:
                    shift = np.array([1.0, 1.5, 2.0])[:, None] * 12 * (1 - quality) + 20 / step
                    found = {"boxes": boxes + shift, "labels": labels, "scores": np.ones(3) * 0.9}
                    losses = {name: value * 1.2 for name, value in parts.items()}
                    evaluation.update([found], [truth], losses)
                scope = pictures_scope(dataset, "test", run.tagged("fingerprint.test"))
                drawn = folder.with_name(f"{folder.name} {run.id}")
                run.log([picture(drawn, scope, image, step) for image in images])
    return run.id


def picture(folder: Path, scope: str, image: str, step: int) -> File:
    """A picture as wide as the step is high, in pixels."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{len([*folder.iterdir()])}.webp"
    Image.new("RGB", (step, 30), (step, 80, 160)).save(path, "WEBP")
    return File(picture_name(scope, image), str(path), step, "test")


def eight(folder: Path) -> None:
    """Two algorithms at two input sizes with two backbones each, on one test set."""
    for index, (algorithm, size, backbone) in enumerate(EIGHT):
        detection(
            folder,
            Identity(algorithm, f"{size}x{size}", backbone),
            quality=0.35 + 0.07 * index,
            params={"learning_rate": "0.01" if index % 2 else "0.02"},
        )
