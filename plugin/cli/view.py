"""``boxscore view``: TensorBoard and the MLflow server side by side on free loopback ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from boxscore.exit_status import sigterm_raises

PATIENCE = 90.0
"""Seconds for a server to answer."""

ALL_POINTS = 1_000_000_000
"""More than any curve has."""


@dataclass(frozen=True)
class Links:
    """Where to look."""

    tensorboard: str | None
    mlflow: str | None


@contextmanager
def servers(folder: Path) -> Iterator[Links]:
    """Serve what lies in ``folder`` until the block is left; then no process of ours is left.

    Args:
        folder: with ``runs`` (TensorBoard's) or ``mlflow.db``, or both.

    Raises:
        ValueError: if ``folder`` holds neither.
        RuntimeError: if a server does not come up, with its last words.
    """
    runs, store = folder / "runs", folder / "mlflow.db"
    if not runs.is_dir() and not store.is_file():
        raise ValueError(f"{folder} holds neither runs/ (TensorBoard) nor mlflow.db (MLflow)")
    started: list[subprocess.Popen[bytes]] = []
    with sigterm_raises(), tempfile.TemporaryFile() as words:
        try:
            board = _tensorboard(runs, started, words) if runs.is_dir() else None
            tracker = _mlflow(store, started, words) if store.is_file() else None
            for address, process in zip(filter(None, (board, tracker)), started, strict=True):
                _wait(address, process, words)
            yield Links(board, None if tracker is None else tracker + _chart_view(store))
        finally:
            for process in started:
                _stop(process)


def _tensorboard(runs: Path, started: list[subprocess.Popen[bytes]], words: IO[bytes]) -> str:
    port = _free_port()
    # every point is kept: by default 1,000 of a curve's points are drawn at random. (0, which is
    # said to keep all, shows none in TensorBoard 2.21.)
    arguments = ["--logdir", str(runs), "--port", str(port), "--host", "127.0.0.1"]
    arguments += ["--samples_per_plugin", f"scalars={ALL_POINTS}"]
    started.append(_start("tensorboard.main", arguments, words))
    return f"http://127.0.0.1:{port}/"


def _mlflow(store: Path, started: list[subprocess.Popen[bytes]], words: IO[bytes]) -> str:
    port = _free_port()
    arguments = ["server", "--backend-store-uri", f"sqlite:///{store.resolve()}"]
    arguments += ["--artifacts-destination", str(store.resolve().parent / "mlartifacts")]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    started.append(_start("mlflow", arguments, words))
    return f"http://127.0.0.1:{port}/"


def _start(module: str, arguments: list[str], words: IO[bytes]) -> subprocess.Popen[bytes]:
    # a session of its own, so that its children can be ended with it; and MLflow's job runners,
    # which nothing here needs, would outlive it
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=words,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        start_new_session=True,
    )


def _wait(address: str, process: subprocess.Popen[bytes], words: IO[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    words.seek(0)
    said = words.read().decode(errors="replace").strip().splitlines()
    raise RuntimeError(f"no answer from {address}: {said[-1] if said else 'no message'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, sign)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _chart_view(store: Path) -> str:
    """The part of a link that opens the newest experiment's charts, past MLflow's start page."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store.resolve()}")
    found = client.search_experiments(order_by=["last_update_time DESC"])
    shelf = next((e.experiment_id for e in found if e.name != "Default"), "0")
    view = "compareRunsMode=CHART&workflowType=machine_learning"
    return f"#/experiments/{shelf}/runs?{view}"
