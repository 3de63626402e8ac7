"""The laws that every framework's callback obeys."""

import copy
import importlib.util
import inspect
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from boxscore import Identity
from boxscore.callbacks.base import CallbackBase
from boxscore.callbacks.ignite import BoxscoreHandler
from boxscore.callbacks.lightning import BoxscoreCallback as LightningCallback
from boxscore.callbacks.loop import LoopCallback
from boxscore.callbacks.mmengine import BoxscoreHook
from boxscore.callbacks.options import Keywords
from boxscore.callbacks.reading.facts import Facts
from boxscore.callbacks.rfdetr import BoxscoreCallback as RfdetrCallback
from boxscore.callbacks.transformers import BoxscoreCallback as TransformersCallback
from boxscore.callbacks.ultralytics import BoxscoreCallback as UltralyticsCallback
from boxscore.catalogue import CATALOGUE, Task, documented
from boxscore.loggers import MemoryLogger, MLflowLogger, TensorBoardLogger
from boxscore.records import Item
from boxscore.segmentation import SegmentationMetrics
from tests.tiny_trainer import series
from tests.trainings import TASKS, TRAININGS, Trained, train

os.environ.setdefault("KERAS_BACKEND", "torch")
from boxscore.callbacks.keras import BoxscoreCallback as KerasCallback


