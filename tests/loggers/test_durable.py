"""DurableLogger in front of loggers that fail, on full disks and in forked processes."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
import tracemalloc
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from boxscore.logger import Status
from boxscore.loggers import DurableLogger, MemoryLogger, Refused
from boxscore.records import File, Item, Point, RunStart, Tag
from tests.disks import full_disk

RUN = RunStart("0123456789abcdef" * 2, "RetinaNet 640x640", "bccd", "bccd/RetinaNet")
Waiter = Callable[[Callable[[], bool]], None]


class Unsteady(MemoryLogger):
    """A logger that fails when told to, and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.calls: list[int] = []
        self.refuse = ""
        self.gate = threading.Event()
        self.gate.set()

    def open(self, start: RunStart) -> None:
        self._fail()
        super().open(start)

    def log(self, items: Sequence[Item]) -> None:
        self._fail()
        self.calls.append(len(items))
        super().log([item for item in items if item.name != self.refuse])
        if refused := [item for item in items if item.name == self.refuse]:
            raise Refused(refused, "the name is bad")

    def close(self, status: Status = "FINISHED") -> None:
        self._fail()
        super().close(status)

    def _fail(self) -> None:
        self.gate.wait()
        if self.down:
            raise ConnectionError("nobody answers at http://ann:s3cret@host/")


def points(count: int, start: int = 0) -> list[Point]:
    return [
        Point("total", step / 7, step, time=1000.0 + step) for step in range(start, start + count)
    ]


def spools(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/calls.jsonl"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxscore.loggers.durable._GATHER", 0.01)
    monkeypatch.setattr("boxscore.loggers.durable._LONGEST_PAUSE", 0.05)


def test_all_that_was_recorded_arrives_and_the_spool_goes(tmp_path: Path) -> None:
    inner = MemoryLogger()
    logger = DurableLogger(inner, tmp_path / "spool")
    logger.open(RUN)
    for point in points(100):
        logger.log([point])
    logger.log([Tag("late", "fact")])
    logger.close("FAILED")
    assert inner.points == points(100)
    assert inner.tags == {"late": "fact"}
    assert (inner.start, inner.status) == (RUN, "FAILED")
    assert [*(tmp_path / "spool").iterdir()] == []


def test_many_calls_are_delivered_as_few(tmp_path: Path) -> None:
    inner = Unsteady()
    inner.gate.clear()
    logger = DurableLogger(inner, tmp_path)
    logger.open(RUN)
    for point in points(5000):
        logger.log([point])
    inner.gate.set()
    logger.close()
    assert inner.points == points(5000)
    assert inner.calls == [1000] * 5


def test_an_outage_loses_nothing_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wait_until: Waiter
) -> None:
    inner = Unsteady()
    inner.down = True
    logger = DurableLogger(inner, tmp_path)
    logger.open(RUN)
    logger.log(points(10))
    wait_until(lambda: bool(caplog.records))
    logger.log(points(10, 10))
    time.sleep(0.2)  # a few more tries
    inner.down = False
    logger.close()
    assert inner.points == points(20)
    (said,) = caplog.messages
    assert "nobody answers at http://host/" in said
    assert str(tmp_path) in said


