"""What the semantic metrics cost, ours against torchmetrics and segmentation-models-pytorch.

Run ``python tests/benchmarks/semantic.py``. Rounds are interleaved, so that a busy machine slows
all alike; figures are medians, memory is the peak above what the process held before.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from boxscore.segmentation import SegmentationMetrics

OURS = "boxscore: all five figures"
REFERENCE = "torchmetrics: Jaccard, F1, accuracy, recall"
BINNED = "torchmetrics: AP at {} thresholds"

Contender = Callable[[Tensor, Tensor], object]


class Cost(NamedTuple):
    """CPU seconds, wall seconds, and extra megabytes (NaN where the system does not tell)."""

    cpu: float
    wall: float
    memory: float


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    """Logits (N, C, H, W) that are often right about the label map, which has 16x16 patches."""
    count, classes, height, width = shape
    torch.manual_seed(0)
    patches = torch.randint(0, classes, (count, -(-height // 16), -(-width // 16)))
    targets = patches.repeat_interleave(16, 1).repeat_interleave(16, 2)
    targets = targets[:, :height, :width].contiguous()
    logits = torch.randn(shape)
    logits.scatter_add_(1, targets[:, None], torch.full((count, 1, height, width), 2.5))
    return logits, targets


def contenders(classes: int) -> dict[str, Contender]:
    """What is compared, by name: each takes one batch."""
    import segmentation_models_pytorch as smp
    from torchmetrics import MetricCollection
    from torchmetrics import classification as tm

    ours = SegmentationMetrics([f"class {label}" for label in range(classes)])
    options: dict[str, Any] = {"num_classes": classes, "validate_args": False}
    reference = MetricCollection({
        "jaccard": tm.MulticlassJaccardIndex(**options),
        "f1": tm.MulticlassF1Score(average="macro", **options),
        "accuracy": tm.MulticlassAccuracy(average="micro", **options),
        "recall": tm.MulticlassRecall(average="macro", **options),
    })  # fmt: skip

    def stats(logits: Tensor, targets: Tensor) -> object:
        labels = logits.argmax(1)
        return smp.metrics.get_stats(labels, targets, mode="multiclass", num_classes=classes)

    return {
        REFERENCE: reference.update,
        OURS: ours.update,
        "segmentation-models-pytorch: argmax, get_stats": stats,
    }


def binned(classes: int, thresholds: int) -> Contender:
    """The average precision of torchmetrics, over thresholds at equal distances."""
    from torchmetrics.classification import MulticlassAveragePrecision

    metric = MulticlassAveragePrecision(classes, thresholds=thresholds, validate_args=False)
    update: Contender = metric.update
    return update


def cost(call: Callable[[], object]) -> Cost:
    """Run ``call`` once."""
    _start_low()
    before = _resident("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    spent = time.process_time() - cpu, time.perf_counter() - wall
    return Cost(*spent, (_resident("VmHWM") - before) / 1024)


def _resident(field: str) -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) for line in lines if line.startswith(field)), float("nan"))


def _start_low() -> None:
    """Give freed memory back to the system, and let the system forget the peak so far."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
        switch.write_text("5")


def compare(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Cost]:
    """The median cost of each, after one round to warm up where there are several."""
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for number in range(rounds + (rounds > 1)):
        for name, call in runs.items():
            spent = cost(call)
            if number or rounds == 1:
                costs[name].append(spent)
    return {
        name: Cost(*(statistics.median(column) for column in zip(*rows, strict=True)))
        for name, rows in costs.items()
    }


def table(title: str, costs: dict[str, Cost], reference: str) -> Table:
    """Costs, and their CPU ratio to the reference's."""
    shown = Table("", "CPU s", "ratio", "wall s", "extra MB", title=title)
    for column in shown.columns[1:]:
        column.justify = "right"
    for name, (cpu, wall, memory) in costs.items():
        ratio = cpu / costs[reference].cpu
        shown.add_row(name, f"{cpu:.3f}", f"{ratio:.3g}", f"{wall:.3f}", f"{memory:.0f}")
    return shown


def main() -> None:
    """Print two tables: of all contenders, and of average precision on one image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=4, default=(8, 21, 512, 512), metavar="N C H W")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--thresholds", type=int, default=101, help="0 leaves binned AP out")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    logits, targets = batch(*given.shape)
    classes, console = given.shape[1], Console()
    runs = {name: partial(run, logits, targets) for name, run in contenders(classes).items()}
    threads = f"{given.threads} thread{'s' * (given.threads > 1)}"
    title = f"logits {tuple(given.shape)}, {given.rounds} rounds, {threads}"
    console.print(table(title, compare(runs, given.rounds), REFERENCE))
    if given.thresholds:
        one = logits[:1], targets[:1]
        slow = binned(classes, given.thresholds)
        costs = compare({OURS: partial(contenders(classes)[OURS], *one)}, given.rounds)
        costs |= compare({BINNED.format(given.thresholds): partial(slow, *one)}, 1)
        console.print(table(f"one image of them, {threads}", costs, OURS))


if __name__ == "__main__":
    main()
