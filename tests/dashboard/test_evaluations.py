"""What the tab's routes answer about evaluations, step by step."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.util.tensor_util import make_tensor_proto

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
    assert one["curves"]
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


def test_curves_are_those_of_the_last_evaluation_up_to_a_step(tab: Tab) -> None:
    overview = tab.get("overview")
    (one,) = overview["evaluations"]
    fcos, retinanet = (run["id"] for run in overview["runs"])
    found = tab.get("precision", set=one["set"], step=17)
    assert found["classes"] == ["", "RBC", "WBC", "Platelets"]
    assert {curve["run"]: curve["step"] for curve in found["curves"]} == {fcos: 10, retinanet: 15}
    for curve in found["curves"]:
        assert curve["note"].startswith("box at IoU 0.5")
        assert len(curve["recall"]) == len(curve["precision"]) == 101
    query = {"set": one["set"], "step": 20, "class": "RBC", "run": retinanet}
    (curve,) = tab.get("precision", **query)["curves"]
    assert (curve["run"], curve["precision"][0]) == (retinanet, 1.0)
    assert tab.get("precision", **{**query, "class": "no such"})["curves"] == []
    assert tab.get("precision", **{**query, "step": 4})["curves"] == []


def test_the_confusion_matrix_is_that_of_a_run_and_a_step(tab: Tab) -> None:
    overview = tab.get("overview")
    query = {"set": overview["sets"][0]["set"], "run": overview["runs"][0]["id"]}
    found = tab.get("confusion", **query, step=12)
    assert found["step"] == 10
    assert found["names"] == ["RBC", "WBC", "Platelets", "background"]
    assert [sum(row) for row in found["confusion"][:3]] == [1, 1, 1]
    assert tab.ask("confusion", **query, step=4)[0] == 404
    assert tab.ask("confusion", **{**query, "run": "00000000"}, step=10)[0] == 404
    assert tab.ask("confusion", set=query["set"], step=10)[0] == 400


def test_tables_of_others_are_left_out(tmp_path: Path) -> None:
    detection(tmp_path, FCOS, steps=5)
    (one,) = Tab(tmp_path).get("overview")["sets"]
    (split,) = tmp_path.glob("*/*/*/*/test")
    file = EventFile(split)
    for step, content in enumerate((b"", b"text", zlib.compress(b"[]"), zlib.compress(b"{}")), 6):
        tensor = make_tensor_proto(content)
        value = Summary.Value(tag=f"curves {one['set']}/all", tensor=tensor)
        file.append(record(Event(step=step, wall_time=1.0, summary=Summary(value=[value]))))
    file.close()
    tab = Tab(tmp_path)
    for step in (6, 7, 8, 9):
        assert tab.get("precision", set=one["set"], step=step)["curves"] == []
    assert len(tab.get("precision", set=one["set"], step=5)["curves"]) == 1


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
