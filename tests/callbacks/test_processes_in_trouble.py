"""Several processes of which one fails, is gone, comes late or never, or holds only a part."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from boxscore import distributed
from boxscore.callbacks.loop import LoopCallback
from boxscore.callbacks.reading.predict import detect
from boxscore.loggers import MemoryLogger
from tests.tiny import CLASSES, fcos, loader, train_step
from tests.together import together, torchrun
from tests.warned import warnings_logged


def scored(model: Any, memory: MemoryLogger, **options: Any) -> LoopCallback:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-3)
    more: dict[str, Any] = {"classes": CLASSES, "dataset": "boxes", "loggers": [memory]}
    more |= {"log_every": 2, "evaluate_every": 2, "evaluate_train_every": None}
    test = options.pop("test", None) or loader(5, 100, batch_size=2)
    return LoopCallback(model, optimizer, test, **more | options)


def trained(score: LoopCallback, steps: int, batches: Any = None) -> None:
    model, optimizer = score._watched, score._optimizer
    batches = list(batches or loader(4, 10 * distributed.rank(), batch_size=2))
    for step in range(steps):
        score.step(train_step(model, optimizer, batches[step % len(batches)]))


def told(memory: MemoryLogger, caught: Any) -> dict[str, Any]:
    """The steps of points by key, how the run ended, and what was warned of."""
    steps: dict[str, list[int]] = {}
    for point in memory.points:
        steps.setdefault(f"{point.name}.{point.split}", []).append(point.step)
    return {
        "steps": steps,
        "values": {(f"{p.name}.{p.split}", p.step): p.value for p in memory.points},
        "status": memory.status,
        "said": [w for w in caught if w.startswith("boxscore")],
    }


# a batch that one of them cannot measure


def one_fails() -> dict[str, Any]:
    memory, model = MemoryLogger(), DistributedDataParallel(fcos())
    asked = []

    def predict(net: Any, batch: Any) -> Any:
        asked.append(1)
        if distributed.rank() == 1 and len(asked) == 1:
            raise RuntimeError("no memory left")
        images, targets = batch
        return detect(net, images, targets, list(CLASSES))

    with warnings_logged() as caught:
        with scored(model, memory, predict=predict, task="detection") as score:
            trained(score, 4)
    return told(memory, caught) | {"latest": score.latest}


@pytest.mark.parametrize("size", [2, 3])
def test_an_evaluation_that_one_fails_is_nobodys_and_the_next_one_is_fine(size: int) -> None:
    first, *others = together(size, one_fails)
    assert first["steps"]["total.train"] == [2, 4]
    assert first["steps"]["box_AP.test"] == [4]
    assert first["status"] == "FINISHED"
    for number, one in enumerate((first, *others)):
        (said,) = one["said"]  # once per process
        assert ("no memory left" if number == 1 else "another process could not") in said
        assert one["latest"] == first["latest"]


# one that is gone


def one_is_killed() -> dict[str, Any]:
    memory, model = MemoryLogger(), DistributedDataParallel(fcos())
    start, error = time.monotonic(), ""
    with warnings_logged() as caught:
        try:
            with scored(model, memory) as score:
                trained(score, 3)
                if distributed.rank() == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                trained(score, 3)
        except RuntimeError as raised:
            error = type(raised).__name__
    return told(memory, caught) | {"error": error, "seconds": time.monotonic() - start}


def one_is_killed_at_the_end() -> dict[str, Any]:
    memory, model = MemoryLogger(), fcos()
    with warnings_logged() as caught:
        with scored(model, memory) as score:
            trained(score, 3)
            if distributed.rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)
    return told(memory, caught)


def test_where_one_is_killed_the_run_fails() -> None:
    first, _ = together(2, one_is_killed, gone=True)
    assert first["status"] == "FAILED"
    assert first["error"]
    assert first["seconds"] < 30
    first, _ = together(2, one_is_killed_at_the_end, gone=True)
    assert first["status"] == "FAILED"
    assert any("another process did not finish" in said for said in first["said"])


SCRIPT = """
import json, os, pathlib, signal, sys, time
import torch
from torch.nn.parallel import DistributedDataParallel
from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger
from tests.tiny import CLASSES, fcos, loader, train_step

class Told(MemoryLogger):
    def close(self, status):
        super().close(status)
        pathlib.Path(sys.argv[1]).write_text(json.dumps([status, len(self.points)]))

torch.distributed.init_process_group("gloo")
model = DistributedDataParallel(fcos())
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
(batch,) = loader(2, batch_size=2)
with LoopCallback(model, optimizer, loader(4, 100, batch_size=2), dataset="boxes", log_every=2,
                  classes=CLASSES, loggers=[Told()]) as score:
    for step in range(10_000):
        score.step(train_step(model, optimizer, batch))
        if step == 5 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_under_torchrun_too(tmp_path: Path) -> None:
    """torchrun ends the survivors by SIGTERM: the run has failed nevertheless, it was not ended."""
    (tmp_path / "train.py").write_text(SCRIPT)
    ended = torchrun(2, tmp_path / "train.py", tmp_path / "told.json")
    assert ended.returncode != 0
    status, points = json.loads((tmp_path / "told.json").read_text())
    assert status == "FAILED", ended.stderr[-2000:]
    assert points


