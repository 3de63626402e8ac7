"""Real tiny trainings with Ignite's and MONAI's engines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from torch import nn

from boxscore import Identity
from boxscore.callbacks.ignite import BoxscoreHandler
from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger
from tests import tiny
from tests.warned import warnings_logged, warns

OPTIONS: dict[str, Any] = {
    "dataset": "boxes", "log_every": 2, "evaluate_train_every": None, "on_error": "raise",
    "pictures": False,
}  # fmt: skip
SEMANTIC = OPTIONS | {
    "task": "semantic-segmentation", "classes": ["no", "yes", "edge"],
    "identity": Identity("Net", "16x16"),
}  # fmt: skip


class Masks(torch.utils.data.Dataset[Any]):
    """Noise (3, 16, 16) and label maps, of three classes, that it tells of."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.ids = list(range(first, first + count))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Any:
        image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(self.ids[index]))
        return image, (image[0] * 3).long()


def masks(count: int = 8, first: int = 0, **options: Any) -> Any:
    return torch.utils.data.DataLoader(Masks(count, first), 2, **options)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1))


def sgd(model: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-3)


def series(memory: MemoryLogger, name: str, split: str = "test") -> dict[int, float]:
    return {p.step: p.value for p in memory.points if (p.name, p.split) == (name, split)}


def measured(memory: MemoryLogger) -> dict[Any, float]:
    """Every point but those of time."""
    left_out = ("images_per_second", "evaluation_seconds")
    return {(p.key, p.step): p.value for p in memory.points if not p.name.endswith(left_out)}


def fit(
    epochs: int = 2,
    *,
    also: Callable[[Any, Any, BoxscoreHandler], None] = lambda *_: None,
    accumulate: int = 1,
    batches: Any = None,
    **options: Any,
) -> tuple[MemoryLogger, nn.Module, BoxscoreHandler]:
    """A semantic training whose evaluator runs after each epoch."""
    model, memory, loss = network(), MemoryLogger(), nn.CrossEntropyLoss()
    optimizer = sgd(model)
    trainer = create_supervised_trainer(
        model, optimizer, loss, gradient_accumulation_steps=accumulate
    )
    evaluator = create_supervised_evaluator(model)
    score = BoxscoreHandler(
        model, optimizer, criterion=loss, **SEMANTIC | {"loggers": [memory]} | options
    )
    also(trainer, evaluator, score)
    score.attach(trainer, evaluator)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run(masks(4, 100)))
    trainer.run(masks() if batches is None else batches, max_epochs=epochs)
    return memory, model, score


def test_its_points_are_those_of_the_loop() -> None:
    memory, _, score = fit(evaluate_train_every=4)
    model, by_loop, loss = network(), MemoryLogger(), nn.CrossEntropyLoss()
    optimizer, train = sgd(model), masks()
    with LoopCallback(
        model, optimizer, masks(4, 100), train_loader=train, criterion=loss, evaluate_every=4,
        **SEMANTIC | {"loggers": [by_loop], "evaluate_train_every": 4},
    ) as loop:  # fmt: skip
        for _ in range(2):
            for images, targets in train:
                outputs = model.train()(images)
                optimizer.zero_grad()
                value = loss(outputs, targets)
                value.backward()
                optimizer.step()
                loop.step(value, outputs, targets)
    a, b = measured(memory), measured(by_loop)
    assert sorted(map(str, a.keys() ^ b.keys())) == []
    assert a == pytest.approx(b, rel=1e-6)
    for name in ("total", "classification", "focal", "cross_entropy", "dice", "regularization"):
        assert list(series(memory, name, "train")) == [2, 4, 6, 8]
        assert list(series(memory, name)) == [4, 8]
    for split in ("train", "test"):
        assert list(series(memory, "IoU", split)) == [4, 8]
    assert (memory.status, score.latest) == ("FINISHED", loop.latest)


