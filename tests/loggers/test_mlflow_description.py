"""A run's description: what was trained, its figures, what it may be compared with."""

from __future__ import annotations

import math

import pytest

from boxscore.loggers.mlflow_description import Description, is_ours
from boxscore.records import Point, RunStart

START = RunStart(
    id="0" * 32,
    name="RetinaNet 640x640 ResNet-50",
    experiment="bccd",
    folder="bccd/RetinaNet/640x640/ResNet-50-00000000",
    tags={
        "boxscore.group": "RetinaNet 640x640",
        "boxscore.dataset": "bccd",
        "boxscore.task": "detection",
    },
)


def test_figures_and_what_they_compare_with() -> None:
    description = Description(START)
    assert "| last |" not in description.markdown()
    assert description.follow(
        [
            Point("box_AP", 0.25, 500, "test", scope="metric bccd-test 7f3a2c"),
            Point("summary/box_AP", 0.25, 500, ""),
            Point("summary/best_box_AP", 0.25, 500, ""),
            Point("summary/best_box_AP_step", 500.0, 500, ""),
        ]
    )
    assert not description.follow([Point("total", 1.0, 550, scope="loss RetinaNet 640x640")])
    assert description.follow([Point("summary/box_AP", 0.2, 1000, "")])
    assert description.follow([Point("summary/box_AR1", math.nan, 1000, "")])
    assert description.markdown().splitlines() == [
        "**boxscore**: RetinaNet 640x640 ResNet-50, detection on bccd",
        "",
        "| main test set | last | step | best | step |",
        "|---|--:|--:|--:|--:|",
        "| box_AP | 0.2 | 1000 | 0.25 | 500 |",
        "| box_AR1 | - | - | - | - |",
        "",
        "Losses compare with runs of **RetinaNet 640x640** only.",
        "Metrics compare with runs evaluated on **bccd-test 7f3a2c**.",
    ]


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "[x](http://y)", "a|b\nc", "**b**"])
def test_a_users_text_is_no_markup(text: str) -> None:
    tags = {**START.tags, "boxscore.dataset": text}
    first = Description(RunStart("0" * 32, "name", "e", "f", tags=tags)).markdown().splitlines()[0]
    end = first.removeprefix("**boxscore**: name, detection on ")
    for mark in "<>[]()|*":
        assert end.count(mark) == end.count("\\" + mark)


def test_a_users_description_is_theirs() -> None:
    assert is_ours("")
    assert is_ours(Description(START).markdown())
    assert not is_ours("notes of a person about **boxscore**: a run")
