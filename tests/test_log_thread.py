"""LogThread: disk and network off the training thread, whatever the loggers do."""

from __future__ import annotations

import copy
import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from boxscore.log_thread import LogThread
from boxscore.logger import Refused, Status, Warnings
from boxscore.loggers import DurableLogger, MemoryLogger, TensorBoardLogger
from boxscore.loggers.event_files import events
from boxscore.loggers.spool import Spool
from boxscore.records import File, Item, Point, RunStart

RUN = RunStart("0123456789abcdef" * 2, "RetinaNet 640x640", "bccd", "bccd/RetinaNet")


def points(first: int, last: int) -> list[Point]:
    return [Point("total", step / 7, step) for step in range(first, last + 1)]


class Slow(MemoryLogger):
    """A logger on disk or network; it waits for ``gate`` and raises ``error``."""

    in_memory = False

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.gate, self.error = threading.Event(), error
        self.gate.set()
        self.calls: list[tuple[str, str]] = []

    def _call(self, verb: str) -> None:
        self.calls.append((verb, threading.current_thread().name))
        self.gate.wait()
        if self.error:
            raise self.error

    def prepare(self) -> None:
        self.calls.append(("prepare", threading.current_thread().name))

    def open(self, start: RunStart) -> None:
        self._call("open")
        super().open(start)

    def log(self, items: Sequence[Item]) -> None:
        self._call("log")
        super().log(items)

    def close(self, status: Status = "FINISHED") -> None:
        self.gate.wait()
        super().close(status)


class Failing(Slow):
    """It opens, and then fails."""

    def open(self, start: RunStart) -> None:
        MemoryLogger.open(self, start)


def test_every_logger_gets_every_item_and_the_end() -> None:
    direct, queued = MemoryLogger(), Slow()
    thread = LogThread([queued, direct], Warnings())
    thread.open(RUN)
    assert direct.start == RUN
    for point in points(1, 3000):
        thread.log([point])
        assert direct.points[-1] == point  # at once
    thread.close("FAILED")
    assert len(direct.points) == 3000
    assert (queued.start, queued.points) == (RUN, direct.points)
    assert (direct.status, queued.status) == ("FAILED", "FAILED")


def test_only_preparation_is_on_the_calling_thread() -> None:
    logger = Slow()
    thread = LogThread([logger], Warnings())
    thread.open(RUN)
    thread.log(points(1, 1))
    thread.close()
    here = threading.current_thread().name
    assert logger.calls[0] == ("prepare", here)
    assert {name for verb, name in logger.calls if verb != "prepare"} == {"boxscore-log"}


def test_a_logger_that_hangs_costs_the_caller_microseconds() -> None:
    logger = Slow()
    logger.gate.clear()
    thread = LogThread([logger], Warnings())
    thread.open(RUN)
    costs = []
    for point in points(1, 1000):
        start = time.thread_time()
        thread.log([point])
        costs.append(time.thread_time() - start)
    logger.gate.set()
    thread.close()
    assert len(logger.points) == 1000
    assert sorted(costs)[500] < 1e-4


def test_a_full_queue_loses_the_newest_and_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    logger = Slow()
    logger.gate.clear()
    warnings = Warnings()
    thread = LogThread([logger], warnings)
    thread.most = 100
    thread.open(RUN)
    for point in points(1, 150):
        thread.log([point])
    logger.gate.set()
    thread.close()
    assert [point.step for point in logger.points] == [*range(1, 101)]
    assert sum("full" in text for text in caplog.messages) == 1
    assert [*warnings.counts.values()] == [50]


