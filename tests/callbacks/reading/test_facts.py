"""What a training states of itself, as params."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from boxscore.callbacks.reading.facts import opening_lines, training_params

MODEL = torch.nn.Linear(3, 2)


def loader(images: int, **options: Any) -> Any:
    return DataLoader(TensorDataset(torch.zeros(images, 3)), **options)


def test_what_optimizer_and_loaders_state() -> None:
    optimizer = torch.optim.AdamW(MODEL.parameters(), lr=1e-3, weight_decay=0.05)
    found = training_params(MODEL, optimizer, loader(10, batch_size=4), loader(5), {})
    assert found == {
        "optimizer": "AdamW",
        "learning_rate": "0.001",
        "weight_decay": "0.05",
        "batch_size": "4",
        "train_images": "10",
        "test_images": "5",
        "model_parameters": "8",
    }


def test_groups_and_a_schedule_that_warms_up() -> None:
    groups = [{"params": [MODEL.weight], "lr": 1.0}, {"params": [MODEL.bias], "weight_decay": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=2.0)
    torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1)
    found = training_params(MODEL, optimizer, None, None, {})
    assert (found["learning_rate"], found["weight_decay"]) == ("1, 2", "0, 0.1")
    assert found.keys().isdisjoint({"batch_size", "train_images", "test_images"})


def test_the_batch_of_an_optimizer_step() -> None:
    known = {"accumulate": 3, "precision": "bf16", "epochs": None, "steps": 100}
    found = training_params(MODEL, None, loader(10, batch_size=4), None, known)
    assert found["batch_size"] == "12"
    assert (found["precision"], found["steps"]) == ("bf16", "100")
    assert found.keys().isdisjoint({"accumulate", "epochs", "optimizer"})
    known = {"batch_size": 64, "accumulate": 3}
    assert training_params(MODEL, None, None, None, known)["batch_size"] == "64"


@pytest.mark.parametrize("odd", [object(), [1, 2], iter(())])
def test_what_is_not_stated_is_left_out(odd: Any) -> None:
    assert training_params(odd, odd, odd, odd, {}).keys() <= {"optimizer"}


def test_a_keypoint_model_is_told_that_its_ap_is_not_measured() -> None:
    model: Any = torch.nn.Module()
    model.roi_heads = torch.nn.Module()
    assert opening_lines(model, None) == []
    model.roi_heads.keypoint_head = torch.nn.Linear(1, 1)
    assert opening_lines(model, None) == [
        "keypoints: their loss is logged; their AP is not measured"
    ]
