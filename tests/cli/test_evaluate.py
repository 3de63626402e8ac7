"""The offline evaluation shared out over processes: the same figures to the bit."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from boxscore import Identity, distributed
from boxscore.cli import main
from boxscore.cli.evaluate import Destination, as_json, evaluate
from tests.cli.test_coco_files import as_pycocotools
from tests.detection.pycoco import FIGURES
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
    assert set(said) == {"dt.json: [0]: image_id 77 is unknown: no image of gt.json has it"}


def run(annotations: Path, predictions: Path, *options: str) -> Result:
    command = ["evaluate", "--annotations", str(annotations), "--predictions", str(predictions)]
    return CliRunner().invoke(main, [*command, "--json", *options])


def test_areas_of_masks_are_their_own_or_pycocotools(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = files(tmp_path, 50)
    results = json.loads(paths[1].read_text())
    for one in results:  # a triangle, of half the box's area
        one["segmentation"] = [one["segmentation"][0][:6]]
    paths[1].write_text(json.dumps(results))
    ours = json.loads(run(*paths, "--masks").stdout)
    assert caplog.text.count("--pycocotools-areas uses the boxes'") == 1
    theirs = json.loads(run(*paths, "--masks", "--pycocotools-areas").stdout)
    for kind in ("box", "mask"):
        evaluation = as_pycocotools(*paths, kind)
        evaluation.summarize()
        stats = dict(zip(FIGURES, evaluation.stats.tolist(), strict=True))
        assert [theirs.get(f"{kind}_{name}", -1) for name in FIGURES] == [*stats.values()]
    differing = {name for name in ours if ours[name] != theirs[name]}
    assert differing
    assert differing <= {f"mask_{name}" for name in FIGURES[3:6] + FIGURES[9:]}


def test_results_of_unknown_categories_can_be_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    annotations, predictions = files(tmp_path, 20)
    plain = run(annotations, predictions, "--masks")
    results = json.loads(predictions.read_text())
    results += [
        one | {"category_id": label} for one, label in zip(results[:3], (57, -1, 0), strict=True)
    ]
    predictions.write_text(json.dumps(results))
    refused = run(annotations, predictions)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert (
        "category_id 57 is unknown: no category of gt.json has it; --ignore-unk" in refused.stderr
    )
    dropped = run(annotations, predictions, "--masks", "--ignore-unknown")
    assert (dropped.exit_code, dropped.stdout) == (0, plain.stdout)
    assert "3 predictions with labels outside the classes are ignored" in caplog.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"iscrowd": 1}, r"all \d+ objects are crowd regions (iscrowd)"),
        (None, "the 20 images have no objects"),
    ],
)
def test_without_a_metric_the_reason_is_told_and_the_exit_code_is_1(
    tmp_path: Path, change: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    annotations, predictions = files(tmp_path, 20)
    content = json.loads(annotations.read_text())
    content["annotations"] = [one | change for one in content["annotations"] if change]
    annotations.write_text(json.dumps(content))
    shown = run(annotations, predictions, "--masks", "--per-class")
    assert shown.exit_code == 1
    assert json.loads(shown.stdout) == {"per_class": {"a": {}, "b": {}, "c": {}}}
    assert re.search(reason.replace("(", r"\(").replace(")", r"\)"), caplog.text)


def test_each_class_has_every_metric(tmp_path: Path) -> None:
    found = json.loads(run(*files(tmp_path, 50), "--masks", "--per-class").stdout)
    rows = found.pop("per_class")
    assert found.keys() == rows["a"].keys() == rows["b"].keys() == rows["c"].keys()


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
    assert shown.stderr.count("is not an array of results") == 1
    assert "exitcode  : 2 " in shown.stderr  # the last one may be met by torchrun's SIGTERM
