"""What was recorded arrives exactly once: servers that fail, processes that are killed, sync."""

from __future__ import annotations

import fcntl
import http.client
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from boxscore.loggers import DurableLogger, MemoryLogger, MLflowLogger, standard, sync
from boxscore.records import Point, RunStart, Tag

# MLflow's SQL store uses what SQLAlchemy is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``")

Waiter = Callable[[Callable[[], bool]], None]


def run_start() -> RunStart:
    return RunStart(uuid.uuid4().hex, "RetinaNet 640x640", "bccd", "bccd/RetinaNet")


def points(count: int, start: int = 0) -> list[Point]:
    steps = range(start, start + count)
    return [Point("total", step / 7, step, time=1000.0 + step) for step in steps]


def runs(uri: str, start: RunStart) -> list[Any]:
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`boxscore.run` = '{start.id}'"))


def history(uri: str, start: RunStart) -> list[tuple[int, float]]:
    """Every point of the one run of ``start``, in the order of steps."""
    (run,) = runs(uri, start)
    found = MlflowClient(uri).get_metric_history(run.info.run_id, "total")
    return sorted((metric.step, metric.value) for metric in found)


def told(points: list[Point]) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in points]


def status(uri: str, start: RunStart) -> str:
    (run,) = runs(uri, start)
    return str(run.info.status)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxscore.loggers.durable._GATHER", 0.02)
    monkeypatch.setattr("boxscore.loggers.durable._LONGEST_PAUSE", 0.2)
    monkeypatch.setattr("boxscore.loggers.mlflow_requests._TIMEOUT", (3.0, 3.0))
    monkeypatch.setattr(sys.modules["boxscore.loggers.sync"], "_PAUSE", 0.05)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


# servers that fail


