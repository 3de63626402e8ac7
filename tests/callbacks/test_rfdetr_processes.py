"""RF-DETR on two CPU processes."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rfdetr")
from boxscore.callbacks.rfdetr import BoxscoreCallback
from boxscore.loggers import MemoryLogger
from tests.callbacks.test_rfdetr import Planted
from tests.launched import gone_through, heard
from tests.tiny_rfdetr import configs, made, shrink, write_data

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

OPTIONS: dict[str, dict[str, Any]] = {"follows": {}, "often": {"evaluate_every": 2}}


def told(folder: Path, data: Path, **options: Any) -> Any:
    """What a training logged with predictions that do not depend on the weights."""
    memory = MemoryLogger()
    score = BoxscoreCallback(loggers=[memory], log_every=1, on_error="raise", **options)
    several: dict[str, Any] = (
        {"devices": 2, "strategy": "ddp"} if "LOCAL_RANK" in os.environ else {}
    )
    trainer, module, images = made(
        *configs(data, output_dir=str(folder), epochs=1, **several), score
    )
    module.postprocess = Planted(module, data)
    trainer.fit(module, images)
    return heard(memory, score)


def cases(size: int) -> dict[str, Callable[[Path], Any]]:
    shrink(pytest.MonkeyPatch())
    return {name: functools.partial(one, options=given) for name, given in OPTIONS.items()}


def one(folder: Path, options: dict[str, Any]) -> Any:
    return told(folder, folder.parent / "shapes", **options)


def test_two_processes_measure_as_one(tmp_path: Path) -> None:
    """Five test images, of which two processes get three each; and the train set."""
    data = write_data(tmp_path / "shapes")
    first, second = gone_through(2, cases, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        for name, options in OPTIONS.items():
            alone, both = told(tmp_path / f"{name} alone", data, **options), first[name]
            assert both["status"] == "FINISHED"
            assert second[name]["status"] is None
            figures = {k: v for k, v in alone["points"].items() if k.startswith("metric")}
            assert figures.items() <= both["points"].items()
            assert {k.partition("@")[2] for k in figures} == (
                {"5"} if not options else {"2", "4", "5"}
            )
            for tag in ("fingerprint.test", "fingerprint.train"):
                assert both["tags"][f"boxscore.{tag}"] == alone["tags"][f"boxscore.{tag}"]
            assert both["points"]["progress/images_seen@5"] == 40
