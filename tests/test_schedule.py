from typing import Any

import numpy as np
import pytest
import torch

from boxscore import Every


def test_steps() -> None:
    assert [step for step in range(7) if Every(steps=3).due(step)] == [3, 6]
    assert not Every(steps=3).due_epoch(3)


def test_epochs() -> None:
    assert [epoch for epoch in range(5) if Every(epochs=2).due_epoch(epoch)] == [2, 4]
    assert not Every(epochs=2).due(2)


@pytest.mark.parametrize("never", [0, None, False, Every()])
def test_never(never: Every | int | None) -> None:
    every = Every.of(never)
    assert not any(every.due(n) or every.due_epoch(n) for n in range(100))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"epochs": -1}, {"steps": 2.5}])
def test_nonsense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="integer of 1 or more"):
        Every(**wrong)


def test_not_both() -> None:
    with pytest.raises(ValueError, match="not both"):
        Every(steps=1, epochs=1)


def test_steps_that_come_several_at_a_time_miss_nothing() -> None:
    every, seen, before = Every(steps=5), [], 0
    for step in range(2, 21, 2):
        if every.due(step, since=before):
            seen.append(step)
        before = step
    assert seen == [6, 10, 16, 20]
    assert not every.due(10, since=10)


@pytest.mark.parametrize("steps", [np.int64(5), np.uint8(5), torch.tensor(5)])
def test_integers_of_any_kind(steps: Any) -> None:
    assert Every(steps=steps) == Every(steps=5)
    assert type(Every.of(steps).steps) is int


def test_a_boolean_is_no_interval() -> None:
    with pytest.raises(ValueError, match="integer of 1 or more"):
        Every(steps=True)