class Proxy(ThreadingHTTPServer):
    """Between client and server, doing to the next requests what ``faults`` says."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Relay)
        self.behind, self.faults, self.met = port, [], []
        self.drops_first, self.kinds = False, set()
        self.rule = lambda path, body: None
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"

    faults: list[str]
    met: list[str]
    kinds: set[str]
    rule: Callable[[str, Any], tuple[int, bytes] | None]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class Relay(BaseHTTPRequestHandler):
    server: Proxy

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.faults.pop(0) if self.server.faults else ""
        self.server.met.append(fault)
        kind = f"{self.command} {self.path.partition('?')[0]}"
        if self.server.drops_first and kind not in self.server.kinds:
            fault = "drop"
        self.server.kinds.add(kind)
        if fault == "hang":
            time.sleep(4)
            return
        reply = self.server.rule(self.path, json.loads(body or b"{}"))
        status, answer = reply or (500, b"out of order")
        if fault != "500" and reply is None:
            to = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=30)
            kept = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            to.request(self.command, self.path, body, kept)
            response = to.getresponse()
            status, answer = response.status, response.read()
            to.close()
        if fault == "drop":  # it was done, but nobody will know
            self.connection.close()
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_PATCH = _relay

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def proxy(server: Any) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield proxy
    proxy.shutdown()
    proxy.server_close()


@pytest.mark.parametrize("fault", ["500", pytest.param("hang", marks=pytest.mark.slow), "drop"])
def test_no_fault_of_a_server_costs_or_doubles_a_point(
    proxy: Proxy, tmp_path: Path, fault: str, wait_until: Waiter
) -> None:
    """The fault meets the request of `open` first, then the points, then the end."""
    run = run_start()
    proxy.faults = ["", fault, "", "", fault]
    logger = DurableLogger(MLflowLogger(proxy.uri), tmp_path, patience=60)
    logger.open(run)
    for part in range(2):
        logger.log(points(50, 50 * part))
        wait_until(lambda: "" in proxy.met)
        proxy.faults += [fault]
        wait_until(lambda: not proxy.faults)
    proxy.faults += [fault]
    logger.close()
    assert history(proxy.uri, run) == told(points(100))
    assert status(proxy.uri, run) == "FINISHED"
    assert proxy.met.count(fault) == 5


def test_each_kind_of_request_may_lose_its_answer(proxy: Proxy, tmp_path: Path) -> None:
    run = run_start()
    proxy.drops_first = True
    logger = DurableLogger(MLflowLogger(proxy.uri), tmp_path, patience=60)
    logger.open(run)
    logger.log([*points(100), Tag("boxscore.fingerprint.test", "7f3a2c000000")])
    logger.close()
    asked = {kind.rpartition("/")[2] for kind in proxy.kinds}
    assert {"get-by-name", "search", "create", "log-batch", "log-inputs", "update"} <= asked
    assert history(proxy.uri, run) == told(points(100))
    assert len(runs(proxy.uri, run)[0].inputs.dataset_inputs) == 1
    assert status(proxy.uri, run) == "FINISHED"


INTERNAL = b'{"error_code": "INTERNAL_ERROR", "message": "unknown endpoint"}'
LIMIT = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "Limit=30, FieldName=Metrics"}'


@pytest.mark.parametrize("reply", [(404, b""), (404, INTERNAL), (500, INTERNAL), (501, b"")])
def test_a_server_without_log_inputs_costs_that_alone(
    proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture, reply: tuple[int, bytes]
) -> None:
    run = run_start()
    proxy.rule = lambda path, _: reply if "log-inputs" in path else None
    logger = DurableLogger(MLflowLogger(proxy.uri), tmp_path, patience=60)
    logger.open(run)
    logger.log([*points(20), Tag("boxscore.fingerprint.test", "7f3a2c000000"), *points(20, 20)])
    logger.close()
    assert history(proxy.uri, run) == told(points(40))
    assert runs(proxy.uri, run)[0].data.tags["boxscore.fingerprint.test"] == "7f3a2c000000"
    assert status(proxy.uri, run) == "FINISHED"
    named = [text for text in caplog.messages if "rejected boxscore.fingerprint.test" in text]
    assert len(named) == 1
    assert "cannot be reached" not in caplog.text


@pytest.mark.parametrize("reply", [(400, LIMIT), (413, b"<html>too large</html>")])
def test_a_batch_that_is_too_large_is_halved_and_the_size_remembered(
    proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture, reply: tuple[int, bytes]
) -> None:
    run, sizes = run_start(), list[int]()

    def limit(path: str, body: Any) -> tuple[int, bytes] | None:
        if "log-batch" in path and body.get("metrics"):
            sizes.append(len(body["metrics"]))
        return reply if "log-batch" in path and len(body.get("metrics", [])) > 30 else None

    proxy.rule = limit
    logger = MLflowLogger(proxy.uri)
    logger.open(run)
    logger.log(points(300))
    assert history(proxy.uri, run) == told(points(300))
    first = len(sizes)
    logger.log(points(300, 300))
    assert history(proxy.uri, run) == told(points(600))
    assert max(sizes[first:]) <= 30
    assert caplog.messages == []


def test_a_batch_that_the_server_fails_on_holds_up_nothing(
    proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_start()

    def fails(path: str, body: Any) -> tuple[int, bytes] | None:
        steps = [metric["step"] for metric in body.get("metrics", [])]
        return (500, INTERNAL) if "log-batch" in path and 7 in steps else None

    proxy.rule = fails
    logger = DurableLogger(MLflowLogger(proxy.uri), tmp_path, patience=60)
    logger.open(run)
    for part in range(4):
        logger.log(points(10, 10 * part))
    logger.close()
    assert history(proxy.uri, run) == told([p for p in points(40) if p.step != 7])
    assert status(proxy.uri, run) == "FINISHED"
    assert any("rejected total at step 7 (1.0)" in text for text in caplog.messages)


@pytest.mark.parametrize("reply", [(404, b"no such service"), (500, INTERNAL), (403, b"expired")])
def test_a_server_that_accepts_nothing_for_a_while_costs_nothing(
    proxy: Proxy, tmp_path: Path, reply: tuple[int, bytes], wait_until: Waiter
) -> None:
    """As a proxy without its server, or a database that is read-only: reading is possible."""
    run, is_broken, met = run_start(), [False], list[str]()

    def accepts_nothing(path: str, _: Any) -> tuple[int, bytes] | None:
        if not is_broken[0] or "/log-" not in path:
            return None
        met.append(path)
        return reply

    proxy.rule = accepts_nothing
    logger = DurableLogger(MLflowLogger(proxy.uri), tmp_path, patience=60)
    logger.open(run)
    logger.log(points(10))
    wait_until(lambda: bool(runs(proxy.uri, run)) and len(runs(proxy.uri, run)[0].data.metrics) > 0)
    is_broken[0] = True
    logger.log(points(10, 10))
    wait_until(lambda: len(met) > 10)
    is_broken[0] = False
    logger.close()
    assert history(proxy.uri, run) == told(points(20))


def test_a_server_that_rejects_one_key_loses_that_point_only(
    server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_start()
    logger = DurableLogger(MLflowLogger(server.uri), tmp_path, patience=60)
    logger.open(run)
    logger.log([*points(20), Point("AP@0.5", 1.0, 1), *points(20, 20)])
    logger.log(points(20, 40))
    logger.close()
    assert history(server.uri, run) == told(points(60))
    (said,) = caplog.messages
    assert "AP@0.5" in said
    assert "at step 1 (1.0)" in said
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_gets_every_point(
    server: Any, tmp_path: Path, wait_until: Waiter
) -> None:
    """And recording costs the same meanwhile: each call is far from any timeout."""
    run = run_start()
    logger = DurableLogger(MLflowLogger(server.uri), tmp_path, patience=60)
    logger.open(run)
    logger.log(points(100))
    wait_until(lambda: bool(runs(server.uri, run)))
    server.kill()
    slowest = 0.0
    for point in points(100, 100):
        start = time.perf_counter()
        logger.log([point])
        slowest = max(slowest, time.perf_counter() - start)
    server.start()
    logger.log(points(100, 200))
    logger.close()
    assert history(server.uri, run) == told(points(300))
    assert status(server.uri, run) == "FINISHED"
    assert slowest < 0.5


def test_postgresql_has_every_point_once(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch is delivered twice, as after a lost answer."""
    log = MLflowLogger.log

    def twice(self: MLflowLogger, items: Any) -> None:
        log(self, items)
        log(self, items)

    monkeypatch.setattr(MLflowLogger, "log", twice)
    run = run_start()
    logger = DurableLogger(MLflowLogger(postgres), tmp_path, patience=60)
    logger.open(run)
    for part in range(20):
        logger.log(points(100, 100 * part))
    logger.close()
    assert history(postgres, run) == told(points(2000))


