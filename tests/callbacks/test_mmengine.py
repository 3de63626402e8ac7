"""Real tiny trainings with MMEngine's Runner, in MMDetection's and MMSegmentation's conventions."""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import nn

from boxscore import Identity
from boxscore.callbacks.loop import LoopCallback
from boxscore.callbacks.mmengine import BoxscoreHook
from boxscore.callbacks.reading.data_samples import SampleReader, label_maps
from boxscore.keys import further_split
from boxscore.loggers import MemoryLogger
from boxscore.losses import cross_entropy_loss, test_losses
from tests import tiny
from tests.warned import warnings_logged, warns

pytestmark = pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
COUNT = itertools.count()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    yield
    logging.shutdown()
    DefaultScope._instance_dict.clear()


class LoadAnnotations:
    """A transform that is known by its name."""


class Resize:
    """A transform that is known by its name."""


class Detections(torch.utils.data.Dataset[Any]):
    """`tiny.Pictures` at twice their size, as MMDetection packs them.

    The train set's annotations are resized with the image, the test set's are not.
    """

    def __init__(self, count: int, first: int = 0) -> None:
        self.pictures = tiny.Pictures(count, first, scale=2)
        self.metainfo = {"classes": ["disc", "square"]}
        self.pipeline: Any = type("Compose", (), {})()
        self.is_train = not first
        steps = [LoadAnnotations(), Resize()]
        self.pipeline.transforms = steps if self.is_train else steps[::-1]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        image, target = self.pictures[index]
        sample = BaseDataElement(metainfo={
            "img_id": int(target["image_id"]), "ori_shape": (64, 64), "img_shape": (128, 128),
            "scale_factor": (2.0, 2.0),
        })  # fmt: skip
        boxes = target["boxes"] / (1 if self.is_train else 2)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=target["labels"] - 1)
        return {"inputs": image, "data_samples": sample}


class Detector(BaseModel):  # type: ignore[misc]
    """torchvision's FCOS behind MMDetection's modes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny.fcos(128)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        if mode == "loss":
            truths = [s.gt_instances for s in data_samples]
            targets = [{"boxes": t.bboxes, "labels": t.labels + 1} for t in truths]
            losses = self.net(inputs, targets) if self.training else None
            losses = losses or test_losses(self.net, inputs, targets)[0]
            names = {"classification": "loss_cls", "bbox_regression": "loss_bbox"}
            named = {names.get(n, "loss_centerness"): value for n, value in losses.items()}
            return {**named, "acc": torch.tensor(90.0)}
        for sample, found in zip(data_samples, self.net(inputs), strict=True):
            boxes, labels = found["boxes"] / 2, found["labels"] - 1
            sample.pred_instances = InstanceData(
                bboxes=boxes, scores=found["scores"], labels=labels
            )
        return data_samples


class Maps(torch.utils.data.Dataset[Any]):
    """Noise (3, 16, 16) and label maps of three classes, that it tells of."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.ids = list(range(first, first + count))
        self.metainfo = {"classes": ["no", "yes", "edge"]}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Any:
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(self.ids[index]))
        sample = BaseDataElement(metainfo={"img_path": f"{self.ids[index]}.png"})
        sample.gt_sem_seg = PixelData(data=(image[:1] * 3).long())
        return {"inputs": image, "data_samples": sample}


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(8, 3, 1)


