"""Destinations: MLflow, TensorBoard, a durable spool in front of either, memory.

Importing this imports no tracker: a logger imports its library when it is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from boxscore.logger import Logger, Refused

from .durable import DurableLogger
from .memory import MemoryLogger
from .mlflow import MLflowLogger
from .sync import Synced, sync
from .tensorboard import TensorBoardLogger
from .tracking_uri import local_folder

__all__ = [
    "DurableLogger",
    "MLflowLogger",
    "MemoryLogger",
    "Refused",
    "Synced",
    "TensorBoardLogger",
    "standard",
    "sync",
]


def standard(
    log_dir: str | Path = "runs",
    tracking_uri: str | Literal[False] | None = None,
    experiment: str | None = None,
    run: str | None = None,
) -> list[Logger]:
    """The loggers of a callback that was given none: TensorBoard, and MLflow behind a spool.

    Args:
        log_dir: folder of the event files, on this machine; ``~`` is expanded. The spool is in
            it, under ``.boxscore-spool``.
        tracking_uri: MLflow's; None is MLflow's own default, False turns MLflow off.
        experiment: MLflow experiment, by default the dataset's name.
        run: ``"active"`` or the id of an MLflow run to join; it is not ended.

    Raises:
        ValueError: ``tracking_uri`` is a ``file:`` store, or ``log_dir`` a bucket.
    """
    folder = local_folder(log_dir, "log_dir")
    loggers: list[Logger] = [TensorBoardLogger(folder)]
    if tracking_uri is not False:
        tracker = MLflowLogger(tracking_uri, experiment=experiment, run=run)
        loggers.append(DurableLogger(tracker, folder / ".boxscore-spool"))
    return loggers
