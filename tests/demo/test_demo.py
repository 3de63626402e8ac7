"""The demo trains for real; here for a few steps."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from rich.console import Console

from boxscore.catalogue import Task
from boxscore.demo import Plan, demo, majority_remark, report, what_to_look_at
from boxscore.demo.models import ALGORITHMS
from boxscore.demo.shapes import CLASSES, Shapes, scene
from tests.shared_data import SHARED

DATA = SHARED / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="../shared is absent")
LOSSES = {
    "retinanet": {"classification", "localization"},
    "fcos": {"classification", "localization", "centerness"},
    "fasterrcnn": {"classification", "localization", "rpn_localization", "rpn_objectness"},
    "ssdlite": {"classification", "localization"},
    "maskrcnn": {"classification", "localization", "rpn_localization", "rpn_objectness", "mask"},
    "unet": {"classification", "focal", "cross_entropy", "dice"},
    "deeplabv3": {"classification", "focal", "cross_entropy", "dice"},
}


def few_steps(tmp_path: Path, *, is_terminal: bool = False, **options: Any) -> Any:
    defaults: dict[str, Any] = {"steps": 2, "batch_size": 2, "input_size": 64, "out": tmp_path}
    plan = Plan(**defaults | options)
    console = Console(record=True, width=120, force_terminal=is_terminal)
    score = demo(plan, console)
    assert report(score, plan, console)
    return score, console.export_text()


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxscore.demo.shapes.COUNTS", {"train": 4, "test": 2})


@pytest.mark.parametrize(
    ("task", "algorithm"), [(task, name) for task, names in ALGORITHMS.items() for name in names]
)
def test_every_algorithm_trains_and_is_measured(tmp_path: Path, task: Task, algorithm: str) -> None:
    score, shown = few_steps(tmp_path, task=task, algorithm=algorithm)
    assert {"total", "regularization", *LOSSES[algorithm]} <= set(score.latest)
    assert ("IoU" if task == "semantic-segmentation" else "box_AP") in score.latest
    assert ("mask_AP" in score.latest) == (task == "instance-segmentation")
    assert "total" in shown
    assert f"boxscore view {tmp_path}" in shown
    assert score.run.identity.input_size == "64x64"


@pytest.mark.parametrize(
    ("task", "models", "told"),
    [
        ("detection", ["retinanet", "fcos"], "box_AP: retinanet and fcos .* in charts apart"),
        ("instance-segmentation", ["resnet18", "resnet34"], "mask_AP: .* so do their losses"),
        ("semantic-segmentation", ["unet", "deeplabv3"], "IoU: unet and deeplabv3"),
    ],
)
def test_two_models_are_trained_unless_one_is_named(
    task: Task, models: list[str], told: str
) -> None:
    plans = Plan(task=task).models()
    assert [plan.backbone or plan.trained for plan in plans] == models
    assert re.search(told, what_to_look_at(plans))
    assert len(Plan(task=task, backbone="resnet18").models()) == 1


def test_a_file_gets_a_line_for_each_evaluation(tmp_path: Path) -> None:
    """The last is that of the evaluation at the end, where 13 is no multiple of 2."""
    score, shown = few_steps(tmp_path, task="semantic-segmentation", steps=13)
    lines = [line for line in shown.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == [f"{n}/13" for n in (2, 4, 6, 8, 10, 12, 13)]
    last = f"test: total {score.latest['total']:.3f}  IoU {score.latest['IoU']:.3f}"
    assert lines[-1] == f"step 13/13  {last}"
    assert "training" not in shown


def test_a_terminal_gets_a_bar_with_the_last_evaluation(tmp_path: Path) -> None:
    score, shown = few_steps(tmp_path, is_terminal=True, task="semantic-segmentation", steps=13)
    (bar,) = (line for line in shown.splitlines() if "training" in line and "13/13" in line)
    assert f"test: total {score.latest['total']:.3f}  IoU {score.latest['IoU']:.3f}" in bar
    assert "step " not in shown


def test_it_logs_to_both_trackers(tmp_path: Path) -> None:
    score, _ = few_steps(tmp_path, algorithm="fcos")
    assert len(list((tmp_path / "runs").rglob("events.out.*"))) == 2
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("shapes")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "FCOS 64x64 ResNet-18"
    assert run.data.tags["boxscore.run"] == score.run.id


def test_the_same_seed_trains_the_same(tmp_path: Path) -> None:
    one, _ = few_steps(tmp_path / "1", algorithm="fcos")
    other, _ = few_steps(tmp_path / "2", algorithm="fcos")
    assert one.latest == other.latest


def test_pictures_are_the_same_for_the_same_seed() -> None:
    image, masks, labels = scene(3)
    again = scene(3)
    assert (image == again[0]).all()
    assert (masks == again[1]).all()
    assert (labels == again[2]).all()
    assert image.shape == (3, 160, 160)
    assert image.min() >= 0
    assert image.max() <= 1
    assert len(masks) == len(labels) > 0
    assert set(labels) <= set(CLASSES)
    assert not masks.sum(0).max() > 1  # each pixel is one object's at most


def test_train_and_test_pictures_differ() -> None:
    train, test = Shapes("train", "detection"), Shapes("test", "detection")
    assert set(train.ids).isdisjoint(test.ids)
    assert not torch.equal(train[0][0], test[0][0])


def test_a_prevailing_class_is_remarked(tmp_path: Path) -> None:
    score, _ = few_steps(tmp_path, task="semantic-segmentation")
    metric = score.run.metric("test")
    metric.reset()
    targets = torch.zeros(1, 10, 10, dtype=torch.int64)
    targets[0, 0, :5] = 1
    metric.update(torch.zeros(1, 4, 10, 10), targets)
    assert "95% of the evaluated pixels are 'ground'" in majority_remark(score.run)
    targets[0, :5] = 1
    metric.reset()
    metric.update(torch.zeros(1, 4, 10, 10), targets)
    assert majority_remark(score.run) == ""


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "data", "figure"),
    [
        ("detection", "bccd", "box_AP"),
        ("instance-segmentation", "nuclei", "mask_AP"),
        ("semantic-segmentation", "nuclei", "IoU"),
        ("semantic-segmentation", "coco_mini", "IoU"),
    ],
)
def test_real_pictures(tmp_path: Path, task: Task, data: str, figure: str) -> None:
    algorithm = "fcos" if task == "detection" else None
    score, _ = few_steps(tmp_path, task=task, algorithm=algorithm, data=DATA / data)
    assert figure in score.latest
    assert score.run.dataset == data