def test_closing_has_bounded_patience(caplog: pytest.LogCaptureFixture) -> None:
    stuck, direct = Slow(), MemoryLogger()
    stuck.gate.clear()
    thread = LogThread([stuck, direct], Warnings())
    thread.patience = 0.1
    thread.open(RUN)
    thread.log(points(1, 7))
    start = time.monotonic()
    thread.close()
    assert time.monotonic() - start < 2
    assert direct.status == "FINISHED"
    assert "7 items were not written and are lost" in caplog.text
    stuck.gate.set()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (Refused(points(3, 3), "bad name"), "rejected total at step 3 (0.42857142857142855)"),
    ],
)
def test_what_a_logger_does_not_take_is_told_once_and_costs_no_other(
    error: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing, well = Failing(error), Slow()
    thread = LogThread([failing, well], Warnings())
    thread.open(RUN)
    thread.log(points(1, 3))
    wait(lambda: len(well.points) == 3)
    thread.log(points(4, 6))
    wait(lambda: len(well.points) == 6)
    failing.error = None  # there is room again
    thread.log(points(7, 9))
    thread.close()
    assert [point.step for point in well.points] == [*range(1, 10)]
    assert [point.step for point in failing.points] == [7, 8, 9]
    (said,) = caplog.messages
    assert words in said


def wait(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.005)


def test_a_logger_that_cannot_open_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    closed, well = Slow(PermissionError("runs: read-only")), Slow()
    thread = LogThread([closed, well], Warnings())
    thread.open(RUN)
    thread.log(points(1, 3))
    thread.close()
    assert closed.points == []
    assert len(well.points) == 3
    (said,) = caplog.messages
    assert "Slow is left out: PermissionError: runs: read-only" in said


@pytest.mark.parametrize("verb", ["log", "close"])
def test_with_on_error_raise_the_next_call_raises(verb: str) -> None:
    logger = Failing(OSError("disk full"))
    thread = LogThread([logger], Warnings("raise"))
    thread.open(RUN)
    thread.log(points(1, 1))
    wait(lambda: bool(logger.calls[1:]))
    time.sleep(0.05)
    with pytest.raises(OSError, match="disk full"):
        thread.log(points(2, 2)) if verb == "log" else thread.close()
    logger.error = None
    thread.close()
    assert logger.status == "FINISHED"


def test_it_pickles_and_copies_before_it_opens(tmp_path: Path) -> None:
    durable = DurableLogger(MemoryLogger(), "spool")
    thread = LogThread([MemoryLogger(), TensorBoardLogger(tmp_path), durable], Warnings())
    for again in (pickle.loads(pickle.dumps(thread)), copy.deepcopy(thread)):
        assert isinstance(again, LogThread)
    assert [one.name for one in threading.enumerate() if "boxscore-log" in one.name] == []


def test_without_a_slow_logger_there_is_no_thread() -> None:
    before = threading.active_count()
    thread = LogThread([MemoryLogger()], Warnings())
    thread.open(RUN)
    thread.log(points(1, 1))
    assert threading.active_count() == before
    thread.close()


def test_a_forked_worker_neither_logs_nor_closes() -> None:
    logger = Slow()
    logger.gate.clear()
    thread = LogThread([logger], Warnings())
    thread.open(RUN)
    thread.log(points(1, 5))
    child = os.fork()
    if child == 0:
        thread.log(points(100, 105))
        thread.close("FAILED")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    logger.gate.set()
    thread.close()
    assert ([p.step for p in logger.points], logger.status) == ([1, 2, 3, 4, 5], "FINISHED")


def test_a_file_may_go_once_it_was_logged(tmp_path: Path) -> None:
    seen: list[str] = []

    class Reader(Slow):
        def log(self, items: Sequence[Item]) -> None:
            seen.extend(Path(item.path).read_text() for item in items if isinstance(item, File))

    thread = LogThread([Reader()], Warnings())
    thread.open(RUN)
    for version in ("first", "second"):
        (tmp_path / "f").write_text(version)
        thread.log([File("f", str(tmp_path / "f"))])
        (tmp_path / "f").unlink()
    thread.close()
    assert seen == ["first", "second"]


class Away(MemoryLogger):
    """A tracker that is never there: all stays in the spool."""

    def open(self, _: RunStart) -> None:
        raise ConnectionError("away")


def recording(folder: Path, witness: int) -> None:
    """In a forked child: log for ever, and report each step and its time."""
    durable = DurableLogger(Away(), folder / "spool")
    thread = LogThread([TensorBoardLogger(folder / "log"), durable], Warnings())
    thread.open(RUN)
    step = 0
    while True:
        step += 1
        thread.log([Point("total", 0.5, step)])
        os.write(witness, b"%d %f\n" % (step, time.monotonic()))
        time.sleep(0.001)


def test_sigkill_costs_the_last_tenth_of_a_second_at_most(tmp_path: Path) -> None:
    """Of eight kills two may cost more, as the machine is shared; what arrives has no gap."""
    moments = random.Random(7)
    windows = []
    for number in range(8):
        folder = tmp_path / str(number)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                recording(folder, write)
            finally:
                os._exit(1)
        os.close(write)
        seen = os.read(read, 1)
        time.sleep(moments.uniform(0.3, 0.8))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(read, 1 << 16):
            seen += more
        os.close(read)
        logged = [float(line.split()[1]) for line in seen.decode().splitlines()]
        for arrived in (drawn(folder / "log"), kept(folder / "spool")):
            assert arrived == [*range(1, len(arrived) + 1)]
            lost = logged[len(arrived) :]
            windows.append(logged[-1] - lost[0] if lost else 0.0)
    assert sorted(windows)[11] < 0.1, windows
    assert max(windows) < 1, windows


def drawn(folder: Path) -> list[int]:
    """The steps in the event files."""
    (file,) = folder.rglob("events*")
    return [e.step for e in events(file) for value in e.summary.value if value.tag == "total"]


def kept(folder: Path) -> list[int]:
    """The steps in the spool."""
    (spool,) = Spool.within(folder)
    steps: list[int] = []
    while (batch := spool.next()).size:
        steps += [item.step for item in batch.items if isinstance(item, Point)]
        spool.delivered(batch)
    spool.release()
    return steps
