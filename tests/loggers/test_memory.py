"""MemoryLogger: everything in attributes."""

from __future__ import annotations

from boxscore.loggers import MemoryLogger
from boxscore.records import File, Point, RunStart, Tag


def test_everything_it_was_told_is_in_attributes() -> None:
    start = RunStart("a" * 32, "name", "shelf", "folder", tags={"early": "1"})
    point, file = Point("total", 0.5, 1), File("curve.png", "/nowhere/curve.png")
    memory = MemoryLogger()
    memory.open(start)
    memory.log([point, Tag("late", "2"), file])
    memory.close("KILLED")
    assert memory.start == start
    assert memory.points == [point]
    assert memory.tags == {"early": "1", "late": "2"}
    assert memory.files == {"curve.png": file}
    assert memory.status == "KILLED"


def test_points_keep_their_order() -> None:
    points = [Point("total", float(step), step) for step in (3, 1, 2)]
    memory = MemoryLogger()
    memory.log(points)
    assert memory.points == points


def test_two_values_at_one_step_are_two_points() -> None:
    memory = MemoryLogger()
    memory.log([Point("total", 1.0, 1, time=1.0), Point("total", 2.0, 1, time=1.0)])
    assert [point.value for point in memory.points] == [1.0, 2.0]


def test_reopening_ends_the_end() -> None:
    memory = MemoryLogger()
    start = RunStart("a" * 32, "name", "shelf", "folder")
    memory.open(start)
    memory.close("FAILED")
    memory.open(start)
    assert memory.status is None


def test_it_tells_the_last_step_of_each_series() -> None:
    memory = MemoryLogger()
    assert memory.recorded() == {}
    memory.log([Point("total", 1.0, step, split) for step in (3, 1) for split in ("train", "test")])
    memory.log([Point("total", 1.0, 7, "test", scope="loss A 1x1"), Tag("late", "2")])
    assert memory.recorded() == {"total": 3, "loss A 1x1/total.test": 7}
