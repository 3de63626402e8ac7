"""``boxscore evaluate``: the metrics of COCO's files, in the terminal and in the trackers."""

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
from boxscore.warn import Warnings

from .coco_files import Dataset, read

BATCH_SIZE = 16
LONG = 512  # images from which on a progress bar is shown


@dataclass(frozen=True)
class Destination:
    """The trackers to log to, and the model whose predictions are measured.

    Attributes:
        identity: of the model.
        dataset: the user's name for the data.
        log_dir: TensorBoard's folder; ``None`` turns it off.
        tracking_uri: MLflow's; ``None`` turns it off.
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
    ignore_unknown: bool = False,
    pycocotools_areas: bool = False,
    destination: Destination | None = None,
) -> DetectionMetrics:
    """Measure the results in ``predictions`` against ``annotations``.

    Several processes share the images if each calls it: the metric of rank 0 then holds all of
    them, that of another rank its share. Rank 0 logs.

    Args:
        annotations: COCO's ``instances`` file.
        predictions: COCO's results file.
        masks: whether to measure masks as well as boxes.
        max_detections: the number of detections per image and class that count.
        ignore_unknown: whether results of unknown categories are dropped, or an error.
        pycocotools_areas: whether the detections' areas are those of pycocotools.
        destination: the trackers to log to, if any.

    Raises:
        ValueError: in one line that names the entry that is wrong.
        OSError: for a file that cannot be read.
    """
    options = {"ignore_unknown": ignore_unknown, "pycocotools_areas": pycocotools_areas}
    data = distributed.raise_if_any_rank_failed(
        lambda: read(annotations, predictions, masks=masks, **options)
    )
    if not data.sizes:
        raise ValueError(f"{annotations.name} holds no image")
    metric = DetectionMetrics(
        data.classes,
        masks=masks,
        max_detections=max_detections,
        unknown="ignore" if ignore_unknown else "error",
        areas="given" if pycocotools_areas else "region",
    )
    for remark in data.remarks if distributed.rank() == 0 else ():
        Warnings().warn_once("files", remark)
    if destination is None:
        distributed.raise_if_any_rank_failed(lambda: _feed(data, metric.update))
        for share in distributed.gather_to_rank0(metric)[1:]:
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
        distributed.raise_if_any_rank_failed(lambda: _feed(data, evaluation.update))
    return metric


def show(metric: DetectionMetrics, console: Console, *, per_class: bool) -> None:
    """Print the metrics as tables."""
    table = Table("metric", "value")
    for name, value in metric.compute().items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)
    if per_class:
        console.print(_class_table(metric.per_class()))


def as_json(metric: DetectionMetrics, *, per_class: bool) -> dict[str, Any]:
    """The metrics by catalogue name, with those of each class under ``per_class``."""
    metrics: dict[str, Any] = dict(metric.compute())
    return metrics | {"per_class": metric.per_class()} if per_class else metrics


def _class_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table("class", *names)
    for of, row in rows.items():
        table.add_row(of, *(f"{row[name]:.4f}" if name in row else "" for name in names))
    return table


def _loggers(destination: Destination) -> list[Logger]:
    """The loggers of a destination; MLflow without a spool, since no training waits for it."""
    loggers: list[Logger] = []
    if destination.log_dir is not None:
        loggers.append(TensorBoardLogger(destination.log_dir))
    if destination.tracking_uri is not None:
        loggers.append(MLflowLogger(destination.tracking_uri))
    return loggers


def _feed(data: Dataset, update: Callable[[Any, Any], None]) -> None:
    """Call ``update`` with this process's share of the images, batch by batch."""
    shown = Console(stderr=True)
    batch_size = min(BATCH_SIZE, math.ceil(len(data.sizes) / distributed.size()))
    batches = list(data.batches(batch_size))[distributed.rank() :: distributed.size()]
    silent = len(data.sizes) < LONG or not shown.is_terminal or distributed.rank() > 0
    for batch in track(batches, "evaluating", console=shown, transient=True, disable=silent):
        update(*batch)
