"""What the tab's routes answer about evaluations, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary

from boxscore import Identity
from boxscore.loggers import TensorBoardLogger
from boxscore.loggers.event_files import EventFile, record
from boxscore.records import RunStart
from tests.dashboard.folders import detection, picture
from tests.dashboard.test_routes import HOSTILE, Tab

FCOS, RETINANET = (Identity(name, "640x640", "ResNet-18") for name in ("FCOS", "RetinaNet"))
SET = "pictures bccd-test 7f3a2c"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Tab:
    folder = tmp_path_factory.mktemp("logs") / "runs"
    for identity, steps in ((FCOS, 10), (RETINANET, 20)):
        detection(folder, identity, steps=steps, images=["10", "9", "worst 1"])
    return Tab(folder)


def test_the_overview_lists_images_and_reads_none(tab: Tab) -> None:
    found = tab.get("overview")
    (one,) = found["evaluations"]
    assert one["set"] == found["sets"][0]["set"]
    assert one["images"] == ["9", "10", "worst 1"]
    assert set(one["runs"]) == {run["id"] for run in found["runs"]}


def test_steps_are_those_of_all_runs(tab: Tab) -> None:
    overview = tab.get("overview")
    (one,) = overview["evaluations"]
    fcos, retinanet = (run["id"] for run in overview["runs"])
    found = tab.get("evaluations", set=one["set"])
    assert found["steps"] == [5, 10, 15, 20]
    assert found["images"]["9"] == {fcos: [5, 10], retinanet: [5, 10, 15, 20]}


def test_a_picture_is_that_of_run_image_and_step(tab: Tab) -> None:
    overview = tab.get("overview")
    (one,) = overview["evaluations"]
    for run in overview["runs"]:
        answer = tab.answer("picture", run=run["id"], set=one["set"], image="9", step=10)
        assert (answer.status_code, answer.mimetype) == (200, "image/webp")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert Image.open(BytesIO(answer.data)).size == (10, 30)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"run": "00000000"}, 404),
        ({"run": "../../etc"}, 404),
        ({"set": "bccd-test 000000"}, 404),
        ({"set": "../../etc"}, 404),
        ({"image": "11"}, 404),
        ({"image": "/etc/passwd"}, 404),
        ({"step": "7"}, 404),
        ({"step": "x"}, 400),
        ({"step": "9" * 5000}, 400),
        ({"step": ""}, 400),
    ],
)
def test_an_unknown_picture_is_refused(tab: Tab, change: Mapping[str, Any], status: int) -> None:
    overview = tab.get("overview")
    query = {"run": overview["runs"][0]["id"], "set": overview["sets"][0]["set"]}
    query |= {"image": "9", "step": "10"}
    assert tab.answer("picture", **query).status_code == 200
    assert tab.ask("picture", **{**query, **change})[0] == status
    assert tab.ask("evaluations", set="bccd-test 000000")[0] == 404


def test_only_pictures_are_served(tmp_path: Path) -> None:
    """Another writer may put any bytes under the same name."""
    detection(tmp_path, FCOS, steps=5)
    (one,) = Tab(tmp_path).get("overview")["sets"]
    (split,) = tmp_path.glob("*/*/*/*/test")
    page = Summary.Image(width=5, height=5, encoded_image_string=b"<script>alert(1)</script>")
    value = Summary.Value(tag=f"pictures {one['set']}/1", image=page)
    file = EventFile(split)
    file.append(record(Event(step=5, wall_time=1.0, summary=Summary(value=[value]))))
    file.close()
    tab = Tab(tmp_path)
    overview = tab.get("overview")
    query = {"run": overview["runs"][0]["id"], "set": one["set"], "image": "1", "step": 5}
    assert overview["evaluations"][0]["images"] == ["1"]
    status, text = tab.ask("picture", **query)
    assert status == 404
    assert "script" not in text


def test_names_of_images_are_text(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    detection(folder, FCOS, dataset=HOSTILE[0], steps=5, images=HOSTILE)
    tab = Tab(folder)
    overview = tab.get("overview")
    (one,) = overview["evaluations"]
    assert len(one["images"]) == len(HOSTILE)
    run = overview["runs"][0]["id"]
    for image in one["images"]:
        answer = tab.answer("picture", run=run, set=one["set"], image=image, step=5)
        assert answer.mimetype == "image/webp"


def test_other_images_are_left_to_the_other_tabs(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path / "runs")
    tags = {"boxscore.group": "FCOS 640x640"}
    logger.open(RunStart("0" * 32, "a", "bccd", "bccd/FCOS/640x640/a-00000000", tags))
    one = picture(tmp_path / "drawn", SET, "1", 5)
    logger.log([replace(one, name="input/first.webp")])
    logger.close()
    tab = Tab(tmp_path / "runs")
    overview = tab.get("overview")
    assert overview["evaluations"] == []
    run = overview["runs"][0]["id"]
    query = {"run": run, "set": "bccd-test 7f3a2c", "image": "first", "step": 5}
    assert tab.ask("picture", **query)[0] == 404
