"""Real tiny trainings with Keras, on its torch backend."""

import os

os.environ["KERAS_BACKEND"] = "torch"

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

from boxscore import Identity
from boxscore.callbacks.keras import BoxscoreCallback
from boxscore.callbacks.reading import keras_outputs
from boxscore.loggers import MemoryLogger
from boxscore.losses import cross_entropy_loss, dice_loss, focal_loss
from tests.tiny_keras import Batches, boxed, detector, maps, segmenter
from tests.warned import warnings_logged, warns

# Keras 3.15 with torch 2.15 and NumPy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
OPTIONS: dict[str, Any] = {
    "dataset": "boxes", "log_every": 2, "on_error": "raise", "pictures": False
}  # fmt: skip


@pytest.fixture(autouse=True)
def leaves_the_random_numbers() -> Any:
    with torch.random.fork_rng():
        yield


def segment(model: Any = None, epochs: Any = 2, callbacks: Any = (), **options: Any) -> Any:
    memory, model = MemoryLogger(), model or segmenter()
    score = BoxscoreCallback(maps(4, 100), **OPTIONS | {
        "loggers": [memory], "task": "semantic-segmentation", "classes": ["no", "yes", "edge"],
        "identity": Identity("Net", "16x16"), "evaluate_every": 4,
    } | options)  # fmt: skip
    history = model.fit(
        Batches(maps(8)), epochs=epochs, callbacks=[score, *callbacks], verbose=0, shuffle=False
    )
    return memory, score, model, history.history


def series(memory: MemoryLogger, name: str, split: str = "test") -> dict[int, float]:
    return {p.step: p.value for p in memory.points if (p.name, p.split) == (name, split)}


class Losses(keras.callbacks.Callback):  # type: ignore[misc]
    """The loss of each batch as the model computes it, its label maps and logits."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.values: list[float] = []
        self.batches: list[Any] = []
        compute = self.model.compute_loss

        def noted(x: Any, y: Any, y_pred: Any, *args: Any, **kwargs: Any) -> Any:
            loss = compute(x, y, y_pred, *args, **kwargs)
            if kwargs.get("training"):
                self.values.append(float(loss.detach()))
                self.batches.append((y_pred.detach().movedim(-1, 1), torch.as_tensor(y)))
            return loss

        self.model.compute_loss = noted


def test_losses_on_both_splits() -> None:
    """Train losses are those of the batches, not Keras' running means."""
    own = Losses()
    memory, score, model, _ = segment(callbacks=[own])
    for name, loss in (("focal", focal_loss), ("dice", dice_loss)):
        of_batches = [float(loss(*own.batches[n - 1])) for n in (2, 4, 6, 8)]
        assert list(series(memory, name, "train").values()) == pytest.approx(of_batches, rel=1e-6)
    means = [sum(own.values[n - 2 : n]) / 2 for n in (2, 4, 6, 8)]
    assert list(series(memory, "total", "train").values()) == pytest.approx(means, rel=1e-5)
    layers = float(sum(loss.detach() for loss in model.losses))
    assert series(memory, "regularization")[8] == pytest.approx(layers, rel=1e-6)
    images, labels = (np.concatenate(sides) for sides in zip(*maps(4, 100), strict=True))
    found = torch.from_numpy(np.moveaxis(model.predict(images, verbose=0), -1, 1))
    truth = torch.from_numpy(labels)
    entropy = float(cross_entropy_loss(found, truth))
    assert series(memory, "classification")[8] == pytest.approx(entropy, rel=1e-5)
    assert series(memory, "cross_entropy")[8] == pytest.approx(entropy, rel=1e-5)
    assert series(memory, "total")[8] == pytest.approx(entropy + layers, rel=1e-5)
    halves = [dice_loss(found[n : n + 2], truth[n : n + 2]) for n in (0, 2)]
    assert series(memory, "dice")[8] == pytest.approx(float(sum(halves)) / 2, rel=1e-5)
    assert (memory.status, score.latest["IoU"]) == ("FINISHED", series(memory, "IoU")[8])
    assert series(memory, "progress/images_seen", "train") == {2: 4, 4: 8, 6: 12, 8: 16}
    assert series(memory, "progress/epoch", "train")[8] == 2.0


def test_a_decay_of_the_optimizer_is_no_part_of_the_total() -> None:
    memory, _, model, _ = segment(segmenter(decay=0.1, layers=None))
    squares = sum(float((v.value.detach() ** 2).sum()) for v in model.trainable_variables)
    assert series(memory, "regularization", "train")[8] == pytest.approx(0.05 * squares, rel=1e-5)
    assert series(memory, "regularization")[8] == pytest.approx(0.05 * squares, rel=1e-5)
    assert series(memory, "total")[8] == series(memory, "classification")[8]


def test_steps_are_those_of_the_optimizer() -> None:
    memory, *_ = segment(segmenter(accumulate=2), log_every=1, evaluate_every=2)
    assert list(series(memory, "total", "train")) == [1, 2, 3, 4]
    assert list(series(memory, "IoU")) == [2, 4]


