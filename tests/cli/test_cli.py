"""The command line as a person meets it: figures, one clear line for what is wrong, exit codes."""

import json
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from boxscore import CATALOGUE
from boxscore.cli import main
from tests.shared_data import SHARED

DATA = SHARED / "data"
COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 50}],
    "categories": [{"id": 1, "name": "cell"}],
    "annotations": [
        {
            "id": 0,
            "image_id": 1,
            "category_id": 1,
            "bbox": [5, 5, 20, 20],
            "area": 400,
            "iscrowd": 0,
        }
    ],
}
RESULT = {"image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "score": 0.5}


def boxscore(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def files(folder: Path, truth: object = COCO, results: object = (RESULT,)) -> list[object]:
    annotations, predictions = folder / "gt.json", folder / "dt.json"
    annotations.write_text(truth if isinstance(truth, str) else json.dumps(truth))
    predictions.write_text(results if isinstance(results, str) else json.dumps(results))
    return ["--annotations", annotations, "--predictions", predictions]


def test_help_is_quick_because_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys\nfrom boxscore.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'mlflow', 'rich', 'tensorboard'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


def test_figures_of_two_files(tmp_path: Path) -> None:
    shown = boxscore("evaluate", *files(tmp_path), "--per-class")
    assert shown.exit_code == 0
    assert "box_AP50" in shown.output
    assert "cell" in shown.output


def test_figures_as_json_by_the_catalogues_names(tmp_path: Path) -> None:
    shown = boxscore("evaluate", *files(tmp_path), "--json", "--per-class")
    figures = json.loads(shown.output)
    assert figures.pop("per_class")["cell"]["box_AP"] == pytest.approx(1.0)
    assert figures["box_AP"] == pytest.approx(1.0)
    assert set(figures) <= set(CATALOGUE)
    assert "box_AP_large" not in figures


@pytest.mark.skipif(not DATA.exists(), reason="../shared is absent")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_figures_equal_pycocotools_on_real_cells(tmp_path: Path) -> None:
    from pycocotools.coco import COCO as Reference
    from pycocotools.cocoeval import COCOeval

    path = DATA / "bccd" / "annotations" / "instances_test.json"
    truth = json.loads(path.read_text())
    results = [
        {
            "image_id": a["image_id"],
            "category_id": 1 + (a["id"] * 7) % 3 if a["id"] % 5 == 0 else a["category_id"],
            "bbox": [a["bbox"][0] + a["id"] % 7, *a["bbox"][1:]],
            "score": (a["id"] * 37 % 101) / 101,
        }
        for a in truth["annotations"]
    ]
    (tmp_path / "dt.json").write_text(json.dumps(results))
    shown = boxscore(
        "evaluate", "--annotations", path, "--predictions", tmp_path / "dt.json", "--json"
    )
    reference = Reference(str(path))
    judged = COCOeval(reference, reference.loadRes(results), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert list(json.loads(shown.output).values()) == judged.stats.tolist()


@pytest.mark.parametrize(
    ("truth", "results", "said"),
    [
        ("{", [RESULT], "gt.json is not JSON"),
        ([1], [RESULT], "gt.json"),
        (COCO | {"annotations": [COCO["annotations"][0] | {"category_id": 9}]}, [RESULT], "9"),
        (COCO, [RESULT | {"image_id": 77}], "77"),
        (COCO, [RESULT | {"category_id": 5}], "5"),
        (COCO, '[{"image_id": 1, "category_id": 1, "bbox": [1,1,2,2], "score": NaN}]', "nan"),
        (COCO, {"a": 1}, "dt.json"),
        (COCO | {"images": [], "annotations": []}, [], "no image"),
    ],
)
def test_wrong_input_is_one_line_that_names_it(
    tmp_path: Path, truth: object, results: object, said: str
) -> None:
    shown = boxscore("evaluate", *files(tmp_path, truth, results))
    assert shown.exit_code == 2
    assert said in shown.output
    assert len(shown.output.strip().splitlines()) == 1
    assert "Traceback" not in shown.output


def test_a_truncated_rle_names_its_entry(tmp_path: Path) -> None:
    broken = RESULT | {"segmentation": {"size": [40, 50], "counts": "a1"}}
    annotation = COCO["annotations"][0] | {"segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}
    truth = COCO | {"annotations": [annotation]}
    shown = boxscore("evaluate", *files(tmp_path, truth, [broken]), "--masks")
    assert shown.exit_code == 2
    assert "dt.json" in shown.output
    assert len(shown.output.strip().splitlines()) == 1


def test_masks_add_twelve_figures(tmp_path: Path) -> None:
    outline = {"segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}
    truth = COCO | {"annotations": [COCO["annotations"][0] | outline]}
    shown = boxscore("evaluate", *files(tmp_path, truth, [RESULT | outline]), "--masks", "--json")
    figures = json.loads(shown.output)
    assert figures["mask_AP"] == figures["box_AP"] == pytest.approx(1.0)


def test_figures_go_to_the_trackers_too(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    arguments = [*files(tmp_path), "--json", "--log-dir", tmp_path / "runs", "--tracking-uri", uri]
    shown = boxscore("evaluate", *arguments, "--model", "ssd_mobilenet_v2_320x320", "--step", 7)
    assert shown.exit_code == 0, shown.output
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("gt")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "SSD 320x320 MobileNetV2"
    (key,) = (k for k in run.data.metrics if k.startswith("metric") and k.endswith("/box_AP"))
    assert client.get_metric_history(run.info.run_id, key)[0].step == 7
    assert list((tmp_path / "runs").rglob("events.out.*"))


def test_a_model_that_says_too_little_is_asked_for(tmp_path: Path) -> None:
    shown = boxscore("evaluate", *files(tmp_path), "--log-dir", tmp_path, "--model", "our best")
    assert shown.exit_code == 2
    assert "has no algorithm and no input_size" in shown.output


def test_the_catalogue_lists_everything() -> None:
    assert set(json.loads(boxscore("catalogue", "--json").output)) == set(CATALOGUE)
    assert "rpn_objectness" in boxscore("catalogue").output


@dataclass
class Synced:
    run: str = "FCOS 64x64"
    items: int = 3
    status: str | None = "KILLED"
    left: str = ""


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of the stubbed `boxscore.loggers.sync`, and its results to set."""
    called: dict[str, Any] = {"results": []}

    def sync(path: Path, tracking_uri: str | None, _: object, *, gone: Collection[str]) -> Any:
        called.update(path=path, tracking_uri=tracking_uri, gone=list(gone))
        return called["results"]

    monkeypatch.setattr("boxscore.loggers.sync", sync, raising=False)
    return called


def test_nothing_to_sync_is_said(tmp_path: Path, synced: dict[str, Any]) -> None:
    shown = boxscore("sync", tmp_path)
    assert shown.exit_code == 0
    assert "Nothing is left to deliver" in shown.output
    assert synced["gone"] == []


def test_hosts_that_are_gone(tmp_path: Path, synced: dict[str, Any]) -> None:
    """A pod's name never returns, so that its runs would stay RUNNING."""
    synced["results"] = [Synced()]
    shown = boxscore("sync", tmp_path, "--host-gone", "pod-1", "--host-gone", "pod-2")
    assert (shown.exit_code, synced["gone"]) == (0, ["pod-1", "pod-2"])
    assert "FCOS 64x64: 3 items delivered; KILLED, all delivered" in shown.output


def test_what_stays_is_told_by_the_exit_code(tmp_path: Path, synced: dict[str, Any]) -> None:
    synced["results"] = [Synced(), Synced(left="its process still runs", status=None)]
    shown = boxscore("sync", tmp_path)
    assert shown.exit_code == 2
    assert "stays: its process still runs" in shown.output


@pytest.mark.parametrize(
    "arguments",
    [["sync", "~/none"], ["view", "~/none"], ["demo", "--data=~/none"], ["demo", "--out=~/file"]],
)
def test_a_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    shown = boxscore(*arguments)
    assert shown.exit_code == 2
    assert str(tmp_path / arguments[-1].rpartition("/")[2]) in shown.output
    assert "Traceback" not in shown.output


def test_a_missing_library_is_one_line_with_its_remedy() -> None:
    code = "import sys; sys.modules['torch'] = None; from boxscore.cli import main; main(['demo'])"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    expected = "Error: torch is not installed: pip install 'boxscore[torchvision]'\n"
    assert ended.stderr == expected


def test_a_demo_without_a_metric_is_told_by_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxscore.demo.demo", lambda *_: None)
    monkeypatch.setattr("boxscore.demo.report", lambda *_: False)
    shown = boxscore("demo", "--out", tmp_path)
    assert shown.exit_code == 1
    assert shown.output == "Error: no metric of the test set was measured: see the warnings\n"


def folder(path: Path, **changes: Any) -> Path:
    """A small data set in COCO's usual layout."""
    from PIL import Image

    for name in ("annotations", "images"):
        (path / name).mkdir(parents=True)
    Image.new("RGB", (50, 40)).save(path / "images" / "a.jpg")
    for split in ("train", "test"):
        (path / "annotations" / f"instances_{split}.json").write_text(json.dumps(COCO | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": [COCO["images"][0] | {"file_name": "b.jpg"}]}, "'b.jpg': "),
        ({"annotations": [COCO["annotations"][0] | {"category_id": 9}]}, "category_id 9"),
        ({"images": [], "annotations": []}, "holds no image"),
    ],
)
def test_data_that_cannot_be_trained_on(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    shown = boxscore(
        "demo", "--data", folder(tmp_path / "data", **changes), "--out", tmp_path / "out"
    )
    assert shown.exit_code == 2
    assert said in shown.output
    assert len(shown.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "no such folder"),
        (["--algorithm", "yolo"], "offers retinanet, fcos, fasterrcnn, ssdlite"),
        (["--algorithm", "ssdlite", "--backbone", "resnet18"], "not resnet18"),
        (["--backbone", "vgg"], "'vgg' is not one of 'resnet18'"),
        (["--steps", "0"], "x>=1"),
        (["--out", "a?b"], "a?b: MLflow opens no path with"),
        (["--out", "a%20b"], "a%20b: MLflow opens no path with"),
    ],
)
def test_a_demo_that_cannot_be(tmp_path: Path, arguments: list[str], said: str) -> None:
    shown = boxscore("demo", "--out", tmp_path, *arguments)
    assert shown.exit_code == 2
    assert said in shown.output


def test_view_of_nothing(tmp_path: Path) -> None:
    shown = boxscore("view", tmp_path)
    assert shown.exit_code == 2
    assert "no folder runs (TensorBoard)" in shown.output
    assert "no mlflow.db (MLflow)" in shown.output
    assert len(shown.output.strip().splitlines()) == 1
