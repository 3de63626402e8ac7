"""The examples run as they stand, with fewer steps."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("boxscore.demo.shapes.COUNTS", {"train": 8, "test": 2})


def test_they_are_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path.name


@pytest.mark.slow
def test_plain_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("plain_loop").main(steps=2, log_every=1, evaluate_every=2)
    assert "box_AP50" in capsys.readouterr().out
    assert (tmp_path / "example" / "mlflow.db").exists()


@pytest.mark.slow
def test_yolo_in_a_loop(capsys: pytest.CaptureFixture[str]) -> None:
    load("yolo_in_a_loop").main(steps=2, log_every=1, evaluate_every=2)
    shown = capsys.readouterr()
    assert "box_AP50" in shown.out
    assert "YOLOv8 160x160" in shown.err


@pytest.mark.slow
def test_compare_four(capsys: pytest.CaptureFixture[str]) -> None:
    load("compare_four").main(steps=1, input_size=64)
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("RetinaNet 64x64 ResNet-18", "FCOS 64x64 MobileNetV3"))


QUIET = "ignore:.*(does not have many workers|pin_memory|number of training batches|logging inter)"


@pytest.mark.slow
@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize(
    ("name", "figure"), [("lightning_detection", "box_AP50"), ("transformers_segformer", "IoU")]
)
def test_with_a_trainer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, figure: str
) -> None:
    load(name).main(steps=4, log_every=1, evaluate_every=2)
    shown = capsys.readouterr().out
    assert figure in shown
    assert "example/" in shown.splitlines()[-1]  # the best checkpoint
    assert (tmp_path / "example" / "mlflow.db").exists()
    assert [*(tmp_path / "example" / "runs").rglob("test/events*")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "saved"), [("monai_ignite", "*.pt"), ("mmengine_runner", "*.pth")]
)
def test_with_engines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, saved: str
) -> None:
    load(name).main(steps=2, log_every=1, evaluate_every=1)
    assert "'IoU'" in capsys.readouterr().out
    assert [*(tmp_path / "example" / "runs").rglob("test/events*")]
    assert [*(tmp_path / "example").glob(saved)]
