"""Real tiny trainings with Ultralytics' trainers, of random weights."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxscore.callbacks.requires import require
from boxscore.detection import DetectionMetrics
from boxscore.loggers import MemoryLogger
from tests.tiny_trainer import series
from tests.tiny_yolo import PlantedTrainer, tiny, train, write_data
from tests.warned import warnings_logged, warns

ultralytics = pytest.importorskip("ultralytics")
from ultralytics.models.yolo.detect import DetectionValidator  # noqa: E402
from ultralytics.utils import SETTINGS, ops  # noqa: E402

from boxscore.callbacks.reading.ultralytics_validation import Reader  # noqa: E402
from boxscore.callbacks.ultralytics import BoxscoreCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Ultralytics', of torch 2.15 and NumPy

PARTS = ("classification", "localization", "mask", "other", "auxiliary")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No tracker of Ultralytics' own, whose settings file stays as it is, and no fonts."""
    monkeypatch.setattr("ultralytics.data.utils.check_font", lambda *_: None)
    before = dict(SETTINGS)
    dict.update(SETTINGS, mlflow=False, tensorboard=False, sync=False)
    yield
    dict.update(SETTINGS, before)


class Seen:
    """What a training does, as seen by callbacks of its own, beside boxscore's."""

    def __init__(self, model: Any) -> None:
        self.losses: list[tuple[int, dict[str, float], float]] = []
        self.lengths: list[int] = []
        self.predictions: list[dict[str, Any]] = []
        self.targets: list[dict[str, Any]] = []
        model.add_callback("on_pretrain_routine_end", self.begin)
        model.add_callback("on_train_batch_end", self.batch)
        model.add_callback("on_val_start", self.validation)

    def begin(self, trainer: Any) -> None:
        self.steps = 0
        step, preprocess = trainer.optimizer.step, trainer.preprocess_batch

        def stepped(*args: Any, **kwargs: Any) -> Any:
            self.steps += 1
            return step(*args, **kwargs)

        def preprocessed(batch: Any) -> Any:
            self.lengths.append(len(batch["img"]))
            return preprocess(batch)

        trainer.optimizer.step, trainer.preprocess_batch = stepped, preprocessed
        update = trainer.validator.update_metrics

        def updated(predictions: Any, batch: Any) -> None:
            if trainer.validator.training:
                for place, found in enumerate(predictions):
                    self.see(found, batch, place)
            update(predictions, batch)

        trainer.validator.update_metrics = updated

    def batch(self, trainer: Any) -> None:
        items = {name: float(value) for name, value in trainer.loss_items.items()}
        self.losses.append((self.steps, items, float(trainer.loss.detach()) / self.lengths[-1]))

    def validation(self, validator: Any) -> None:
        if validator.training:
            self.predictions, self.targets = [], []

    def see(self, found: Any, batch: Any, place: int) -> None:
        """Undo the letterbox by hand."""
        height, width = batch["ori_shape"][place]
        (down, across), (left, top) = batch["ratio_pad"][place]
        scale, shift = np.array([across, down] * 2), np.array([left, top] * 2)
        boxes = (found["bboxes"].numpy().astype(float) - shift) / scale
        boxes = np.clip(boxes, 0, [width, height, width, height])
        labels = found["cls"].numpy().astype(int)
        scores = found["conf"].numpy()
        self.predictions.append({"boxes": boxes, "scores": scores, "labels": labels})
        lines = Path(batch["im_file"][place].replace("images", "labels")).with_suffix(".txt")
        label, *corners = map(float, lines.read_text().split())
        x, y = np.array(corners[::2]) * width, np.array(corners[1::2]) * height
        target = {"boxes": [[x.min(), y.min(), x.max(), y.max()]], "labels": [int(label)]}
        self.targets.append({**target, "image_id": batch["im_file"][place]})


def of_step(memory: MemoryLogger, split: str, step: int) -> dict[str, float]:
    return {
        p.name: p.value
        for p in memory.points
        if (p.split, p.step) == (split, step) and not p.name.startswith("summary")
    }


