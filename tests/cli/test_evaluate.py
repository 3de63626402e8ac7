"""The offline evaluation shared out over processes: the same figures to the bit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from boxscore import Identity, distributed
from boxscore.cli.evaluate import Destination, as_json, evaluate
from tests.shared_data import SHARED
from tests.together import together, torchrun

DATA = SHARED / "data" / "bccd" / "annotations"


def files(folder: Path, images: int) -> tuple[Path, Path]:
    """Ground truth and results with ties in the scores, misses and images without either."""
    draw = random.Random(images)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    truth["categories"] = [{"id": n, "name": name} for n, name in enumerate("abc", 1)]
    results = []
    for image in range(images):
        truth["images"].append({"id": image, "height": 100, "width": 100, "file_name": "x"})
        for _ in range(draw.randrange(4)):
            x, y, width, height = (draw.uniform(5, 40) for _ in range(4))
            label, area = draw.randrange(1, 4), width * height
            outline = [x, y, x + width, y, x + width, y + height, x, y + height]
            one = {"image_id": image, "category_id": label, "segmentation": [outline]}
            number = len(truth["annotations"]) + 1
            box = {"bbox": [x, y, width, height], "area": area, "iscrowd": 0, "id": number}
            truth["annotations"].append(one | box)
            for _ in range(draw.randrange(3)):
                shift = draw.uniform(-5, 5)
                moved = [value + shift for value in outline]
                found = {"bbox": [x + shift, y + shift, width, height], "segmentation": [moved]}
                results.append(one | found | {"score": draw.randrange(10) / 10})
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(results))
    return folder / "gt.json", folder / "dt.json"


def measured(annotations: Path, predictions: Path, logs: Path | None) -> Any:
    destination = None
    if logs is not None:
        identity = Identity("Mask R-CNN", "100x100")
        destination = Destination(identity, "made", str(logs / "runs"), f"sqlite:///{logs}/m.db")
    try:
        metric = evaluate(annotations, predictions, masks=True, destination=destination)
    except ValueError as error:
        return str(error)
    return as_json(metric, per_class=True) if distributed.rank() == 0 else metric.images


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("images", [1, 2, 50])
def test_the_same_figures_to_the_bit(tmp_path: Path, images: int, size: int) -> None:
    """Also with more processes than images."""
    paths = files(tmp_path, images)
    first, *others = together(size, measured, *paths, None)
    assert first == measured(*paths, None)
    assert sum(others) < images or images == 1


@pytest.mark.slow
def test_the_first_alone_logs(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    paths = files(tmp_path, 20)
    first, _ = together(2, measured, *paths, tmp_path)
    assert first == measured(*paths, None)
    client = MlflowClient(f"sqlite:///{tmp_path}/m.db")
    (experiment,) = (e for e in client.search_experiments() if e.name == "made")
    (run,) = client.search_runs([experiment.experiment_id])
    (value,) = (v for k, v in run.data.metrics.items() if k.endswith("/mask_AP") and "metric" in k)
    assert value == first["mask_AP"]
    assert len({path.parents[1] for path in (tmp_path / "runs").rglob("events.out.*")}) == 1


def test_what_is_wrong_is_wrong_for_all(tmp_path: Path) -> None:
    annotations, predictions = files(tmp_path, 3)
    predictions.write_text('[{"image_id": 77}]')
    said = together(3, measured, annotations, predictions, None)
    assert set(said) == {"dt.json: [0]: image_id 77 is unknown"}


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_from_the_command_line(tmp_path: Path, size: int) -> None:
    annotations, predictions = files(tmp_path, 30)
    if DATA.exists():
        annotations = DATA / "instances_test.json"
        found = json.loads(annotations.read_text())["annotations"]
        results = [
            {key: one[key] for key in ("image_id", "category_id", "bbox")}
            | {"score": one["id"] * 37 % 101 / 101}
            for one in found
            if one["id"] % 4
        ]
        predictions.write_text(json.dumps(results))
    command = ["-m", "boxscore", "evaluate", "--annotations", annotations, "--json", "--per-class"]
    shown = torchrun(size, *command, "--predictions", predictions)
    assert shown.returncode == 0, shown.stderr
    one = as_json(evaluate(annotations, predictions), per_class=True)
    assert json.loads(shown.stdout) == one


@pytest.mark.slow
def test_from_the_command_line_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    annotations, _ = files(tmp_path, 3)
    command = ["-m", "boxscore", "evaluate", "--annotations", annotations]
    shown = torchrun(2, *command, "--predictions", annotations)
    assert shown.returncode != 0
    assert shown.stdout == ""
    assert shown.stderr.count("holds no array of results") == 1
    assert "exitcode  : 2 " in shown.stderr  # the last one may be met by torchrun's SIGTERM
