"""Real tiny trainings with Lightning's Trainer."""

import copy
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models.detection import MaskRCNN

from boxscore import Identity
from boxscore.callbacks.lightning import BoxscoreCallback
from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger
from boxscore.losses import cross_entropy_loss
from tests.tiny import CLASSES, Pictures, fcos, loader, train_step, two_stage
from tests.warned import warnings_logged, warns

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]


class Detector(LightningModule):
    """As people wrap torchvision: the loss alone is returned."""

    def __init__(self, model: nn.Module, decay: float = 1e-3) -> None:
        super().__init__()
        self.model, self.decay = model, decay

    def training_step(self, batch: Any, index: int) -> Any:
        return sum(self.model(*batch).values())

    def validation_step(self, batch: Any, index: int) -> Any:
        self.log("seen", 1.0, batch_size=1)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01, weight_decay=self.decay)


def trainer(callbacks: Any, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    defaults: dict[str, Any] = {"max_steps": 8, "accelerator": "cpu", "enable_checkpointing": False}
    return Trainer(callbacks=callbacks, **quiet | defaults | options)


def callback(memory: MemoryLogger, **options: Any) -> Any:
    defaults: dict[str, Any] = {"dataset": "boxes", "classes": CLASSES, "loggers": [memory]}
    defaults |= {"log_every": 2, "on_error": "raise", "pictures": False}
    return BoxscoreCallback(**defaults | options)


def fit(module: LightningModule, train: Any = None, test: Any = None, **options: Any) -> Any:
    """A training, and what was logged of it. Options of the callback are given as ``score``."""
    memory = MemoryLogger()
    score = callback(memory, **options.pop("score", {}))
    more = options.pop("callbacks", [])
    fitted = trainer([score, *more], **options)
    test = loader(6, first=100) if test is None else test
    fitted.fit(module, loader(8) if train is None else train, test)
    return memory, score, fitted


def series(memory: MemoryLogger, name: str, split: str) -> dict[int, float]:
    return {p.step: p.value for p in memory.points if (p.name, p.split) == (name, split)}


def measured(memory: MemoryLogger) -> dict[tuple[str, str, int], float]:
    """All but what tells of time."""
    timed = ("progress/images_per_second", "progress/evaluation_seconds")
    return {(p.key, p.split, p.step): p.value for p in memory.points if p.name not in timed}


def looped(model: nn.Module, steps: int = 8, decay: float = 1e-3, **options: Any) -> MemoryLogger:
    memory = MemoryLogger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=decay)
    train, defaults = loader(8), {"log_every": 2, "evaluate_every": None, "on_error": "raise"}
    with LoopCallback(
        model, optimizer, loader(6, first=100), train_loader=train, dataset="boxes",
        classes=CLASSES, loggers=[memory], **defaults | options,
    ) as score:  # fmt: skip
        for _ in range(steps // len(train)):
            for batch in train:
                score.step(train_step(model, optimizer, batch))
            score.evaluate()
    return memory


@pytest.mark.parametrize("kind", ["FCOS", pytest.param("Mask R-CNN", marks=pytest.mark.slow)])
def test_the_same_training_in_a_loop_and_in_lightning_gives_the_same_points(kind: str) -> None:
    """Losses of the detector inside the module, its test losses and figures, all by itself."""

    def model() -> nn.Module:
        torch.manual_seed(3)
        made: nn.Module = fcos() if kind == "FCOS" else two_stage(MaskRCNN)
        # proposals are sampled: Lightning has drawn other random numbers by then
        made.register_forward_pre_hook(lambda *_: torch.manual_seed(7) and None)
        return made

    by_loop = looped(model())
    by_lightning, score, _ = fit(Detector(model()))
    assert measured(by_lightning) == pytest.approx(measured(by_loop), rel=1e-6, nan_ok=True)
    assert by_lightning.tags["boxscore.group"] == by_loop.tags["boxscore.group"]
    assert (
        by_lightning.tags["boxscore.fingerprint.test"] == by_loop.tags["boxscore.fingerprint.test"]
    )
    assert (
        by_lightning.tags["boxscore.fingerprint.train"]
        == by_loop.tags["boxscore.fingerprint.train"]
    )
    assert list(series(by_lightning, "box_AP", "test")) == [2, 4, 6, 8]
    assert list(series(by_lightning, "box_AP", "train")) == [2, 4, 6, 8]
    assert by_lightning.status == "FINISHED"
    assert score.latest["total"] == series(by_lightning, "total", "test")[8]


class Segmenter(LightningModule):
    """Logits of two classes, and a loss; what else is returned is said in ``gives``."""

    def __init__(self, gives: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Conv2d(3, 2, 3, padding=1)
        self.criterion, self.gives = cross_entropy_loss, gives

    def step(self, batch: Any) -> Any:
        images, targets = batch
        logits = self.model(images)
        loss = self.criterion(logits, targets)
        if not self.gives:
            return loss
        return {"loss": loss, "predictions": logits, "targets": targets}

    def training_step(self, batch: Any, index: int) -> Any:
        return self.step(batch)

    def validation_step(self, batch: Any, index: int) -> Any:
        return self.step(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.01)


def pixels(count: int, batch_size: int = 2) -> Any:
    generator = torch.Generator().manual_seed(count)
    images = torch.rand(count, 3, 16, 16, generator=generator)
    targets = (images.mean(1) > 0.5).long()
    data = torch.utils.data.TensorDataset(images, targets)
    return torch.utils.data.DataLoader(data, batch_size=batch_size)


SEMANTIC: dict[str, Any] = {
    "task": "semantic-segmentation",
    "classes": ["dark", "bright"],
    "dataset": "noise",
    "identity": Identity("Conv", "16x16"),
}


def test_semantic_losses_and_figures_on_both_splits_by_itself_or_as_returned() -> None:
    alone, _, _ = fit(Segmenter(), pixels(8), pixels(5), score=SEMANTIC)
    given, _, _ = fit(Segmenter("all"), pixels(8), pixels(5), score=SEMANTIC)
    for name in ("total", "classification", "focal", "cross_entropy", "dice", "regularization"):
        assert list(series(alone, name, "train")) == [2, 4, 6, 8], name
        assert list(series(alone, name, "test")) == [4, 8], name
    for name in ("AP", "AR", "IoU", "pixel_accuracy", "F1"):
        assert list(series(alone, name, "test")) == [4, 8], name
        assert list(series(alone, name, "train")) == [4, 8], name
    assert measured(given) == pytest.approx(measured(alone), rel=1e-6)
    assert series(alone, "classification", "test") == pytest.approx(
        series(alone, "cross_entropy", "test")
    )


class Own(LightningModule):
    """No model that boxscore knows: it returns all that there is to say."""

    def __init__(self, answer: Any = None) -> None:
        super().__init__()
        self.weight, self.answer = nn.Parameter(torch.ones(1)), answer

    def training_step(self, batch: Any, index: int) -> Any:
        loss = self.weight.sum() * (1 + index)
        return {"loss": 3 * loss, "losses": {"loss_cls": loss, "loss_bbox": 2 * loss}}

    def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> Any:
        targets = batch[1]
        perfect = [{**t, "scores": torch.ones(len(t["labels"]))} for t in targets]
        return self.answer or {
            "losses": {"loss_cls": torch.tensor(0.5)},
            "predictions": perfect,
            "targets": targets,
        }

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def perfect(module: Any, batch: Any) -> Any:
    found = [{**target, "scores": torch.ones(len(target["labels"]))} for target in batch[1]]
    return {"loss_cls": 0.25}, found, batch[1]


OWN: dict[str, Any] = {"task": "detection", "identity": Identity("Own", "64x64")}


def test_what_the_module_returns_is_enough() -> None:
    memory, _, _ = fit(Own(), max_steps=4, score=OWN)
    assert series(memory, "classification", "train") == {2: 1.5, 4: 1.5}
    assert series(memory, "localization", "train") == {2: 3.0, 4: 3.0}
    assert series(memory, "total", "train") == {2: 4.5, 4: 4.5}
    assert series(memory, "classification", "test") == {2: 0.5, 4: 0.5}
    assert series(memory, "box_AP", "test") == {2: pytest.approx(1.0), 4: pytest.approx(1.0)}
    assert "other" not in {p.name for p in memory.points}


def test_a_step_is_an_optimizer_step_with_accumulation_too() -> None:
    """And a point is the mean over all batches since the last, each counted whole."""
    memory, _, _ = fit(
        Own(), loader(8, batch_size=1), accumulate_grad_batches=4, max_steps=4, score=OWN
    )
    assert series(memory, "classification", "train") == {2: 4.5, 4: 4.5}
    assert series(memory, "total", "train") == {2: 13.5, 4: 13.5}
    assert series(memory, "progress/images_seen", "train") == {2: 8, 4: 16}
    assert series(memory, "progress/epoch", "train") == {2: 1.0, 4: 2.0}


class Manual(Own):
    """Two optimizers, each stepping at each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> Any:
        losses = super().training_step(batch, index)
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
            self.manual_backward(losses["loss"], retain_graph=True)
            optimizer.step()
        return losses

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), lr=0.0) for _ in range(2)]


def test_manual_optimisation_counts_every_optimizer_step() -> None:
    with warns("of several optimizers the first"):
        memory, _, _ = fit(
            Manual(),
            loader(8, batch_size=2),
            max_steps=12,
            score={**OWN, "log_every": 5, "on_error": "warn"},
        )
    assert list(series(memory, "total", "train")) == [6, 10]
    assert series(memory, "classification", "train")[6] == pytest.approx((1 + 2 + 3) / 3)


@pytest.mark.filterwarnings("ignore:.*bf16")
def test_mixed_precision() -> None:
    exact, _, _ = fit(Segmenter(), pixels(8), pixels(5), score=SEMANTIC)
    mixed, _, _ = fit(Segmenter(), pixels(8), pixels(5), score=SEMANTIC, precision="bf16-mixed")
    assert measured(mixed).keys() - {
        k for k in measured(mixed) if "metric" in k[0] or "class " in k[0]
    } == (
        measured(exact).keys()
        - {k for k in measured(exact) if "metric" in k[0] or "class " in k[0]}
    )
    assert series(mixed, "total", "test") == pytest.approx(series(exact, "total", "test"), rel=0.02)


def test_a_limited_validation_is_another_set_and_no_point_comes_twice() -> None:
    whole, _, _ = fit(Own(), test=loader(6, 100, batch_size=2), max_steps=4, score=OWN)
    part, _, _ = fit(
        Own(), test=loader(6, 100, batch_size=2), max_steps=5, limit_val_batches=2, score=OWN
    )
    few, _, _ = fit(Own(), test=loader(4, 100, batch_size=2), max_steps=4, score=OWN)
    tags = [memory.tags["boxscore.fingerprint.test"] for memory in (whole, part, few)]
    assert tags[0] != tags[1] == tags[2]
    assert list(series(part, "box_AP", "test")) == [2, 4]
    keys = [(p.key, p.step) for p in part.points]
    assert len(keys) == len(set(keys))


def test_several_validation_loaders() -> None:
    loaders = [loader(4, 100), loader(2, 200)]
    memory, score, fitted = fit(Own(), test=loaders, max_steps=4, score=OWN)
    for split, count in (("test", 4), ("test-1", 2)):
        assert list(series(memory, "box_AP", split)) == [2, 4]
        assert list(series(memory, "classification", split)) == [2, 4]
        assert score.run.metric(split).images == count
    assert float(fitted.callback_metrics["box_AP.test-1"]) == pytest.approx(1.0)


def test_figures_are_offered_to_checkpoints_and_early_stopping(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="box_AP", mode="max", filename="{step}-{box_AP:.2f}")
    stop = EarlyStopping("box_AP", mode="max", patience=1)
    memory, _, fitted = fit(
        Own(), max_steps=20, callbacks=[best, stop], enable_checkpointing=True, score=OWN
    )
    assert Path(best.best_model_path).name == "step=2-box_AP=1.00.ckpt"
    assert fitted.global_step == 4  # it could not become better than 1
    assert memory.status == "FINISHED"


def test_every_so_many_steps_on_its_own() -> None:
    """Lightning validates too, and is not followed."""
    memory, _, fitted = fit(
        Own(), max_steps=8, check_val_every_n_epoch=2,
        score={**OWN, "evaluate_every": 3, "predict": perfect},
    )  # fmt: skip
    assert list(series(memory, "box_AP", "test")) == [3, 6, 8]
    assert float(fitted.callback_metrics["box_AP"]) == pytest.approx(1.0)


def test_a_module_without_validation_is_measured_on_its_own() -> None:
    class Bare(Own):
        validation_step = LightningModule.validation_step

    options = {**OWN, "evaluate_every": 2, "predict": perfect}
    memory, _, _ = fit(Bare(), max_steps=4, score=options)
    assert series(memory, "classification", "test") == {2: 0.25, 4: 0.25}


def test_the_sanity_check_is_no_evaluation() -> None:
    memory, _, _ = fit(Own(), max_steps=2, num_sanity_val_steps=2, score=OWN)
    assert {p.step for p in memory.points} == {2}


def test_what_is_not_understood_is_told_once_and_the_rest_is_logged() -> None:
    with warnings_logged() as told:
        memory, _, _ = fit(Own(answer={"found": 7}), max_steps=8, score={**OWN, "on_error": "warn"})
    about = [text for text in told if "predict=" in text]
    assert [text for text in about if "a step of Own returns no 'predictions'" in text] == about[:1]
    assert ["train split is not measured" in text for text in about[1:]] == [True]
    assert list(series(memory, "total", "train")) == [2, 4, 6, 8]
    assert memory.status == "FINISHED"


def test_losses_that_are_no_numbers_are_told_once() -> None:
    class Odd(Own):
        def training_step(self, batch: Any, index: int) -> Any:
            return {
                **super().training_step(batch, index),
                "losses": {"loss_cls": self.weight.sum(), "map": "x"},
            }

    with warns("no number.*'map': 'str'"):
        memory, _, _ = fit(Odd(), max_steps=4, score={**OWN, "on_error": "warn"})
    assert list(series(memory, "classification", "train")) == [2, 4]


class Logging(Own):
    """Logs a value under a catalogue name, and augments while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.augmented = 0

    def on_after_batch_transfer(self, batch: Any, loader: int) -> Any:
        self.augmented += self.trainer.training
        return batch

    def on_validation_epoch_end(self) -> None:
        self.log("box_AP50", 0.125)


def test_own_evaluations_are_no_training_and_the_modules_values_stay() -> None:
    module, loaders = Logging(), [loader(2, 100), loader(2, 200)]
    score = {**OWN, "predict": perfect, "on_error": "warn"}
    with warns("box_AP50: the module logs values of these names"):
        memory, _, fitted = fit(module, test=loaders, max_steps=4, score=score)
    assert list(series(memory, "box_AP", "train")) == [2, 4]
    assert module.augmented == 4  # the training's own batches
    assert float(fitted.callback_metrics["box_AP50"]) == 0.125


def test_further_sets_are_offered_when_measured_on_its_own_too() -> None:
    memory, _, fitted = fit(
        Own(), test=[loader(2, 100), loader(2, 200)], max_steps=4, check_val_every_n_epoch=9,
        score={**OWN, "evaluate_every": 2, "predict": perfect},
    )  # fmt: skip
    assert list(series(memory, "box_AP", "test-1")) == [2, 4]
    assert float(fitted.callback_metrics["box_AP.test-1"]) == pytest.approx(1.0)


def test_a_figure_that_is_not_there_any_more_is_not_offered() -> None:
    class Worse(Own):
        def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> Any:
            found = super().validation_step(batch, index)
            if self.trainer.global_step >= 4:
                found["predictions"][0]["scores"][0] = torch.nan
            return found

    with warns("evaluation of the test split.*nan"):
        memory, _, fitted = fit(Worse(), max_steps=4, score={**OWN, "on_error": "warn"})
    assert list(series(memory, "box_AP", "test")) == [2]
    assert "box_AP" not in fitted.callback_metrics
    assert float(fitted.callback_metrics["classification"]) == 0.5


def test_one_batch_of_validation_is_not_all() -> None:
    options: dict[str, Any] = {"limit_val_batches": 1, "score": {**OWN, "predict": perfect}}
    memory, _, _ = fit(Own(), test=loader(6, 100, batch_size=2), max_steps=5, **options)
    assert list(series(memory, "box_AP", "test")) == [2, 4]


def test_only_scalars_that_are_called_losses_are_losses() -> None:
    class Talking(Own):
        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.weight.sum()
            return {
                "loss": 3 * loss, "loss_cls": loss, "loss_bbox": 2 * loss,
                "dice": torch.tensor(0.9), "mask": torch.zeros(2, 4, 4),
            }  # fmt: skip

    memory, _, _ = fit(Talking(), max_steps=2, score=OWN)
    assert series(memory, "total", "train") == {2: 3.0}
    assert not {"mask", "dice", "other"} & {p.name for p in memory.points}


@pytest.mark.parametrize("extra", [0.5, torch.tensor([0.5])])
def test_a_loss_of_an_unknown_name_is_told_and_other(extra: Any) -> None:
    class Extra(Own):
        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.weight.sum()
            return {"loss": 2 * loss + 0.5, "loss_cls": 2 * loss, "my_extra_loss": extra}

    with warns("'my_extra_loss' is not known and counts as the part 'other'"):
        memory, _, _ = fit(Extra(), max_steps=2, score={**OWN, "on_error": "warn"})
    assert series(memory, "other", "train") == {2: pytest.approx(0.5)}
    assert series(memory, "total", "train") == {2: pytest.approx(2.5)}


def test_a_checkpoint_that_is_only_tested_continues_no_training(tmp_path: Path) -> None:
    memory = MemoryLogger()
    score = callback(memory, **OWN)
    save = ModelCheckpoint(tmp_path, every_n_train_steps=2, filename="{step}")
    fitted = trainer([score, save], max_steps=2, enable_checkpointing=True)
    fitted.fit(Own(), loader(8), loader(2, 100))
    first = score.run.id
    fitted.validate(Own(), loader(2, 100), ckpt_path=str(tmp_path / "step=2.ckpt"), verbose=False)
    trainer([score], max_steps=2).fit(Own(), loader(8), loader(2, 100))
    assert score.run.id != first
    assert not score.run._is_resumed


class Failing(Own):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def training_step(self, batch: Any, index: int) -> Any:
        if self.trainer.global_step == 3:
            raise self.error
        return super().training_step(batch, index)


def resumed(folder: Path, memory: MemoryLogger, steps: int, **options: Any) -> Any:
    """Train on from the last checkpoint in ``folder``, if there is one, writing one at step 4."""
    save = ModelCheckpoint(folder, every_n_train_steps=4, save_top_k=-1, filename="{step}")
    score = callback(memory, **options)
    found = folder / "step=4.ckpt"
    torch.manual_seed(0)
    trainer([score, save], max_steps=steps, enable_checkpointing=True).fit(
        Detector(fcos()), loader(8), loader(4, 100), ckpt_path=found if found.exists() else None
    )
    return score


def test_a_checkpoint_continues_the_run_without_a_point_twice(tmp_path: Path) -> None:
    """The training went on to step 6, and goes back to step 4 twice; then all is as if never."""
    whole, parts = MemoryLogger(), MemoryLogger()
    resumed(tmp_path / "whole", whole, 10)
    ids = {resumed(tmp_path / "parts", parts, steps).run.id for steps in (6, 8, 10)}
    assert len(ids) == 1
    assert parts.status == "FINISHED"
    assert measured(parts) == pytest.approx(measured(whole), rel=1e-6, nan_ok=True)
    assert len(parts.points) == len({(p.key, p.step) for p in parts.points})
    state = torch.load(tmp_path / "parts" / "step=4.ckpt", weights_only=True)
    json.dumps(state["callbacks"]["BoxscoreCallback"])


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    memory = MemoryLogger()
    first = resumed(tmp_path, memory, 4)
    with pytest.raises(ValueError, match=r"its dataset is 'boxes', here it is 'other'.*run='new'"):
        resumed(tmp_path, memory, 6, dataset="other")
    other = MemoryLogger()
    again = resumed(tmp_path, other, 6, dataset="other", run="new")
    assert again.run.id != first.run.id
    assert list(series(other, "total", "train")) == [6]


def test_a_fast_development_run_logs_nothing() -> None:
    memory, _, _ = fit(Own(), fast_dev_run=True, score=OWN)
    assert memory.start is None


def test_one_callback_serves_two_trainings() -> None:
    memory = MemoryLogger()
    score = callback(memory, **OWN)
    ids = set()
    for _ in range(2):
        trainer([score], max_steps=2).fit(Own(), loader(8), loader(2, 100))
        ids.add(score.run.id)
    assert len(ids) == 2


# the module's own forward


class Prepared(LightningModule):
    """Prepares its input in ``forward``, or in its steps; without that the network is at chance."""

    def __init__(self, where: str = "forward", name: str = "model") -> None:
        super().__init__()
        net = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            net.weight[:] = torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1)
        setattr(self, name, net)
        self.net, self.where, self.loss_fn = [net], where, nn.CrossEntropyLoss()

    def forward(self, images: Any) -> Any:
        return self.net[0](images - 0.5 if self.where == "forward" else images)

    def step(self, images: Any) -> Any:
        if self.where == "flips":
            flipped = self(images.flip(-1) - 0.5)
            return (self(images - 0.5) + flipped.flip(-1)) / 2
        return self(images if self.where == "forward" else images - 0.5)

    def training_step(self, batch: Any, index: int) -> Any:
        return self.loss_fn(self.step(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> Any:
        logits = self.step(batch[0])
        self.log("accuracy", (logits.argmax(1) == batch[1]).float().mean())
        self.log("own_loss", self.loss_fn(logits, batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.parametrize("name", ["model", "unet"])
@pytest.mark.parametrize("where", ["forward", "step"])
def test_the_logits_are_those_of_the_modules_own_forward(where: str, name: str) -> None:
    """Case 83 of public reports: accuracy 1 and the module's own loss, not the bare network's."""
    memory, score, fitted = fit(
        Prepared(where, name), pixels(8), pixels(4, batch_size=4), score=SEMANTIC, max_epochs=1
    )
    own = {n: float(v) for n, v in fitted.callback_metrics.items()}
    assert own["accuracy"] == 1.0
    assert score.latest["pixel_accuracy"] == pytest.approx(own["accuracy"])
    assert score.latest["classification"] == pytest.approx(own["own_loss"], rel=1e-4)
    measured_in_training = series(memory, "cross_entropy", "train")[4]
    assert measured_in_training == pytest.approx(series(memory, "total", "train")[4], rel=0.2)
    assert measured_in_training < 0.3
    # boxscore calls forward by itself, but has no way to prepare images as the steps do
    train = {4: 1.0} if where == "forward" else {}
    assert series(memory, "pixel_accuracy", "train") == train


def test_own_evaluations_call_the_modules_forward() -> None:
    memory, _, _ = fit(
        Prepared(), pixels(8), pixels(4), score={**SEMANTIC, "evaluate_every": 2}, max_steps=2
    )
    assert series(memory, "pixel_accuracy", "test") == {2: 1.0}


class Silent(Prepared):
    """Nothing in its validation is of use to boxscore."""

    def validation_step(self, batch: Any, index: int) -> Any:
        pass


class Augmenting(Segmenter):
    """Changes the images in training alone."""

    def training_step(self, batch: Any, index: int) -> Any:
        return self.criterion(self.model(batch[0].flip(-1)), batch[1].flip(-1))


def test_images_that_the_steps_prepare_are_not_measured_raw() -> None:
    score = {**SEMANTIC, "on_error": "warn", "log_every": 9}
    with warns("train split is not measured.*predict="), warns("a step of Silent returns no"):
        memory, _, _ = fit(Silent("step"), pixels(4), pixels(4), score=score, max_steps=2)
    assert not [p for p in memory.points if p.name == "pixel_accuracy"]
    memory, _, _ = fit(Silent("forward"), pixels(4), pixels(4), score=score, max_steps=2)
    assert series(memory, "pixel_accuracy", "test") == {2: 1.0}
    with warns("training_step changes the images.*with the targets of the batch"):
        fit(Augmenting(), pixels(4), pixels(4), score=score | {"log_every": 1}, max_steps=2)
    memory, _, _ = fit(Augmenting(), pixels(4), pixels(4), score=score, max_steps=2)
    assert {p.split for p in memory.points if p.name == "pixel_accuracy"} == {"train", "test"}


def test_forwards_that_count_alike_are_told() -> None:
    with warns("the last of several forwards"):
        fit(Prepared("flips"), pixels(4), pixels(4), score=SEMANTIC, max_steps=2)


class Whole(Segmenter):
    """Its batches are mappings, which its forward takes whole; it has no criterion."""

    criterion: Any = None

    def __init__(self) -> None:
        super().__init__()
        del self.criterion

    def forward(self, batch: Any) -> Any:
        return {"out": self.model(batch["image"])}

    def step(self, batch: Any) -> Any:
        return cross_entropy_loss(self(batch)["out"], batch["mask"])


def test_mappings_and_the_loss_that_a_step_returns() -> None:
    def mapping(samples: Any) -> Any:
        images, masks = zip(*samples, strict=True)
        return {"image": torch.stack(images), "mask": torch.stack(masks), "names": ["x"] * 2}

    def batches(count: int) -> Any:
        return torch.utils.data.DataLoader(pixels(count).dataset, 2, collate_fn=mapping)

    score = {**SEMANTIC, "evaluate_train_every": None}
    memory, _, _ = fit(Whole(), batches(4), batches(2), score=score, max_steps=2)
    assert series(memory, "progress/images_seen", "train") == {2: 4}
    for split in ("train", "test"):
        assert series(memory, "cross_entropy", split).keys() == {2}
    assert series(memory, "classification", "test") == pytest.approx(
        series(memory, "cross_entropy", "test")
    )


class Scaled(Detector):
    """Its images are bytes: the network gets them in [0, 1]; boxes come from what is bright."""

    def __init__(self, *, calls: bool, size: int = 1) -> None:
        super().__init__(fcos(), decay=0.0)
        self.calls, self.size = calls, size

    def prepared(self, images: Any) -> Any:
        return [image.repeat_interleave(self.size, 1) / 255 for image in images]

    def forward(self, images: Any) -> Any:
        self.model(self.prepared(images))
        found = []
        for image in images:
            down, across = (image.mean(0) > 0.5 * 255).nonzero().T
            box = [across.min(), down.min(), across.max() + 1, down.max() + 1]
            one = {"boxes": torch.tensor([box]).float(), "scores": torch.ones(1)}
            found.append({**one, "labels": torch.ones(1, dtype=torch.long)})
        return found

    def training_step(self, batch: Any, index: int) -> Any:
        return sum(self.model(self.prepared(batch[0]), batch[1]).values())

    def validation_step(self, batch: Any, index: int) -> Any:
        if self.calls:
            self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("calls", [True, False])
def test_detections_and_losses_are_those_of_the_modules_own_forward(calls: bool) -> None:
    def batches(count: int, first: int = 0) -> Any:
        def as_bytes(samples: Any) -> Any:
            return [image * 255 for image, _ in samples], [target for _, target in samples]

        return torch.utils.data.DataLoader(Pictures(count, first), 4, collate_fn=as_bytes)

    plain, _, _ = fit(Detector(fcos(), 0.0), loader(4), loader(4, 100), max_steps=2)
    memory, _, _ = fit(Scaled(calls=calls), batches(4), batches(4, 100), max_steps=2)
    losses = [series(one, "localization", "test")[2] for one in (memory, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)  # of images in [0, 1]
    recall = [series(one, "box_AR100", "test")[2] for one in (memory, plain)]
    assert recall[0] > 0.2 > recall[1]
    with warns("no losses of the test set"):  # the boxes are those of another frame
        memory, _, _ = fit(Scaled(calls=calls, size=2), batches(4), batches(4, 100), max_steps=2)
    assert not series(memory, "localization", "test")
    assert series(memory, "box_AR100", "test")[2] == pytest.approx(recall[0])


@pytest.mark.parametrize("label", [1, 0])
def test_the_label_that_the_criterion_ignores_counts_nowhere(
    label: int, capsys: pytest.CaptureFixture[str]
) -> None:
    module = Prepared()
    module.loss_fn = nn.CrossEntropyLoss(ignore_index=label)
    _, score, _ = fit(module, pixels(4), pixels(4), score=SEMANTIC, max_steps=2)
    assert score.run.metric("test").ignore_index == label
    assert f"ignore_index={label}" in capsys.readouterr().err
    _, score, _ = fit(
        module, pixels(4), pixels(4), score={**SEMANTIC, "ignore_index": 7}, max_steps=2
    )
    assert score.run.metric("test").ignore_index == 7


class Twice(Segmenter):
    """Two forwards a step, as with SAM or a consistency loss."""

    def training_step(self, batch: Any, index: int) -> Any:
        images, targets = batch
        loss = self.criterion(self.model(images), targets)
        return loss + self.criterion(self.model(images + 9.0), targets)


def test_two_forwards_of_a_step_are_one_batch() -> None:
    memory, _, _ = fit(
        Twice(), pixels(8), pixels(4), max_steps=8, score={**SEMANTIC, "log_every": 1}
    )
    assert series(memory, "progress/images_seen", "train") == {n: 2 * n for n in range(1, 9)}
    assert series(memory, "progress/epoch", "train") == {n: n / 4 for n in range(1, 9)}
    assert list(series(memory, "IoU", "train")) == [4, 8]
    once, _, _ = fit(
        Segmenter(), pixels(8), pixels(4), max_steps=1, score={**SEMANTIC, "log_every": 1}
    )
    of_batch = series(once, "cross_entropy", "train")[1]  # not of the changed images
    assert series(memory, "cross_entropy", "train")[1] == pytest.approx(of_batch)


# copies, averages


def _saved(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Any] = {
    "deepcopy": copy.deepcopy,
    "AveragedModel": AveragedModel,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": _saved,
    "state_dict": lambda module: module.load_state_dict(module.state_dict()) and module,
    "compile": lambda module: torch.compile(module, backend="eager"),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_works_in_a_training_and_has_no_callback(kind: str) -> None:
    class Copying(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            images = torch.rand(2, 3, 16, 16)
            made = COPIES[kind](module.model)
            assert torch.equal(made(images), module.model(images))
            if kind != "compile":
                whole = COPIES[kind](module)
                hooks = [h for m in whole.modules() for h in m._forward_hooks.values()]
                assert kind == "state_dict" or not any(hasattr(hook, "_see") for hook in hooks)

    memory, _, _ = fit(
        Segmenter(), pixels(4), pixels(4), score=SEMANTIC, max_steps=2, callbacks=[Copying()]
    )
    assert list(series(memory, "IoU", "test")) == [2]
    assert series(memory, "progress/images_seen", "train") == {2: 4}


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's, of its own tracing
@pytest.mark.parametrize("whole", [True, False])
def test_compiled_modules_and_networks_are_measured(whole: bool) -> None:
    def module() -> Any:
        return Prepared("forward") if whole else Segmenter()

    plain, _, _ = fit(module(), pixels(4), pixels(4), score=SEMANTIC, max_steps=2)
    compiled = module()
    if whole:
        compiled = torch.compile(compiled, backend="eager")
    else:
        compiled.model = torch.compile(compiled.model, backend="eager")
    memory, _, _ = fit(compiled, pixels(4), pixels(4), score=SEMANTIC, max_steps=2)
    assert measured(memory) == pytest.approx(measured(plain), rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*Swapping scheduler")
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("kind", [EMAWeightAveraging, StochasticWeightAveraging])
def test_averaged_weights_are_those_that_lightning_validates(kind: Any, order: int) -> None:
    class Seeing(Segmenter):
        def validation_step(self, batch: Any, index: int) -> Any:
            logits = self.model(batch[0])
            self.log("own", self.criterion(logits, batch[1]))

    torch.manual_seed(0)
    average = kind(decay=0.5) if kind is EMAWeightAveraging else kind(0.1, swa_epoch_start=1)
    memory = MemoryLogger()
    score = callback(memory, **SEMANTIC)
    fitted = trainer([score, average][::order], max_steps=-1, max_epochs=4)
    fitted.fit(Seeing(), pixels(8), pixels(4, batch_size=4))
    assert memory.status == "FINISHED"
    own = float(fitted.callback_metrics["own"])
    assert score.latest["cross_entropy"] == pytest.approx(own, rel=1e-5)


# Lightning's loaders and evaluations


def test_loaders_are_read_anew_and_an_unknown_number_ends_nothing() -> None:
    class Reloading(Own):
        def val_dataloader(self) -> Any:
            return [loader(2, 100 * n) for n in range(1, 2 + self.current_epoch)]

    memory = MemoryLogger()
    fitted = trainer(
        [callback(memory, **OWN)], max_steps=6, reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
    )  # fmt: skip
    fitted.fit(Reloading(), loader(8))
    assert list(series(memory, "box_AP", "test")) == [2, 4, 6]
    assert list(series(memory, "box_AP", "test-1")) == [4, 6]
    assert list(series(memory, "box_AP", "test-2")) == [6]
    assert memory.status == "FINISHED"


def test_loaders_in_loaders_are_told() -> None:
    nested = {"day": [loader(2, 100), loader(2, 200)]}
    with warns("validation loader 1 is not measured"):
        memory, _, _ = fit(Own(), test=nested, max_steps=2, score={**OWN, "on_error": "warn"})
    assert list(series(memory, "box_AP", "test-day")) == [2]
    assert memory.status == "FINISHED"


class Held(Own):
    def test_step(self, batch: Any, index: int) -> Any:
        return self.validation_step(batch, index)


def test_validating_and_testing_after_the_training_is_logged_in_its_run(tmp_path: Path) -> None:
    save = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    memory, score, fitted = fit(
        Held(), max_steps=4, callbacks=[save], enable_checkpointing=True, score=OWN
    )
    first = score.run.id
    assert memory.status == "FINISHED"
    fitted.test(Held(), loader(3, 300), verbose=False)
    fitted.test(Held(), loader(3, 300), verbose=False, ckpt_path=str(tmp_path / "step=2.ckpt"))
    assert series(memory, "box_AP", "test-held_out").keys() == {2, 4}
    with warns("logged as 'test-2'"):
        fitted.validate(Held(), loader(2, 500), verbose=False)
    assert series(memory, "box_AP", "test-2") == {4: pytest.approx(1.0)}  # of another set
    assert float(fitted.callback_metrics["box_AP"]) == pytest.approx(1.0)
    assert (score.run.id, memory.status) == (first, "FINISHED")


def test_validating_after_a_failure_leaves_it_a_failure() -> None:
    memory = MemoryLogger()
    score = callback(memory, **OWN)
    fitted = trainer([score])
    with pytest.raises(ZeroDivisionError):
        fitted.fit(Failing(ZeroDivisionError()), loader(8), loader(2, 100))
    fitted.validate(Own(), loader(3, 300), verbose=False)
    assert memory.status == "FAILED"
    assert list(series(memory, "box_AP", "test-2")) == [3]


def test_before_the_training_there_is_no_run_to_log_to() -> None:
    memory = MemoryLogger()
    fitted = trainer([callback(memory, **OWN)], max_steps=2)
    with warns("before fit.. are not logged"):
        fitted.validate(Own(), loader(2, 100), verbose=False)
    fitted.fit(Own(), loader(8), loader(2, 100))
    assert list(series(memory, "box_AP", "test")) == [2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_autolog_logs_no_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow  # slow

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.pytorch.autolog(log_models=False, log_every_n_step=1)

    class Noted(Own):
        def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> Any:
            self.log("noted", 0.5)
            return super().validation_step(batch, index)

    try:
        with mlflow.start_run() as run:
            best = ModelCheckpoint(tmp_path, monitor="box_AP", mode="max", filename="{box_AP:.2f}")
            options: dict[str, Any] = {**OWN, "evaluate_every": 2, "predict": perfect}
            for score in (OWN, options):
                _, _, fitted = fit(
                    Noted(), max_steps=4, enable_checkpointing=True, callbacks=[best], score=score
                )
                assert float(fitted.callback_metrics["box_AP"]) == pytest.approx(1.0)
    finally:
        mlflow.pytorch.autolog(disable=True)
    found = mlflow.MlflowClient(uri).get_run(run.info.run_id).data.metrics
    assert "noted" in found
    assert not {name for name in found if name.startswith("box_") or name in ("total",)}
    assert "box_AP=1.00" in Path(best.best_model_path).name


def test_averaged_weights_are_evaluated_by_boxscores_own_pass() -> None:
    average = fcos()
    with torch.no_grad():
        for weight in average.parameters():
            weight.mul_(0.5)
    memory = MemoryLogger()
    options: dict[str, Any] = {"classes": CLASSES, "dataset": "d", "evaluate_train_every": None}
    score = BoxscoreCallback(
        evaluate_model=average, evaluate_every=2, loggers=[memory], on_error="raise", **options
    )
    trainer([score], max_steps=2).fit(Detector(fcos()), loader(8), loader(4, 100))
    by_hand = LoopCallback(average, None, loader(4, 100), loggers=[], **options)
    with by_hand:
        by_hand.evaluate()
    assert score.latest["classification"] == pytest.approx(by_hand.latest["classification"])


WITH_PYTORCH_LIGHTNING = """
import sys, torch
from pytorch_lightning import LightningModule, Trainer
from boxscore.callbacks.lightning import BoxscoreCallback
from boxscore.loggers import MemoryLogger
from tests.tiny import CLASSES, fcos, loader

class Detector(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = fcos()
    def training_step(self, batch, index):
        return sum(self.model(*batch).values())
    def validation_step(self, batch, index):
        pass
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, weight_decay=1e-3)

memory = MemoryLogger()
score = BoxscoreCallback(
    dataset="boxes", classes=CLASSES, loggers=[memory], log_every=2, on_error="raise"
)
Trainer(max_steps=4, accelerator="cpu", callbacks=score, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False).fit(
    Detector(), loader(8), loader(6, 100))
for p in memory.points:
    if p.name in ("total", "box_AP", "centerness"):
        print("point", p.name, p.split, p.step, p.value)
print("status", memory.status, "lightning.pytorch" in sys.modules)
"""


@pytest.mark.slow
def test_pytorch_lightning_alone_gives_the_same_points() -> None:
    """A callback that is not in a list has to be of the Trainer's own base."""
    memory, _, _ = fit(Detector(fcos()), max_steps=4)
    done = subprocess.run(
        [sys.executable, "-c", WITH_PYTORCH_LIGHTNING], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    lines = [line.split() for line in done.stdout.splitlines()]
    found = {(n, split, int(step)): float(v) for k, n, split, step, v in filter(is_point, lines)}
    assert lines[-1] == ["status", "FINISHED", "False"]
    names = ("total", "box_AP", "centerness")
    expected = {(p.name, p.split, p.step): p.value for p in memory.points if p.name in names}
    assert found == pytest.approx(expected, rel=1e-6)


def is_point(line: list[str]) -> bool:
    return len(line) == 5 and line[0] == "point"


def test_the_trainer_of_pytorch_lightning_takes_the_callback_too() -> None:
    other = pytest.importorskip("pytorch_lightning")
    memory = MemoryLogger()

    class Module(other.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.decay = fcos(), 1e-3

        training_step = Detector.training_step
        validation_step = Detector.validation_step
        configure_optimizers = Detector.configure_optimizers

    best = other.callbacks.EarlyStopping("box_AP", mode="max")
    score = callback(memory, batch=lambda b: (b[0], b[1]), identity=Identity("FCOS", "64x64"))
    other.Trainer(
        max_steps=4, accelerator="cpu", callbacks=[score, best], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(Module(), loader(8), loader(6, first=100))  # fmt: skip
    expected, _, _ = fit(Detector(fcos()), max_steps=4)
    assert measured(memory) == pytest.approx(measured(expected), rel=1e-6)
