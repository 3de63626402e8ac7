"""A watched model stays the user's: it is copied, saved and compiled as if nothing watched it."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from boxscore import Identity
from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)  # type: ignore[no-any-return]


IMAGES = torch.rand(2, 3, 8, 8)
OPTIONS: dict[str, Any] = {
    "task": "semantic-segmentation",
    "dataset": "d",
    "classes": ["a", "b"],
    "log_every": 1,
    "on_error": "raise",
}


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # type: ignore[no-any-return]


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved,
    "AveragedModel": AveragedModel,
    "twice": lambda model: copy.deepcopy(saved(model)),
}


@pytest.mark.parametrize("made", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_watched_model_is_not_watched(made: Callable[[nn.Module], nn.Module]) -> None:
    model, memory = UNet(), MemoryLogger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with LoopCallback(model, optimizer, loggers=[memory], **OPTIONS) as score:
        for _ in range(2):
            loss = model(IMAGES).mean()
            loss.backward()
            optimizer.step()
            copied = made(model).train()
            assert torch.equal(copied(IMAGES), model(IMAGES))
            score.step(loss)
    seen = [point.value for point in memory.points if point.name == "progress/images_seen"]
    assert seen == [2.0, 4.0]


def test_a_saved_model_loads_without_boxscore() -> None:
    model = UNet()
    with LoopCallback(model, None, loggers=[], identity=Identity("U-Net", 8), **OPTIONS):
        assert b"boxscore" not in pickle.dumps(list(model._forward_pre_hooks.values()))


def test_a_watched_model_compiles_as_one_graph() -> None:
    model, memory = UNet(), MemoryLogger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with LoopCallback(model, optimizer, loggers=[memory], **OPTIONS) as score:
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        for _ in range(2):
            score.step(compiled(IMAGES).mean(), images=IMAGES)
    assert [p.value for p in memory.points if p.name == "progress/images_seen"] == [2.0, 4.0]


def test_a_compiled_model_is_watched() -> None:
    model: Any = torch.compile(UNet(), backend="eager")
    memory = MemoryLogger()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with LoopCallback(model, optimizer, loggers=[memory], **OPTIONS) as score:
        score.step(model(IMAGES).mean())
    assert [p.value for p in memory.points if p.name == "progress/images_seen"] == [2.0]
    assert score.run is not None
    assert score.run.identity.input_size == "8x8"


def test_the_hooks_are_gone_after_the_training() -> None:
    model = UNet()
    before = model.state_dict().keys()
    with LoopCallback(model, None, loggers=[], identity=Identity("U-Net", 8), **OPTIONS):
        assert model.state_dict().keys() == before
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