# processes that are killed


def recording(uri: str, folder: Path, run: RunStart, witness: int) -> None:
    """In a forked child: record for ever, and tell after each call what was recorded."""
    logger = DurableLogger(MLflowLogger(uri), folder)
    logger.open(run)
    for step in itertools.count():
        logger.log(points(1, step))
        os.write(witness, b"%d\n" % step)
        time.sleep(0.001)


@pytest.mark.slow
def test_sigkill_at_any_moment_costs_nothing_that_was_recorded(server: Any, tmp_path: Path) -> None:
    moments = random.Random(7)
    for _ in range(20):
        run, folder = run_start(), tmp_path / uuid.uuid4().hex
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                recording(server.uri, folder, run, write)
            finally:
                os._exit(1)
        os.close(write)
        seen = os.read(read, 1)
        time.sleep(moments.uniform(0, 0.8))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(read, 1 << 16):
            seen += more
        os.close(read)
        (result,) = sync(folder)
        assert (result.left, result.status) == ("", "KILLED")
        assert status(server.uri, run) == "KILLED"
        arrived = history(server.uri, run)
        witnessed = len(seen.split())  # the kill may fall between a write and its witness
        assert arrived in (told(points(witnessed)), told(points(witnessed + 1)))
        assert spools(folder) == []


