"""The laws that every logger obeys: repetition and resuming change nothing that a reader sees."""

from __future__ import annotations

import copy
import os
import pickle
import random
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from boxscore.logger import Logger
from boxscore.loggers import DurableLogger, MemoryLogger, MLflowLogger, TensorBoardLogger
from boxscore.records import File, Item, Point, RunStart, Tag

# MLflow's SQL store uses what SQLAlchemy is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``")

Seen = dict[str, Any]


def of_memory(logger: Any, _: Path) -> Seen:
    return {
        "points": logger.points,
        "tags": logger.tags,
        "files": sorted(logger.files),
        "status": logger.status,
    }


def of_mlflow(_: Any, folder: Path) -> Seen:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs: Any = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {
        run.info.run_id: {
            "status": (run.info.status, run.info.end_time),
            "tags": run.data.tags,
            "params": run.data.params,
            "datasets": [i.dataset.name for i in run.inputs.dataset_inputs],
            "files": [file.path for file in client.list_artifacts(run.info.run_id)],
            "points": {
                key: [(m.step, m.value, m.timestamp) for m in history]
                for key in run.data.metrics
                for history in [client.get_metric_history(run.info.run_id, key)]
            },
        }
        for run in runs
    }


def of_tensorboard(_: Any, folder: Path) -> Seen:
    seen: Seen = {}
    for split in (folder / "log" / "bccd" / "run").iterdir():
        reader = EventAccumulator(str(split))
        reader.Reload()
        for tag in reader.Tags()["scalars"]:
            seen[f"{split.name} {tag}"] = [(s.step, s.value) for s in reader.Scalars(tag)]
        for tag in reader.Tags()["tensors"]:
            seen[f"{split.name} {tag}"] = len(reader.Tensors(tag))
    return seen


def mlflow(folder: Path) -> Logger:
    return MLflowLogger(f"sqlite:///{folder}/mlflow.db")


MAKERS: dict[str, tuple[Callable[[Path], Logger], Callable[[Any, Path], Seen]]] = {
    "memory": (lambda folder: MemoryLogger(), of_memory),
    "tensorboard": (lambda folder: TensorBoardLogger(folder / "log"), of_tensorboard),
    "mlflow": (mlflow, of_mlflow),
    "durable mlflow": (lambda f: DurableLogger(mlflow(f), f / "spool", patience=60), of_mlflow),
    "durable tensorboard": (
        lambda f: DurableLogger(TensorBoardLogger(f / "log"), f / "spool", patience=60),
        of_tensorboard,
    ),
}


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> tuple[Callable[[Path], Logger], Any]:
    return MAKERS[request.param]


def told(logger: Logger, folder: Path, times: int, run: RunStart) -> None:
    """Every call of a run's life, each ``times`` times."""
    (folder / "note.txt").write_text("content")
    items: list[Item] = [
        *(
            Point("total", step / 7, step, "train", 1000.0 + step, "loss A 1x1")
            for step in range(9)
        ),
        *(Point("total", step / 9, step, "test", 1000.0 + step, "loss A 1x1") for step in range(9)),
        Tag("boxscore.fingerprint.test", "7f3a2c000000"),
        File("note.txt", str(folder / "note.txt")),
    ]
    for _ in range(times):
        logger.open(run)
    for start in (0, 4, 8, 12, 16):
        for _ in range(times):
            logger.log(items[start : start + 4])
    for _ in range(times):
        logger.close()


def test_each_call_twice_is_as_each_call_once(
    kind: tuple[Callable[[Path], Logger], Any], tmp_path: Path
) -> None:
    make, read = kind
    run = RunStart(
        uuid.uuid4().hex, "A 1x1", "bccd", "bccd/run", {"early": "1"}, {"algorithm": "A"}
    )
    seen = []
    for times in (1, 2):
        folder = tmp_path / str(times)
        folder.mkdir()
        logger = make(folder)
        told(logger, folder, times, run)
        seen.append(read(logger, folder))
    once, twice = (_without_ids(each) for each in seen)
    assert once
    assert once == twice