def test_a_value_comes_through_to_the_last_bit(tmp_path: Path) -> None:
    values = (0.1 + 0.2, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan"))
    sent = [Point("näme", value, 2**40, "test-β", 1e9 + 1e-7, "loss A 1x1") for value in values]
    inner = MemoryLogger()
    logger = DurableLogger(inner, tmp_path)
    logger.open(RUN)
    logger.log(sent)
    logger.close()
    assert [repr(point) for point in inner.points] == [repr(point) for point in sent]


def test_files_are_copied_when_they_are_recorded(tmp_path: Path) -> None:
    seen: dict[str, str] = {}

    class Reader(Unsteady):
        def log(self, items: Sequence[Item]) -> None:
            super().log(items)
            seen.update({i.name: Path(i.path).read_text() for i in items if isinstance(i, File)})

    inner = Reader()
    inner.gate.clear()
    logger = DurableLogger(inner, tmp_path / "spool")
    logger.open(RUN)
    for version in ("first", "second"):
        (tmp_path / "f").write_text(version)
        logger.log([File(f"states/{version}.txt", str(tmp_path / "f"))])
    (tmp_path / "f").unlink()
    inner.gate.set()
    logger.close()
    assert seen == {"states/first.txt": "first", "states/second.txt": "second"}
    assert [*(tmp_path / "spool").iterdir()] == []


def test_an_outage_keeps_the_last_report_alone(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    class Reader(Unsteady):
        def log(self, items: Sequence[Item]) -> None:
            super().log(items)
            seen.extend((i.name, Path(i.path).read_text()) for i in items if isinstance(i, File))

    inner = Reader()
    inner.gate.clear()
    logger = DurableLogger(inner, tmp_path / "spool")
    logger.open(RUN)
    for step in range(5):
        for name in ("report.html", "curves/test.json"):
            (tmp_path / "f").write_text(f"{name} at {step}")
            logger.log([File(name, str(tmp_path / "f"), step), *points(1, step)])
    (spool,) = spools(tmp_path / "spool")
    copies = [copy for copy in (spool.parent / "files").iterdir() if copy.stat().st_size]
    assert sum(copy.name.endswith("report.html") for copy in copies) == 1
    inner.gate.set()
    logger.close()
    assert seen.count(("report.html", "report.html at 4")) == 1
    assert len(seen) == 1 + 5
    assert len(inner.points) == 5
    assert [*(tmp_path / "spool").iterdir()] == []


def test_what_is_refused_is_named_once_with_step_and_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wait_until: Waiter
) -> None:
    inner = Unsteady()
    inner.refuse = "b@d"
    (tmp_path / "f").write_text("content")
    logger = DurableLogger(inner, tmp_path / "spool")
    logger.open(RUN)
    logger.log([*points(5), Point("b@d", 1.5, 7), *points(5, 5)])
    wait_until(lambda: len(inner.points) == 10)
    logger.log([*points(5, 10), Point("b@d", 2.0, 8), Tag("b@d", "x"), File("b@d", "/f")])
    logger.close()
    assert inner.points == points(15)
    (said,) = caplog.messages
    assert "Unsteady rejected b@d at step 7 (1.5): the name is bad" in said
    assert [*(tmp_path / "spool").iterdir()] == []


def test_the_spool_is_its_owners_alone(tmp_path: Path) -> None:
    inner = Unsteady()
    inner.gate.clear()
    (tmp_path / "f").write_text("content")
    logger = DurableLogger(inner, tmp_path / "spool")
    old = os.umask(0)
    try:
        logger.open(RUN)
        logger.log([*points(1), File("f", str(tmp_path / "f"))])
    finally:
        os.umask(old)
    found = [tmp_path / "spool", *(tmp_path / "spool").rglob("*")]
    open_to_others = [path for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]
    inner.gate.set()
    logger.close()
    assert len(found) >= 5
    # a copy in files/ is hidden by the folders above it
    assert [path.parent.name for path in open_to_others] in ([], ["files"])


def test_closing_waits_no_longer_than_told_and_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inner = Unsteady()
    inner.gate.clear()
    logger = DurableLogger(inner, tmp_path / "my spool")
    logger.open(RUN)
    logger.log(points(3))
    start = time.monotonic()
    logger.close(patience=0.2)
    assert time.monotonic() - start < 2
    assert "3 items and the end of run 'RetinaNet 640x640'" in caplog.messages[-1]
    assert f"boxscore sync '{tmp_path / 'my spool'}'" in caplog.messages[-1]
    assert len(spools(tmp_path / "my spool")) == 1
    inner.gate.set()


def test_a_resumed_run_delivers_first_what_was_left(tmp_path: Path, wait_until: Waiter) -> None:
    inner = Unsteady()
    inner.down = True
    logger = DurableLogger(inner, tmp_path)
    logger.open(RUN)
    logger.log(points(10))
    logger.close("KILLED", patience=0)
    (left,) = spools(tmp_path)
    wait_until(lambda: not _locked(left))
    inner.down = False
    logger.open(RUN)
    logger.log(points(10, 10))
    logger.close()
    assert inner.points == points(20)
    assert inner.status == "FINISHED"
    assert spools(tmp_path) == []


def _locked(path: Path) -> bool:
    import fcntl

    with path.open() as lines:
        try:
            fcntl.flock(lines, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_another_runs_spool_is_left_alone(tmp_path: Path, wait_until: Waiter) -> None:
    other = Unsteady()
    other.down = True
    logger = DurableLogger(other, tmp_path)
    logger.open(RUN)
    logger.close(patience=0)
    (left,) = spools(tmp_path)
    wait_until(lambda: not _locked(left))
    inner = MemoryLogger()
    logger = DurableLogger(inner, tmp_path)
    logger.open(RunStart("f" * 32, "another", "bccd", "bccd"))
    logger.close()
    assert spools(tmp_path) == [left]


def test_two_runs_may_share_a_folder(tmp_path: Path) -> None:
    inners = [MemoryLogger(), MemoryLogger()]
    loggers = [DurableLogger(inner, tmp_path) for inner in inners]
    for number, logger in enumerate(loggers):
        logger.open(RunStart(f"{number}" * 32, "name", "bccd", "bccd"))
    for point in points(50):
        for logger in loggers:
            logger.log([point])
    for logger in loggers:
        logger.close()
    assert [inner.points for inner in inners] == [points(50)] * 2


def test_a_full_disk_loses_what_it_does_not_take_and_no_more(tmp_path: Path) -> None:
    inner = Unsteady()
    inner.gate.clear()
    logger = DurableLogger(inner, tmp_path)
    logger.open(RUN)
    logger.log(points(10))
    with full_disk(spools(tmp_path)[0].stat().st_size + 100):
        for point in points(3, 10):
            with suppress(OSError):
                logger.log([point])
        with pytest.raises(OSError, match="space"):
            logger.log(points(5, 20))
    assert spools(tmp_path)[0].read_bytes().endswith(b"\n")  # nothing half written
    logger.log(points(10, 25))
    inner.gate.set()
    logger.close()
    arrived = [point.step for point in inner.points]
    assert (arrived[:11], arrived[-10:]) == ([*range(11)], [*range(25, 35)])
    assert not {20, 21, 22, 23, 24} & {*arrived}


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file is in the way")
    with pytest.raises(OSError, match="spool"):
        DurableLogger(MemoryLogger(), tmp_path / "spool").open(RUN)


@pytest.mark.slow
def test_two_hundred_thousand_points_stay_out_of_memory(tmp_path: Path) -> None:
    """Recorded in one go while the tracker hangs: they wait on the disk, and all arrive."""
    arrived: list[int] = []

    class Counter(Unsteady):
        def log(self, items: Sequence[Item]) -> None:
            self.gate.wait()
            arrived.extend(item.step for item in items if isinstance(item, Point))

    inner = Counter()
    inner.gate.clear()
    logger = DurableLogger(inner, tmp_path, patience=60)
    logger.open(RUN)
    tracemalloc.start()
    for step in range(0, 200_000, 100):
        logger.log([Point("total", 0.5, step + further) for further in range(100)])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20
    inner.gate.set()
    logger.close()
    assert arrived == [*range(200_000)]


def test_what_was_delivered_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Waiter
) -> None:
    monkeypatch.setattr("boxscore.loggers.durable._COMPACT", 1000)
    inner = MemoryLogger()
    logger = DurableLogger(inner, tmp_path)
    logger.open(RUN)
    (spool,) = spools(tmp_path)
    start = spool.stat().st_size
    for part in range(3):
        logger.log(points(100, 100 * part))
        wait_until(lambda: spool.stat().st_size == start)
    logger.close()
    assert inner.points == points(300)


def test_a_forked_worker_neither_delivers_nor_records(tmp_path: Path) -> None:
    inner = Unsteady()
    inner.gate.clear()
    logger = DurableLogger(inner, tmp_path)
    logger.open(RUN)
    logger.log(points(5))
    child = os.fork()
    if child == 0:
        logger.log(points(5, 100))
        logger.close("FAILED")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    logger.log(points(5, 5))
    inner.gate.set()
    logger.close()
    assert (inner.points, inner.status) == (points(10), "FINISHED")


def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    inner = Unsteady()
    logger = DurableLogger(inner, tmp_path)
    logger.open(RUN)
    inner.down = True
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the parent lets go
        os._exit(0)
    os.close(read)
    (spool,) = spools(tmp_path)
    assert _locked(spool)
    logger.close(patience=0)
    end = time.monotonic() + 10
    while _locked(spool) and time.monotonic() < end:
        time.sleep(0.01)
    held = _locked(spool)
    os.close(write)
    os.waitpid(child, 0)
    assert not held


def test_it_says_nothing_while_all_is_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "boxscore")
    logger = DurableLogger(MemoryLogger(), tmp_path)
    logger.open(RUN)
    logger.log(points(3))
    logger.close()
    assert caplog.messages == []