# sync


@pytest.fixture
def left(sqlite: str, tmp_path: Path) -> Callable[..., RunStart]:
    """Leaves a spool in ``tmp_path``, as a training does whose tracker was away."""

    def leave(uri: str = sqlite, *, end: bool = True, **settings: Any) -> RunStart:
        run = run_start()
        # the child's logger cannot reach its tracker, and its process is gone afterwards
        script = (
            "import json, os, sys\n"
            "from boxscore.records import RunStart, Point\n"
            "from boxscore.loggers import DurableLogger, MemoryLogger\n"
            "class Away(MemoryLogger):\n"
            "    def place(self): return json.loads(sys.argv[2])\n"
            "    def open(self, start): raise ConnectionError('away')\n"
            "run = RunStart(sys.argv[3], 'RetinaNet 640x640', 'bccd', 'bccd/RetinaNet')\n"
            "logger = DurableLogger(Away(), sys.argv[1])\n"
            "logger.open(run)\n"
            "points = [Point('total', s / 7, s, time=1000.0 + s) for s in range(2500)]\n"
            "logger.log(points)\n"
            "if sys.argv[4] == 'True': logger.close('FAILED', patience=0)\n"
            "os._exit(0)\n"
        )
        place = {"tracking_uri": uri, "credentials": None, "experiment": None, "run": None}
        arguments = [str(tmp_path / "spool"), json.dumps({**place, **settings}), run.id, str(end)]
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, stderr=-3)
        return run

    return leave


def spools(folder: Path) -> list[Path]:
    return [path.parent for path in folder.rglob("calls.jsonl")]


