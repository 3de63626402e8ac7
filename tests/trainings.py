"""One tiny training for each framework, as the laws of `tests/callbacks/test_laws.py` need it.

Eight images in batches of two, two epochs, evaluations after four and after eight optimizer steps;
random numbers are drawn in the training (order, dropout, augmentation).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from boxscore import Identity
from boxscore.callbacks.ignite import BoxscoreHandler
from boxscore.callbacks.lightning import BoxscoreCallback as LightningCallback
from boxscore.callbacks.loop import LoopCallback
from boxscore.callbacks.mmengine import BoxscoreHook
from boxscore.callbacks.reading.predict import main_output
from boxscore.callbacks.rfdetr import BoxscoreCallback as RFDETRCallback
from boxscore.callbacks.transformers import BoxscoreCallback as TransformersCallback
from boxscore.callbacks.ultralytics import BoxscoreCallback as UltralyticsCallback
from boxscore.catalogue import Task
from tests import tiny_trainer
from tests.callbacks.test_ignite import Masks, sgd
from tests.tiny_transformers import tf

os.environ.setdefault("KERAS_BACKEND", "torch")
from boxscore.callbacks.keras import BoxscoreCallback as KerasCallback

SEMANTIC: dict[str, Any] = {
    "task": "semantic-segmentation", "classes": ["no", "yes", "edge"], "dataset": "maps",
    "identity": Identity("Net", "16x16"),
}  # fmt: skip


@dataclass
class Training:
    """What one is given.

    Attributes:
        folder: for what the framework writes.
        options: of the callback; None trains without one.
        step: called before each batch of the train set.
    """

    folder: Path
    options: dict[str, Any] | None
    step: Callable[[], None] = lambda: None


@dataclass
class Trained:
    """What one gives.

    Attributes:
        weights: of the model, arrays or tensors; and what else shows that nothing is changed.
        logits: (N, C, H, W) of the test set, by the model as it is trained; None of other tasks.
        labels: (N, H, W) of the test set.
    """

    weights: list[Any]
    logits: torch.Tensor | None = None
    labels: torch.Tensor | None = None


def loaders() -> tuple[Any, Any]:
    """Of the train set, shuffled, and of the test set."""
    load = torch.utils.data.DataLoader
    return load(Masks(8), 2, shuffle=True), load(Masks(4, 100), 2)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Conv2d(8, 3, 1)
    return nn.Sequential(*layers)


def trained(model: nn.Module) -> Trained:
    """Of a network on `Masks`."""
    images, labels = map(torch.stack, zip(*map(Masks(4, 100).__getitem__, range(4)), strict=True))
    with torch.no_grad():
        return Trained(list(model.state_dict().values()), model.eval()(images), labels)


def in_a_loop(training: Training) -> Trained:
    model, criterion, (train, test) = network(), nn.CrossEntropyLoss(), loaders()
    optimizer, score = sgd(model), None
    if training.options is not None:
        score = LoopCallback(
            model, optimizer, test, train_loader=train, criterion=criterion,
            **SEMANTIC | {"evaluate_every": 4} | training.options,
        )  # fmt: skip
    torch.manual_seed(1)
    with score or contextlib.nullcontext():
        for images, targets in itertools.chain(train, train):
            training.step()
            outputs = model.train()(images)
            loss = criterion(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if score:
                score.step(loss, outputs, targets)
    return trained(model)


def with_ignite(training: Training) -> Trained:
    from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer

    model, criterion, (train, test) = network(), nn.CrossEntropyLoss(), loaders()
    optimizer = sgd(model)
    trainer = create_supervised_trainer(model, optimizer, criterion)
    evaluator = create_supervised_evaluator(model)
    trainer.add_event_handler(Events.ITERATION_STARTED, training.step)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(test))
    if training.options is not None:
        options = SEMANTIC | training.options
        BoxscoreHandler(model, optimizer, criterion=criterion, **options).attach(trainer, evaluator)
    torch.manual_seed(1)
    trainer.run(train, max_epochs=2)
    return trained(model)


def with_lightning(training: Training) -> Trained:
    import lightning.pytorch as lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.criterion = network(), nn.CrossEntropyLoss()

        def forward(self, images: Any) -> Any:
            return self.model(images)

        def training_step(self, batch: Any, index: int) -> Any:
            training.step()
            return self.criterion(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            self.criterion(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return sgd(self)

    module, callbacks = Module(), list[Any]()
    if training.options is not None:
        callbacks.append(LightningCallback(**SEMANTIC | training.options))
    torch.manual_seed(1)
    lightning.Trainer(
        max_epochs=2, callbacks=callbacks, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        num_sanity_val_steps=0,
    ).fit(module, *loaders())  # fmt: skip
    return trained(module.model)


def with_mmengine(training: Training) -> Trained:
    from mmengine.hooks import Hook
    from mmengine.registry import DefaultScope

    from tests.callbacks import test_mmengine as tiny

    class Before(Hook):  # type: ignore[misc]
        def before_train_iter(self, *_: Any, **__: Any) -> None:
            training.step()

    class Model(tiny.Segmentor):
        def __init__(self) -> None:
            super().__init__()
            self.backbone.append(nn.Dropout(0.2))

        def logits(self, images: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.decode_head.conv_seg(self.backbone(images)))

    model, hook = Model(), None
    if training.options is not None:
        hook = BoxscoreHook(**SEMANTIC | training.options)
    test, hooks = tiny.Maps(4, 100), [Before()]
    try:
        tiny.runner(
            training.folder, model, tiny.Maps(8), test, hook, shuffle=True, hooks=hooks
        ).train()
    finally:
        logging.shutdown()
        DefaultScope._instance_dict.clear()
    images = torch.stack([test[n]["inputs"] for n in range(4)])
    with torch.no_grad():
        logits = model.eval().logits(images)
    return Trained(list(model.state_dict().values()), logits, (images[:, 0] * 3).long())


def with_transformers(training: Training) -> Trained:
    from transformers import TrainerCallback

    class Before(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            training.step()

    model, score = tiny_trainer.segformer(), None
    if training.options is not None:
        score = TransformersCallback(dataset="maps", **training.options)
    fitted = tiny_trainer.trainer(
        training.folder, model, "semantic", score or Before(), callbacks=[Before()],
        kind=tf.Trainer, eval_dataset=tiny_trainer.Pictures("semantic", 4, 100),
    )  # fmt: skip
    with score or contextlib.nullcontext():
        fitted.train()
    batch = tiny_trainer.together([*map(fitted.eval_dataset.__getitem__, range(4))])
    labels = batch["labels"]
    with torch.no_grad():
        logits = main_output(model.eval()(batch["pixel_values"]).logits, labels)
    return Trained(list(model.state_dict().values()), logits, labels)


def with_keras(training: Training) -> Trained:
    import keras

    from tests import tiny_keras as tiny

    class Before(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            training.step()

    model, score, test = tiny.segmenter(), None, tiny.maps(4, 100)
    if training.options is not None:
        options = SEMANTIC | {"evaluate_every": 4} | training.options
        score = KerasCallback(test, train_data=tiny.maps(8), **options)
    callbacks = [Before(), *([score] if score else [])]
    with score or contextlib.nullcontext():
        fitted = model.fit(tiny.Batches(tiny.maps(8)), epochs=2, callbacks=callbacks, verbose=0)
    images, labels = (torch.cat([*map(torch.as_tensor, side)]) for side in zip(*test, strict=True))
    logits = torch.as_tensor(model.predict(images, verbose=0)).movedim(-1, 1)
    return Trained([*model.get_weights(), *fitted.history.values()], logits, labels)


def with_rfdetr(training: Training) -> Trained:
    import pytorch_lightning

    from tests import tiny_rfdetr as tiny

    class Before(pytorch_lightning.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            training.step()

    data = tiny.write_data(training.folder / "shapes", test=4)
    callbacks: list[Any] = [Before()]
    if training.options is not None:
        callbacks.append(RFDETRCallback(**{"dataset": "maps"} | training.options))
    with pytest.MonkeyPatch.context() as patch:
        tiny.shrink(patch)
        configs = tiny.configs(data, grad_accum_steps=1)
        trainer, module, loaded = tiny.made(*configs, *callbacks)
        trainer.limit_train_batches = 4  # of a small set's repeats
        trainer.fit(module, loaded)
    return Trained(list(module.state_dict().values()))


def with_ultralytics(training: Training) -> Trained:
    from ultralytics.utils import SETTINGS

    from tests import tiny_yolo as tiny

    data = tiny.write_data(training.folder / "shapes")
    model = tiny.tiny(training.folder)
    model.add_callback("on_train_batch_start", lambda _: training.step())
    if training.options is not None:
        UltralyticsCallback(**{"dataset": "maps"} | training.options).attach(model)
    before = dict(SETTINGS)
    dict.update(SETTINGS, mlflow=False, tensorboard=False, sync=False)
    try:
        with mock.patch("ultralytics.data.utils.check_font"):
            trainer = tiny.train(model, data, trainer=tiny.PlantedTrainer, batch=2, nbs=2)
    finally:
        dict.update(SETTINGS, before)
    weights = [*trainer.model.state_dict().values(), *trainer.ema.ema.state_dict().values()]
    return Trained([*weights, sorted(vars(trainer))])  # whose methods are its own again


TRAININGS: dict[str, Callable[[Training], Trained]] = {
    "loop": in_a_loop,
    "ignite": with_ignite,
    "keras": with_keras,
    "lightning": with_lightning,
    "mmengine": with_mmengine,
    "rfdetr": with_rfdetr,
    "transformers": with_transformers,
    "ultralytics": with_ultralytics,
}
TASKS: dict[str, Task] = {name: "semantic-segmentation" for name in TRAININGS}
TASKS["rfdetr"] = TASKS["ultralytics"] = "detection"


def train(
    framework: str,
    folder: Path,
    options: dict[str, Any] | None,
    step: Callable[[], None] = lambda: None,
) -> Trained:
    """The training by that name, with the same random numbers each time."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        return TRAININGS[framework](Training(folder, options, step))
