"""A loop that goes back to a checkpoint: one run, one curve, as if nothing had happened."""

import copy
import json
from typing import Any

import pytest
import torch

from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger
from tests.tiny import CLASSES, fcos, loader, train_step


def train(
    memory: MemoryLogger, until: int, saved: Any = None, save_at: int = 0, **options: Any
) -> Any:
    """Train until a step, from a checkpoint if one is given; return the one that was saved."""
    model = fcos()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batches = list(loader(12))  # three steps an epoch
    defaults: dict[str, Any] = {
        "dataset": "boxes", "classes": CLASSES, "loggers": [memory], "log_every": 4,
        "evaluate_every": 5, "on_error": "raise", "pictures": False,
    }  # fmt: skip
    score = LoopCallback(
        model, optimizer, loader(4, 100), train_loader=batches, **defaults | options
    )
    done = 0
    if saved is not None:
        saved = copy.deepcopy(saved)  # an optimizer goes on in the very tensors that it loads
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        score.load_state_dict(saved["score"])
        done = saved["step"]
    checkpoint = None
    with score:
        while done < until:
            score.step(train_step(model, optimizer, batches[done % 3]))
            done += 1
            if done == save_at:
                checkpoint = copy.deepcopy(
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "score": json.loads(json.dumps(score.state_dict())),
                        "step": done,
                    }
                )
    return checkpoint


def measured(memory: MemoryLogger) -> dict[tuple[str, str, int], float]:
    timed = ("progress/images_per_second", "progress/evaluation_seconds")
    return {(p.key, p.split, p.step): p.value for p in memory.points if p.name not in timed}


@pytest.mark.parametrize("save_at", [4, 6, 7])
def test_going_back_twice_gives_the_points_of_a_training_that_never_stopped(save_at: int) -> None:
    """Also from within a window of losses, and within an epoch."""
    whole, parts = MemoryLogger(), MemoryLogger()
    train(whole, 20)
    saved = train(parts, 15, save_at=save_at)
    train(parts, 17, saved)
    train(parts, 20, saved)
    # where an earlier life ended, its last weights were measured: no other training has that point
    extra = {key for key in measured(parts) if key[2] == 17}
    found = {key: value for key, value in measured(parts).items() if key not in extra}
    assert found == pytest.approx(measured(whole), rel=1e-9, nan_ok=True)
    assert extra
    for key in {(p.key, p.split) for p in parts.points}:
        steps = [p.step for p in parts.points if (p.key, p.split) == key]
        assert steps == sorted(set(steps)), key
    assert parts.start is not None
    assert parts.start.resumed
    assert parts.status == "FINISHED"


def test_the_best_value_and_its_step_are_remembered() -> None:
    parts = MemoryLogger()
    saved = train(parts, 10, save_at=10)
    kept = saved["score"]["run"]["best"]
    assert set(kept) >= {"total", "box_AP"}
    later = MemoryLogger()
    train(later, 11, saved)
    first = next(p for p in later.points if p.name == "summary/box_AP")
    assert first.step == 11
    better = [p.value for p in later.points if p.name == "summary/best_box_AP"]
    assert all(value > kept["box_AP"] for value in better)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dataset": "other"}, "its dataset is 'boxes', here it is 'other'"),
        ({"classes": {1: "disc", 2: "ring"}}, "its classes is"),
        ({"task": "instance-segmentation"}, "its task is 'detection'"),
    ],
)
def test_something_else_is_refused_with_the_way_to_fork(change: Any, reason: str) -> None:
    saved = train(MemoryLogger(), 4, save_at=4)
    with pytest.raises(ValueError, match=reason) as refusal:
        train(MemoryLogger(), 6, saved, **change)
    assert "run='new'" in str(refusal.value)


def test_another_identity_is_refused() -> None:
    from boxscore import Identity

    saved = train(MemoryLogger(), 4, save_at=4)
    with pytest.raises(ValueError, match=r"its identity is .*'64x64'.*here it is .*'96x96'"):
        train(MemoryLogger(), 6, saved, identity=Identity("FCOS", "96x96"))


def test_a_fork_is_a_new_run_that_counts_on() -> None:
    memory = MemoryLogger()
    saved = train(MemoryLogger(), 6, save_at=6)
    train(memory, 10, saved, run="new", dataset="other")
    assert memory.start is not None
    assert not memory.start.resumed
    assert memory.start.id != saved["score"]["run"]["id"]
    assert min(p.step for p in memory.points) == 8


def test_a_run_that_is_open_takes_no_checkpoint() -> None:
    saved = train(MemoryLogger(), 2, save_at=2)
    model = fcos()
    score = LoopCallback(
        model, None, loader(2), dataset="boxes", classes=CLASSES, loggers=[MemoryLogger()]
    )
    with score, pytest.raises(RuntimeError, match="before the training begins"):
        score.load_state_dict(saved["score"])


def test_garbage_is_no_checkpoint() -> None:
    saved = train(MemoryLogger(), 2, save_at=2)
    saved["score"]["run"]["version"] = 99
    with pytest.raises(ValueError, match="no state of a run that this version reads"):
        train(MemoryLogger(), 4, saved)
