"""What pictures cost the training thread, per evaluation.

Usage: uv run python tests/benchmarks/pictures.py

Prints the CPU seconds of the training thread in one evaluation of 200 images of 640 x 480 pixels
with made predictions, with pictures and without, interleaved, and the bytes of the pictures.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from boxscore import File, Identity
from boxscore.callbacks.loop import LoopCallback

IMAGES, DETECTIONS, ROUNDS = 200, 100, 7


class Weighing:
    """Adds up the sizes of pictures; as a tracker does, on the log thread."""

    def __init__(self) -> None:
        self.bytes = 0

    def open(self, start: Any) -> None:
        """Nothing to open."""

    def log(self, items: Any) -> None:
        """Count the pictures' bytes."""
        files = [item for item in items if isinstance(item, File) and ".webp" in item.name]
        self.bytes += sum(Path(file.path).stat().st_size for file in files)

    def close(self, status: str = "FINISHED") -> None:
        """Nothing to close."""


def batches() -> list[Any]:
    """Images of noise with ten objects each."""
    random = torch.Generator().manual_seed(0)
    made = []
    for start in range(0, IMAGES, 8):
        images = torch.rand(8, 3, 480, 640, generator=random)
        corner = torch.rand(8, 10, 2, generator=random) * 300
        boxes = torch.cat([corner, corner + 20 + 100 * torch.rand(8, 10, 2, generator=random)], 2)
        targets = [
            {"boxes": boxes[n], "labels": torch.arange(10) % 3 + 1, "image_id": start + n}
            for n in range(8)
        ]
        made.append((images, targets))
    return made


def predict(_: Any, batch: Any) -> Any:
    """Detections near the objects."""
    random = torch.Generator().manual_seed(1)
    found = []
    for target in batch[1]:
        rows = torch.arange(DETECTIONS) % 10
        shift = 8 * torch.randn(DETECTIONS, 2, generator=random)
        boxes = target["boxes"][rows] + torch.cat([shift, shift], 1)
        scores = torch.rand(DETECTIONS, generator=random)
        found.append({"boxes": boxes, "labels": target["labels"][rows], "scores": scores})
    return {"loss": torch.tensor(1.0)}, found, batch[1]


def main() -> None:
    """Evaluate with pictures and without, in turn."""
    torch.set_num_threads(1)
    data, weighed = batches(), Weighing()
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for pictures in (True, False):
            model = torch.nn.Linear(2, 2)
            score = LoopCallback(
                model, torch.optim.SGD(model.parameters(), 0.1), data, predict=predict,
                identity=Identity("FCOS", "480x640"), task="detection", dataset="noise",
                classes={1: "a", 2: "b", 3: "c"}, loggers=[weighed], pictures=pictures,
                evaluate_every=None,
            )  # fmt: skip
            with tempfile.TemporaryDirectory(), score:
                model(torch.zeros(1, 2))
                score.step({"loss": torch.tensor(1.0)})
                start = time.thread_time()
                score.evaluate()
                seconds[pictures].append(time.thread_time() - start)
    with_them, without = (statistics.median(seconds[pictures]) for pictures in (True, False))
    print(
        f"evaluation of {IMAGES} images: {with_them:.3f} s with pictures, {without:.3f} s without"
    )
    print(f"ratio {with_them / without:.2f}, {(with_them - without) * 1000:.0f} ms more")
    print(f"pictures of an evaluation: {weighed.bytes / ROUNDS / 2 / 1000:.0f} kB")


if __name__ == "__main__":
    main()