@pytest.fixture(scope="module")
def trained(data: str) -> SimpleNamespace:
    """Batches of 3, 3 and 2 images; from 1 to 2 of them make a step, as the warm-up has it."""
    memory, model = MemoryLogger(), tiny(Path(data).parent)
    score = BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise").attach(model)
    seen = Seen(model)
    settings = {"trainer": PlantedTrainer, "batch": 3, "nbs": 6, "warmup_epochs": 1.0, "epochs": 3}
    trainer = train(model, data, optimizer="SGD", **settings)
    return SimpleNamespace(memory=memory, score=score, seen=seen, trainer=trainer)


def test_losses_are_the_trainers_over_optimizer_steps(trained: Any) -> None:
    seen, memory = trained.seen, trained.memory
    assert memory.status == "FINISHED"
    assert 0 < seen.steps < len(seen.losses)  # some batches were accumulated
    assert sorted(series(memory, "total", "train")) == list(range(1, seen.steps + 1))
    rows: list[dict[str, float]] = []
    last = 0
    for step, items, objective in seen.losses:
        rows.append({**items, "objective": objective})
        if step == last:
            continue
        means = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
        found = of_step(memory, "train", step)
        for name in ("box_loss", "dfl_loss"):
            assert found[name] == pytest.approx(means[name], rel=1e-5)
        assert found["classification"] == pytest.approx(means["cls_loss"], rel=1e-5)
        assert found["localization"] == pytest.approx(means["box_loss"] + means["dfl_loss"])
        parts = sum(found.get(part, 0) for part in PARTS)
        assert parts == pytest.approx(means["objective"], rel=1e-5)
        assert found["total"] == pytest.approx(parts + found["regularization"])
        assert "other" not in found
        rows, last = [], step
    counted = len(seen.losses) - len(rows)  # those after the last step are no point's
    assert found["progress/images_seen"] == sum(seen.lengths[:counted])
    assert found["progress/epoch"] == counted / 3


def test_test_losses_are_those_that_the_trainer_prints(trained: Any) -> None:
    printed = read_csv(trained.trainer)
    found = of_step(trained.memory, "test", trained.seen.steps)
    assert found["box_loss"] == pytest.approx(printed["val/box_loss"], abs=1e-5)
    assert found["dfl_loss"] == pytest.approx(printed["val/dfl_loss"], abs=1e-5)
    assert found["classification"] == pytest.approx(printed["val/cls_loss"], abs=1e-5)
    parts = sum(found.get(part, 0) for part in (*PARTS, "regularization"))
    assert found["total"] == pytest.approx(parts)


def test_metrics_are_cocos_in_the_original_frame(trained: Any) -> None:
    by_hand = DetectionMetrics({0: "pale", 1: "dark"})
    by_hand.update(trained.seen.predictions, trained.seen.targets)
    expected = by_hand.compute()
    found = of_step(trained.memory, "test", trained.seen.steps)
    assert 0.1 < expected["box_AP"] < 0.9
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    printed = read_csv(trained.trainer)
    for name in ("mAP50", "mAP50-95"):
        own = found[f"progress/ultralytics_box_{name}"]
        assert own == pytest.approx(printed[f"metrics/{name}(B)"], abs=1e-5)
    assert abs(found["box_AP50"] - printed["metrics/mAP50(B)"]) < 0.1
    assert trained.score.latest["box_AP"] == found["box_AP"]


def test_the_facts_are_those_of_the_training(trained: Any) -> None:
    start = trained.memory.start
    assert start.tags["boxscore.group"] == "YOLO11 64x64"
    assert start.experiment == "shapes"
    wanted = {"batch_size": "6", "optimizer": "SGD", "epochs": "3", "precision": "32"}
    wanted |= {"train_images": "8", "test_images": "6", "backbone": "n", "task": "detection"}
    assert wanted.items() <= start.params.items()
    assert {"boxscore.fingerprint.train", "boxscore.fingerprint.test"} <= trained.memory.tags.keys()
    assert "boxscore.leak" not in trained.memory.tags
    classes = {p.name for p in trained.memory.points if p.scope.startswith("per class")}
    assert {"box_AP pale", "box_AP dark"} <= classes


