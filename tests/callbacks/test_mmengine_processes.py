"""MMEngine's runner on two CPU processes, its model in MMDistributedDataParallel."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from boxscore import Identity, distributed
from boxscore.callbacks.mmengine import BoxscoreHook
from boxscore.loggers import MemoryLogger
from tests.callbacks.test_mmengine import Maps, Segmentor, batches, runner
from tests.launched import heard
from tests.together import together

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Plain(Segmentor):
    """Without batch norm, whose statistics are those of a process."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1))


def trained(options: dict[str, Any]) -> dict[str, Any]:
    """A training of two epochs on eight maps, four to a step, and on a test set of five."""
    memory = MemoryLogger()
    hook = BoxscoreHook(
        dataset="maps", identity=Identity("Net", "16x16"), loggers=[memory], log_every=1,
        on_error="raise", pictures=False, **options,
    )  # fmt: skip
    alone = distributed.size() == 1
    train = batches(Maps(8)) | {"batch_size": 4 // distributed.size()}
    more: dict[str, Any] = {"train_dataloader": train}
    if not alone:
        wrapper = {"type": "MMDistributedDataParallel", "device_ids": None}
        more |= {"launcher": "pytorch", "cfg": {"model_wrapper_cfg": wrapper}}
    with tempfile.TemporaryDirectory() as folder:
        runner(Path(folder), Plain(), None, Maps(5, 100), hook, **more).train()
    return heard(memory, hook)


def trainings() -> list[dict[str, Any]]:
    """With evaluations by the runner, and by boxscore."""
    return [trained({}), trained({"evaluate_every": 2})]


def measured(told: dict[str, Any]) -> dict[str, float]:
    """All points but those of Dice, which is a mean over batches, and these are others."""
    return {name: value for name, value in told["points"].items() if "/dice." not in name}


def test_two_processes_measure_as_one() -> None:
    """Every image once, although the sampler repeats one to make the processes even."""
    for first, second, alone in zip(*together(2, trainings), trainings(), strict=True):
        assert measured(first) == pytest.approx(measured(alone), rel=1e-5)
        for name in ("loss Net 16x16/total.train@4", "loss Net 16x16/focal.test@4"):
            assert name in first["points"]
        assert first["points"]["progress/images_seen@4"] == 16
        assert first["tags"] == alone["tags"]
        assert first["latest"] == second["latest"]
        assert (first["status"], first["count"]) == ("FINISHED", alone["count"])
        assert (second["opened"], second["count"]) == (False, 0)