def test_a_step_that_shows_no_outputs_is_told() -> None:
    """Focal, cross_entropy and dice of the train split are then those of the test set alone."""

    class Own(keras.Sequential):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            x, y = data
            self.optimizer.apply([v * 0 for v in self.trainable_variables])
            return {"loss": self.loss(y, self(x, training=True))}

    model = Own([keras.Input((16, 16, 3)), keras.layers.Conv2D(3, 1)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    compiled = segmenter()
    compiled.jit_compile = True
    for kind in ("train", "test", "predict"):  # as if compiled, which takes long
        step = getattr(compiled, f"{kind}_step")
        setattr(compiled, f"{kind}_function", lambda data, step=step: step(data[0]))
    for one, text in ((model, "calls no compute_loss"), (compiled, "its steps are compiled")):
        with warns(text):
            memory, *_ = segment(one, on_error="warn")
        assert list(series(memory, "dice")) == [4, 8]
        assert series(memory, "dice", "train") == {}


def test_a_detector_by_its_mappings() -> None:
    memory, model, data = MemoryLogger(), detector(), boxed(2)
    score = BoxscoreCallback(data, **OPTIONS | {
        "task": "detection", "classes": {0: "disc", 1: "square"}, "loggers": [memory],
        "identity": Identity("Net", "32x32"), "log_every": 1,
    })  # fmt: skip
    model.fit(Batches(data), epochs=1, callbacks=[score], verbose=0)
    assert series(memory, "box_AP") == {2: pytest.approx(1.0)}
    for split, steps in (("train", [1, 2]), ("test", [2])):
        for name in ("classification", "localization", "regularization", "total"):
            assert list(series(memory, name, split)) == steps, (name, split)
        for step in steps:
            names = ("classification", "localization", "regularization")
            parts = sum(series(memory, name, split)[step] for name in names)
            assert series(memory, "total", split)[step] == pytest.approx(parts, rel=1e-6)
        assert not series(memory, "other", split)
    total = float(
        np.mean([model.test_on_batch(*batch, return_dict=True)["loss"] for batch in data])
    )
    assert series(memory, "total")[2] == pytest.approx(total, rel=1e-5)
    found = model(data[0][0])["box"].detach().numpy()
    absolute = float(np.abs(found - np.array([8, 4, 24, 20])).mean())
    assert series(memory, "localization")[2] == pytest.approx(2 * absolute, rel=0.05)


def test_pictures_are_of_channels_first() -> None:
    (images, labels), *_ = maps(2)
    for reader in (keras_outputs.KerasReader(), keras_outputs.AdaptedKerasReader(lambda b: b)):
        image, size = reader.image((images[:, :8], labels), 1)
        assert (tuple(image.shape), size) == ((3, 8, 16), (8, 16))
        assert float(image[0, 2, 3]) == float(images[1, 2, 3, 0])


@pytest.mark.parametrize(
    ("form", "box"),
    [
        ("xyxy", [4, 8, 20, 24]), ("yxyx", [8, 4, 24, 20]), ("xywh", [4, 8, 16, 16]),
        ("center_xywh", [12, 16, 16, 16]), ("rel_xyxy", [0.0625, 0.25, 0.3125, 0.75]),
        ("rel_yxyx", [0.25, 0.0625, 0.75, 0.3125]),
    ],
)  # fmt: skip
def test_formats_of_boxes(form: str, box: list[float]) -> None:
    mapping = {"boxes": np.array([[box, [-1] * 4]]), "labels": np.array([[3, -1]])}
    (found,) = keras_outputs.listed(mapping, form, (32, 64))
    assert found["boxes"].tolist() == [[4, 8, 20, 24]]
    assert found["labels"].tolist() == [3]
    with pytest.raises(ValueError, match="bounding_box_format: 'coco' is none of"):
        keras_outputs.listed(mapping, "coco", (32, 64))


def test_another_training_and_one_that_goes_on() -> None:
    memory, score, model, _ = segment(epochs=1)
    state = score.state_dict()
    assert memory.start is not None
    first = memory.start.id
    again, *_ = segment(model, epochs=1)
    assert again.start is not None
    assert again.start.id != first
    assert list(series(again, "total", "train")) == [2, 4]
    resumed = MemoryLogger()
    third = BoxscoreCallback(maps(4, 100), **OPTIONS | {
        "loggers": [resumed], "task": "semantic-segmentation", "classes": ["no", "yes", "edge"],
        "identity": Identity("Net", "16x16"), "evaluate_every": 4,
    })  # fmt: skip
    third.load_state_dict(state)
    model.fit(Batches(maps(8)), epochs=2, initial_epoch=1, callbacks=[third], verbose=0)
    assert resumed.start is not None
    assert resumed.start.id == first
    assert list(series(resumed, "total", "train")) == [6, 8]
    assert list(series(resumed, "IoU")) == [8]
    assert series(resumed, "progress/images_seen", "train")[8] == 16


def test_what_fails_in_measuring_does_not_end_the_training(tmp_path: Path) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("broken")

    for options in ({"predict": broken}, {"batch": broken}):
        with warnings_logged() as told:
            memory, *_ = segment(on_error="warn", **options)
        assert memory.status == "FINISHED"
        assert any("broken" in text for text in told)
        assert list(series(memory, "total", "train")) == [2, 4, 6, 8]