def test_the_train_split_is_measured_as_a_test_set_is(trained: Any) -> None:
    """Without mosaics, whose boxes and images would be others each time."""
    steps = series(trained.memory, "box_AP", "train")
    assert len(steps) == 3
    assert max(steps.values()) > 0.1  # of the planted predictions


def test_pictures_show_the_images_without_their_letterbox(trained: Any) -> None:
    for batch in trained.trainer.test_loader:
        for place, file in enumerate(batch["im_file"]):
            image, size = Reader().image(batch, place)
            original = Image.open(file)
            assert size == original.size[::-1]
            shown = np.asarray(original.resize(image.shape[:0:-1])).transpose(2, 0, 1)
            assert np.abs(image.numpy().astype(float) - shown).mean() < 15  # of another resize


def read_csv(trainer: Any) -> dict[str, float]:
    """The trainer's own figures after the last epoch."""
    names, *rows = (line.split(",") for line in trainer.csv.read_text().splitlines())
    return {name: float(value) for name, value in zip(names, rows[-1], strict=True)}


def test_every_so_many_steps(data: str) -> None:
    """On the averaged weights, with the validator's settings, and at the end."""
    memory, model = MemoryLogger(), tiny(Path(data).parent)
    score = BoxscoreCallback(
        loggers=[memory], log_every=1, evaluate_every=3, evaluate_train_every=None, on_error="raise"
    ).attach(model)
    trainer = train(model, data, trainer=PlantedTrainer)
    assert list(series(memory, "box_AP", "test")) == [3, 4]
    assert list(series(memory, "total", "test")) == [3, 4]
    printed = read_csv(trainer)  # of the same weights, by the trainer's own validation
    assert series(memory, "localization", "test")[4] == pytest.approx(
        printed["val/box_loss"] + printed["val/dfl_loss"], abs=2e-5
    )
    assert not series(memory, "box_AP", "train")
    assert list(series(memory, "progress/ultralytics_box_mAP50", "test")) == [2, 4]
    assert score.best["box_AP"] > 0.1


def test_another_training_after_one_that_failed(data: str) -> None:
    memory, model = MemoryLogger(), tiny(Path(data).parent)
    score = BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise").attach(model)
    breaks = [True]

    def fail(trainer: Any) -> None:
        if breaks.pop():
            raise ZeroDivisionError

    model.add_callback("on_train_batch_end", fail)
    try:
        train(model, data)
    except ZeroDivisionError:
        assert memory.status == "FAILED"
        first = memory.start
        breaks += [False] * 9
        score.attach(model)  # again, which adds nothing
        train(model, data, epochs=1)  # while the exception is handled
    assert memory.status == "FINISHED"
    assert first is not None
    assert memory.start is not None
    assert memory.start.id != first.id


def test_patience_ends_it_well(data: str) -> None:
    memory, model = MemoryLogger(), tiny(Path(data).parent)
    BoxscoreCallback(loggers=[memory], log_every=1, evaluate_train_every=None).attach(model)
    trainer = train(model, data, epochs=9, patience=1, trainer=PlantedTrainer)
    assert trainer.epoch < 5
    assert memory.status == "FINISHED"


def test_resume_continues_the_run(data: str) -> None:
    memory, model = MemoryLogger(), tiny(Path(data).parent)
    BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise").attach(model)

    def stop(trainer: Any) -> None:
        if trainer.epoch == 2:
            raise InterruptedError

    model.add_callback("on_train_epoch_start", stop)
    with pytest.raises(InterruptedError):
        train(model, data, epochs=4)
    assert memory.status == "FAILED"
    again, model = MemoryLogger(), ultralytics.YOLO(str(model.trainer.last))
    BoxscoreCallback(loggers=[again], log_every=1, on_error="raise").attach(model)
    model.train(resume=True)
    assert memory.start is not None
    assert again.start is not None
    assert again.start.id == memory.start.id
    assert again.start.resumed
    assert list(series(again, "total", "train")) == [5, 6, 7, 8]
    assert list(series(again, "total", "test")) == [6, 8]
    assert of_step(again, "train", 8)["progress/images_seen"] == 32
    assert of_step(again, "train", 8)["progress/epoch"] == 4
    assert "boxscore.fingerprint.test" not in again.tags  # it is as it was


