"""``boxscore demo``: a small real training that logs everything, on generated or own images."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice, repeat
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
from boxscore.cli import store_uri
from boxscore.identity import Identity
from boxscore.losses import cross_entropy_loss

from .models import ALGORITHMS, default_backbone

LEARNING_RATE = 5e-4
WEIGHT_DECAY = 1e-4
MISLEADING = 0.9
"""Share of the pixels from which on one class makes pixel accuracy misleading."""


@dataclass(frozen=True)
class Plan:
    """Model, data, length and log folder of the demo's training."""

    task: Task = "detection"
    algorithm: str | None = None
    backbone: str | None = None
    input_size: int = 128
    steps: int = 100
    batch_size: int = 8
    data: Path | None = None
    out: Path = Path("boxscore-demo")
    seed: int = 0

    @property
    def trained(self) -> str:
        """The algorithm, by default the task's first.

        Raises:
            ValueError: the task does not offer it.
        """
        offered = ALGORITHMS[self.task]
        algorithm = self.algorithm or next(iter(offered))
        if algorithm not in offered:
            raise ValueError(f"--algorithm {algorithm}: {self.task} offers {', '.join(offered)}")
        return algorithm

    def models(self) -> list[Plan]:
        """Plans of two models that compare, or of the one that is named."""
        if self.algorithm or self.backbone:
            return [self]
        algorithms = list(ALGORITHMS[self.task])[:2]
        if len(algorithms) == 2:
            return [replace(self, algorithm=algorithm) for algorithm in algorithms]
        return [replace(self, backbone=backbone) for backbone in ("resnet18", "resnet34")]

    @property
    def is_semantic(self) -> bool:
        """Whether each pixel has a label."""
        return self.task == "semantic-segmentation"

    @property
    def evaluate_every(self) -> int:
        """Steps between two evaluations."""
        return max(1, self.steps // 5)


def demo(plan: Plan, console: Console) -> LoopCallback:
    """Train as planned, with progress on ``console``.

    Raises:
        ValueError: the plan or its data cannot be trained; the message names the reason.
    """
    random.seed(plan.seed)
    np.random.seed(plan.seed)
    torch.manual_seed(plan.seed)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # one line per table
    tracking_uri = store_uri(plan.out)
    train, test, name = _data(plan)
    backbone = plan.backbone or default_backbone(plan.trained)
    model = ALGORITHMS[plan.task][plan.trained](backbone, max(test.classes) + 1, plan.input_size)
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
        classes=test.classes,
        identity=_identity(plan, model, backbone),
        log_dir=str(plan.out / "runs"),
        tracking_uri=tracking_uri,
        log_every=max(1, min(10, plan.steps // 10)),
        evaluate_every=plan.evaluate_every,
    )
    with _progress(console, plan, score) as show:
        with score:
            for step, batch in enumerate(
                islice(chain.from_iterable(repeat(loader)), plan.steps), 1
            ):
                _train(model, optimizer, batch, score, test.ignore_index)
                show(step)
        show(plan.steps, is_last=True)  # with the evaluation at the end of the run
    return score


def report(score: LoopCallback, plan: Plan, console: Console) -> bool:
    """Print the final losses and metrics, and the command that shows the curves.

    Returns:
        whether a metric of the test set was measured.
    """
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
            values = (score.latest[name], score.best.get(name, math.nan))
            table.add_row(name, *("" if math.isnan(v) else f"{v:.4f}" for v in values))
    console.print(table)
    console.print(f"See the curves: [bold]boxscore view {plan.out}[/bold]", soft_wrap=True)
    return any(name in score.latest for name in metrics)


def what_to_look_at(plans: Sequence[Plan]) -> str:
    """What the pages show first of two models that were trained."""
    metric = {"detection": "box_AP", "instance-segmentation": "mask_AP"}
    name = metric.get(plans[0].task, "IoU")
    models = " and ".join(plan.backbone or plan.trained for plan in plans)
    is_one = len({plan.trained for plan in plans}) == 1
    losses = "so do their losses" if is_one else "their losses are in charts apart"
    return (
        f"Look first at {name}: {models} were measured on one test set, so that it shares a chart; "
        f"{losses}. Then at the pictures, which are of the same images."
    )


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
    """The model's; a backbone that is cut short and a resize outside of the model are given."""
    known = {} if plan.trained == "unet" else {"backbone": Identity.parse(backbone).backbone}
    if plan.is_semantic:
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


def _loader(data: Any, plan: Plan, *, shuffle: bool = False) -> Any:
    return torch.utils.data.DataLoader(
        data,
        batch_size=plan.batch_size if getattr(data, "is_even", True) else 1,
        shuffle=shuffle,
        drop_last=shuffle and len(data) > plan.batch_size,
        collate_fn=None if plan.is_semantic else as_lists,
    )


def as_lists(batch: list[tuple[Tensor, Any]]) -> tuple[list[Tensor], list[Any]]:
    """Images and targets side by side: detection images differ in size."""
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


@contextmanager
def _progress(console: Console, plan: Plan, score: LoopCallback) -> Iterator[Any]:
    """A function that shows a step: in a bar; in a file or pipe as one line per evaluation."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    text = TextColumn("{task.fields[test]}")
    bar = Progress("training", *columns, text, console=console, disable=not console.is_terminal)
    task, shown = bar.add_task("", total=plan.steps, test=""), ""

    def show(step: int, is_last: bool = False) -> None:
        nonlocal shown
        names = [n for n in ("total", "box_AP50", "mask_AP50", "IoU") if n in score.latest]
        test = "  ".join(f"{n} {score.latest[n]:.3f}" for n in names)
        test = test and f"test: {test}"
        bar.update(task, completed=step, test=test)
        line = f"step {step}/{plan.steps}  {test}"
        is_due = is_last or step % plan.evaluate_every == 0
        if bar.disable and is_due and line != shown:
            console.print(line, soft_wrap=True)
            shown = line

    with bar:
        yield show