class Segmentor(BaseModel):  # type: ignore[misc]
    """Of MMSegmentation's structure."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.decode_head = Head()

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
        logits = self.decode_head.conv_seg(self.backbone(torch.stack(inputs)))
        if mode == "loss":
            labels = label_maps(data_samples)
            return {"decode.loss_ce": cross_entropy_loss(logits, labels)}
        for sample, found in zip(data_samples, logits, strict=True):
            sample.seg_logits = PixelData(data=found)
            sample.pred_sem_seg = PixelData(data=found.argmax(0, keepdim=True))
        return data_samples


class Nothing(BaseMetric):  # type: ignore[misc]
    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(1)

    def compute_metrics(self, results: Any) -> dict[str, float]:
        return {"own": 1.0}


def batches(data: Any, *, shuffle: bool = False) -> dict[str, Any]:
    sampler = {"type": "DefaultSampler", "shuffle": shuffle}
    collate = {"type": "pseudo_collate"}
    return {"dataset": data, "batch_size": 2, "sampler": sampler, "collate_fn": collate}


def runner(
    folder: Path, model: Any, train: Any, test: Any, hook: Any = None, *, by_iter: bool = False,
    accumulate: int = 1, shuffle: bool = False, hooks: Any = (), **more: Any,
) -> Any:  # fmt: skip
    train_cfg = {"by_epoch": True, "max_epochs": 2, "val_interval": 1}
    if by_iter:
        train_cfg = {"by_epoch": False, "max_iters": 8, "val_interval": 4}
    optimizer = {"type": "SGD", "lr": 0.01, "weight_decay": 1e-3}
    defaults: dict[str, Any] = {
        "train_dataloader": batches(train, shuffle=shuffle), "train_cfg": train_cfg,
        "val_dataloader": batches(test), "val_cfg": {}, "val_evaluator": [Nothing()],
        "optim_wrapper": {"optimizer": optimizer, "accumulative_counts": accumulate},
    }  # fmt: skip
    return Runner(
        model, work_dir=str(folder), custom_hooks=[*([hook] if hook else []), *hooks],
        randomness={"seed": 0}, experiment_name=f"tiny-{next(COUNT)}", log_level="ERROR",
        **defaults | more,
    )  # fmt: skip


OPTIONS: dict[str, Any] = {
    "dataset": "boxes", "log_every": 2, "on_error": "raise", "pictures": False
}  # fmt: skip


def detect(folder: Path, **options: Any) -> tuple[MemoryLogger, BoxscoreHook, Any]:
    memory = MemoryLogger()
    settings = {n: options.pop(n) for n in ("by_iter", "accumulate", "hooks") if n in options}
    hook = BoxscoreHook(
        **OPTIONS | {"loggers": [memory], "identity": Identity("FCOS", "128x128")} | options
    )
    run = runner(folder, Detector(), Detections(8), Detections(4, 100), hook, **settings)
    run.train()
    return memory, hook, run


def segment(folder: Path, also: Any = (), **options: Any) -> tuple[MemoryLogger, Any]:
    memory = MemoryLogger()
    names = ("by_iter", "accumulate", "resume", "load_from", "default_hooks")
    settings = {n: options.pop(n) for n in names if n in options}
    hook = BoxscoreHook(
        **OPTIONS | {"loggers": [memory], "identity": Identity("Net", "16x16")} | options
    )
    run = runner(folder, Segmentor(), Maps(8), Maps(4, 100), hook, hooks=also, **settings)
    run.train()
    return memory, run


def series(memory: MemoryLogger, name: str, split: str = "test") -> dict[int, float]:
    return {p.step: p.value for p in memory.points if (p.name, p.split) == (name, split)}


def measured(memory: MemoryLogger) -> dict[Any, float]:
    """Every loss and metric, with the split's name in the place of its fingerprint."""
    return {
        (p.name, p.split, p.step): p.value
        for p in memory.points
        if p.scope and "native" not in p.scope
    }


@pytest.mark.parametrize("by_iter", [False, True])
def test_a_detector_has_the_points_of_the_loop(tmp_path: Path, by_iter: bool) -> None:
    """In the original frame, although the model sees images of twice the size."""
    memory, hook, _ = detect(tmp_path, by_iter=by_iter, evaluate_train_every=4)
    model, by_loop = tiny.fcos(128), MemoryLogger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-3)
    train = tiny.loader(8, batch_size=2, scale=2)
    with LoopCallback(
        model, optimizer, tiny.loader(4, 100, batch_size=2, scale=2), train_loader=train,
        classes=tiny.CLASSES, evaluate_every=4, evaluate_train_every=4,
        **OPTIONS | {"loggers": [by_loop]},
    ) as score:  # fmt: skip
        for batch in [*train, *train]:
            score.step(tiny.train_step(model, optimizer, batch))
    assert measured(memory) == pytest.approx(measured(by_loop), rel=1e-5)
    assert {p.key for p in memory.points} >= {"loss FCOS 128x128/centerness.train"}
    assert series(memory, "box_AR_small").keys() == {4, 8}
    assert (memory.status, hook.latest["box_AP"]) == ("FINISHED", score.latest["box_AP"])


def test_pictures_are_in_the_frame_of_the_truth() -> None:
    item = Detections(4, 100)[0]
    batch = {"inputs": [item["inputs"]], "data_samples": [item["data_samples"]]}
    image, size = SampleReader().image(batch, 0)
    assert (tuple(image.shape), size) == ((3, 128, 128), (64, 64))


def test_the_losses_of_a_segmentor_on_the_test_set(tmp_path: Path) -> None:
    memory, run = segment(tmp_path)
    model = run.model.eval()
    samples = [Maps(4, 100)[n] for n in range(4)]
    images = torch.stack([sample["inputs"] for sample in samples])
    labels = label_maps([sample["data_samples"] for sample in samples])
    with torch.no_grad():
        logits = model.decode_head.conv_seg(model.backbone(images))
    loss = float(cross_entropy_loss(logits, labels))
    assert series(memory, "cross_entropy")[8] == pytest.approx(loss, rel=1e-5)
    assert series(memory, "classification")[8] == pytest.approx(loss, rel=1e-5)
    decay = series(memory, "regularization")[8]
    assert series(memory, "total")[8] == pytest.approx(loss + decay, rel=1e-5)