def test_sync_delivers_what_was_left_and_may_be_repeated(
    sqlite: str, tmp_path: Path, left: Callable[..., RunStart]
) -> None:
    written = [left(), left()]
    seen: list[tuple[int, int]] = []
    results = sync(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert [(r.run, r.items, r.status, r.left) for r in results] == [
        ("RetinaNet 640x640", 2500, "FAILED", "")
    ] * 2
    for run in written:
        assert history(sqlite, run) == told(points(2500))
        assert status(sqlite, run) == "FAILED"
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
    assert spools(tmp_path) == []
    assert sync(tmp_path) == []


def test_sync_marks_a_run_without_an_end_as_killed(
    sqlite: str, tmp_path: Path, left: Callable[..., RunStart]
) -> None:
    run = left(end=False)
    assert sync(tmp_path)[0].status == "KILLED"
    assert status(sqlite, run) == "KILLED"
    ended = runs(sqlite, run)[0].info.end_time / 1000
    assert abs(ended - time.time()) < 60


def test_the_end_is_when_it_was_and_not_when_it_was_delivered(
    sqlite: str, tmp_path: Path, left: Callable[..., RunStart]
) -> None:
    run = left(end=False)
    (spool,) = spools(tmp_path)
    os.utime(spool / "calls.jsonl", (5000.0, 5000.0))
    sync(tmp_path)
    assert runs(sqlite, run)[0].info.end_time == 5_000_000


def test_a_delivery_that_was_cut_short_goes_on(
    sqlite: str, tmp_path: Path, left: Callable[..., RunStart], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = left()
    log, calls = MLflowLogger.log, 0

    def failing(self: MLflowLogger, items: Any) -> None:
        nonlocal calls
        calls += 1
        log(self, items)
        if calls > 1:
            raise ConnectionError("the answer was lost")

    monkeypatch.setattr(MLflowLogger, "log", failing)
    assert sync(tmp_path)[0].left == "the answer was lost"
    monkeypatch.setattr(MLflowLogger, "log", log)
    assert sync(tmp_path)[0].items < 2500
    assert history(sqlite, run) == told(points(2500))


def test_a_torn_last_line_costs_only_itself(
    sqlite: str, tmp_path: Path, left: Callable[..., RunStart]
) -> None:
    run = left(end=False)
    (spool,) = spools(tmp_path)
    with (spool / "calls.jsonl").open("ab") as calls:
        calls.write(b'[["p","total",1.0,99')
    assert sync(tmp_path)[0].left == ""
    assert history(sqlite, run) == told(points(2500))


def test_an_unreadable_line_is_passed_over_and_said(
    sqlite: str, tmp_path: Path, left: Callable[..., RunStart], caplog: pytest.LogCaptureFixture
) -> None:
    run = left()
    (spool,) = spools(tmp_path)
    lines = (spool / "calls.jsonl").read_bytes().splitlines(keepends=True)
    lines[3] = b"\0\0garbage\xff\n"
    (spool / "calls.jsonl").write_bytes(b"".join(lines))
    assert sync(tmp_path)[0].left == ""
    assert history(sqlite, run) == told([*points(1000), *points(500, 2000)])
    assert "1 unreadable" in caplog.text


def test_a_live_training_keeps_its_spool(sqlite: str, tmp_path: Path) -> None:
    run = run_start()
    logger = DurableLogger(MLflowLogger(sqlite), tmp_path, patience=60)
    logger.open(run)
    logger.log(points(10))
    (result,) = sync(tmp_path)
    assert "in hand" in result.left
    logger.log(points(10, 10))
    logger.close()
    assert history(sqlite, run) == told(points(20))
    assert sync(tmp_path) == []


def moved(spool: Path, **process: str) -> None:
    """As if another process had written it."""
    cursor, head, *rest = (spool / "calls.jsonl").read_bytes().splitlines(keepends=True)
    facts = json.loads(head)
    facts["process"] |= process
    lines = [cursor, json.dumps(facts).encode() + b"\n", *rest]
    (spool / "calls.jsonl").write_bytes(b"".join(lines))


def test_a_training_on_another_host_is_not_called_killed(
    sqlite: str, tmp_path: Path, left: Callable[..., RunStart]
) -> None:
    run = left(end=False)
    (spool,) = spools(tmp_path)
    cursor, head, *rest = (spool / "calls.jsonl").read_bytes().splitlines(keepends=True)
    facts = json.loads(head)
    facts["process"] |= {"host": "elsewhere", "boot": "another"}
    (spool / "calls.jsonl").write_bytes(
        b"\n".join([cursor.strip(), json.dumps(facts).encode(), b""]) + b"".join(rest)
    )
    left_as_it_is = sync(tmp_path)[0].left
    assert "only seen on elsewhere" in left_as_it_is
    assert f"boxscore sync {spool.parent} --host-gone elsewhere" in left_as_it_is
    assert status(sqlite, run) == "RUNNING"
    assert history(sqlite, run) == told(points(2500))
    with (spool / "calls.jsonl").open() as held:  # as a lock of a host that is gone may be
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "in hand" in sync(tmp_path, gone=["another host"])[0].left
        assert sync(tmp_path, gone=["elsewhere"])[0].status == "KILLED"
    assert status(sqlite, run) == "KILLED"
    assert history(sqlite, run) == told(points(2500))


def test_a_container_on_this_machine_is_known_to_be_gone(
    sqlite: str, tmp_path: Path, left: Callable[..., RunStart]
) -> None:
    """Its host name is gone with it; the kernel, and so the lock, is the same."""
    run = left(end=False)
    (spool,) = spools(tmp_path)
    cursor, head, *rest = (spool / "calls.jsonl").read_bytes().splitlines(keepends=True)
    facts = json.loads(head)
    facts["process"]["host"] = "trainer-pod-7f9c"
    (spool / "calls.jsonl").write_bytes(
        b"\n".join([cursor.strip(), json.dumps(facts).encode(), b""]) + b"".join(rest)
    )
    assert sync(tmp_path)[0].status == "KILLED"
    assert status(sqlite, run) == "KILLED"


def test_a_tracker_that_is_still_away_leaves_all_as_it_is(
    tmp_path: Path, left: Callable[..., RunStart]
) -> None:
    left("http://127.0.0.1:9")
    before = [path.read_bytes() for path in sorted(tmp_path.rglob("calls.jsonl"))]
    (result,) = sync(tmp_path)
    assert result.left == "http://127.0.0.1:9: [Errno 111] Connection refused"
    assert [path.read_bytes() for path in sorted(tmp_path.rglob("calls.jsonl"))] == before


def test_sync_may_deliver_elsewhere(
    sqlite: str, tmp_path: Path, left: Callable[..., RunStart]
) -> None:
    run = left("http://127.0.0.1:9")
    assert sync(tmp_path, sqlite)[0].left == ""
    assert history(sqlite, run) == told(points(2500))


def test_missing_credentials_are_asked_for(
    server: Any, tmp_path: Path, left: Callable[..., RunStart], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = left(server.uri, credentials="withheld")
    assert "MLFLOW_TRACKING_URI" in sync(tmp_path)[0].left
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("://", "://ann:s3cret@"))
    assert sync(tmp_path)[0].left == ""
    assert history(server.uri, run) == told(points(2500))


def test_only_mlflow_can_be_delivered_to_later(tmp_path: Path, wait_until: Waiter) -> None:
    class Away(MemoryLogger):
        def open(self, _: RunStart) -> None:
            raise ConnectionError("away")

    logger = DurableLogger(Away(), tmp_path)
    logger.open(run_start())
    logger.close(patience=0)
    wait_until(lambda: "in hand" not in sync(tmp_path)[0].left)
    assert "only the training itself" in sync(tmp_path)[0].left


def test_what_is_no_spool_is_passed_over(tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"{}\n", b"\xff\n", b"[1]\n", b'{"boxscore":99}\n')):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "calls.jsonl").write_bytes(content)
    assert sync(tmp_path) == []


