"""``boxscore demo``: a small real training that logs everything, on made pictures or yours."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor, nn

from boxscore.callbacks.loop import LoopCallback
from boxscore.catalogue import CATALOGUE, Task, documented
from boxscore.identity import Identity
from boxscore.losses import cross_entropy_loss

from .models import ALGORITHMS, default_backbone

BACKBONES = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "mobilenet_v3_large": "MobileNetV3-Large",
}
LEARNING_RATE = 5e-4
WEIGHT_DECAY = 1e-4
MISLEADING = 0.9
"""Share of the pixels from which on one class makes pixel accuracy misleading."""


@dataclass(frozen=True)
class Plan:
    """What the demo trains, on what, for how long, and where it logs."""

    task: Task = "detection"
    algorithm: str | None = None
    backbone: str | None = None
    input_size: int = 128
    steps: int = 240
    batch_size: int = 8
    data: Path | None = None
    out: Path = Path("boxscore-demo")
    seed: int = 0

    @property
    def trained(self) -> str:
        """The algorithm, by default the task's first.

        Raises:
            ValueError: for one that the task does not have.
        """
        offered = ALGORITHMS[self.task]
        algorithm = self.algorithm or next(iter(offered))
        if algorithm not in offered:
            raise ValueError(f"--algorithm {algorithm}: {self.task} offers {', '.join(offered)}")
        return algorithm

    @property
    def tracking_uri(self) -> str:
        """MLflow's store below ``out``."""
        return f"sqlite:///{(self.out / 'mlflow.db').resolve()}"


def demo(plan: Plan, console: Console) -> LoopCallback:
    """Train as planned, showing how far it is; then print the final figures.

    Raises:
        ValueError: for a plan or data that cannot be trained, with what is wrong.
    """
    _seed(plan.seed)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # tells of every table
    train, test, name = _data(plan)
    classes = test.classes
    backbone = plan.backbone or default_backbone(plan.trained)
    model = ALGORITHMS[plan.task][plan.trained](backbone, max(classes) + 1, plan.input_size)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    loader = _loader(train, plan, shuffle=True)
    plan.out.mkdir(parents=True, exist_ok=True)
    score = LoopCallback(
        model,
        optimizer,
        _loader(test, plan),
        train_loader=loader,
        criterion=partial(cross_entropy_loss, ignore_index=test.ignore_index),
        ignore_index=test.ignore_index,
        task=plan.task,
        dataset=name,
        classes=classes,
        identity=_identity(plan, model, backbone),
        log_dir=str(plan.out / "runs"),
        tracking_uri=plan.tracking_uri,
        log_every=max(1, min(10, plan.steps // 10)),
        evaluate_every=max(1, plan.steps // 6),
    )
    with _bar(console) as bar, score:
        task = bar.add_task("", total=plan.steps, shown="")
        for step, batch in enumerate(_endless(loader, plan.steps), 1):
            _train(model, optimizer, batch, score, test.ignore_index)
            _show(bar, task, step, score)
    return score


def report(score: LoopCallback, plan: Plan, console: Console) -> None:
    """Print the final losses and figures, and the command that shows the curves."""
    run = score.run
    assert run is not None
    table = Table(title=f"{run.identity} on {run.dataset}")
    for column in ("measure", "test set, last", "best"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    metrics = [m.name for m in documented(run.task) if m.kind == "metric"]
    if remark := majority_remark(run):
        metrics.sort(key=lambda name: name not in ("IoU", "F1"))
        console.print(remark)
    for name in [m.name for m in CATALOGUE.values() if m.kind == "loss"] + metrics:
        if name in score.latest:
            table.add_row(name, f"{score.latest[name]:.4f}", _figure(score.best.get(name)))
    console.print(table)
    console.print(f"See the curves: [bold]boxscore view {plan.out}[/bold]")


def majority_remark(run: Any) -> str:
    """One line where one class holds so many pixels that accuracy misleads, else nothing."""
    majority = run.metric("test").majority() if run.task == "semantic-segmentation" else None
    if majority is None or majority[1] <= MISLEADING:
        return ""
    name, share = majority
    return (
        f"{share:.0%} of the evaluated pixels are {name!r}: predicting only that already gives "
        "this pixel accuracy, so look at IoU and F1"
    )


def _data(plan: Plan) -> tuple[Any, Any, str]:
    if plan.data is None:
        from .shapes import Shapes

        return Shapes("train", plan.task), Shapes("test", plan.task), "shapes"
    from .datasets import read_folder

    return *read_folder(plan.data, plan.task, side=plan.input_size), plan.data.resolve().name


def _identity(plan: Plan, model: nn.Module, backbone: str) -> Identity:
    """What the model says; a trunk cut short for dense heads does not say its name."""
    known = {} if plan.trained == "unet" else {"backbone": BACKBONES[backbone]}
    if _semantic(plan):
        known["input_size"] = f"{plan.input_size}x{plan.input_size}"
    return Identity.of(model, **known)


def _train(
    model: nn.Module, optimizer: Any, batch: Any, score: LoopCallback, ignore_index: int
) -> None:
    images, targets = batch
    model.train()
    outputs = None
    if isinstance(targets, Tensor):
        outputs = model(images)
        outputs = outputs["out"] if isinstance(outputs, dict) else outputs
        loss = cross_entropy_loss(outputs, targets, ignore_index=ignore_index)
        losses = {"classification": loss}
    else:
        losses = model(images, targets)
    optimizer.zero_grad()
    total: Tensor = sum(losses.values(), torch.zeros(()))
    total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    score.step(losses, outputs=outputs, targets=targets)


def _endless(loader: Any, steps: int) -> Iterator[Any]:
    """Batches of as many epochs as ``steps`` take."""
    done = 0
    while True:
        for batch in loader:
            if done == steps:
                return
            done += 1
            yield batch


def _loader(data: Any, plan: Plan, *, shuffle: bool = False) -> Any:
    return torch.utils.data.DataLoader(
        data,
        batch_size=plan.batch_size if getattr(data, "even", True) else 1,
        shuffle=shuffle,
        drop_last=shuffle and len(data) > plan.batch_size,
        collate_fn=None if _semantic(plan) else as_lists,
    )


def as_lists(batch: list[tuple[Tensor, Any]]) -> tuple[list[Tensor], list[Any]]:
    """Images and targets side by side: detection images differ in size."""
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
        console=console,
    )


def _show(bar: Progress, task: Any, step: int, score: LoopCallback) -> None:
    shown = ("total", "box_AP50", "mask_AP50", "IoU")
    text = "  ".join(f"{name} {score.latest[name]:.3f}" for name in shown if name in score.latest)
    bar.update(task, completed=step, shown=f"test: {text}" if text else "")


def _figure(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.4f}"


def _semantic(plan: Plan) -> bool:
    return plan.task == "semantic-segmentation"


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
