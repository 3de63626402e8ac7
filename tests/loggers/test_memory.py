"""MemoryLogger: everything in attributes."""

from __future__ import annotations

from dataclasses import replace

from boxscore.loggers import MemoryLogger
from boxscore.records import File, Point, RunStart, Tag

RUN = RunStart("a" * 32, "name", "bccd", "folder", tags={"early": "1"})


def test_every_call_is_in_attributes() -> None:
    point, file = Point("total", 0.5, 1), File("curve.png", "/nowhere/curve.png")
    memory = MemoryLogger()
    memory.open(RUN)
    memory.log([point, Tag("late", "2"), file])
    memory.close("KILLED")
    assert memory.start == RUN
    assert memory.points == [point]
    assert memory.tags == {"early": "1", "late": "2"}
    assert memory.files == {"curve.png": file}
    assert memory.status == "KILLED"
    memory.open(RUN)
    assert memory.status is None


def test_points_keep_their_order() -> None:
    points = [Point("total", float(step), step) for step in (3, 1, 2)]
    memory = MemoryLogger()
    memory.log(points)
    assert memory.points == points


def test_two_values_at_one_step_are_two_points() -> None:
    memory = MemoryLogger()
    memory.log([Point("total", 1.0, 1, time=1.0), Point("total", 2.0, 1, time=1.0)])
    assert [point.value for point in memory.points] == [1.0, 2.0]


def test_a_resumed_run_repeats_no_step_of_any_series() -> None:
    memory = MemoryLogger()
    memory.open(RUN)
    memory.log([Point("total", 1.0, step, split) for step in (3, 1) for split in ("train", "test")])
    memory.open(replace(RUN, resumed=True))
    again = [Point(name, 2.0, step) for step in (1, 3, 5) for name in ("total", "other")]
    memory.log(again)
    later = [(point.name, point.step) for point in memory.points if point.value == 2.0]
    assert later == [("other", 1), ("other", 3), ("total", 5), ("other", 5)]
