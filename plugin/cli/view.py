"""``boxscore view``: TensorBoard and the MLflow server side by side on free loopback ports."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from boxscore.exit_status import sigterm_raises

from . import store_uri

PATIENCE = 90.0
"""Seconds for a server to answer."""

ALL_POINTS = 1_000_000_000
"""More than any curve has."""


@dataclass(frozen=True)
class Links:
    """The addresses of both pages; None for one without logs.

    Attributes:
        absent: why a page is absent, one line each.
        experiments: the pages of all experiments in MLflow, by name, the newest first.
    """

    tensorboard: str | None
    mlflow: str | None
    absent: tuple[str, ...] = ()
    experiments: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def servers(folder: Path, tracking_uri: str | None = None) -> Iterator[Links]:
    """Serve the logs in ``folder`` until the block is left, which ends both processes.

    Args:
        folder: with event files (TensorBoard's), in ``runs`` or elsewhere, or ``mlflow.db``.
        tracking_uri: of MLflow, instead of ``mlflow.db``: a server that runs, or a database.

    Raises:
        ValueError: neither holds a run, or ``mlflow.db`` is not a database of MLflow.
        RuntimeError: a server does not start; the message is its last line.
    """
    runs, store = folder / "runs", folder / "mlflow.db"
    if not runs.is_dir() and folder.is_dir() and any(folder.rglob("*tfevents*")):
        runs = folder
    no_board = _without_events(runs)
    no_tracker = "" if tracking_uri else _without_runs(store)
    if no_board and no_tracker:
        raise ValueError(
            f"{no_board}; {no_tracker}: pass the log_dir of a training, the --out of a boxscore "
            "demo, or --tracking-uri"
        )
    uri = tracking_uri or ("" if no_tracker else store_uri(folder))
    started: list[subprocess.Popen[bytes]] = []
    board = tracker = None
    with sigterm_raises(), tempfile.TemporaryFile() as errors:
        try:
            if not no_board:
                # by default 1,000 of a curve's points are drawn at random; 0, documented as all,
                # shows none in TensorBoard 2.21
                samples = f"scalars={ALL_POINTS},boxscore=1000,pr_curves=100,images=25"
                arguments = ["--logdir", str(runs), "--samples_per_plugin", samples]
                board = _start("tensorboard.main", arguments, started, errors)
            if uri and not uri.startswith("http"):
                arguments = ["server", "--backend-store-uri", uri]
                artifacts = str(store.resolve().parent / "mlartifacts")
                arguments += ["--artifacts-destination", artifacts, "--workers", "1"]
                tracker = _start("mlflow", arguments, started, errors)
            for address, process in zip(filter(None, (board, tracker)), started, strict=True):
                _wait(address, process, errors)
            pages = _charts(uri, tracker or f"{uri.rstrip('/')}/") if uri else {}
            absent = tuple(filter(None, (no_board, no_tracker)))
            yield Links(board, next(iter(pages.values()), None), absent, pages)
        finally:
            for process in started:
                _stop(process)


def _without_events(runs: Path) -> str:
    """Why TensorBoard has nothing to show, or ``""``."""
    if not runs.is_dir():
        return f"{runs.parent} has no folder runs (TensorBoard)"
    return "" if any(runs.rglob("*tfevents*")) else f"{runs} holds no event file (TensorBoard)"


def _without_runs(store: Path) -> str:
    """Why MLflow has nothing to show, or ``""``."""
    if not store.is_file():
        return f"{store.parent} has no mlflow.db (MLflow)"
    try:
        with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("SELECT 1 FROM runs LIMIT 1")
    except sqlite3.Error as error:
        raise ValueError(f"{store} is not a database of MLflow: {error}") from None
    return ""  # of a database without runs MLflow shows the experiments, or an error


def _start(
    module: str, arguments: list[str], started: list[subprocess.Popen[bytes]], errors: IO[bytes]
) -> str:
    """Start a server on a free port; returns its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # a session of its own ends with its children; MLflow's job runners, unused here, would not
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        start_new_session=True,
    )
    started.append(process)
    return f"http://127.0.0.1:{port}/"


def _wait(address: str, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
    raise RuntimeError(f"no answer from {address}: {lines[-1]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, sign)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _charts(uri: str, address: str) -> dict[str, str]:
    """Links that open the experiments' charts past MLflow's start page, by name, newest first."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from boxscore.loggers.mlflow_view import view_fragment

    try:
        found = MlflowClient(uri).search_experiments(order_by=["last_update_time DESC"])
    except MlflowException as error:
        raise RuntimeError(f"no answer from {address}: {error}") from None
    named = {e.name: address + view_fragment(e.experiment_id) for e in found}
    return {name: link for name, link in named.items() if name != "Default"} or named
