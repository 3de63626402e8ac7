"""A resumed training shows one curve: over spools, outages, crashes and other machines."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from boxscore.logger import Warnings
from boxscore.loggers import DurableLogger, MemoryLogger, MLflowLogger, sync
from boxscore.loggers.durable import deliver
from boxscore.loggers.spool import Spool, folder_lock
from boxscore.records import Item, Point, RunStart

# MLflow's SQL store uses what SQLAlchemy is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``")

Waiter = Callable[[Callable[[], bool]], None]
RUN = RunStart("0123456789abcdef" * 2, "RetinaNet 640x640", "bccd", "bccd/RetinaNet")
AGAIN = replace(RUN, resumed=True)


def points(first: int, last: int, name: str = "total") -> list[Point]:
    return [Point(name, step / 7, step) for step in range(first, last + 1)]


class Tracker(MemoryLogger):
    """A tracker that several loggers write to, and that may be away."""

    down = False

    def open(self, start: RunStart) -> None:
        if self.down:
            raise ConnectionError("away")
        super().open(start)

    def steps(self, name: str = "total") -> list[int]:
        return [point.step for point in self.points if point.name == name]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxscore.loggers.durable._GATHER", 0.01)
    monkeypatch.setattr("boxscore.loggers.durable._LONGEST_PAUSE", 0.05)


@pytest.fixture
def train(tmp_path: Path, wait_until: Waiter) -> Callable[..., None]:
    """One process's share of a training, in one folder; away is a tracker that is down."""

    def one_process(tracker: Tracker, items: Sequence[Item], start: RunStart = AGAIN) -> None:
        logger = DurableLogger(tracker, tmp_path)
        logger.open(start)
        logger.log(items)
        logger.close(patience=0 if tracker.down else 15)
        wait_until(lambda: all(_is_free(spool) for spool in tmp_path.iterdir()))

    return one_process


def _is_free(folder: Path) -> bool:
    spool = Spool(folder)
    try:
        return spool.lock()
    finally:
        spool.release()


def left_spool(folder: Path, start: RunStart, items: Sequence[Item], logger: object) -> Spool:
    """A spool as a killed process leaves it."""
    place = logger.place() if isinstance(logger, MLflowLogger) else None
    spool = Spool.create(folder, start, place)
    spool.record(items)
    spool.release()
    lines = (spool.folder / "calls.jsonl").read_bytes()
    gone = lines.replace(b'"pid":%d' % os.getpid(), b'"pid":%d' % 2**22, 1)
    (spool.folder / "calls.jsonl").write_bytes(gone)
    return spool


