from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from boxscore import CATALOGUE, Identity, Point, Run
from boxscore.keys import parse
from boxscore.loggers import MemoryLogger, MLflowLogger, TensorBoardLogger
from boxscore.metric import METRICS
from boxscore.records import Item, RunStart
from tests.warned import warns, warns_not

IDENTITY = Identity("RetinaNet", "640x640", "ResNet50")
TARGET: dict[str, Any] = {
    "boxes": np.array([[10.0, 10.0, 50.0, 50.0]]),
    "labels": np.array([1]),
    "image_id": 1,
}
PERFECT = {**TARGET, "scores": np.array([0.9])}


def run(*, memory: MemoryLogger, **options: Any) -> Run:
    defaults: dict[str, Any] = {
        "task": "detection",
        "dataset": "bccd",
        "classes": {1: "RBC", 2: "WBC"},
        "loggers": [memory],
        "log_every": 2,
        "on_error": "raise",
    }
    return Run(IDENTITY, **defaults | options)


@pytest.fixture
def memory() -> MemoryLogger:
    return MemoryLogger()


def keys(memory: MemoryLogger) -> dict[str, float]:
    return {point.key: point.value for point in memory.points}


def test_train_points_are_the_mean_since_the_last_point(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched:
        for step, value in enumerate([1.0, 3.0, 5.0, 9.0, 100.0], 1):
            watched.record({"classification": torch.tensor(value)}, step=step)
    points = [(p.step, p.value) for p in memory.points if p.name == "classification"]
    assert points == [(2, 2.0), (4, 7.0)]


def test_names_in_the_trackers(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched:
        watched.record({"loss_cls": 1.0, "box_loss": 2.0, "dfl_loss": 3.0}, step=2)
        with watched.evaluation(step=2) as evaluation:
            evaluation.update([PERFECT], [TARGET], {"loss_cls": 4.0, "box_loss": 5.0})
    digest = memory.tags["boxscore.fingerprint.test"]
    found = keys(memory)
    assert {key: value for key, value in found.items() if key.startswith(("loss", "native"))} == {
        "loss RetinaNet 640x640/classification.train": 1.0,
        "loss RetinaNet 640x640/localization.train": 5.0,
        "loss RetinaNet 640x640/total.train": 6.0,
        "native RetinaNet 640x640/box_loss.train": 2.0,
        "native RetinaNet 640x640/dfl_loss.train": 3.0,
        "loss RetinaNet 640x640/classification.test": 4.0,
        "loss RetinaNet 640x640/localization.test": 5.0,
        "loss RetinaNet 640x640/total.test": 9.0,
    }
    assert found[f"metric bccd-test {digest[:6]}/box_AP"] == pytest.approx(1.0)
    assert found[f"per class bccd-test {digest[:6]}/box_AP RBC"] == pytest.approx(1.0)
    assert found["summary/box_AP"] == found["summary/best_box_AP"] == pytest.approx(1.0)
    assert found["summary/best_box_AP_step"] == 2
    assert found["progress/evaluation_seconds"] > 0
    assert {p.tag for p in memory.points if p.name == "total"} == {"loss RetinaNet 640x640/total"}


def test_what_is_undefined_has_no_point(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched, watched.evaluation() as evaluation:
        evaluation.update([PERFECT], [TARGET])
    assert not any("box_AP_large" in key or "WBC" in key for key in keys(memory))


def test_what_the_loggers_are_told_first(memory: MemoryLogger) -> None:
    with run(memory=memory, experiment="mine") as watched:
        pass
    start = memory.start
    assert isinstance(start, RunStart)
    assert (start.id, start.name) == (watched.id, "RetinaNet 640x640 ResNet50")
    assert start.experiment == "mine"
    assert start.folder == f"bccd/RetinaNet/640x640/ResNet50-{watched.id[:8]}"
    assert start.tags == {
        "boxscore.group": "RetinaNet 640x640",
        "boxscore.algorithm": "RetinaNet",
        "boxscore.input_size": "640x640",
        "boxscore.backbone": "ResNet50",
        "boxscore.task": "detection",
        "boxscore.dataset": "bccd",
        "boxscore.run": watched.id,
        "boxscore.regularization": "none",
    }
    assert set(start.params) == {"group", "algorithm", "input_size", "backbone", "task"}


def test_names_of_users_are_made_legal_and_kept(memory: MemoryLogger) -> None:
    with run(memory=memory, dataset="my/data@home", classes={1: "a/b"}) as watched:
        with watched.evaluation() as evaluation:
            evaluation.update([PERFECT], [TARGET])
    assert all(point.key.count("/") == 1 for point in memory.points)
    assert "my/data@home" in memory.tags.values()
    assert "a/b" in memory.tags.values()


@pytest.mark.parametrize(("optimizer", "kind"), [("SGD", "l2"), ("AdamW", "decoupled")])
def test_total_is_the_sum_of_its_parts(memory: MemoryLogger, optimizer: str, kind: str) -> None:
    weights = [torch.full((4,), 2.0, requires_grad=True)]
    made = getattr(torch.optim, optimizer)(weights, lr=0.25, weight_decay=0.1)
    with run(memory=memory, optimizer=made) as watched:
        watched.record({"loss_cls": 1.0, "loss_bbox": 0.5}, step=2)
    values = {p.name: p.value for p in memory.points}
    assert memory.tags["boxscore.regularization"] == kind
    assert values["regularization"] == pytest.approx(0.5 * 0.1 * 16)
    assert values["total"] == pytest.approx(1.5 + (0.8 if kind == "l2" else 0))
    assert values["progress/learning_rate"] == 0.25


def test_test_losses_are_weighted_by_images(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched, watched.evaluation() as evaluation:
        other = [{**TARGET, "image_id": n} for n in (2, 3, 4)]
        evaluation.update([PERFECT], [TARGET], {"loss_cls": torch.tensor(4.0)})
        evaluation.update([PERFECT] * 3, other, {"loss_cls": torch.tensor(8.0)})
    assert keys(memory)["loss RetinaNet 640x640/classification.test"] == 7.0
    assert memory.tags["boxscore.evaluation_batch_size"] == "3"


def test_further_sets_and_the_train_set_have_names_of_their_own(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched:
        for split in ("test", "test-night", "train"):
            with watched.evaluation(split) as evaluation:
                evaluation.update([PERFECT], [TARGET], {"loss_cls": 1.0})
    scopes = {p.scope.rsplit(" ", 1)[0] for p in memory.points if p.name == "box_AP"}
    assert scopes == {"metric bccd-test", "metric bccd-test-night", "metric bccd-train"}
    losses = {p.key for p in memory.points if p.name == "classification"}
    assert losses == {
        "loss RetinaNet 640x640/classification.test",
        "loss RetinaNet 640x640/classification.test-night",
    }


def test_latest_and_best(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched:
        for step, score in ((1, PERFECT), (2, {**PERFECT, "boxes": TARGET["boxes"] + 500})):
            with watched.evaluation(step=step) as evaluation:
                evaluation.update([score], [TARGET], {"loss_cls": float(step)})
    assert watched.latest["box_AP"] == 0
    assert watched.best["box_AP"] == pytest.approx(1.0)
    assert (watched.latest["total"], watched.best["total"]) == (2.0, 1.0)
    steps = [p.value for p in memory.points if p.name == "summary/best_box_AP_step"]
    assert steps == [1]


def test_a_given_fingerprint_is_believed(memory: MemoryLogger) -> None:
    with run(memory=memory, fingerprint="0123456789ab") as watched, watched.evaluation() as e:
        e.update([PERFECT], [TARGET])
    assert "metric bccd-test 012345/box_AP" in keys(memory)
    assert memory.tags["boxscore.fingerprint.test"] == "0123456789ab"


def test_a_nan_loss_is_news(memory: MemoryLogger) -> None:
    with run(memory=memory, log_every=4) as watched:
        for step, value in enumerate([1.0, 1.0, math.nan, 1.0], 1):
            watched.record({"loss_cls": torch.tensor(value)}, step=step)
    assert math.isnan(keys(memory)["loss RetinaNet 640x640/classification.train"])
    assert memory.tags["boxscore.first_nan"] == "loss_cls.train at step 3"


def test_an_unknown_loss_is_other_and_told_once(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched:
        with warns("'my_loss' is not known"):
            watched.record({"loss_cls": 1.0, "my_loss": 2.0}, step=2)
        with warns_not():
            watched.record({"loss_cls": 1.0, "my_loss": 2.0}, step=4)
    assert keys(memory)["loss RetinaNet 640x640/other.train"] == 2.0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (RuntimeError, "FAILED"),
        (KeyboardInterrupt, "KILLED"),
        (SystemExit, "FINISHED"),
    ],
)
def test_how_it_ended(memory: MemoryLogger, error: Any, status: str) -> None:
    def train() -> None:
        with run(memory=memory):
            if error:
                raise error

    if error:
        with pytest.raises(error):
            train()
    else:
        train()
    assert memory.status == status


def test_exit_with_a_code_is_a_failure(memory: MemoryLogger) -> None:
    """torchvision's reference loop leaves with ``sys.exit(1)`` when a loss is not finite."""
    with pytest.raises(SystemExit), run(memory=memory):
        raise SystemExit(1)
    assert memory.status == "FAILED"


def test_half_an_evaluated_set_has_no_figures(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched:
        with pytest.raises(RuntimeError), watched.evaluation() as evaluation:
            evaluation.update([PERFECT], [TARGET])
            raise RuntimeError
    assert memory.points == []


def test_an_empty_test_set_is_told(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched, pytest.raises(ValueError, match="no image was read"):
        with watched.evaluation():
            pass


class Broken(MemoryLogger):
    def __init__(self, verb: str) -> None:
        super().__init__()
        self.verb = verb

    def open(self, start: RunStart) -> None:
        if self.verb == "open":
            raise PermissionError("runs: read-only")
        super().open(start)

    def log(self, items: Sequence[Item]) -> None:
        if self.verb == "log":
            raise OSError("disk full")
        super().log(items)


@pytest.mark.parametrize("verb", ["open", "log"])
def test_a_broken_logger_stops_neither_training_nor_the_others(
    memory: MemoryLogger, verb: str
) -> None:
    with warns("boxscore: Broken") as told:
        with run(memory=memory, loggers=[Broken(verb), memory], on_error="warn") as watched:
            for step in range(1, 11):
                watched.record({"loss_cls": 1.0}, step=step)
    assert len(told) <= 2
    assert len([p for p in memory.points if p.name == "total"]) == 5
    assert memory.status == "FINISHED"


def test_a_resumed_run_is_the_same_run(memory: MemoryLogger) -> None:
    first, second = run(memory=memory), run(memory=memory)
    with first:
        first.record({"loss_cls": 1.0}, step=2)
    second.load_state_dict(first.state_dict())
    assert (second.id, second.step) == (first.id, 2)
    with second, pytest.raises(RuntimeError, match="is open"):
        second.load_state_dict(first.state_dict())


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_a_closed_run_is_reopened_and_ends_as_before(memory: MemoryLogger, status: Any) -> None:
    watched = run(memory=memory)
    watched.record({"loss_cls": 1.0}, step=2)
    watched.close(status)
    with warns("is closed"):
        watched.record({"loss_cls": 1.0}, step=4)
    watched.reopen()
    assert memory.start is not None
    assert memory.start.id == watched.id
    with watched.evaluation() as evaluation:
        evaluation.update([PERFECT], [TARGET], {"loss_cls": 4.0})
    watched.close()
    assert memory.status == status
    assert [p.step for p in memory.points if p.name == "box_AP"] == [4]


def test_a_run_of_something_else_is_not_resumed(memory: MemoryLogger) -> None:
    state = run(memory=memory).state_dict()
    with pytest.raises(ValueError, match="its dataset is 'bccd'"):
        run(memory=memory, dataset="coco").load_state_dict(state)


def test_an_unknown_task_is_refused(memory: MemoryLogger) -> None:
    with pytest.raises(ValueError, match="semantic-segmentation"):
        run(memory=memory, task="detektion")


def test_point_names_are_measures(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched, watched.evaluation() as evaluation:
        evaluation.update([PERFECT], [TARGET], {"loss_cls": 1.0})
    measured = [p for p in memory.points if p.scope.startswith(("loss", "metric"))]
    assert measured
    assert all(isinstance(p, Point) and p.name in CATALOGUE for p in measured)


class Precision:
    """A metric beside the task's own: how many detections share an image with a truth's class."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.right = self.all = 0

    def update(self, predictions: Any, targets: Any) -> None:
        for prediction, target in zip(predictions, targets, strict=True):
            labels = list(prediction["labels"])
            self.all += len(labels)
            self.right += sum(label in target["labels"] for label in labels)

    def merge(self, other: Precision) -> None:
        self.right, self.all = self.right + other.right, self.all + other.all

    def compute(self) -> dict[str, float]:
        return {"label_precision": self.right / self.all} if self.all else {}

    def per_class(self) -> dict[str, dict[str, float]]:
        return {"RBC": self.compute()}


@pytest.fixture
def label_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe of CONTRIBUTING: an entry in the catalogue, a class, a line in METRICS."""
    entry = replace(CATALOGUE["box_AP"], name="label_precision", per_class=True)
    monkeypatch.setitem(cast(Any, CATALOGUE), "label_precision", entry)
    own = METRICS["detection"]
    monkeypatch.setitem(METRICS, "detection", (*own, lambda names, ignore_index: Precision()))


@pytest.mark.usefixtures("label_precision")
def test_a_metric_beside_the_tasks_own_is_in_both_trackers(tmp_path: Path) -> None:
    memory, uri = MemoryLogger(), f"sqlite:///{tmp_path}/mlflow.db"
    loggers = [memory, MLflowLogger(uri), TensorBoardLogger(tmp_path / "runs")]
    with run(memory=memory, loggers=loggers) as watched:
        watched.record({"loss_cls": 1.0}, step=1)
        for split in ("test", "train"):
            with watched.evaluation(split, step=2) as evaluation:
                evaluation.update([PERFECT], [TARGET])
        state = watched.state_dict()
    assert watched.latest["label_precision"] == watched.best["label_precision"] == 1.0
    assert state["best"]["label_precision"] == 1.0
    tags = memory.tags
    wanted = {f"metric bccd-{s} {tags[f'boxscore.fingerprint.{s}'][:6]}" for s in ("test", "train")}
    keys = {f"{scope}/label_precision" for scope in wanted} | {"summary/label_precision"}
    keys |= {f"{scope}/label_precision RBC".replace("metric", "per class") for scope in wanted}
    client = MlflowClient(uri)
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])[0]
    assert keys <= found.data.metrics.keys()
    (folder,) = {path.parent for path in (tmp_path / "runs").rglob("test/events*")}
    board = EventAccumulator(str(folder))
    board.Reload()
    assert {key for key in keys if "-test" in key} <= set(board.Tags()["scalars"])


def test_points_per_class_are_those_of_the_most_frequent_classes(memory: MemoryLogger) -> None:
    """An experiment with thousands of keys makes MLflow unusable."""
    box, labels = np.array([[10.0, 10, 50, 50]]), range(1, 31)
    classes = {label: f"class {label}" for label in labels}
    for per_class, count in ((20, 20), (3, 3), ("all", 30)):
        memory = MemoryLogger()
        with run(memory=memory, classes=classes, per_class=per_class) as watched:
            with watched.evaluation(step=1) as evaluation:
                for label in labels:  # class n has n objects
                    boxes = np.repeat(box, label, 0) + np.arange(label)[:, None] * 60
                    truth = {"boxes": boxes, "labels": np.full(label, label), "image_id": label}
                    evaluation.update([{**truth, "scores": np.ones(label)}], [truth])
            table = json.loads(Path(memory.files["per_class/test.json"].path).read_text())
        shown = [key for key in keys(memory) if key.startswith("per class")]
        names = {parse(key).class_name for key in shown}
        assert names == {f"class {label}" for label in range(31 - count, 31)}
        assert {parse(key).measure for key in shown} == {"box_AP"}
        assert len(table["data"]) == 30
        assert {"class", "ground_truth", "box_AP", "box_AR100"} <= set(table["columns"])


def test_what_could_not_be_measured_is_nan_and_tagged(memory: MemoryLogger) -> None:
    with run(memory=memory) as watched:
        with watched.evaluation(step=1) as evaluation:
            evaluation.update([PERFECT], [TARGET])
        watched.record_failure("test", "KeyError: 'boxes'; pass predict=")
        assert math.isnan(watched.latest["box_AP"])
        assert watched.best["box_AP"] == pytest.approx(1.0)
    assert memory.tags["boxscore.evaluation_failed"] == (
        "test at step 0: KeyError: 'boxes'; pass predict="
    )


def test_a_point_is_logged_with_one_call() -> None:
    calls: list[int] = []

    class Counting(MemoryLogger):
        def log(self, items: Sequence[Item]) -> None:
            calls.append(len(items))
            super().log(items)

    with run(memory=Counting(), log_every=1) as watched:
        watched.record({"loss_cls": 1.0}, step=1, images=4, epoch=0.5)
        assert len(calls) == 1
        with watched.evaluation(step=1) as evaluation:
            evaluation.update([PERFECT], [TARGET], {"loss_cls": 4.0})
        assert len(calls) == 2


FORKED = """
import os, sys
from boxscore import Identity, Run
from boxscore.loggers import MemoryLogger
target = {"boxes": [[1.0, 1.0, 5.0, 5.0]], "labels": [1], "image_id": 1}
options = {"task": "detection", "dataset": "d", "classes": {1: "a"}, "on_error": "raise"}
with Run(Identity("RetinaNet", 64), loggers=[MemoryLogger()], **options) as run:
    for step in (1, 2):
        with run.evaluation(step=step) as evaluation:
            evaluation.update([{**target, "scores": [0.9]}], [target])
        if step == 1:
            child = os.fork()
            child or sys.exit()
            os.waitpid(child, 0)
print(round(run.latest["box_AP"]))
"""


def test_a_fork_that_exits_leaves_the_files_of_the_run() -> None:
    command = [sys.executable, "-c", FORKED]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.stdout.split() == ["1"], shown.stderr