def in_a_loop(**options: Any) -> CallbackBase:
    model = nn.Linear(2, 2)
    return LoopCallback(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def with_ignite(**options: Any) -> CallbackBase:
    model = nn.Linear(2, 2)
    return BoxscoreHandler(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


MAKERS: dict[str, Callable[..., CallbackBase]] = {
    "loop": in_a_loop,
    "ignite": with_ignite,
    "keras": KerasCallback,
    "lightning": LightningCallback,
    "mmengine": BoxscoreHook,
    "rfdetr": RfdetrCallback,
    "transformers": TransformersCallback,
    "ultralytics": UltralyticsCallback,
}
OPTIONS: dict[str, Any] = {
    "task": "detection",
    "dataset": "boxes",
    "classes": {1: "disc"},
    "identity": Identity("Mine", "64x64"),
    "experiment": "shelf",
    "run": "new",
    "log_every": 1,
    "evaluate_every": None,
    "evaluate_train_every": None,
    "evaluate_images": 10,
    "fingerprint": "0123456789ab",
    "ignore_index": None,
    "params": {"augmentation": "flips", "learning_rate": 3},
    "per_class": 5,
    "on_error": "raise",
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[..., CallbackBase]:
    return MAKERS[request.param]


def begun(score: CallbackBase) -> CallbackBase:
    """As a framework begins it, and after one step."""
    model = nn.Linear(2, 2)
    score.start(model, torch.optim.SGD(model.parameters(), lr=0.1), Facts())
    score.record({"loss_cls": 1.0}, 1)
    score.evaluate_what_is_due(1)
    return score


def test_a_train_loss_passes_three_frames(make: Callable[..., CallbackBase]) -> None:
    class Frames(MemoryLogger):
        def log(self, items: Sequence[Item]) -> None:
            callers = [frame.frame for frame in inspect.stack()[1:]]
            modules = [frame.f_globals["__name__"] for frame in callers]
            passed.append([name for name in modules if name.startswith("boxscore.")])

    passed: list[list[str]] = []
    begun(make(**{**OPTIONS, "loggers": [Frames()]}))
    corridor = ["boxscore.log_thread", "boxscore.run", "boxscore.callbacks.base"]
    assert corridor in passed


def test_params_are_those_read_and_the_users(make: Callable[..., CallbackBase]) -> None:
    memory = MemoryLogger()
    begun(make(**{**OPTIONS, "loggers": [memory]}))
    assert memory.start is not None
    params = memory.start.params
    assert (params["algorithm"], params["input_size"]) == ("Mine", "64x64")
    assert (params["optimizer"], params["weight_decay"]) == ("SGD", "0")
    assert (params["augmentation"], params["learning_rate"]) == ("flips", "3")


def test_it_takes_every_keyword(make: Callable[..., CallbackBase], tmp_path: Path) -> None:
    more = {"log_dir": str(tmp_path), "tracking_uri": False, "predict": print, "loggers": None}
    more |= {"batch": lambda batch: batch, "evaluate_model": nn.Linear(2, 2), "pictures": (2, 1)}
    assert {*OPTIONS, *more} == set(Keywords.__annotations__)
    score = make(**OPTIONS | more)
    assert score.options.dataset == "boxes"
    with pytest.raises(TypeError, match="unexpected keyword"):
        make(datset="boxes")


def test_it_is_copied_before_it_begins_and_has_begun_nothing(
    make: Callable[..., CallbackBase], tmp_path: Path
) -> None:
    """Launchers hand callbacks to the processes that train."""
    threads = threading.active_count()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    score = make(dataset="boxes", log_dir=str(tmp_path / "runs"), tracking_uri=uri)
    for other in (pickle.loads(pickle.dumps(score)), copy.deepcopy(score)):
        assert type(other) is type(score)
        assert other.options == score.options
    assert threading.active_count() == threads
    assert [*tmp_path.iterdir()] == []


def test_its_state_is_plain_json_and_continues_the_run(make: Callable[..., CallbackBase]) -> None:
    memory = MemoryLogger()
    options = OPTIONS | {"loggers": [memory], "run": None}
    first = begun(make(**options))
    state = json.loads(json.dumps(first.state_dict()))
    second = make(**options)
    assert second.state_dict() == {}
    second.load_state_dict(state)
    assert second.state_dict() == state
    begun(second)
    assert first.run is not None
    assert second.run is not None
    assert second.run.id == first.run.id
    assert [p.step for p in memory.points if p.name == "classification"] == [1]
    with pytest.raises(RuntimeError, match="before the training begins"):
        second.load_state_dict(state)


def test_a_second_training_is_another_run(make: Callable[..., CallbackBase]) -> None:
    memory, ids = MemoryLogger(), set()
    score = make(**OPTIONS | {"loggers": [memory]})
    for _ in range(2):
        score.restart()
        assert begun(score).run is not None
        score.stop("FINISHED")
        assert memory.start is not None
        ids.add(memory.start.id)
    assert len(ids) == 2
    assert [p.step for p in memory.points if p.name == "classification"] == [1, 1]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_end_is_told_once(make: Callable[..., CallbackBase], status: Any) -> None:
    memory = MemoryLogger()
    score = begun(make(**OPTIONS | {"loggers": [memory]}))
    score.stop(status)
    score.stop("FAILED")
    assert memory.status == status


def test_latest_and_best_are_there_before_and_after(make: Callable[..., CallbackBase]) -> None:
    score = make(**OPTIONS | {"loggers": [MemoryLogger()]})
    assert (score.latest, score.best) == ({}, {})
    begun(score)
    assert score.run is not None
    score.run.record({"loss_cls": 2.0}, step=1, split="test")
    assert score.latest["classification"] == score.best["classification"] == 2.0


def test_its_names_are_documented(make: Callable[..., CallbackBase]) -> None:
    documented = inspect.getdoc(type(make(**OPTIONS)))
    assert documented
    assert len(documented.splitlines()) > 2


# of real trainings, one in each framework

OFTEN: dict[str, Any] = {"log_every": 2, "on_error": "raise"}
LOSSES = {
    "semantic-segmentation": (
        "total", "classification", "regularization", "focal", "cross_entropy", "dice"
    ),
    "detection": ("total", "classification", "localization", "regularization"),
}  # fmt: skip
ENDS: dict[str, tuple[type[BaseException], str]] = {
    "error": (ZeroDivisionError, "FAILED"),
    "ctrl-c": (KeyboardInterrupt, "KILLED"),
    "SIGTERM": (SystemExit, "KILLED"),
}


class Seen(NamedTuple):
    task: Task
    memory: MemoryLogger
    trained: Trained
    run: Any  # of MLflow
    boards: dict[str, EventAccumulator]  # of TensorBoard, by split


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="module", params=TRAININGS)
def seen(request: Any, store: str, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A training with both trackers."""
    folder, memory = tmp_path_factory.mktemp(request.param), MemoryLogger()
    loggers = [memory, MLflowLogger(store), TensorBoardLogger(folder / "runs")]
    trained = train(request.param, folder, OFTEN | {"loggers": loggers})
    assert memory.start is not None
    client = MlflowClient(store)
    (found,) = client.search_runs(
        [e.experiment_id for e in client.search_experiments()],
        f"tags.`boxscore.run` = '{memory.start.id}'",
    )
    boards = {path.parent.name: EventAccumulator(str(path.parent), {"scalars": 0})
              for path in (folder / "runs").rglob("events*")}  # fmt: skip
    for board in boards.values():
        board.Reload()
    return Seen(TASKS[request.param], memory, trained, found, boards)


def test_every_documented_loss_and_metric_is_there_on_both_splits(seen: Seen) -> None:
    """Under the same names and at the same optimizer steps in every framework."""
    needed = set(LOSSES[seen.task])
    needed |= {m.name for m in documented(seen.task) if m.kind == "metric" and "_AR_" not in m.name}
    needed -= {"box_AP_small", "box_AP_medium", "box_AP_large"}  # there are no such boxes
    for split in ("train", "test"):
        steps: dict[str, list[int]] = {}
        for point in seen.memory.points:
            if point.split == split and point.scope.startswith(("loss", "metric")):
                steps.setdefault(point.name, []).append(point.step)
        assert not needed - steps.keys()
        assert not steps.keys() - {m.name for m in documented(seen.task)}
        for name, at in steps.items():
            is_train_loss = split == "train" and CATALOGUE[name].kind == "loss"
            assert at == ([2, 4, 6, 8] if is_train_loss else [4, 8]), (name, split)


def test_the_total_is_the_sum_of_its_parts(seen: Seen) -> None:
    for split, steps in (("train", (2, 4, 6, 8)), ("test", (4, 8))):
        for step in steps:
            losses = {
                p.name: p.value
                for p in seen.memory.points
                if (p.split, p.step) == (split, step) and p.scope.startswith("loss")
            }
            if seen.memory.tags.get("boxscore.regularization") == "decoupled":
                del losses["regularization"]
            parts = [value for name, value in losses.items() if CATALOGUE[name].part]
            assert losses["total"] == pytest.approx(sum(parts), rel=1e-9)


def test_figures_are_those_of_the_engine_run_by_hand(seen: Seen) -> None:
    if seen.trained.logits is None:
        pytest.skip("test_ultralytics.py and test_rfdetr.py have it")
    names = dict(enumerate(["a", "b", "c"]))
    metrics = SegmentationMetrics(names)
    metrics.update(seen.trained.logits, seen.trained.labels)
    for name, value in metrics.compute().items():
        assert series(seen.memory, name, "test")[8] == pytest.approx(value, rel=1e-6), name


def test_both_trackers_hold_every_point(seen: Seen) -> None:
    """With its last value, and in TensorBoard under the tag of its split."""
    last = {point.key: point for point in seen.memory.points}
    assert not last.keys() - seen.run.data.metrics.keys()
    for key, point in last.items():
        assert seen.run.data.metrics[key] == pytest.approx(point.value), key
        if not key.startswith("summary"):
            events = seen.boards[point.split or "train"].Scalars(point.tag)
            assert (events[-1].step, events[-1].value) == (point.step, pytest.approx(point.value))
    assert seen.run.info.status == seen.memory.status == "FINISHED"


@pytest.mark.parametrize("framework", TRAININGS)
def test_a_training_is_not_changed(framework: str, tmp_path: Path) -> None:
    """Bit for bit the same weights, with evaluations of both splits amid its epochs."""
    weights = []
    often = OFTEN | {"loggers": [MemoryLogger()], "evaluate_every": 3, "evaluate_train_every": 3}
    for name, options in (("watched", often), ("alone", None)):
        (folder := tmp_path / name).mkdir()
        weights.append(train(framework, folder, options).weights)
    assert len(weights[0]) == len(weights[1])
    assert all(map(np.array_equal, *weights))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("framework", TRAININGS)
def test_how_it_ended(
    framework: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the third step is raised, and tells the run's status."""
    monkeypatch.setattr(os, "kill", lambda *_: None)  # else SIGTERM ends this very process
    memory, left = MemoryLogger(), [None] * 2
    raised, status = ENDS[end]

    def step() -> None:
        if left:
            left.pop()
        elif end == "SIGTERM":
            signal.raise_signal(signal.SIGTERM)
        else:
            raise raised

    with pytest.raises((raised, SystemExit)):
        train(framework, tmp_path, OFTEN | {"loggers": [memory], "pictures": False}, step)
    assert memory.status == status
    assert list(series(memory, "total", "train")) == [2]


@pytest.mark.parametrize("framework", ["ignite", "keras", "mmengine", "rfdetr"])
def test_without_its_framework_it_says_what_to_install(
    framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == framework else find(name, *_)
    )
    with pytest.raises(ImportError, match=rf'^[^\n]*pip install "boxscore\[{framework}\]"$'):
        importlib.reload(sys.modules[f"boxscore.callbacks.{framework}"])


WITHOUT_TORCH = """
import sys
from importlib.abc import MetaPathFinder

class NoTorch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoTorch())
from boxscore import Identity
from boxscore.callbacks.base import CallbackBase
from boxscore.callbacks.reading import keras_outputs
from boxscore.callbacks.reading.facts import Facts
from boxscore.loggers import MemoryLogger

memory = MemoryLogger()
score = CallbackBase(task="detection", dataset="d", classes=["disc"], loggers=[memory],
                     identity=Identity("Net", "32x32"), log_every=1, on_error="raise",
                     pictures=False)
score.start(object(), None, Facts())
score.record({"loss_cls": 1.0}, 1)
boxes = {"boxes": [[[1.0, 2, 3, 4]]], "labels": [[0]]}
truth = [{"boxes": [[1.0, 2, 3, 4]], "labels": [0]}]
found = [{**truth[0], "scores": [0.9]}]
score.evaluator.start("test", [])
score.evaluator.batch("test", ([0], truth), lambda batch: ({"loss_cls": 0.5}, found, truth))
print(score.evaluator.finish("test")["box_AP"])
score.stop("FINISHED")
"""


def test_what_callbacks_share_needs_no_torch() -> None:
    """Keras runs on other backends, too."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip().startswith(("1.0", "0.99")), done.stderr
