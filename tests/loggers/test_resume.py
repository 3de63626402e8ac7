"""What a resumed training records is one curve: over spools that went, crashes, other machines."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from boxscore.logger import Resumable
from boxscore.loggers import DurableLogger, MemoryLogger, MLflowLogger, sync
from boxscore.loggers.alone import alone
from boxscore.loggers.spool import Spool, log_lines
from boxscore.loggers.steps import fold, path_in, raised, read
from boxscore.records import Item, Point, RunStart, Tag, unrecorded

# MLflow's SQL store uses what SQLAlchemy is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``")

Waiter = Callable[[Callable[[], bool]], None]
RUN = RunStart("0123456789abcdef" * 2, "RetinaNet 640x640", "bccd", "bccd/RetinaNet")
AGAIN = replace(RUN, resumed=True)


def points(first: int, last: int, name: str = "total") -> list[Point]:
    return [Point(name, step / 7, step) for step in range(first, last + 1)]


def steps_of(points: Sequence[Point], name: str = "total") -> list[int]:
    return [point.step for point in points if point.name == name]


class Tracker(MemoryLogger):
    """A tracker that several loggers write to, and that may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.asked = False, 0

    def open(self, start: RunStart) -> None:
        if self.down:
            raise ConnectionError("away")
        super().open(start)

    def recorded(self) -> Any:
        self.asked += 1
        return super().recorded()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxscore.loggers.durable._GATHER", 0.01)
    monkeypatch.setattr("boxscore.loggers.durable._LONGEST_PAUSE", 0.05)


def resumed(tracker: Tracker, folder: Path, items: Sequence[Item]) -> DurableLogger:
    """An open logger of a new process that was told ``items`` as a run does."""
    logger = DurableLogger(tracker, folder)
    assert isinstance(logger, Resumable)
    logger.open(AGAIN)
    logger.log(unrecorded(items, logger.recorded()))
    return logger


def free(folder: Path) -> bool:
    """Whether the one spool in ``folder`` is in nobody's hand."""
    (spool,) = Spool.within(folder)
    try:
        return spool.lock()
    finally:
        spool.release()


def test_it_knows_what_was_delivered_and_what_was_not(tmp_path: Path, wait_until: Waiter) -> None:
    tracker = Tracker()
    logger = DurableLogger(tracker, tmp_path)
    logger.open(RUN)
    assert logger.recorded() == {}
    logger.log([*points(1, 100), *points(1, 50, "classification"), Tag("late", "fact")])
    logger.close()
    assert logger.recorded() == {}  # it is not open
    tracker.down = True
    logger = resumed(tracker, tmp_path, points(71, 130))
    assert logger.recorded() == {"total": 100, "classification": 50}
    logger.close(patience=0)
    wait_until(lambda: free(tmp_path))
    assert tracker.points[-1].step == 50
    tracker.down = False
    logger = resumed(tracker, tmp_path, points(101, 160))
    assert logger.recorded() == {"total": 130, "classification": 50}
    logger.close()
    assert steps_of(tracker.points) == [*range(1, 161)]
    assert tracker.asked == 0


def test_compacting_costs_no_knowledge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Waiter
) -> None:
    monkeypatch.setattr("boxscore.loggers.durable._COMPACT", 1000)
    tracker = Tracker()
    logger = DurableLogger(tracker, tmp_path)
    logger.open(RUN)
    (spool,) = tmp_path.glob("*/calls.jsonl")
    start = spool.stat().st_size
    for part in range(3):
        logger.log(points(100 * part, 100 * part + 99))
        wait_until(lambda: spool.stat().st_size == start)
        assert read(path_in(tmp_path, RUN.id, None)) == {"total": 100 * part + 99}
    other = DurableLogger(Tracker(), tmp_path)  # while the first one lives
    other.open(AGAIN)
    assert other.recorded() == {"total": 299}
    for each in (other, logger):
        each.close()