def test_recording_starts_no_more_than_one_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    logger = DurableLogger(MemoryLogger(), tmp_path)
    assert threading.active_count() == before
    logger.open(RUN)
    logger.open(RUN)
    logger.log(points(1))
    assert threading.active_count() == before + 1
    logger.close()
    assert threading.active_count() == before


def test_settings_that_cannot_work_are_told_at_once(tmp_path: Path) -> None:
    class Misplaced(MemoryLogger):
        def place(self) -> dict[str, Any]:
            raise ValueError("no such place")

    with pytest.raises(ValueError, match="no such place"):
        DurableLogger(Misplaced(), tmp_path).open(RUN)


def test_a_forked_worker_closes_no_file_but_its_own(tmp_path: Path) -> None:
    """A logger that was closed long ago holds numbers that are other files' by now."""
    logger = DurableLogger(MemoryLogger(), tmp_path)
    logger.open(RunStart(uuid.uuid4().hex, "run", "shelf", "folder"))
    delivery = logger._delivery  # kept alive, as a reference cycle would
    logger.close()
    assert delivery is not None
    files = [os.open(tmp_path, os.O_RDONLY) for _ in range(8)]
    child = os.fork()
    if child == 0:
        try:
            for file in files:
                os.fstat(file)
            os._exit(0)
        except OSError:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for file in files:
        os.close(file)