def test_steps_are_those_of_the_optimizer_and_evaluations_may_be_between(tmp_path: Path) -> None:
    memory, _ = segment(tmp_path, accumulate=2, log_every=1, evaluate_every=1)
    assert list(series(memory, "total", "train")) == [1, 2, 3, 4]
    assert series(memory, "progress/images_seen", "train")[4] == 16
    assert series(memory, "progress/epoch", "train")[4] == 2.0
    assert list(series(memory, "IoU")) == [1, 2, 3, 4]
    assert memory.start is not None
    assert memory.start.params["batch_size"] == "4"


def test_a_configuration_names_it_and_the_best_checkpoint_is_chosen_by_it(tmp_path: Path) -> None:
    hook = {
        "type": "BoxscoreHook", "loggers": [MemoryLogger()], "dataset": "maps",
        "identity": Identity("Net", "16x16"), "on_error": "raise",
    }  # fmt: skip
    best = {"type": "CheckpointHook", "interval": 1, "save_best": "IoU", "rule": "greater"}
    run = runner(
        tmp_path, Segmentor(), Maps(8), Maps(4, 100), hook, default_hooks={"checkpoint": best}
    )
    run.train()
    assert [*tmp_path.glob("best_IoU*.pth")]


def test_an_average_of_the_weights_is_measured(tmp_path: Path) -> None:
    """By validation, and by boxscore's own pass alike."""
    average = {"type": "EMAHook", "momentum": 0.5}
    by_runner, _ = segment(tmp_path, [dict(average)])
    by_pass, _ = segment(tmp_path, [dict(average)], evaluate_every=4)
    plain, _ = segment(tmp_path)
    assert series(by_runner, "IoU") == series(by_pass, "IoU") != series(plain, "IoU")
    assert series(by_runner, "focal") == pytest.approx(series(by_pass, "focal"))


def test_a_checkpoint_continues_the_run_where_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as MMEngine 0.10 needs it
    first, _ = segment(tmp_path)
    saved = str(tmp_path / "epoch_1.pth")
    resumed, _ = segment(tmp_path, resume=True, load_from=saved)
    tuned, _ = segment(tmp_path, load_from=saved)
    assert first.start is not None
    assert resumed.start is not None
    assert tuned.start is not None
    assert resumed.start.id == first.start.id != tuned.start.id
    assert list(series(resumed, "total", "train")) == [6, 8]
    assert list(series(resumed, "IoU")) == [8]
    assert list(series(tuned, "total", "train")) == [2, 4, 6, 8]
    assert series(resumed, "IoU")[8] == pytest.approx(series(first, "IoU")[8])


def test_what_fails_in_measuring_does_not_end_the_training(tmp_path: Path) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("broken")

    for options in ({"predict": broken}, {"batch": broken}):
        with warnings_logged() as told:
            memory, _ = segment(tmp_path, on_error="warn", task="semantic-segmentation", **options)
        assert memory.status == "FINISHED"
        assert any("broken" in text for text in told)


def test_losses_of_a_set_that_fail_do_not_cost_its_metrics(tmp_path: Path) -> None:
    class Unable(Segmentor):
        def forward(self, inputs: Any, data_samples: Any = None, mode: str = "tensor") -> Any:
            if mode == "loss" and not self.training:
                raise ZeroDivisionError("no loss in eval mode")
            return super().forward(inputs, data_samples, mode)

    memory = MemoryLogger()
    options: Any = {"loggers": [memory], "dataset": "d", "identity": Identity("Net", "16x16")}
    with warns("no loss in eval mode"):
        runner(tmp_path, Unable(), Maps(8), Maps(4, 100), BoxscoreHook(**options)).train()
    assert list(series(memory, "IoU")) == list(series(memory, "dice")) == [4, 8]
    assert not series(memory, "classification")


def test_a_test_after_the_training_is_a_set_of_its_own(tmp_path: Path) -> None:
    memory = MemoryLogger()
    hook = BoxscoreHook(loggers=[memory], dataset="d", identity=Identity("Net", "16x16"))
    run = runner(
        tmp_path, Segmentor(), Maps(8), Maps(4, 100), hook, test_dataloader=batches(Maps(6, 200)),
        test_cfg={}, test_evaluator=[Nothing()],
    )  # fmt: skip
    with warns("before the training"):
        run.val()
    run.train()
    found = run.test()
    assert series(memory, "IoU", further_split("held_out")) == {8: found["IoU"]}
    assert list(series(memory, "IoU")) == [4, 8]
    assert memory.status == "FINISHED"
