"""Where items go: MLflow, TensorBoard, a durable spool in front of either, memory.

Importing this imports no tracker: each logger's library is loaded when the logger is opened.
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
        log_dir: folder of the event files; the spool lies in it, under ``.boxscore-spool``.
        tracking_uri: MLflow's; None is MLflow's own default, False turns MLflow off.
        experiment: MLflow experiment, by default the dataset's name.
        run: ``"active"`` or the id of an MLflow run to join; it is not ended.

    Raises:
        ValueError: if ``tracking_uri`` is a ``file:`` store.
    """
    loggers: list[Logger] = [TensorBoardLogger(log_dir)]
    if tracking_uri is not False:
        tracker = MLflowLogger(tracking_uri, experiment=experiment, run=run)
        loggers.append(DurableLogger(tracker, Path(log_dir) / ".boxscore-spool"))
    return loggers