def test_resume_from_a_checkpoint_without_a_state(data: str) -> None:
    model = tiny(Path(data).parent)

    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise InterruptedError

    model.add_callback("on_train_epoch_start", stop)
    with pytest.raises(InterruptedError):
        train(model, data)
    memory, model = MemoryLogger(), ultralytics.YOLO(str(model.trainer.last))
    BoxscoreCallback(loggers=[memory], log_every=1).attach(model)
    with warns("the checkpoint has no state of boxscore"):
        model.train(resume=True)
    assert list(series(memory, "total", "train")) == [1, 2]


def test_an_end_to_end_head(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its objective also weighs another branch, which its parts lack: that is `other`."""
    memory, model = MemoryLogger(), tiny(Path(data).parent, "yolo26n")
    BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise").attach(model)
    seen = Seen(model)
    trainer = train(model, data)
    for step, items, objective in seen.losses:
        found = of_step(memory, "train", step)
        assert found["total"] == pytest.approx(objective, rel=1e-5)
        assert found["localization"] == pytest.approx(items["box_loss"] + items["l1_loss"])
        assert found["other"] == pytest.approx(objective - sum(items.values()), rel=1e-3, abs=1e-5)
    assert "one-to-one branch" in capsys.readouterr().err
    assert trainer.model.criterion.o2m < trainer.ema.ema.criterion.o2m  # as it was at first
    assert {"total", "other", "localization"} <= of_step(memory, "test", 4).keys()


def test_segments(data: str) -> None:
    memory, model = MemoryLogger(), tiny(Path(data).parent, "yolo11n-seg")
    BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise").attach(model)
    trainer = train(model, data)
    printed = read_csv(trainer)
    found = of_step(memory, "test", 4)
    assert found["mask"] == pytest.approx(printed["val/seg_loss"], abs=1e-5)
    assert {"mask_AP", "box_AP", "mask_AR100"} <= found.keys()
    assert {"mask_AP", "box_AP"} <= of_step(memory, "train", 4).keys()
    assert {"mask", "total"} <= of_step(memory, "train", 4).keys()
    assert "progress/ultralytics_mask_mAP50" in found


@pytest.mark.slow
def test_masks_are_cocos_in_the_original_frame(tmp_path: Path) -> None:
    """Of a model that has learnt a little, beside masks as Ultralytics writes them for COCO."""
    data = write_data(tmp_path / "shapes", train=24, test=9)
    memory, model = MemoryLogger(), ultralytics.YOLO("yolo11n-seg.yaml")
    options: Any = {"log_every": 50, "evaluate_train_every": None, "on_error": "raise"}
    BoxscoreCallback(loggers=[memory], **options).attach(model)
    seen: list[tuple[Any, ...]] = []
    native_masks: Any = ops.process_mask_native
    by_hand = DetectionMetrics({0: "pale", 1: "dark"}, masks=True)

    def watch(trainer: Any) -> None:
        validator = trainer.validator
        make, update = validator.postprocess, validator.update_metrics

        def postprocess(outputs: Any) -> Any:
            boxes = DetectionValidator.postprocess(validator, outputs[0])
            prototypes = outputs[0][1]
            seen[:] = [(p, b["extra"], b["bboxes"]) for p, b in zip(prototypes, boxes, strict=True)]
            return make(outputs)

        def updated(found: Any, batch: Any) -> None:
            if validator.training and trainer.epoch == trainer.epochs - 1:
                for place, (one, given) in enumerate(zip(found, seen, strict=True)):
                    size, placed = batch["ori_shape"][place], batch["ratio_pad"][place]
                    masks = native_masks(*given, batch["img"].shape[2:])
                    masks = ops.scale_masks(masks[None].float(), size, ratio_pad=placed)[0]
                    boxes = ops.scale_boxes(
                        batch["img"].shape[2:], one["bboxes"].clone(), size, placed
                    )
                    prediction = {"scores": one["conf"], "labels": one["cls"].long()}
                    file = Path(batch["im_file"][place].replace("images", "labels"))
                    label, *corners = map(float, file.with_suffix(".txt").read_text().split())
                    polygon = np.array(corners) * ([size[1], size[0]] * 4)
                    x, y = polygon[::2], polygon[1::2]
                    target = {
                        "boxes": [[x.min(), y.min(), x.max(), y.max()]],
                        "labels": [int(label)],
                    }
                    more = {"masks": [[polygon.tolist()]], "orig_size": size, "image_id": file.stem}
                    by_hand.update(
                        [{**prediction, "boxes": boxes, "masks": masks > 0.5}], [target | more]
                    )
            update(found, batch)

        validator.postprocess, validator.update_metrics = postprocess, updated

    model.add_callback("on_pretrain_routine_end", watch)
    settings = {"epochs": 40, "batch": 8, "nbs": 8, "mosaic": 0.0, "warmup_epochs": 1.0}
    trainer = train(model, data, optimizer="AdamW", lr0=0.01, **settings)
    expected = by_hand.compute()
    found = of_step(memory, "test", 40 * 3)
    assert expected["mask_AP"] > 0.3
    assert found["mask_AP"] > read_csv(trainer)["metrics/mAP50-95(M)"]  # of coarse masks
    for name in ("box_AP", "box_AP50", "mask_AP50"):
        assert found[name] == pytest.approx(expected[name], abs=0.01)
    assert found["mask_AP"] == pytest.approx(expected["mask_AP"], abs=0.03)


def test_label_maps(data: str) -> None:
    memory, model = MemoryLogger(), tiny(Path(data).parent, "yolo26n-sem")
    BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise").attach(model)
    trainer = train(model, data)
    printed = read_csv(trainer)
    found = of_step(memory, "test", 4)
    assert found["IoU"] == pytest.approx(printed["metrics/mIoU"], abs=1e-4)
    assert found["pixel_accuracy"] == pytest.approx(printed["metrics/pixel_acc"], abs=1e-4)
    assert found["ce_loss"] == pytest.approx(found["cross_entropy"], rel=1e-3)
    trained = of_step(memory, "train", 4)
    assert {"focal", "cross_entropy", "dice", "auxiliary", "total"} <= trained.keys()
    assert trained["ce_loss"] == pytest.approx(trained["cross_entropy"], rel=1e-3)


def test_an_error_in_measuring_never_ends_the_training(data: str) -> None:
    def broken(model: Any, batch: Any) -> Any:
        raise ZeroDivisionError("broken")

    memory, model = MemoryLogger(), tiny(Path(data).parent)
    BoxscoreCallback(loggers=[memory], log_every=1, predict=broken).attach(model)
    with warnings_logged() as texts:
        train(model, data)
    assert memory.status == "FINISHED"
    assert list(series(memory, "total", "train")) == [1, 2, 3, 4]
    assert any("broken" in text for text in texts)
    assert "boxscore.evaluation_failed" in memory.tags


def test_a_task_that_is_not_measured_is_told_before_the_training(data: str) -> None:
    model = ultralytics.YOLO("yolo11n-obb.yaml")
    BoxscoreCallback(loggers=[MemoryLogger()]).attach(model)
    with pytest.raises(ValueError, match="task: OBBModel states none; pass task='detection'"):
        train(model, data)


def test_two_trackers_at_once_are_told() -> None:
    from boxscore.callbacks.options import Options
    from boxscore.callbacks.reading.ultralytics_validation import other_trackers

    logs = importlib.import_module("ultralytics.utils.callbacks.mlflow").callbacks
    trainer = SimpleNamespace(callbacks={event: [call] for event, call in logs.items()})
    assert "yolo settings mlflow=False" in " ".join(other_trackers(trainer, Options()))
    assert not [*other_trackers(trainer, Options(tracking_uri=False))]
    assert not [*other_trackers(trainer, Options(loggers=[MemoryLogger()]))]


def test_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    monkeypatch.delitem(sys.modules, "boxscore.callbacks.ultralytics")
    line = 'this callback needs ultralytics: pip install "ultralytics>=8.4"'
    with pytest.raises(ImportError) as caught:
        importlib.import_module("boxscore.callbacks.ultralytics")
    assert str(caught.value) == line
    with pytest.raises(ImportError, match=r"needs keras: pip install .keras>=3.10."):
        require("keras", "keras>=3.10")
