"""``mlflow.models.evaluate(…, evaluators="boxscore")``, on a real store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from boxscore.detection import DetectionMetrics
from boxscore.keys import parse
from boxscore.segmentation import SegmentationMetrics

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow imports what is deprecated
CLASSES: Any = {1: "cat", 2: "dog"}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")


def frame_of(task: str) -> pd.DataFrame:
    """Ten images, whose predictions are a little wrong."""
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for image_id in range(10):
        image = random.random((40, 60, 3))
        if task == "semantic-segmentation":
            target: Any = random.integers(0, 2, (40, 60))
            prediction: Any = random.normal(size=(2, 40, 60)) + np.stack([target == 0, target == 1])
        else:
            box = np.array([[5.0, 5, 30, 35], [20, 10, 50, 30]])
            target = {"boxes": box, "labels": np.array([1, 2])}
            prediction = {
                "boxes": box + random.normal(0, 2, box.shape),
                "labels": np.array([1, 2]),
                "scores": random.random(2),
            }
            if task == "instance-segmentation":
                masks = np.zeros((2, 40, 60), bool)
                masks[0, 5:35, 5:30], masks[1, 10:30, 20:50] = True, True
                target["masks"], prediction["masks"] = masks, np.roll(masks, 2, axis=2)
        rows.append({"image_id": image_id, "image": image, "target": target, "found": prediction})
    return pd.DataFrame(rows)


def evaluated(frame: pd.DataFrame, task: str, **config: Any) -> tuple[Any, Any]:
    with mlflow.start_run() as run:
        result = mlflow.models.evaluate(  # type: ignore[no-untyped-call]
            data=frame, targets="target", predictions="found", model_type=task,
            evaluators="boxscore", evaluator_config={"dataset": "pets", **config},
        )  # fmt: skip
    return result, mlflow.get_run(run.info.run_id)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detection", "instance-segmentation", "semantic-segmentation"])
def test_the_figures_are_those_of_the_metrics_by_hand(task: str) -> None:
    frame = frame_of(task)
    semantic = task == "semantic-segmentation"
    classes = {0: "cat", 1: "dog"} if semantic else CLASSES
    result, run = evaluated(frame, task, classes=classes)
    metric: Any = (
        SegmentationMetrics(classes)
        if semantic
        else DetectionMetrics(classes, masks=task == "instance-segmentation")
    )
    for row in frame.itertuples():
        if semantic:
            metric.update(np.stack([row.found]), np.stack([row.target]))
        else:
            metric.update([row.found], [{**row.target, "image_id": row.image_id}])
    assert result.metrics == metric.compute()
    logged = {parse(k).measure: v for k, v in run.data.metrics.items() if parse(k).kind == "metric"}
    assert logged == metric.compute()
    keys = {parse(key).evaluated_set for key in run.data.metrics if parse(key).kind == "metric"}
    assert len(keys) == 1
    assert keys.pop().startswith("pets-test ")
    inputs = {(i.dataset.name, i.dataset.digest[:6]) for i in run.inputs.dataset_inputs}
    assert any(name == "pets-test" for name, _ in inputs)
    client = mlflow.MlflowClient()
    images = {item.path for item in client.list_artifacts(run.info.run_id, "images")}
    assert len({path.partition("+")[0] for path in images}) == (
        10 if semantic else 8
    )  # none of the boxes is wrong
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_what_is_missing_is_an_error() -> None:
    with pytest.raises(Exception, match="evaluator_config has no classes"):
        evaluated(frame_of("detection"), "detection")
    frame = frame_of("detection").drop(columns=["image", "image_id"])
    result, run = evaluated(frame, "detection", classes=CLASSES, pictures=False)
    assert "box_AP" in result.metrics
    assert mlflow.MlflowClient().list_artifacts(run.info.run_id, "images") == []
