"""Points to an MLflow server: how fast they arrive, and what recording them costs the training.

Run ``python tests/benchmarks/delivery.py``; it starts an MLflow server on SQLite on loopback.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric

from boxscore.logger import Logger
from boxscore.loggers import DurableLogger, MLflowLogger
from boxscore.records import Point, RunStart

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.servers import Server, free_port

NAMES = (
    *("total", "classification", "localization", "regularization"),
    *("mask", "rpn_localization", "rpn_objectness", "other"),
)


def run_start() -> RunStart:
    return RunStart(uuid.uuid4().hex, "benchmark", "benchmark", "benchmark")


def records(count: int) -> Iterator[list[Point]]:
    """``count`` calls of one step's eight losses."""
    for step in range(count):
        yield [Point(name, step / 7, step, scope="loss RetinaNet 640x640") for name in NAMES]


def delivered(uri: str, folder: Path, calls: int) -> float:
    """Values per second from the first call of `log` to the end of the run in MLflow."""
    run = run_start()
    logger = DurableLogger(MLflowLogger(uri), folder, patience=600)
    _, seconds = sent(logger, run, calls)
    verify(uri, run, calls)
    return calls * len(NAMES) / seconds


def sent(logger: DurableLogger, run: RunStart, calls: int) -> tuple[float, float]:
    """Seconds until all was recorded at full speed, and until the end of the run had arrived."""
    logger.open(run)
    start = time.perf_counter()
    for points in records(calls):
        logger.log(points)
    recorded = time.perf_counter() - start
    logger.close()
    return recorded, time.perf_counter() - start


def verify(uri: str, run: RunStart, calls: int) -> None:
    """Fail unless every point is in MLflow exactly once."""
    client = MlflowClient(uri)
    shelf = client.get_experiment_by_name(run.experiment)
    assert shelf is not None
    (found,) = client.search_runs([shelf.experiment_id], f"tags.`boxscore.run` = '{run.id}'")
    for key in found.data.metrics:
        steps = [metric.step for metric in client.get_metric_history(found.info.run_id, key)]
        assert sorted(steps) == [*range(calls)], f"{key}: {len(steps)} of {calls} points arrived"
    assert len(found.data.metrics) == len(NAMES)


def one_by_one(uri: str, calls: int) -> float:
    """Values per second with one `log_metric` per value, to a run that exists."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("benchmark")
    assert experiment is not None
    run = client.create_run(experiment.experiment_id).info.run_id
    start = time.perf_counter()
    for points in records(calls):
        for point in points:
            client.log_metric(run, point.key, point.value, int(point.time * 1000), point.step)
    return calls * len(NAMES) / (time.perf_counter() - start)


def in_one_call(uri: str, calls: int) -> float:
    """Values per second with `log_batch` of 1000 alone: what the server can take."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("benchmark")
    assert experiment is not None
    run = client.create_run(experiment.experiment_id).info.run_id
    points = [point for points in records(calls) for point in points]
    metrics = [Metric(p.key, p.value, int(p.time * 1000), p.step) for p in points]
    start = time.perf_counter()
    client.log_batch(run, metrics)
    return len(metrics) / (time.perf_counter() - start)


def costs(loggers: Mapping[str, Logger], calls: int) -> dict[str, list[float]]:
    """Seconds of each call of `log`, the loggers taking turns, as often as a training would."""
    seen: dict[str, list[float]] = {name: [] for name in loggers}
    for logger in loggers.values():
        logger.open(run_start())
    time.sleep(2)  # past the start
    for points in records(calls):
        # in turns: whoever is first finds the caches cold
        order = list(loggers.items())[:: 1 if points[0].step % 2 else -1]
        for name, logger in order:
            start = time.perf_counter()
            logger.log(points)
            seen[name].append(time.perf_counter() - start)
        time.sleep(0.005)
    for logger in loggers.values():
        logger.close()
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2500, help="of eight values, delivered")
    parser.add_argument("--singly", type=int, default=50, help="of eight values, one by one")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder, f"sqlite:///{folder}/mlflow.db")
        server.start()
        try:
            _speed(server.uri, folder, arguments)
            _cost(server.uri, folder)
        finally:
            server.kill()


def _speed(uri: str, folder: Path, arguments: Any) -> None:
    delivered(uri, folder / "spool", 10)  # warm
    ways: dict[str, Callable[[], float]] = {
        "delivered": lambda: delivered(uri, folder / "spool", arguments.calls),
        "log_metric": lambda: one_by_one(uri, arguments.singly),
        "log_batch of 1000": lambda: in_one_call(uri, arguments.calls),
    }
    rounds = [{way: run() for way, run in ways.items()} for _ in range(arguments.rounds)]
    for way in ways:
        print(f"{way:18} {statistics.median(r[way] for r in rounds):10.0f} values/s")
    ratio = statistics.median(r["delivered"] / r["log_metric"] for r in rounds)
    print(f"delivered / log_metric, median of the rounds' ratios: {ratio:.0f}")


def _cost(uri: str, folder: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    seen = costs(
        {
            "alive": DurableLogger(MLflowLogger(uri), folder / "alive", patience=60),
            "dead": DurableLogger(MLflowLogger(dead), folder / "dead", patience=0),
        },
        1000,
    )
    for name, seconds in seen.items():
        middle, late, most = statistics.median(seconds), _late(seconds), max(seconds)
        print(
            f"log() of 8 values, server {name:6} median {1e6 * middle:5.0f} µs, "
            f"99 % {1e6 * late:6.0f} µs, most {1e6 * most:6.0f} µs"
        )
    ratio = statistics.median(seen["dead"]) / statistics.median(seen["alive"])
    print(f"dead / alive, medians: {ratio:.2f}")


def _late(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


if __name__ == "__main__":
    main()
