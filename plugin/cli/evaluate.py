"""``boxscore evaluate``: COCO's files in, the figures out, to the terminal and to the trackers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from boxscore import distributed
from boxscore.detection import DetectionMetrics
from boxscore.identity import Identity
from boxscore.logger import Logger
from boxscore.loggers import MLflowLogger, TensorBoardLogger
from boxscore.run import Run

from .coco_files import Dataset, read

BATCH = 16
"""Images that are measured at a time."""

LONG = 512
"""Images from which on a progress bar is shown."""


@dataclass(frozen=True)
class Destination:
    """Where the figures are logged too, and of what they are.

    Attributes:
        identity: what made the predictions.
        dataset: the user's name for the data.
        log_dir: TensorBoard's folder; None turns it off.
        tracking_uri: MLflow's; None turns it off.
        step: optimizer steps of the model.
    """

    identity: Identity
    dataset: str
    log_dir: str | None
    tracking_uri: str | None
    step: int = 0


def evaluate(
    annotations: Path,
    predictions: Path,
    *,
    masks: bool = False,
    max_detections: int = 100,
    destination: Destination | None = None,
) -> DetectionMetrics:
    """Measure the results in ``predictions`` against ``annotations``.

    Several processes, each of which calls it, share out the images: the first one's metric then
    holds all of them, and it alone logs; the others' hold their shares.

    Args:
        annotations: COCO's ``instances`` file.
        predictions: COCO's results file.
        masks: whether to measure masks as well as boxes.
        max_detections: how many detections per image and class count.
        destination: where to log the figures, if anywhere.

    Raises:
        ValueError: in one line that names the entry that is wrong.
        OSError: for a file that cannot be read.
    """
    data = distributed.unanimous(lambda: read(annotations, predictions, masks=masks))
    if not data.sizes:
        raise ValueError(f"{annotations.name} holds no image")
    metric = DetectionMetrics(data.classes, masks=masks, max_detections=max_detections)
    if destination is None:
        distributed.unanimous(lambda: _feed(data, metric.update))
        for share in distributed.to_first(metric)[1:]:
            metric.merge(share)
        return metric
    run = Run(
        destination.identity,
        task="instance-segmentation" if masks else "detection",
        dataset=destination.dataset,
        classes=data.classes,
        loggers=_loggers(destination),
        metric=metric,
        on_error="raise",
    )
    with run, run.evaluation("test", step=destination.step) as evaluation:
        distributed.unanimous(lambda: _feed(data, evaluation.update))
    return metric


def show(metric: DetectionMetrics, console: Console, *, per_class: bool) -> None:
    """Print the figures as tables."""
    table = Table("figure", "value")
    for name, value in metric.compute().items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    if per_class:
        console.print(_class_table(metric.per_class()))


def as_json(metric: DetectionMetrics, *, per_class: bool) -> dict[str, Any]:
    """The figures by catalogue name, with those of each class under ``per_class``."""
    figures: dict[str, Any] = dict(metric.compute())
    return figures | {"per_class": metric.per_class()} if per_class else figures


def _class_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table("class", *names)
    for of, row in rows.items():
        table.add_row(of, *(f"{row[name]:.4f}" if name in row else "" for name in names))
    return table


def _loggers(destination: Destination) -> list[Logger]:
    """Those that were asked for; MLflow without a spool, as no training is kept waiting."""
    loggers: list[Logger] = []
    if destination.log_dir is not None:
        loggers.append(TensorBoardLogger(destination.log_dir))
    if destination.tracking_uri is not None:
        loggers.append(MLflowLogger(destination.tracking_uri))
    return loggers


def _feed(data: Dataset, update: Callable[[Any, Any], None]) -> None:
    """Give ``update`` this process's share of the images, batch by batch."""
    shown = Console(stderr=True)
    few = min(BATCH, math.ceil(len(data.sizes) / distributed.size()))
    batches = list(data.batches(few))[distributed.rank() :: distributed.size()]
    silent = len(data.sizes) < LONG or not shown.is_terminal or distributed.rank() > 0
    for found, truth in track(batches, "evaluating", console=shown, transient=True, disable=silent):
        update(found, truth)