def test_a_detector_has_its_parts_on_both_splits() -> None:
    """The output holds the sum alone; the parts are the detector's own."""
    runs: list[MemoryLogger] = []
    for uses_ignite in (True, False):
        model, memory = tiny.fcos(), MemoryLogger()
        optimizer, loader = sgd(model), tiny.loader(8)
        options: Any = OPTIONS | {"classes": tiny.CLASSES, "loggers": [memory]}

        def update(engine: Any, batch: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            return sum(tiny.train_step(model, optimizer, batch).values())

        if uses_ignite:
            trainer, test = Engine(update), tiny.loader(4, 100)
            score = BoxscoreHandler(model, optimizer, test, evaluate_every=2, **options)
            score.attach(trainer)
            trainer.run(loader, max_epochs=2)
        else:
            with LoopCallback(
                model, optimizer, tiny.loader(4, 100), train_loader=loader, evaluate_every=2,
                **options,
            ) as loop:  # fmt: skip
                for _ in range(2):
                    for batch in loader:
                        loop.step(tiny.train_step(model, optimizer, batch))
        runs.append(memory)
    assert measured(runs[0]) == pytest.approx(measured(runs[1]), rel=1e-6)
    assert list(series(runs[0], "centerness")) == [2, 4]
    assert list(series(runs[0], "box_AP")) == [2, 4]


def test_steps_are_those_of_the_optimizer() -> None:
    with warns("4 batches make one optimizer step.*batch_size"):
        memory, _, _ = fit(4, accumulate=4, log_every=1)
    assert list(series(memory, "total", "train")) == [1, 2, 3, 4]
    assert series(memory, "progress/images_seen", "train") == {1: 8, 2: 16, 3: 24, 4: 32}
    assert list(series(memory, "IoU")) == [1, 2, 3, 4]


def test_handlers_that_suppress_an_exception_still_do() -> None:
    def also(trainer: Any, *_: Any) -> None:
        def fail(_: Any) -> None:
            raise ZeroDivisionError

        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), fail)
        trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, _: engine.terminate())

    memory, _, _ = fit(also=also)
    assert memory.status == "FINISHED"


def test_a_checkpoint_continues_the_run(tmp_path: Path) -> None:
    """Also where the handler that saves comes before, and amid an epoch."""

    def saved(trainer: Any, evaluator: Any, score: BoxscoreHandler) -> None:
        disk = DiskSaver(str(tmp_path), require_empty=False)
        checkpoint = Checkpoint({"trainer": trainer, "boxscore": score}, disk, n_saved=None)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), checkpoint)

    def loaded(trainer: Any, evaluator: Any, score: BoxscoreHandler) -> None:
        state = torch.load(tmp_path / "checkpoint_3.pt")
        Checkpoint.load_objects({"trainer": trainer, "boxscore": score}, state)

    first, _, _ = fit(also=saved)
    memory, _, _ = fit(also=loaded)
    assert first.start is not None
    assert memory.start is not None
    assert memory.start.id == first.start.id
    assert list(series(memory, "total", "train")) == [4, 6, 8]
    assert list(series(memory, "IoU")) == [4, 8]
    images = [series(m, "progress/images_seen", "train")[8] for m in (first, memory)]
    assert images == [16, 16]


def test_another_training_and_evaluations_around_it() -> None:
    memory, loss, model = MemoryLogger(), nn.CrossEntropyLoss(), network()
    optimizer = sgd(model)
    trainer = create_supervised_trainer(model, optimizer, loss)
    evaluators = {name: create_supervised_evaluator(model) for name in ("test", "night")}
    score = BoxscoreHandler(model, optimizer, criterion=loss, **SEMANTIC | {"loggers": [memory]})
    score.attach(trainer, evaluators)
    with warns("before the training"):
        evaluators["test"].run(masks(4, 100))
    trainer.run(masks(), max_epochs=1)
    assert not series(memory, "IoU")
    assert memory.start is not None
    first = memory.start.id
    evaluators["test"].run(masks(4, 100))
    evaluators["night"].run(masks(4, 200))
    evaluators["test"].run(masks())  # of the train set's images, in another loader
    assert list(series(memory, "IoU")) == list(series(memory, "IoU", "test-night")) == [4]
    assert (memory.start.id, memory.status) == (first, "FINISHED")
    assert not model._forward_hooks
    trainer.run(masks(), max_epochs=1)
    assert memory.start.id != first
    assert list(series(memory, "total", "train")) == [2, 4]


