"""A training whose MLflow server is killed in the middle and comes back: nothing is lost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from boxscore.callbacks.loop import LoopCallback
from boxscore.logger import Logger
from boxscore.loggers import DurableLogger, MemoryLogger, MLflowLogger, TensorBoardLogger
from boxscore.records import Point
from tests.servers import Server
from tests.tiny import CLASSES, fcos, loader, train_step

EACH = 40
"""Steps before, during and after the outage."""

EVALUATE_EVERY = 20


@pytest.fixture(params=["sqlite", "postgresql"])
def tracker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A running MLflow server on either store."""
    if request.param == "sqlite":
        yield request.getfixturevalue("server")
        return
    server = Server(tmp_path, request.getfixturevalue("postgres"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Training:
    """A tiny training with both trackers, and what each step of boxscore cost."""

    def __init__(self, tracker: Server, folder: Path) -> None:
        self.model, self.batches = fcos(), list(loader(8))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.memory = MemoryLogger()
        durable = DurableLogger(MLflowLogger(tracker.uri), folder / "spool", patience=120)
        loggers: list[Logger] = [self.memory, TensorBoardLogger(folder / "runs"), durable]
        self.score = LoopCallback(
            self.model,
            self.optimizer,
            loader(2, first=100),
            dataset="boxes",
            classes=CLASSES,
            loggers=loggers,
            log_every=1,
            evaluate_every=EVALUATE_EVERY,
            evaluate_train_every=None,
            on_error="raise",
        )
        self.done = 0

    def steps(self, count: int) -> list[float]:
        """Train on; return the seconds that boxscore took where no evaluation was due."""
        seconds = []
        for _ in range(count):
            losses = train_step(self.model, self.optimizer, self.batches[self.done % 2])
            start = time.perf_counter()
            self.score.step(losses)
            took = time.perf_counter() - start
            self.done += 1
            if self.done % EVALUATE_EVERY:
                seconds.append(took)
        return seconds


def recorded(points: list[Point]) -> list[tuple[str, int, str]]:
    return sorted((point.key, point.step, repr(float(point.value))) for point in points)


def arrived(client: MlflowClient, run: Any) -> list[tuple[str, int, str]]:
    return sorted(
        (key, metric.step, repr(metric.value))
        for key in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, key)
    )


@pytest.mark.slow
def test_an_outage_costs_neither_time_nor_a_point(
    tracker: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("boxscore.loggers.durable._GATHER", 0.05)
    monkeypatch.setattr("boxscore.loggers.durable._LONGEST_PAUSE", 0.5)
    client = MlflowClient(tracker.uri)
    training = Training(tracker, tmp_path)
    with training.score:
        alive = training.steps(EACH)
        wait_until(lambda: client.get_experiment_by_name("boxes") is not None)
        tracker.kill()
        dead = training.steps(EACH)
        wait_until(lambda: "cannot be reached" in caplog.text)
        dead += training.steps(EACH)
        tracker.start()
        training.steps(EACH)
    assert training.memory.status == "FINISHED"
    start = training.memory.start
    assert start is not None
    shelf = client.get_experiment_by_name("boxes")
    assert shelf is not None
    (run,) = client.search_runs([shelf.experiment_id], f"tags.`boxscore.run` = '{start.id}'")
    assert run.info.status == "FINISHED"
    expected = recorded(training.memory.points)
    assert len({step for _, step, _ in expected}) == 4 * EACH
    assert arrived(client, run) == expected
    # generous, because the machine is shared; MLflow's own defaults block for minutes
    assert statistics.median(dead) < 5 * statistics.median(alive) + 0.005
