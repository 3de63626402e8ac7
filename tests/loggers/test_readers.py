"""A run that was resumed twice, as real trackers show it: both of TensorBoard's loaders, MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from boxscore import Identity, Run
from boxscore.loggers import standard
from tests.servers import free_port, wait_for

# MLflow's SQL store uses what SQLAlchemy is about to drop
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The ``noload``")]

LAST = 160
LOSS = "loss RetinaNet 640x640/total"


def fetch(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


@contextmanager
def tensorboard(runs: Path, fast: str) -> Iterator[str]:
    """The address of a TensorBoard that reads ``runs``."""
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--reload_interval", "1"]
    command += ["--samples_per_plugin", "scalars=1000000", f"--load_fast={fast}"]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdout=words, stderr=words, start_new_session=True)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def curve(board: str, run: str, tag: str) -> list[tuple[int, float]]:
    """Steps and values as the page gets them; nothing where nothing is loaded yet."""
    query = urllib.parse.urlencode({"run": run, "tag": tag})
    try:
        found = fetch(f"{board}/data/plugin/scalars/scalars?{query}")
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return []
    return [(step, value) for _, step, value in found]


def train(folder: Path, state: Any, first: int, last: int) -> Any:
    """Steps ``first`` to ``last`` of a training; return its checkpoint of 30 steps before."""
    run = Run(
        Identity("RetinaNet", "640x640", "ResNet-50"),
        task="detection",
        dataset="bccd",
        classes={1: "RBC"},
        loggers=standard(folder / "runs", f"sqlite:///{folder}/mlflow.db"),
        log_every=1,
        on_error="raise",
    )
    if state is not None:
        run.load_state_dict(state)
    with run:
        for step in range(first, last + 1):
            run.record({"loss_cls": step / 8, "loss_bbox": 0.0}, step=step)
            if step % 10 == 0:
                run.record({"loss_cls": step / 4, "loss_bbox": 0.0}, step=step, split="test")
            if step == last - 30:
                checkpoint = json.loads(json.dumps(run.state_dict()))
    return checkpoint


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder, and the run's folder below ``runs``."""
    folder = tmp_path_factory.mktemp("resumed")
    state = None
    for first, last in ((1, 100), (71, 130), (101, 160)):
        state = train(folder, state, first, last)
    (train_folder,) = (folder / "runs").rglob("train")
    assert len([*train_folder.glob("events*")]) == 3
    return folder, str(train_folder.parent.relative_to(folder / "runs"))


@pytest.mark.parametrize("fast", ["true", "false"])
def test_both_loaders_of_tensorboard_show_one_curve(resumed: tuple[Path, str], fast: str) -> None:
    folder, run = resumed
    with tensorboard(folder / "runs", fast) as board:
        wait_for(lambda: len(curve(board, f"{run}/train", LOSS)) >= LAST)
        train_points = curve(board, f"{run}/train", LOSS)
        test_points = curve(board, f"{run}/test", LOSS)
    assert train_points == [(step, step / 8) for step in range(1, LAST + 1)]
    assert test_points == [(step, step / 4) for step in range(10, LAST + 1, 10)]


def test_mlflow_shows_one_curve_of_one_run(resumed: tuple[Path, str]) -> None:
    folder, _ = resumed
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    shelf = client.get_experiment_by_name("bccd")
    assert shelf is not None
    (run,) = client.search_runs([shelf.experiment_id])
    assert run.info.status == "FINISHED"
    for split, expected in (
        ("train", [(step, step / 8) for step in range(1, LAST + 1)]),
        ("test", [(step, step / 4) for step in range(10, LAST + 1, 10)]),
    ):
        history = client.get_metric_history(run.info.run_id, f"{LOSS}.{split}")
        assert [(metric.step, metric.value) for metric in history] == expected