def test_what_fails_in_measuring_does_not_end_the_training() -> None:
    def predict(model: Any, batch: Any) -> Any:
        raise ZeroDivisionError("no prediction")

    def wrong(output: Any) -> Any:
        raise ZeroDivisionError("no loss")

    def broken(batch: Any) -> Any:
        raise ZeroDivisionError("no batch")

    for options in ({"predict": predict}, {"output_transform": wrong}, {"batch": broken}):
        with warnings_logged() as told:
            memory, _, _ = fit(on_error="warn", **options)
        assert memory.status == "FINISHED"
        assert any("ZeroDivisionError" in text or "no " in text for text in told), told


def test_several_forwards_of_the_evaluator_are_not_guessed() -> None:
    def also(trainer: Any, evaluator: Any, score: Any) -> None:
        evaluator.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e: score._watched(e.state.batch[0])
        )

    with warns("2 forwards of the model.*predict="):
        memory, _, _ = fit(also=also, on_error="warn")
    assert not series(memory, "IoU")
    assert list(series(memory, "total", "train")) == [2, 4, 6, 8]


def with_monai(*, watched: bool = True, **options: Any) -> tuple[MemoryLogger, Any, list[float]]:
    """MONAI's engines, which take batches apart; gives its own mean Dice loss of the test set."""
    monai: Any = pytest.importorskip("monai")

    def loader(count: int, first: int, transform: Any = None) -> Any:
        data = Masks(count, first)
        items = [
            {"image": image, "label": mask[None]}
            for image, mask in map(data.__getitem__, range(count))
        ]
        data_set = monai.data.Dataset(items, transform)
        return monai.data.DataLoader(data_set, batch_size=2, shuffle=bool(transform))

    torch.manual_seed(0)
    memory, model = MemoryLogger(), monai.networks.nets.UNet(2, 3, 3, channels=(4, 8), strides=(2,))
    optimizer, loss = sgd(model), monai.losses.DiceLoss(to_onehot_y=True, sigmoid=True)
    test = loader(4, 100)
    evaluator = monai.engines.SupervisedEvaluator("cpu", test, model)
    stats = monai.handlers.StatsHandler(output_transform=lambda output: output[0]["loss"])
    flips = monai.transforms.RandFlipd(["image", "label"], prob=0.5).set_random_state(1)
    trainer = monai.engines.SupervisedTrainer(
        "cpu", 2, loader(8, 0, flips), model, optimizer, loss,
        train_handlers=[monai.handlers.ValidationHandler(1, evaluator), stats],
        accumulation_steps=2,
    )  # fmt: skip
    if watched:
        options = SEMANTIC | {"loggers": [memory], "log_every": 1} | options
        BoxscoreHandler(model, optimizer, **options).attach(trainer, evaluator)
    trainer.run()
    with torch.no_grad():
        own = [float(loss(model.eval()(b["image"]), b["label"])) for b in test]
    return memory, model, own


@pytest.mark.slow
def test_monai() -> None:
    memory, model, own = with_monai(evaluate_train_every=2)
    assert list(series(memory, "total", "train")) == [1, 2, 3, 4]
    assert list(series(memory, "IoU")) == list(series(memory, "IoU", "train")) == [2, 4]
    assert series(memory, "classification")[4] == pytest.approx(sum(own) / len(own), rel=1e-5)
    assert list(series(memory, "dice", "train")) == [1, 2, 3, 4]
    assert memory.status == "FINISHED"
    _, unwatched, _ = with_monai(watched=False)
    one, other = model.state_dict(), unwatched.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