def test_of_two_processes_each_counts(tmp_path: Path) -> None:
    """Two spools of one run, both held by living processes."""
    first, second = (DurableLogger(Tracker(), tmp_path) for _ in range(2))
    for logger, items in ((first, points(1, 10)), (second, points(1, 5, "classification"))):
        logger.open(RUN)
        logger.log(items)
    third = DurableLogger(Tracker(), tmp_path)
    third.open(AGAIN)
    assert third.recorded() == {"total": 10, "classification": 5}
    for logger in (first, second, third):
        logger.close()
    assert read(path_in(tmp_path, RUN.id, None)) == {"total": 10, "classification": 5}


def test_what_the_disk_did_not_take_counts_when_it_was_delivered(tmp_path: Path) -> None:
    from tests.disks import full_disk

    logger = DurableLogger(Tracker(), tmp_path)
    logger.open(RUN)
    (spool,) = tmp_path.glob("*/calls.jsonl")
    with full_disk(spool.stat().st_size):
        logger.log(points(1, 10))
        logger.close()
    assert read(path_in(tmp_path, RUN.id, None)) == {"total": 10}


def test_a_crash_between_folding_and_removing_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker()
    logger = DurableLogger(tracker, tmp_path)
    logger.open(RUN)
    with monkeypatch.context() as crash:
        crash.setattr(Spool, "remove", lambda spool: None)
        logger.log(points(1, 100))
        logger.close()
    assert len([*tmp_path.glob("*/calls.jsonl")]) == 1
    resumed(tracker, tmp_path, points(71, 130)).close()
    assert steps_of(tracker.points) == [*range(1, 131)]
    assert [*tmp_path.glob("*/calls.jsonl")] == []


def test_a_spool_whose_steps_cannot_be_kept_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    tracker = Tracker()
    logger = DurableLogger(tracker, tmp_path)
    logger.open(RUN)
    logger.log(points(1, 100))
    with monkeypatch.context() as disk:
        disk.setattr("boxscore.loggers.steps.fold", full)
        logger.close()
    assert "stays" in caplog.text
    resumed(tracker, tmp_path, points(71, 130)).close()
    assert steps_of(tracker.points) == [*range(1, 131)]


# the file


def test_the_file_is_its_owners_alone_and_as_long_as_there_are_series(tmp_path: Path) -> None:
    path = path_in(tmp_path, RUN.id, None)
    old = os.umask(0)
    try:
        for step in range(100):
            fold(path, {"total": step, "classification": 100 - step})
    finally:
        os.umask(old)
    assert json.loads(path.read_text()) == {"total": 99, "classification": 100}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\0", b"[1]", b"null", b'{"total": 10', b"[" * 100_000),
        b'{"total": "10", "other": 1.5, "third": null, "fourth": true}',
    ],
)
def test_garbage_in_it_is_no_trouble(tmp_path: Path, content: bytes) -> None:
    path = path_in(tmp_path, RUN.id, None)
    path.write_bytes(content)
    assert read(path) == {}
    fold(path, {"total": 3})
    assert read(path) == {"total": 3}


def test_every_place_has_its_own(tmp_path: Path) -> None:
    """A run that goes on in another tracker has all its points there."""
    places = [None, {"tracking_uri": "http://a"}, {"tracking_uri": "http://b"}]
    assert len({path_in(tmp_path, RUN.id, place) for place in places}) == 3


def test_folding_from_many_processes_at_once_loses_nothing(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from boxscore.loggers.steps import fold\n"
        "for step in range(200):\n"
        "    fold(Path(sys.argv[1]), {sys.argv[2]: step, f'{sys.argv[2]} {step}': 1})\n"
    )
    path = path_in(tmp_path, RUN.id, None)
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in "abc"
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(read(path)) == 3 * 201


def test_raising_takes_the_later_step() -> None:
    assert raised({"a": -5}, {"a": -7, "b": -1}) == {"a": -5, "b": -1}


# where nothing local is known


def test_on_another_machine_the_tracker_is_asked(tmp_path: Path) -> None:
    """Once, by whoever delivers; recording does not wait for it."""
    tracker = Tracker()
    tracker.open(RUN)
    tracker.log([*points(1, 100), *points(1, 100, "evaluated")])
    tracker.down = True
    logger = resumed(tracker, tmp_path, points(71, 115))
    assert logger.recorded() == {}
    tracker.down = False
    logger.log(points(116, 130))
    logger.close()
    assert steps_of(tracker.points) == [*range(1, 131)]
    assert tracker.asked == 1
    # now that is known here, also of series that this machine did not record
    logger = resumed(tracker, tmp_path, points(101, 160))
    assert logger.recorded() == {"total": 130, "evaluated": 100}
    logger.close()
    assert steps_of(tracker.points) == [*range(1, 161)]
    assert tracker.asked == 1


