"""The examples run as they stand, with fewer steps."""

import importlib.util
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from boxscore import Identity
from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger
from tests import tiny

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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ultralytics_yolo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("ultralytics_yolo").main(epochs=2, log_every=1, evaluate_every=1)
    shown = capsys.readouterr()
    assert "box_AP50" in shown.out
    assert "YOLO11 160x160" in shown.err
    assert (tmp_path / "example" / "mlflow.db").exists()
    assert [*(tmp_path / "example" / "runs").rglob("test/events*")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_rfdetr_coco(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.tiny_rfdetr import shrink

    shrink(monkeypatch, layers=12)
    load("rfdetr_coco").main(epochs=1, log_every=1, evaluate_every=2)
    shown = capsys.readouterr()
    assert "box_AP50" in shown.out
    assert "RF-DETR 160x160 DINOv2-Small" in shown.err
    assert (tmp_path / "example" / "mlflow.db").exists()
    assert [*(tmp_path / "example" / "runs").rglob("test/events*")]


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


class Storage:
    """As Detectron2's, whose innermost ``with`` block is the current one."""

    stack: ClassVar[list["Storage"]] = []

    def __init__(self) -> None:
        self.scalars: dict[str, tuple[float, int]] = {}
        self.iter = 0

    def __enter__(self) -> "Storage":
        self.stack.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.pop()

    def put_scalars(self, **values: float) -> None:
        self.scalars |= {name: (value, self.iter) for name, value in values.items()}

    def latest(self) -> dict[str, tuple[float, int]]:
        return self.scalars


class Instances(SimpleNamespace):
    def to(self, device: str) -> "Instances":
        return self


class Rcnn(torch.nn.Module):
    """torchvision's FCOS behind Detectron2's conventions; it counts its forwards in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny.fcos(128)

    def forward(self, batch: Any) -> Any:
        images = [one["image"] for one in batch]
        if not self.training:
            found = self.net(images)
            return [{"instances": Instances(pred_boxes=SimpleNamespace(tensor=f["boxes"] / 2),
                scores=f["scores"], pred_classes=f["labels"])} for f in found]  # fmt: skip
        truths = [one["instances"] for one in batch]
        targets = [{"boxes": t.gt_boxes.tensor, "labels": t.gt_classes} for t in truths]
        names = {"classification": "loss_cls", "bbox_regression": "loss_box_reg"}
        losses = self.net(images, targets)
        Storage.stack[-1].put_scalars(diagnosis_loss=-1.0)
        return {names.get(name, "loss_centerness"): value for name, value in losses.items()}


def mapped(batch: Any) -> Any:
    return [{
        "image": image, "height": 64, "width": 64, "image_id": int(target["image_id"]),
        "instances": Instances(gt_boxes=SimpleNamespace(tensor=target["boxes"]),
                               gt_classes=target["labels"]),
    } for image, target in batch]  # fmt: skip


def with_detectron2(hook: Any, steps: int, fails: bool = False) -> None:
    """As its `TrainerBase.train` and `SimpleTrainer.run_step` do."""
    trainer = hook.trainer
    with Storage() as trainer.storage:
        try:
            for trainer.iter in range(steps):
                trainer.storage.iter = trainer.iter
                batch = trainer.batches[trainer.iter % len(trainer.batches)]
                trainer.model.train()
                losses = trainer.model(batch)
                trainer.storage.scalars.clear()
                trainer.optimizer.zero_grad()
                sum(losses.values()).backward()
                trainer.storage.put_scalars(
                    total_loss=float(sum(losses.values()).detach()), data_time=0.1,
                    **{n: float(v.detach()) for n, v in losses.items()},
                )  # fmt: skip
                trainer.optimizer.step()
                hook.after_step()
                if fails:
                    raise ZeroDivisionError
        finally:
            hook.after_train()


def test_detectron2_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are those of the loop on the same network, in the original frame."""
    parts: dict[str, dict[str, Any]] = {
        "engine": {"HookBase": type("HookBase", (), {})},
        "utils.events": {"EventStorage": Storage},
    }
    for name in ("", ".engine", ".utils", ".utils.events"):
        monkeypatch.setitem(sys.modules, f"detectron2{name}", ModuleType(f"detectron2{name}"))
    for name, members in parts.items():
        vars(sys.modules[f"detectron2.{name}"]).update(members)

    def loader(count: int, first: int = 0) -> Any:
        pictures = tiny.Pictures(count, first, scale=2)
        return torch.utils.data.DataLoader(pictures, 2, collate_fn=mapped)

    memories = []
    for fails in (False, True):
        model, memory = Rcnn(), MemoryLogger()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-3)
        trainer = SimpleNamespace(model=model, optimizer=optimizer, batches=list(loader(8)))
        hook = load("detectron2_hook").BoxscoreHook(
            trainer, loader(4, 100), identity=Identity("FCOS", "128x128"), classes=tiny.CLASSES,
            dataset="boxes", loggers=[memory], log_every=2, evaluate_every=4, on_error="raise",
        )  # fmt: skip
        hook.trainer = trainer
        with pytest.raises(ZeroDivisionError) if fails else nullcontext():
            with_detectron2(hook, 8, fails)
        memories.append(memory)
    assert [memory.status for memory in memories] == ["FINISHED", "FAILED"]
    net, by_loop = tiny.fcos(128), MemoryLogger()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, weight_decay=1e-3)
    train = tiny.loader(8, batch_size=2, scale=2)
    with LoopCallback(
        net, optimizer, tiny.loader(4, 100, batch_size=2, scale=2), dataset="boxes",
        classes=tiny.CLASSES, loggers=[by_loop], log_every=2, evaluate_every=4,
    ) as score:  # fmt: skip
        for batch in [*train, *train]:
            score.step(tiny.train_step(net, optimizer, batch))
    figures = [
        {(p.name, p.split, p.step): p.value for p in memory.points if p.scope and "/" not in p.name}
        for memory in (memories[0], by_loop)
    ]
    assert {name for name, _, _ in figures[1]} >= {"centerness", "box_AP", "total"}
    assert {k: figures[0].get(k) for k in figures[1]} == pytest.approx(figures[1], rel=1e-5)