def _without_ids(seen: Seen) -> Any:
    """Less what differs between two trackers: run ids and the moment of the end."""
    if all(isinstance(run, dict) for run in seen.values()) and "points" not in seen:
        return [{**run, "status": run["status"][0]} for run in seen.values()]
    return seen


def test_closing_twice_keeps_the_first_end(
    kind: tuple[Callable[[Path], Logger], Any], tmp_path: Path
) -> None:
    make, read = kind
    logger = make(tmp_path)
    told(logger, tmp_path, 1, RunStart("a" * 32, "A 1x1", "bccd", "bccd/run"))
    before = read(logger, tmp_path)
    logger.close("FAILED")
    assert read(logger, tmp_path) == before


def test_it_keeps_the_protocol_and_pickles_before_it_opens(
    kind: tuple[Callable[[Path], Logger], Any], tmp_path: Path
) -> None:
    make, read = kind
    logger = copy.deepcopy(pickle.loads(pickle.dumps(make(tmp_path))))
    assert isinstance(logger, Logger)
    assert [path.name for path in tmp_path.iterdir()] == []  # nothing is begun before it opens
    told(logger, tmp_path, 1, RunStart("a" * 32, "A 1x1", "bccd", "bccd/run"))
    assert read(logger, tmp_path)


# resuming


def curves(logger: Logger, folder: Path) -> dict[str, list[int]]:
    """The steps of every series, in the order in which a reader meets them."""
    seen: dict[str, list[int]] = {}
    if isinstance(logger, MemoryLogger):
        for point in logger.points:
            seen.setdefault(point.key, []).append(point.step)
        return seen
    if (folder / "log").exists():
        for name, values in of_tensorboard(logger, folder).items():
            if isinstance(values, list):
                split, tag = name.split(" ", 1)
                seen[f"{tag}.{split}"] = [step for step, _ in values]
        return seen
    (run,) = of_mlflow(logger, folder).values()
    assert run["status"][0] == "FINISHED"
    return {key: [step for step, *_ in history] for key, history in run["points"].items()}


def steps_told(first: int, last: int) -> list[list[Item]]:
    """Calls of `log` for these steps, with an evaluation each tenth; times are never the same."""
    return [
        [
            Point(name, step / 7, step, split, scope="loss A 1x1")
            for split in (("train", "test") if step % 10 == 0 else ("train",))
            for name in ("total", "classification")
        ]
        for step in range(first, last + 1)
    ]


def trained(logger: Logger, run: RunStart, calls: list[list[Item]]) -> None:
    """Open ``logger`` and log ``calls`` as a run does."""
    logger.open(run)
    for call in calls:
        logger.log(call)


def killed(make: Callable[[], Logger], run: RunStart, calls: list[list[Item]]) -> None:
    """In a process of its own that gets SIGKILL; a spool is perhaps half delivered by then."""
    child = os.fork()
    if child == 0:
        try:
            trained(make(), run, calls)
            time.sleep(random.Random(run.id).uniform(0, 2))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_run_that_is_resumed_twice_shows_one_curve(
    kind: tuple[Callable[[Path], Logger], Any], tmp_path: Path, end: str
) -> None:
    """Each time from thirty steps back, by a new logger in a new process or this one."""
    make, _ = kind
    logger = make(tmp_path)
    memory = isinstance(logger, MemoryLogger)  # its points are nowhere else
    if memory and end == "killed":
        return
    run = RunStart(uuid.uuid4().hex, "A 1x1", "bccd", "bccd/run")
    for first, last in ((1, 100), (71, 130), (101, 160)):
        logger = logger if memory else make(tmp_path)
        start = replace(run, resumed=first > 1)
        if end == "killed" and last < 160:
            killed(lambda: make(tmp_path), start, steps_told(first, last))
        else:
            trained(logger, start, steps_told(first, last))
            logger.close()
    seen = curves(logger, tmp_path)
    assert len(seen) == 4
    for key, steps in seen.items():
        assert steps == [*range(10, 161, 10)] if key.endswith("test") else [*range(1, 161)], key
