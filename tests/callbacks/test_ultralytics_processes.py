"""Ultralytics' own launch of several processes, on two CPU processes."""

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

ultralytics = pytest.importorskip("ultralytics")
from ultralytics.utils import LOCAL_RANK, RANK  # noqa: E402

from boxscore.callbacks.ultralytics import BoxscoreCallback  # noqa: E402
from boxscore.loggers import MemoryLogger  # noqa: E402
from tests.tiny_trainer import series  # noqa: E402
from tests.tiny_yolo import PlantedTrainer, tiny, train, write_data  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
WRAPPER = nn.parallel.DistributedDataParallel


class Filed(MemoryLogger):
    """Writes what it was told, for those who outlive the process."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def close(self, status: Any = "FINISHED") -> None:
        super().close(status)
        points = [(p.name, p.split, p.step, p.value) for p in self.points]
        self.file.write_text(json.dumps({"status": status, "points": points}))


class TwoProcesses(PlantedTrainer):
    """Starts its processes as for two GPUs; in them CPUs and gloo take their place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.world_size, self.ddp = 2, LOCAL_RANK == -1

    def _setup_ddp(self) -> None:
        torch.distributed.init_process_group("gloo", rank=RANK, world_size=2)

    def _setup_train(self) -> None:
        def wrapped(model: Any, device_ids: Any, **options: Any) -> Any:
            return WRAPPER(model, **options)

        with mock.patch.object(nn.parallel, "DistributedDataParallel", wrapped):
            super()._setup_train()  # type: ignore[no-untyped-call]

    def final_eval(self) -> None:
        """Ultralytics' own asks for the GPU of each process."""


class Breaking(TwoProcesses):
    """The second process fails in the second epoch."""

    def preprocess_batch(self, batch: Any) -> Any:
        if RANK == 1 and self.epoch == 1:
            raise ZeroDivisionError
        return super().preprocess_batch(batch)


def told(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


@pytest.mark.parametrize("options", [{}, {"evaluate_every": 3}])
def test_two_processes_measure_as_one(tmp_path: Path, options: dict[str, Any]) -> None:
    data, file = write_data(tmp_path / "shapes", test=5), tmp_path / "told.json"
    model = tiny(tmp_path)
    given = {"log_every": 1, "on_error": "raise", **options}
    BoxscoreCallback(loggers=[Filed(file)], **given).attach(model)
    with mock.patch.dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2])):
        train(model, data, trainer=TwoProcesses)
    memory, alone = MemoryLogger(), tiny(tmp_path)
    BoxscoreCallback(loggers=[memory], **given).attach(alone)
    train(alone, data, trainer=PlantedTrainer)
    found = told(file)
    assert found["status"] == "FINISHED"
    values = {(name, split, step): value for name, split, step, value in found["points"]}
    steps = [step for name, split, step in values if (name, split) == ("total", "train")]
    assert sorted(steps) == [1, 2, 3, 4]
    assert not [name for name, *_ in values if name == "other"]  # the world size is divided out
    assert values["progress/images_seen", "train", 4] == 16
    for split in ("train", "test"):
        assert series(memory, "box_AP", split)
        for name in ("box_AP", "box_AP50", "box_AR100"):
            for step, value in series(memory, name, split).items():
                assert values[name, split, step] == value
    assert ("total", "test", 4) in values


def test_a_process_that_fails(tmp_path: Path) -> None:
    data, file = write_data(tmp_path / "shapes"), tmp_path / "told.json"
    model = tiny(tmp_path)
    BoxscoreCallback(loggers=[Filed(file)], log_every=1).attach(model)
    with mock.patch.dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2])):
        with pytest.raises(Exception, match="returned non-zero exit status"):
            train(model, data, trainer=Breaking)
    assert told(file)["status"] in ("FAILED", "KILLED")