# some that have fewer steps, and one that alone has the callback


def with_steps_of_its_own() -> dict[str, Any]:
    """No wrapper: each trains as far as its data go; the second one's epochs end earlier too."""
    memory, model = MemoryLogger(), fcos()
    batches = loader(8 - 2 * distributed.rank(), batch_size=2)
    options = {"train_loader": batches, "evaluate_train_every": 3}
    with warnings_logged() as caught:
        with scored(model, memory, **options) as score:
            trained(score, 2 * len(batches), batches)
    return told(memory, caught) | {"step": score.run and score.run.step, "latest": score.latest}


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_with_fewer_steps_wait_at_the_end(size: int) -> None:
    first, *others = together(size, with_steps_of_its_own)
    assert first["status"] == "FINISHED"
    assert first["steps"]["total.train"] == [2, 4, 6, 8]
    assert first["steps"]["box_AP.test"][-1] == 8
    for other in others:
        assert other["step"] == 8
        assert other["latest"]["box_AP"] == first["latest"]["box_AP"]


def on_the_first_alone() -> dict[str, Any]:
    distributed.PATIENCE = 0.5
    memory, model = MemoryLogger(), DistributedDataParallel(fcos())
    batches = list(loader(4, 10 * distributed.rank(), batch_size=2))
    if torch.distributed.get_rank():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(4):
            train_step(model, optimizer, batches[step % 2])
        return {}
    with warnings_logged() as caught:
        with scored(model, memory) as score:
            trained(score, 4, batches)
    run: Any = score.run
    return told(memory, caught) | {"images": run.metric("test").images}


def test_a_callback_on_the_first_process_alone_trains_on_and_says_so() -> None:
    first, *_ = together(3, on_the_first_alone)
    assert first["status"] == "FINISHED"
    assert first["steps"]["total.train"] == first["steps"]["box_AP.test"] == [2, 4]
    assert first["images"] == 5
    (said,) = first["said"]
    assert "make the callback in every process" in said


# what is exchanged


def counted() -> dict[str, Any]:
    """How often boxscore exchanges anything, at each of six steps."""
    group, calls = torch.distributed, [0]
    for name in ("all_gather_object", "gather_object", "broadcast_object_list", "broadcast"):
        setattr(group, name, _counted(getattr(group, name), calls))
    memory, model = MemoryLogger(), fcos()
    batches, at = list(loader(4, batch_size=2)), []
    options = {"log_every": 3, "evaluate_every": 5, "on_error": "raise"}
    with scored(model, memory, **options) as score:
        optimizer = score._optimizer
        for step in range(6):
            calls[0] = 0
            losses = train_step(model, optimizer, batches[step % 2])
            score.step(losses)
            at.append(calls[0])
    return {"at": at}


def _counted(exchange: Any, calls: list[int]) -> Any:
    def counting(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return exchange(*args, **kwargs)

    return counting


def test_nothing_is_exchanged_when_nothing_is_due() -> None:
    for one in together(2, counted):
        assert [n > 0 for n in one["at"]] == [False, False, True, False, True, True]
        assert one["at"][2] == 1  # the window's sums with the images so far


# weights in parts


def sharded(kind: str) -> dict[str, Any]:
    memory, model = MemoryLogger(), _sharded(kind, fcos())
    batches = loader(4, batch_size=2)
    with warnings_logged() as caught:
        with scored(model, memory, on_error="raise") as score:
            score.evaluate()
            trained(score, 2, batches)
    return told(memory, caught) | {"latest": score.latest}


def _sharded(kind: str, model: Any) -> Any:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    if distributed.size() == 1:
        return model
    mesh = init_device_mesh("cpu", (distributed.size(),))
    if kind == "fully_shard":
        fully_shard(model.backbone, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model
    if kind == "of a part":
        fully_shard(model.backbone, mesh=mesh)
        return model
    return FullyShardedDataParallel(
        model, device_mesh=mesh, device_id=torch.device("cpu"), use_orig_params=kind == "original"
    )


@pytest.mark.parametrize("kind", ["fully_shard", "of a part", "flat", "original"])
def test_weights_in_parts_have_the_figures_of_the_whole(kind: str) -> None:
    """Five images in batches of two: the second process repeats a batch, for the first's sake."""
    first, other = together(2, sharded, kind)
    one = sharded(kind)
    for (name, step), value in one["values"].items():
        if step == 0 and "_second" not in name:
            assert first["values"][name, step] == pytest.approx(value, rel=1e-5), name
    assert first["steps"] == one["steps"]
    assert first["latest"] == other["latest"]
    assert first["status"] == "FINISHED"