def history(uri: str, run: RunStart) -> tuple[str, list[int]]:
    """Status, and the sorted steps of the one MLflow run of ``run``."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("bccd")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`boxscore.run` = '{run.id}'")
    metrics = client.get_metric_history(found.info.run_id, "total")
    return found.info.status, sorted(metric.step for metric in metrics)


def test_delivered_then_an_outage_then_resumed_again(
    train: Callable[..., None], tmp_path: Path
) -> None:
    tracker = Tracker()
    train(tracker, [*points(1, 100), *points(1, 50, "classification")], RUN)
    tracker.down = True
    train(tracker, points(71, 130))
    assert tracker.points[-1].step == 50
    tracker.down = False
    train(tracker, points(101, 160))
    assert tracker.steps() == [*range(1, 161)]
    assert tracker.steps("classification") == [*range(1, 51)]
    assert [*tmp_path.iterdir()] == []  # nothing is remembered in files


def test_a_tracker_that_was_never_reached_before(train: Callable[..., None]) -> None:
    tracker = Tracker()
    tracker.down = True
    train(tracker, points(1, 100), RUN)
    train(tracker, points(71, 130))
    tracker.down = False
    train(tracker, points(101, 160))
    assert tracker.steps() == [*range(1, 161)]


def test_on_another_machine_recording_does_not_wait_for_the_tracker(tmp_path: Path) -> None:
    tracker = Tracker()
    tracker.open(RUN)
    tracker.log([*points(1, 100), *points(1, 100, "evaluated")])
    tracker.down = True
    logger = DurableLogger(tracker, tmp_path)
    logger.open(AGAIN)
    logger.log(points(71, 115))
    tracker.down = False
    logger.log([*points(116, 130), *points(100, 110, "evaluated")])
    logger.close()
    assert tracker.steps() == [*range(1, 131)]
    assert tracker.steps("evaluated") == [*range(1, 111)]


def test_killed_on_another_machine_before_the_tracker_was_reached(
    train: Callable[..., None], tmp_path: Path
) -> None:
    tracker = Tracker()
    tracker.open(RUN)
    tracker.log(points(1, 100))
    left_spool(tmp_path, AGAIN, points(71, 130), tracker)
    train(tracker, [*points(101, 160), *points(150, 160, "evaluated")])
    assert tracker.steps() == [*range(1, 161)]
    assert tracker.steps("evaluated") == [*range(150, 161)]


def test_a_spool_whose_removal_failed_repeats_nothing(
    train: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker()
    with monkeypatch.context() as crash:
        crash.setattr(Spool, "remove", lambda spool: None)
        train(tracker, points(1, 100), RUN)
    assert len([*tmp_path.iterdir()]) == 1
    train(tracker, points(71, 130))
    assert tracker.steps() == [*range(1, 131)]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("cursor", [b"\0", b"9" * 20])
def test_a_spool_whose_cursor_is_unreadable_is_delivered_from_its_start(
    train: Callable[..., None], tmp_path: Path, cursor: bytes
) -> None:
    tracker = Tracker()
    spool = left_spool(tmp_path, RUN, points(1, 10), tracker)
    with (spool.folder / "calls.jsonl").open("r+b") as calls:
        calls.write(cursor)
    train(tracker, points(5, 20))
    assert tracker.steps() == [*range(1, 21)]


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_sync_continues_a_resumed_spool(sqlite: str, tmp_path: Path, batches: int) -> None:
    """Whenever the delivery was cut short: before it began, or after a batch or two."""
    run = replace(RUN, id=uuid.uuid4().hex)
    elsewhere = MLflowLogger(sqlite)
    elsewhere.open(run)
    elsewhere.log(points(1, 1000))
    left = left_spool(tmp_path, replace(run, resumed=True), points(701, 3500), elsewhere)
    if batches:
        spool = Spool(left.folder)
        delivery = deliver(spool, MLflowLogger(sqlite), Warnings(), _never)
        for _ in range(batches):
            next(delivery)
        spool.release()
        with (left.folder / "calls.jsonl").open("r+b") as calls:
            calls.write(b"0" * 20)  # as if it had not reached the disk
    (result,) = sync(tmp_path)
    assert (result.left, result.status) == ("", "KILLED")
    assert history(sqlite, run) == ("KILLED", [*range(1, 3501)])


def _never(error: Exception, _: int) -> None:
    raise error


def test_sync_does_not_call_a_run_killed_that_was_resumed(sqlite: str, tmp_path: Path) -> None:
    run = replace(RUN, id=uuid.uuid4().hex)
    logger = DurableLogger(MLflowLogger(sqlite), tmp_path, patience=60)
    logger.open(replace(run, resumed=True))
    left = left_spool(tmp_path, run, points(1, 10), MLflowLogger(sqlite))
    results = {result.spool: result for result in sync(tmp_path)}
    assert (results[left.folder].left, results[left.folder].status) == ("", None)
    assert results[left.folder].items == 10
    logger.close()
    assert history(sqlite, run)[0] == "FINISHED"


def test_two_processes_that_open_one_run_at_once_create_one(sqlite: str, tmp_path: Path) -> None:
    run = replace(RUN, id=uuid.uuid4().hex)
    MlflowClient(sqlite).search_experiments()
    shares = [
        left_spool(tmp_path, run, points(100 * n + 1, 100 * n + 100), MLflowLogger(sqlite))
        for n in range(3)
    ]

    def first_batch(left: Spool) -> int:
        spool = Spool(left.folder)
        count = len(next(deliver(spool, MLflowLogger(sqlite), Warnings(), _never)).items)
        spool.release()
        return count

    with ThreadPoolExecutor() as pool:
        assert [*pool.map(first_batch, shares)] == [100] * 3
    assert history(sqlite, run)[1] == [*range(1, 301)]


def test_a_worker_that_is_forked_under_the_folders_lock_does_not_keep_it(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    with folder_lock(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(write_end)
            os.read(read_end, 1)  # lives until the parent closes its end
            os._exit(0)
    os.close(read_end)
    with folder_lock(tmp_path):  # would wait for ever
        pass
    os.close(write_end)
    os.waitpid(child, 0)


def test_the_end_of_a_run_that_was_deleted_holds_nothing_up(
    sqlite: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, wait_until: Waiter
) -> None:
    run = replace(RUN, id=uuid.uuid4().hex)
    logger = DurableLogger(MLflowLogger(sqlite), tmp_path, patience=60)
    logger.open(run)
    client = MlflowClient(sqlite)
    filters = f"tags.`boxscore.run` = '{run.id}'"

    def found() -> list[str]:
        shelf = client.get_experiment_by_name("bccd")
        runs = client.search_runs([shelf.experiment_id], filters) if shelf else []
        return [one.info.run_id for one in runs]

    wait_until(lambda: len(found()) == 1)
    client.delete_run(*found())
    logger.close()
    assert [*tmp_path.glob("*/calls.jsonl")] == []
    assert "rejected" in caplog.text


def test_spools_that_come_and_go_disturb_no_reader(tmp_path: Path) -> None:
    """A training opens while another ends, or ``boxscore sync`` delivers."""
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            spool = Spool.create(tmp_path, RUN, None)
            spool.remove()
            spool.release()

    with ThreadPoolExecutor() as pool:
        busy = [pool.submit(come_and_go) for _ in range(2)]
        try:
            for _ in range(200):
                for spool in Spool.within(tmp_path):
                    spool.lock()
                    spool.release()
        finally:
            over.set()
        assert [each.result() for each in busy] == [None, None]
    assert [*tmp_path.iterdir()] == []
