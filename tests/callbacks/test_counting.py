"""Images and epochs: the loader and the caller decide, not the number of forwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from boxscore import Identity
from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger
from tests.warned import warns

IDENTITY = Identity("U-Net", 4)


def series(memory: MemoryLogger, name: str) -> dict[int, float]:
    return {p.step: p.value for p in memory.points if (p.name, p.split) == (name, "train")}


class Views(nn.Module):
    """A semantic model; its steps may forward a batch more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, images: Any) -> Any:
        return self.layer(images["img"] if isinstance(images, dict) else images)


def counted(step: Callable[[Any, Any, Any], None], **options: Any) -> MemoryLogger:
    """Two epochs of four batches of two images, each trained on by ``step``."""
    model, memory = Views(), MemoryLogger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = TensorDataset(torch.rand(8, 3, 4, 4), torch.zeros(8, 4, 4).long())
    batches = DataLoader(data, batch_size=2)
    score = LoopCallback(
        model,
        optimizer,
        DataLoader(data, batch_size=4),
        train_loader=batches,
        task="semantic-segmentation",
        identity=IDENTITY,
        dataset="d",
        classes=["a", "b"],
        criterion=nn.CrossEntropyLoss(),
        loggers=[memory],
        log_every=1,
        evaluate_every=None,
        on_error="raise",
        **options,
    )
    with score:
        for _ in range(2):
            for images, targets in batches:
                step(score, model, (images, targets))
    return memory


def once(score: Any, model: Any, batch: Any) -> None:
    score.step(model(batch[0]).mean())


def sharpness_aware(score: Any, model: Any, batch: Any) -> None:
    model(batch[0])
    once(score, model, batch)


def named(score: Any, model: Any, batch: Any) -> None:
    score.step(model({"img": batch[0], "cls": batch[1]}).mean())


def consistent(score: Any, model: Any, batch: Any) -> None:
    model(batch[0].flip(-1))
    score.step(model(batch[0]).mean(), images=batch[0])


def unseen(score: Any, model: Any, batch: Any) -> None:
    score.step(model.layer(batch[0]).mean(), images=len(batch[0]))


@pytest.mark.parametrize("step", [once, sharpness_aware, named, consistent, unseen])
def test_the_number_of_forwards_does_not_count(step: Callable[[Any, Any, Any], None]) -> None:
    memory = counted(step)
    assert list(series(memory, "progress/images_seen").values()) == [*range(2, 18, 2)]
    assert list(series(memory, "progress/epoch").values()) == [n / 4 for n in range(1, 9)]
    assert list(series(memory, "IoU")) == [4, 8]


class Streamed(IterableDataset[Any]):
    """A data set that is not read by index, and tells its length all the same."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.full((3, 4, 4), n / 6), torch.zeros(4, 4).long()) for n in range(6)])


@pytest.mark.parametrize("count", [None, 2])
def test_a_stream_with_a_length_is_measured(count: int | None) -> None:
    model, memory = Views(), MemoryLogger()
    score = LoopCallback(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        DataLoader(Streamed(), batch_size=4),
        train_loader=DataLoader(Streamed(), batch_size=2),
        task="semantic-segmentation",
        identity=IDENTITY,
        dataset="d",
        classes=["a", "b"],
        criterion=nn.CrossEntropyLoss(),
        loggers=[memory],
        log_every=1,
        evaluate_train_every=1,
        evaluate_images=count,
        on_error="raise",
    )
    with score:
        score.step(model(torch.rand(2, 3, 4, 4)).mean())
        score.evaluate()
    assert score.run is not None
    for split in ("test", "train"):
        assert len(score.run.metric(split).evaluated) == (count or 6)


def test_views_of_one_batch_that_count_as_accumulation_are_told() -> None:
    def twice(score: Any, model: Any, batch: Any) -> None:
        model(batch[0].flip(-1))
        once(score, model, batch)

    with warns("2 different batches .* pass images="):
        counted(twice)


def test_calls_for_each_micro_batch_are_one_optimizer_step() -> None:
    """The losses of a step are the mean over its batches, as before the script divides them."""

    def micro(score: Any, model: Any, batch: Any) -> None:
        model(batch[0])
        given.append(float(len(given)))
        score.step(given[-1])

    given: list[float] = []
    memory = counted(micro, accumulate=2)
    assert list(series(memory, "progress/images_seen")) == [1, 2, 3, 4]
    assert list(series(memory, "progress/images_seen").values()) == [4, 8, 12, 16]
    assert list(series(memory, "classification").values()) == [0.5, 2.5, 4.5, 6.5]
    assert list(series(memory, "IoU")) == [2, 4]