# secrets and settings


def test_no_credential_is_written_anywhere(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Waiter,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another-s3cret")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s3cret@127.0.0.1:9/?token=s3cret")
    logger = DurableLogger(MLflowLogger(), tmp_path)
    logger.open(run_start())
    logger.log(points(3))
    wait_until(lambda: bool(caplog.records))
    logger.close(patience=0)
    results = sync(tmp_path)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    out = capfd.readouterr()
    assert written
    assert "127.0.0.1:9" in caplog.text
    for text in (written.decode(), caplog.text, out.out, out.err, repr(results)):
        assert "s3cret" not in text


def test_no_credential_stays_where_all_was_delivered(
    server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_start()
    uri = server.uri.replace("://", "://ann:s3cret@")
    logger = DurableLogger(MLflowLogger(uri), tmp_path, patience=60)
    logger.open(run)
    logger.log([*points(3), Point("b@d", 1.0, 1)])
    logger.close()
    assert history(server.uri, run) == told(points(3))
    assert [*tmp_path.iterdir()] == []
    assert "s3cret" not in caplog.text


def test_the_standard_loggers_write_to_both(tmp_path: Path) -> None:
    run = run_start()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    loggers = standard(tmp_path / "runs", uri)
    for logger in loggers:
        logger.open(run)
        logger.log(points(5))
        logger.close()
    assert history(uri, run) == told(points(5))
    assert len([*(tmp_path / "runs" / run.folder / "train").glob("events*")]) == 1


def test_without_a_tracker_there_is_tensorboard_alone(tmp_path: Path) -> None:
    (logger,) = standard(tmp_path, False)
    assert type(logger).__name__ == "TensorBoardLogger"


def test_importing_the_loggers_imports_no_tracker() -> None:
    heavy = "{'mlflow', 'tensorboard', 'numpy', 'torch'}"
    script = f"import sys, boxscore.loggers; print({heavy} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert run.stdout == "set()\n"
