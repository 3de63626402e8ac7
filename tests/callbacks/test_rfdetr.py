"""Real tiny trainings with RF-DETR's own Lightning module and data module, of random weights."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boxscore.detection import DetectionMetrics
from boxscore.loggers import MemoryLogger
from tests.tiny_trainer import series
from tests.warned import warns_not

pytest.importorskip("rfdetr")
import pytorch_lightning
import rfdetr
from rfdetr.datasets.coco import CocoDetection, make_coco_transforms_square_div_64
from rfdetr.models.postprocess import PostProcess
from rfdetr.training import RFDETRDataModule

from boxscore.callbacks import lightning
from boxscore.callbacks.reading.rfdetr_module import Reader
from boxscore.callbacks.rfdetr import BoxscoreCallback
from tests.tiny_rfdetr import HEIGHT, WIDTH, configs, made, shrink, write_data

pytestmark = pytest.mark.filterwarnings("ignore")  # RF-DETR's, of torch 2.15 and Lightning's

NAMES = {0: "pale", 1: "dark"}
LABELS = {5: 0, 9: 1}
PARTS = ("classification", "localization", "mask", "auxiliary")
ALL_PARTS = ("total", "classification", "localization", "keypoint", "auxiliary")


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("files") / "shapes")


def truth(data: Path, split: str, masks: bool = False) -> list[dict[str, Any]]:
    """The annotation file's, image by image."""
    content = json.loads((data / split / "_annotations.coco.json").read_text())
    found = []
    for image in content["images"]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes = np.array([a["bbox"] for a in own], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        one = {"image_id": image["id"], "boxes": boxes, "orig_size": (HEIGHT, WIDTH)}
        one |= {name: [a[name] for a in own] for name in ("area", "iscrowd")}
        one["labels"] = [LABELS[a["category_id"]] for a in own]
        found.append(one | ({"masks": [a["segmentation"] for a in own]} if masks else {}))
    return found


def digest(image: Any) -> float:
    return round(float(image.double().sum()), 3)


class Planted(PostProcess):
    """Finds the ground truth, shaken, with false alarms; random weights find nothing.

    It knows an image by its pixels, which the model has just got, without augmentation.
    """

    def __init__(self, module: Any, data: Path) -> None:
        super().__init__(12)
        self.known: dict[float, tuple[str, dict[str, Any]]] = {}
        for split in ("train", "valid", "test"):
            images = CocoDetection(
                data / split, data / split / "_annotations.coco.json",
                make_coco_transforms_square_div_64("val", 64), remap_category_ids=True,
            )  # fmt: skip
            for number, target in enumerate(truth(data, split)):
                self.known[digest(images[number][0])] = split, target
        self.seen = seen = [0.0]
        self.found: dict[tuple[str, int], dict[str, Any]] = {}

        def see(_: Any, args: Any) -> None:  # of the averaged model, too: a function is not copied
            seen[:] = [digest(image) for image in args[0].tensors]

        module.model.register_forward_pre_hook(see)

    def forward(self, outputs: Any, target_sizes: Any, score_threshold: Any = None) -> Any:
        images = [self.known[key] for key in self.seen]
        found = [self.planted(target) for _, target in images]
        for (split, target), one in zip(images, found, strict=True):
            self.found[split, target["image_id"]] = one
        return found

    def planted(self, target: Any) -> dict[str, Any]:
        rng, label = np.random.default_rng(target["image_id"]), target["labels"][0]
        boxes = [target["boxes"][0] + rng.normal(0, 2.5, 4) for _ in range(3)]
        boxes += [[0, 0, 2, 19], [50, 50, 90, 90]]  # in the crowd of the first image, and nowhere
        return {
            "boxes": torch.tensor(np.array(boxes), dtype=torch.float32),
            "scores": torch.tensor(rng.uniform(0.1, 1, 5), dtype=torch.float32),
            "labels": torch.tensor([label, 1 - label, label, 0, 2]),  # 2 is no class
        }


class Seen(pytorch_lightning.Callback):
    """The losses of each batch of a training, by the optimizer step that they belong to."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.ended: dict[str, float] = {}

    def on_train_start(self, trainer: Any, module: Any) -> None:
        weights = module.criterion.weight_dict

        def see(criterion: Any, _: Any, parts: Any) -> None:
            if criterion.training:
                values = {
                    n: float(v.detach()) * weights[n] for n, v in parts.items() if n in weights
                }
                self.rows.append({**values, "objective": sum(values.values())})

        module.criterion.register_forward_hook(see)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        objective = float(outputs["loss"]) * trainer.accumulate_grad_batches
        assert self.rows[-1]["objective"] == pytest.approx(objective)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.ended = {name: float(value) for name, value in trainer.callback_metrics.items()}


def of_step(memory: MemoryLogger, split: str, step: int) -> dict[str, float]:
    found = [p for p in memory.points if (p.split, p.step) == (split, step)]
    return {p.name: p.value for p in found if not p.name.startswith("summary")}


@pytest.fixture(scope="module")
def trained(data: Path) -> Any:
    """Two batches of two images make a step, five steps an epoch; the test set has five images."""
    memory, seen = MemoryLogger(), Seen()
    score = BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise")
    model, train = configs(data, compute_val_loss=True, run_test=True)
    trainer, module, images = made(model, train, seen, score)
    module.postprocess = planted = Planted(module, data)
    with warns_not():
        trainer.fit(module, images)
    return SimpleNamespace(memory=memory, seen=seen, score=score, planted=planted, trainer=trainer)


def test_losses_are_the_objective_and_its_parts_over_optimizer_steps(trained: Any) -> None:
    seen, memory = trained.seen, trained.memory
    assert memory.status == "FINISHED"
    assert trained.trainer.accumulate_grad_batches == 2
    assert len(seen.rows) == 20
    assert list(series(memory, "total", "train")) == list(range(1, 11))
    for step in range(1, 11):
        rows = seen.rows[2 * step - 2 : 2 * step]
        means = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
        found = of_step(memory, "train", step)
        assert found["classification"] == pytest.approx(means["loss_ce"], rel=1e-5)
        boxes = means["loss_bbox"] + means["loss_giou"]
        assert found["localization"] == pytest.approx(boxes, rel=1e-5)
        earlier = sum(value for name, value in means.items() if name.endswith(("_0", "_enc")))
        assert found["auxiliary"] == pytest.approx(earlier, rel=1e-5)
        assert found["total"] == pytest.approx(means["objective"], rel=1e-5)
        assert found["total"] == pytest.approx(sum(found.get(part, 0) for part in PARTS))
        assert not {"other", "mask", "denoising"} & found.keys()
    assert found["progress/images_seen"] == 40
    assert found["progress/epoch"] == 2


def test_test_losses_are_those_that_it_logs_itself(trained: Any) -> None:
    """Of the averaged weights, which it validates."""
    found, own = of_step(trained.memory, "test", 10), trained.seen.ended
    assert list(series(trained.memory, "total", "test")) == [5, 10]
    assert found["total"] == pytest.approx(own["val/loss"], rel=1e-5)
    assert found["classification"] == pytest.approx(own["val/loss_ce"], rel=1e-5)
    assert found["total"] == pytest.approx(sum(found.get(part, 0) for part in PARTS))


def test_metrics_are_cocos_in_the_original_frame(data: Path, trained: Any) -> None:
    for folder, split in {"valid": "test", "test": "test-held_out", "train": "train"}.items():
        found = of_step(trained.memory, split, 10 if split != "test-held_out" else 5)
        by_hand = DetectionMetrics(NAMES)
        for target in truth(data, folder):
            if one := trained.planted.found.get((folder, target["image_id"])):
                named = one["labels"] < 2
                by_hand.update([{name: value[named] for name, value in one.items()}], [target])
        expected = by_hand.compute()
        assert 0.1 < expected["box_AP"] < 0.9
        assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    own = trained.seen.ended
    found = of_step(trained.memory, "test", 10)
    # torchmetrics, which RF-DETR measures with, has the recall thresholds in single precision
    for name, theirs in {"box_AP": "mAP_50_95", "box_AP50": "mAP_50", "box_AP75": "mAP_75"}.items():
        assert found[name] == pytest.approx(own[f"val/ema_{theirs}"], abs=3e-3)
    assert trained.score.latest["box_AP"] == found["box_AP"]


def test_the_facts_are_those_of_the_configurations(trained: Any) -> None:
    start = trained.memory.start
    assert start.tags["boxscore.group"] == "RF-DETR 64x64"
    assert (start.experiment, start.tags["boxscore.task"]) == ("shapes", "detection")
    wanted = {"batch_size": "4", "optimizer": "AdamW", "epochs": "2", "precision": "32-true"}
    wanted |= {"train_images": "8", "test_images": "5", "backbone": "DINOv2-Small"}
    assert wanted.items() <= start.params.items()
    tags = {f"boxscore.fingerprint.{split}" for split in ("train", "test", "test-held_out")}
    assert tags <= trained.memory.tags.keys()
    assert "boxscore.leak" not in trained.memory.tags
    classes = {p.name for p in trained.memory.points if p.scope.startswith("per class")}
    assert {"box_AP pale", "box_AP dark"} <= classes


def test_pictures_have_the_colours_of_the_files(data: Path) -> None:
    model, train = configs(data)
    images = RFDETRDataModule(model, train)
    images.setup("validate")
    batch = next(iter(images.val_dataloader()))
    reader = Reader()
    for place in range(reader.count(batch)):
        image, size = reader.image(batch, place)
        assert size == (HEIGHT, WIDTH)
        shown = np.asarray(Image.open(data / "valid" / f"{place}.png").resize((64, 64))) / 255
        assert np.abs(image.numpy().transpose(1, 2, 0) - shown).mean() < 0.05  # another resize
    assert reader.ids(reader.part(batch, [1])) == [1]


def weights(trainer: Any, module: Any) -> dict[str, torch.Tensor]:
    """Of the module, and of the average in its callback."""
    average = next(c for c in trainer.callbacks if hasattr(c, "get_ema_model_state_dict"))
    averaged = average.get_ema_model_state_dict()
    return {**module.state_dict(), **{f"average {name}": v for name, v in averaged.items()}}


def test_watching_changes_nothing(data: Path) -> None:
    """Of a detector: two trainings of RF-DETR's segmentation models end unlike in any case."""
    often: Any = {"log_every": 1, "evaluate_every": 1, "evaluate_train_every": 1}
    score = BoxscoreCallback(loggers=[MemoryLogger()], evaluate_images=3, **often)
    ends = []
    for callbacks in ([], [score]):
        trainer, module, images = made(*configs(data, epochs=1), *callbacks)
        torch.manual_seed(0)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        trainer.fit(module, images)
        ends.append(weights(trainer, module))
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert not module.criterion._forward_hooks
    assert not module.postprocess._forward_hooks


def test_masks_are_measured_in_the_original_frame(data: Path) -> None:
    """Also where RF-DETR validates them in the size of its mask head."""
    memory = MemoryLogger()
    score = BoxscoreCallback(
        loggers=[memory], log_every=1, evaluate_every=4, evaluate_train_every=None, on_error="raise"
    )
    settings = {"epochs": 1, "eval_masks_head_resolution": True, "grad_accum_steps": 1}
    trainer, module, images = made(*configs(data, "masks", **settings), score)
    kept: list[Any] = []
    module.postprocess.register_forward_hook(lambda *given: kept.append((given[1], given[2])))
    trainer.fit(module, images)
    assert list(series(memory, "mask_AP50", "test")) == [4, 5]
    by_hand = DetectionMetrics(NAMES, masks=True)
    exact = PostProcess(12)
    found = [one for (outputs, sizes), _ in kept[-6::2] for one in exact(outputs, sizes)]
    for one in found:
        one["masks"] = one["masks"].squeeze(1)
        assert one["masks"].shape[1:] == (HEIGHT, WIDTH)
    named = [{n: v[one["labels"] < 2] for n, v in one.items()} for one in found]
    by_hand.update(named, truth(data, "valid", masks=True))
    expected, last = by_hand.compute(), of_step(memory, "test", 5)
    assert {name: last[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    losses = of_step(memory, "train", 5)
    assert losses["mask"] > 0
    for split in (losses, last):
        assert split["total"] == pytest.approx(sum(split[part] for part in PARTS))
    assert memory.start is not None
    assert memory.start.tags["boxscore.task"] == "instance-segmentation"


def test_keypoint_models_whose_steps_divide_the_losses_late(tmp_path: Path) -> None:
    """By the boxes of all batches of a step, in an optimization of RF-DETR's own."""
    memory = MemoryLogger()
    score = BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise")
    data = write_data(tmp_path / "points", keypoints=True)
    model, train = configs(data, "keypoints", epochs=1, compact_train_metrics=False)
    trainer, module, images = made(model, train, score)
    trainer.fit(module, images)
    own, weights = trainer.callback_metrics, module.criterion.weight_dict
    assert trainer.global_step == 5
    assert list(series(memory, "total", "train")) == [1, 2, 3, 4, 5]
    means = {name: np.mean([*series(memory, name, "train").values()]) for name in ALL_PARTS}
    assert means["total"] == pytest.approx(float(own["train/loss"]), rel=1e-5)
    classes = float(own["train/loss_ce"]) * weights["loss_ce"]
    assert means["classification"] == pytest.approx(classes, rel=1e-4)
    points = [n for n in weights if n.startswith("loss_keypoints") and n[-1] not in "0c"]
    expected = sum(float(own[f"train/{name}"]) * weights[name] for name in points)
    assert means["keypoint"] == pytest.approx(expected, rel=1e-4)
    assert not series(memory, "other", "train")
    assert memory.start is not None
    assert memory.start.params["batch_size"] == "4"


def test_masks_of_a_data_set_without_an_annotation_file(data: Path, tmp_path: Path) -> None:
    """YOLO's: the batch's ground truth is taken back to the original size."""
    memory, truths = MemoryLogger(), []
    for split in ("train", "valid"):
        (tmp_path / "yolo" / split / "images").mkdir(parents=True)
        (tmp_path / "yolo" / split / "labels").mkdir(parents=True)
        for target in truth(data, split, masks=True):
            name, lines = target["image_id"], []
            real = [n for n, crowd in enumerate(target["iscrowd"]) if not crowd]
            for n in real:
                outline = np.array(target["masks"][n]).reshape(-1, 2) / [WIDTH, HEIGHT]
                lines.append(" ".join(map(str, [target["labels"][n], *outline.flatten()])))
            folder = tmp_path / "yolo" / split
            (folder / "labels" / f"{name}.txt").write_text("\n".join(lines))
            (folder / "images" / f"{name}.png").hardlink_to(data / split / f"{name}.png")
            if split == "valid":
                kept = {n: [target[n][k] for k in real] for n in ("boxes", "labels", "area")}
                truths.append({**kept, "image_id": name})
    names = "train: train/images\nval: valid/images\nnc: 2\nnames: [pale, dark]\n"
    (tmp_path / "yolo" / "data.yaml").write_text(names)
    score = BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise")
    settings: Any = {"dataset_file": "yolo", "epochs": 1, "output_dir": str(tmp_path)}
    trainer, module, images = made(*configs(tmp_path / "yolo", "masks", **settings), score)
    trainer.fit(module, images)
    assert "mask_AP" in of_step(memory, "test", 5)
    by_hand = DetectionMetrics(NAMES)
    nothing = {"boxes": np.zeros((0, 4)), "scores": [], "labels": []}
    by_hand.update([nothing] * len(truths), truths)
    wanted = by_hand.evaluated.digest(by_hand.protocol)
    assert memory.tags["boxscore.fingerprint.test"] == wanted[:12]


def test_every_so_many_steps_on_a_model_of_the_users(data: Path) -> None:
    """Beside RF-DETR's own validation of the same weights, which is not followed then."""
    memory, seen = MemoryLogger(), Seen()
    model, train = configs(data, epochs=1, use_ema=False, compute_val_loss=True)
    trainer, module, images = made(model, train, seen)
    score = BoxscoreCallback(
        loggers=[memory], log_every=1, evaluate_every=2, evaluate_model=lambda: module.model,
        evaluate_train_every=None, on_error="raise",
    )  # fmt: skip
    trainer.callbacks.append(score)
    trainer.fit(module, images)
    assert list(series(memory, "total", "test")) == [2, 4, 5]
    assert of_step(memory, "test", 5)["total"] == pytest.approx(seen.ended["val/loss"], rel=1e-5)


class Stop(pytorch_lightning.Callback):
    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1:
            raise InterruptedError


def test_an_exception_resume_and_another_training(data: Path, tmp_path: Path) -> None:
    memory = MemoryLogger()
    loggers: list[Any] = [memory]
    score = BoxscoreCallback(loggers=loggers, log_every=1, on_error="raise")
    settings: Any = {"output_dir": str(tmp_path), "use_ema": False}
    trainer, module, images = made(*configs(data, **settings), score, Stop())
    with pytest.raises(InterruptedError):
        trainer.fit(module, images)
    ends: list[Any] = [memory.status]
    first = memory.start
    assert first is not None

    trainer, module, images = made(*configs(data, **settings), score)
    trainer.fit(module, images, ckpt_path=str(tmp_path / "last.ckpt"))
    assert [*ends, memory.status] == ["FAILED", "FINISHED"]
    assert memory.start is not None
    assert memory.start.id == first.id
    assert memory.start.resumed
    assert list(series(memory, "total", "train")) == list(range(1, 11))
    assert of_step(memory, "train", 10)["progress/images_seen"] == 40

    loggers.append(again := MemoryLogger())
    trainer, module, images = made(*configs(data, **settings, epochs=1), score)
    trainer.fit(module, images)
    assert again.start is not None
    assert again.start.id != first.id
    assert list(series(again, "total", "train")) == [1, 2, 3, 4, 5]


def test_attached_to_a_model_that_trains_itself(data: Path, tmp_path: Path) -> None:
    """With the batches of a data set that pads targets, at several sizes, without an average."""
    model, _ = configs(data)
    memory, build = MemoryLogger(), rfdetr.training.build_trainer
    detector = rfdetr.RFDETRNano(**{**dict(model), "model_name": None})
    score = BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise")
    assert score.attach(detector) is score
    score.attach(detector)  # again, which adds nothing
    detector.train(
        dataset_dir=str(data), output_dir=str(tmp_path), epochs=1, batch_size=2, device="cpu",
        num_workers=0, tensorboard=False, pad_targets_to=4, use_ema=False, progress_bar=None,
    )  # fmt: skip
    assert memory.status == "FINISHED"
    assert list(series(memory, "total", "train")) == list(range(1, 6))
    assert {"box_AP", "total"} <= of_step(memory, "train", 5).keys() & of_step(
        memory, "test", 5
    ).keys()
    assert rfdetr.training.build_trainer is build


def test_lightnings_callback_names_this_one(data: Path) -> None:
    score = lightning.BoxscoreCallback(loggers=[MemoryLogger()])
    trainer, module, images = made(*configs(data), score)
    with pytest.raises(ValueError, match=r"from boxscore\.callbacks\.rfdetr import"):
        trainer.fit(module, images)