def test_a_first_open_that_takes_long_does_not_use_up_the_patience(tmp_path: Path) -> None:
    """As of a new SQLite store, which MLflow creates in seconds: short trainings deliver too."""

    class Slow(MemoryLogger):
        def open(self, start: RunStart) -> None:
            time.sleep(0.5)
            super().open(start)

    inner = Slow()
    logger = DurableLogger(inner, tmp_path, patience=0.2)
    logger.open(RUN)
    logger.log(points(3))
    logger.close()
    assert (inner.points, inner.status) == (points(3), "FINISHED")


def test_an_error_that_is_no_outage_is_not_called_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Deleted(MemoryLogger):
        def open(self, _: RunStart) -> None:
            raise ValueError("the experiment 'bccd' was deleted")

    logger = DurableLogger(Deleted(), tmp_path)
    logger.open(RUN)
    logger.close(patience=0.2)
    assert "Deleted failed (the experiment 'bccd' was deleted)" in caplog.messages[0]
    assert "cannot be reached" not in caplog.text


def test_the_end_of_a_run_reaches_the_tracker_on_a_full_disk(tmp_path: Path) -> None:
    inner = Unsteady()
    logger = DurableLogger(inner, tmp_path)
    logger.open(RUN)
    logger.log(points(10))
    with full_disk(spools(tmp_path)[0].stat().st_size):
        logger.close("FAILED")
    assert (inner.points, inner.status) == (points(10), "FAILED")
    assert spools(tmp_path) == []