def test_on_another_machine_without_a_disk_the_tracker_is_asked_too(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file is in the way")
    tracker = Tracker()
    tracker.open(RUN)
    tracker.log(points(1, 100))
    resumed(tracker, tmp_path / "spool", points(71, 130)).close()
    assert steps_of(tracker.points) == [*range(1, 131)]


def test_a_crash_on_the_other_machine_does_not_end_the_asking(tmp_path: Path) -> None:
    """Killed before the tracker could be asked, and resumed again: both spools ask."""
    tracker = Tracker()
    tracker.open(RUN)
    tracker.log(points(1, 100))
    spool = Spool.create(tmp_path, AGAIN, None, asks=True)
    for line in log_lines(points(71, 130)):
        spool.append(line)
    spool.release()
    logger = resumed(tracker, tmp_path, [*points(101, 160), *points(150, 160, "evaluated")])
    assert logger.recorded() == {"total": 130}
    logger.close()
    assert steps_of(tracker.points) == [*range(1, 161)]
    assert steps_of(tracker.points, "evaluated") == [*range(150, 161)]


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_sync_goes_on_with_a_spool_that_asks(sqlite: str, tmp_path: Path, batches: int) -> None:
    """Whenever the delivery was cut short: before it began, or after a batch or two."""
    run = replace(RUN, id=uuid.uuid4().hex)
    elsewhere = MLflowLogger(sqlite)
    elsewhere.open(run)
    elsewhere.log(points(1, 1000))
    logger = MLflowLogger(sqlite)
    spool = Spool.create(tmp_path, replace(run, resumed=True), logger.place(), asks=True)
    for line in log_lines(points(701, 3500)):
        spool.append(line)
    if batches:
        from boxscore.loggers.sync import Delivery
        from boxscore.loggers.teller import Teller

        delivery = Delivery(spool, logger, Teller())
        for _ in range(batches):
            delivery.step()
    spool._move(spool._head)  # as if the cursor had not reached the disk
    spool.release()
    process = json.loads((spool.folder / "calls.jsonl").read_bytes().splitlines()[0])["process"]
    lines = (spool.folder / "calls.jsonl").read_bytes()
    gone = lines.replace(b'"pid":%d' % process["pid"], b'"pid":%d' % 2**22, 1)
    (spool.folder / "calls.jsonl").write_bytes(gone)
    (result,) = sync(tmp_path)
    assert (result.left, result.status) == ("", "KILLED")
    client = MlflowClient(sqlite)
    shelf = client.get_experiment_by_name("bccd")
    assert shelf is not None
    (found,) = client.search_runs([shelf.experiment_id], f"tags.`boxscore.run` = '{run.id}'")
    history = client.get_metric_history(found.info.run_id, "total")
    assert [metric.step for metric in history] == [*range(1, 3501)]
    assert read(path_in(tmp_path, run.id, logger.place()))["total"] == 3500


def test_sync_does_not_call_a_run_killed_that_was_resumed(sqlite: str, tmp_path: Path) -> None:
    run = replace(RUN, id=uuid.uuid4().hex)
    logger = DurableLogger(MLflowLogger(sqlite), tmp_path, patience=60)
    logger.open(replace(run, resumed=True))
    left = Spool.create(tmp_path, run, MLflowLogger(sqlite).place())
    for line in log_lines(points(1, 10)):
        left.append(line)
    left.release()
    lines = (left.folder / "calls.jsonl").read_bytes()
    gone = lines.replace(b'"pid":%d' % os.getpid(), b'"pid":%d' % 2**22, 1)
    (left.folder / "calls.jsonl").write_bytes(gone)
    results = {result.spool: result for result in sync(tmp_path)}
    assert (results[left.folder].left, results[left.folder].status) == ("", None)
    assert results[left.folder].items == 10
    logger.close()
    client = MlflowClient(sqlite)
    shelf = client.get_experiment_by_name("bccd")
    assert shelf is not None
    (found,) = client.search_runs([shelf.experiment_id], f"tags.`boxscore.run` = '{run.id}'")
    assert found.info.status == "FINISHED"


def test_two_that_open_one_run_at_once_make_one(sqlite: str, tmp_path: Path) -> None:
    """Spools of three processes, each delivered by another thread."""
    from boxscore.loggers.sync import Delivery
    from boxscore.loggers.teller import Teller

    run = replace(RUN, id=uuid.uuid4().hex)
    MlflowClient(sqlite).search_experiments()
    made = []
    for number in range(3):
        logger = MLflowLogger(sqlite)
        spool = Spool.create(tmp_path, run, logger.place())
        for line in log_lines(points(100 * number + 1, 100 * number + 100)):
            spool.append(line)
        made.append(Delivery(spool, logger, Teller()))
    with ThreadPoolExecutor() as pool:
        assert [len(batch.items) for batch in pool.map(Delivery.step, made)] == [100] * 3
    client = MlflowClient(sqlite)
    shelf = client.get_experiment_by_name("bccd")
    assert shelf is not None
    (found,) = client.search_runs([shelf.experiment_id], f"tags.`boxscore.run` = '{run.id}'")
    history = client.get_metric_history(found.info.run_id, "total")
    assert sorted(metric.step for metric in history) == [*range(1, 301)]
    for delivery in made:
        delivery.spool.release()


def test_a_worker_that_is_forked_meanwhile_holds_nothing_up(tmp_path: Path) -> None:
    path = path_in(tmp_path, RUN.id, None)
    read_end, write_end = os.pipe()
    with alone(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(write_end)
            os.read(read_end, 1)  # lives until the parent says so
            os._exit(0)
    os.close(read_end)
    fold(path, {"total": 1})  # would wait for ever
    os.close(write_end)
    os.waitpid(child, 0)
    assert read(path) == {"total": 1}


def test_the_end_of_a_run_that_was_deleted_holds_nothing_up(
    sqlite: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, wait_until: Waiter
) -> None:
    run = replace(RUN, id=uuid.uuid4().hex)
    logger = DurableLogger(MLflowLogger(sqlite), tmp_path, patience=60)
    logger.open(run)
    client = MlflowClient(sqlite)
    shelf = client.get_experiment_by_name("bccd")
    assert shelf is not None
    filters = f"tags.`boxscore.run` = '{run.id}'"
    wait_until(lambda: len(client.search_runs([shelf.experiment_id], filters)) == 1)
    (found,) = client.search_runs([shelf.experiment_id], filters)
    wait_until(lambda: "boxscore.run" in client.get_run(found.info.run_id).data.tags)
    client.delete_run(found.info.run_id)
    logger.close()
    assert [*tmp_path.glob("*/calls.jsonl")] == []
    assert "refused for good" in caplog.text


def test_spools_that_come_and_go_disturb_nobody_who_looks(tmp_path: Path) -> None:
    """A training that opens while another ends, or ``boxscore sync`` delivers."""
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            spool = Spool.create(tmp_path, RUN, None)
            spool.remove()
            spool.release()

    with ThreadPoolExecutor() as pool:
        busy = [pool.submit(come_and_go) for _ in range(2)]
        try:
            for _ in range(500):
                for spool in Spool.within(tmp_path):
                    spool.lock()
                    spool.release()
        finally:
            over.set()
        assert [each.result() for each in busy] == [None, None]
    assert [*tmp_path.iterdir()] == []


def test_a_spool_without_a_cursor_is_delivered_from_its_start(tmp_path: Path) -> None:
    """As after a kill while it was being removed; the tracker minds no repetition."""
    spool = Spool.create(tmp_path, RUN, None)
    for line in log_lines(points(1, 10)):
        spool.append(line)
    spool.release()
    (spool.folder / "cursor").unlink()
    tracker = Tracker()
    resumed(tracker, tmp_path, points(5, 20)).close()
    assert steps_of(tracker.points) == [*range(1, 21)]
