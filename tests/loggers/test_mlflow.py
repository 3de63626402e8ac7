"""MLflowLogger against real stores, read back with MLflow's own client."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import signal
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from boxscore.log_thread import LogThread
from boxscore.logger import Warnings
from boxscore.loggers import DurableLogger, MLflowLogger, Refused
from boxscore.records import File, Item, Point, RunStart, Tag

# MLflow's SQL store uses what SQLAlchemy is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``")

LOSS = "loss RetinaNet 640x640"


def run_start(**facts: Any) -> RunStart:
    known = {
        "id": uuid.uuid4().hex,
        "name": "RetinaNet 640x640 ResNet-50",
        "experiment": "bccd",
        "folder": "bccd/RetinaNet/640x640/ResNet-50-01234567",
        "tags": {"boxscore.group": "RetinaNet 640x640", "boxscore.dataset": "bccd"},
        "params": {"algorithm": "RetinaNet", "input_size": "640x640"},
    }
    return RunStart(**{**known, **facts})


def runs(uri: str, start: RunStart) -> list[Any]:
    """Every run that bears the start's id, deleted ones left out."""
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`boxscore.run` = '{start.id}'"))


def history(uri: str, start: RunStart, key: str) -> list[tuple[int, float]]:
    (run,) = runs(uri, start)
    return [(m.step, m.value) for m in MlflowClient(uri).get_metric_history(run.info.run_id, key)]


@pytest.fixture(params=["sqlite", "server", "postgres"])
def uri(request: pytest.FixtureRequest) -> str:
    """Each store in turn: SQLite in-process, a server, PostgreSQL in-process."""
    store = request.getfixturevalue(request.param)
    return store if isinstance(store, str) else str(store.uri)


def test_names_tags_params_and_points_are_as_the_start_says(uri: str) -> None:
    start = run_start()
    logger = MLflowLogger(uri)
    logger.open(start)
    logger.log([Point("classification", 0.75, 50, "test", 1000.5, LOSS), Tag("late", "fact")])
    (run,) = runs(uri, start)
    assert run.info.run_name == "RetinaNet 640x640 ResNet-50"
    assert run.info.status == "RUNNING"
    assert MlflowClient(uri).get_experiment(run.info.experiment_id).name == "bccd"
    assert run.data.tags["boxscore.group"] == "RetinaNet 640x640"
    assert run.data.tags["late"] == "fact"
    assert run.data.params == {"algorithm": "RetinaNet", "input_size": "640x640"}
    assert run.data.tags["mlflow.note.content"].startswith("**boxscore**: RetinaNet 640x640")
    tags = MlflowClient(uri).get_experiment(run.info.experiment_id).tags
    assert "mlflow.sharedViewState.boxscore" in tags
    (metric,) = MlflowClient(uri).get_metric_history(run.info.run_id, f"{LOSS}/classification.test")
    assert (metric.step, metric.value, metric.timestamp) == (50, 0.75, 1_000_500)
    logger.close()


def test_everything_twice_is_there_once(uri: str) -> None:
    """Redelivery after a lost answer: no second point, run or dataset."""
    start = run_start()
    points = [
        Point("total", 1 / (step + 1), step, "train", 1000.0 + step, LOSS) for step in range(50)
    ]
    points += [Point("odd", value, 1, time=7.0) for value in (math.nan, math.inf, -math.inf)]
    items: list[Item] = [*points, Tag("boxscore.fingerprint.test", "7f3a2c000000")]
    for _ in range(2):
        logger = MLflowLogger(uri)
        for _ in range(2):
            logger.open(start)
            logger.log(items)
            logger.log([*items[30:], *items[:35]])
    assert [step for step, _ in history(uri, start, f"{LOSS}/total.train")] == [*range(50)]
    largest = sys.float_info.max
    odd = sorted((value for _, value in history(uri, start, "odd")), key=str)
    assert [odd[0], odd[1]] == [-largest, largest]
    assert math.isnan(odd[2])
    (run,) = runs(uri, start)
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("bccd-test", "7f3a2c000000")
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "test")]


def test_a_bad_key_costs_only_its_own_points(uri: str) -> None:
    start = run_start()
    bad = [Point("AP@0.5", 0.1, 1), Point("AP@0.5", 0.2, 2)]
    good = [Point(f"m{number}", 1.0, 1) for number in range(40)]
    logger = MLflowLogger(uri)
    logger.open(start)
    with pytest.raises(Refused, match=r"AP@0\.5") as refusal:
        logger.log([*good[:20], bad[0], *good[20:], bad[1], Tag("late", "fact")])
    assert list(refusal.value.items) == bad
    (run,) = runs(uri, start)
    assert set(run.data.metrics) == {point.name for point in good}
    assert run.data.tags["late"] == "fact"


def test_a_refused_tag_or_param_costs_no_point(uri: str) -> None:
    start = run_start(tags={"fine": "1", "b@d": "2"}, params={"fine": "1", "also b@d": "2"})
    logger = MLflowLogger(uri)
    logger.open(start)
    with pytest.raises(Refused) as refusal:
        logger.log([Point("total", 1.0, 1)])
    assert {item.name for item in refusal.value.items} == {"b@d", "also b@d"}
    logger.log([Point("total", 2.0, 2)])
    (run,) = runs(uri, start)
    assert run.data.tags["fine"] == run.data.params["fine"] == "1"
    assert history(uri, start, "total") == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_the_end_is_told_once(sqlite: str, status: Any) -> None:
    start = run_start()
    logger = MLflowLogger(sqlite)
    logger.open(start)
    logger.close(status, time=2000.0)
    logger.close("FINISHED")
    (run,) = runs(sqlite, start)
    assert (run.info.status, run.info.end_time) == (status, 2_000_000)


def test_reopening_goes_on_with_the_same_run(uri: str) -> None:
    start = run_start()
    for step in (1, 2):
        logger = MLflowLogger(uri)
        logger.open(start)
        assert runs(uri, start)[0].info.status == "RUNNING"
        logger.log([Point("total", 1.0, step)])
        logger.close()
    assert [step for step, _ in history(uri, start, "total")] == [1, 2]
    assert runs(uri, start)[0].info.status == "FINISHED"


def test_a_search_that_lags_behind_creates_no_second_run(
    sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does an opening that is repeated because its tags met an outage."""
    start = run_start()
    search, log_batch = MlflowClient.search_runs, MlflowClient.log_batch
    monkeypatch.setattr(MlflowClient, "search_runs", lambda *_, **__: [])

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("away")

    logger = MLflowLogger(sqlite)
    monkeypatch.setattr(MlflowClient, "log_batch", away)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            logger.open(start)
    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    for step in (1, 2):
        logger.open(start)
        logger.log([Point("total", 1.0, step)])
        logger.close()
    monkeypatch.setattr(MlflowClient, "search_runs", search)
    assert history(sqlite, start, "total") == [(1, 1.0), (2, 1.0)]


def test_a_run_made_twice_by_a_late_answer_becomes_one(sqlite: str) -> None:
    start = run_start()
    logger = MLflowLogger(sqlite)
    logger.open(start)
    logger.log([Point("total", 1.0, 1)])
    (run,) = runs(sqlite, start)
    MlflowClient(sqlite).create_run(run.info.experiment_id, tags={"boxscore.run": start.id})
    MLflowLogger(sqlite).open(start)
    assert [found.info.run_id for found in runs(sqlite, start)] == [run.info.run_id]


def test_the_active_run_is_joined_and_never_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own.db")
    with mlflow.start_run() as run:
        mlflow.log_param("algorithm", "the user's")
        mlflow.set_tag("mlflow.note.content", "a person's notes")
        logger = MLflowLogger(run="active")
        logger.open(run_start(experiment="not used"))
        with pytest.raises(Refused, match="algorithm"):
            logger.log([Point("total", 1.0, 1)])
        logger.close("FAILED")
        active = mlflow.active_run()
        assert active is not None
        assert active.info.run_id == run.info.run_id
        joined = MlflowClient().get_run(run.info.run_id)
        assert joined.info.status == "RUNNING"
        assert joined.data.metrics == {"total": 1.0}
        assert joined.data.params["algorithm"] == "the user's"
        assert joined.data.tags["mlflow.note.content"] == "a person's notes"
    assert MlflowClient().get_run(run.info.run_id).info.status == "FINISHED"
    assert MlflowClient().get_experiment_by_name("not used") is None


def test_the_active_run_is_that_of_the_thread_that_opens(
    sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the logger itself is opened on another thread."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite)
    with mlflow.start_run() as active:
        logger = DurableLogger(MLflowLogger(run="active"), tmp_path, patience=60)
        thread = LogThread([logger], Warnings("raise"))
        thread.open(run_start())
        thread.log([Point("total", 0.5, 1)])
        thread.close()
        assert MlflowClient().get_run(active.info.run_id).data.metrics == {"total": 0.5}


def test_joining_needs_a_run(sqlite: str) -> None:
    with pytest.raises(ValueError, match="no MLflow run is active"):
        MLflowLogger(sqlite, run="active").open(run_start())
    with pytest.raises(ValueError, match="0000"):
        MLflowLogger(sqlite, run="0" * 32).open(run_start())


def test_the_users_own_mlflow_state_stays_as_it_was(sqlite: str) -> None:
    before = (mlflow.get_tracking_uri(), mlflow.active_run(), dict(os.environ))
    logger = MLflowLogger(sqlite)
    logger.open(run_start())
    logger.log([Point("total", 1.0, 1)])
    logger.close()
    after = (mlflow.get_tracking_uri(), mlflow.active_run(), dict(os.environ))
    ours = "PYTEST_CURRENT_TEST"
    before[2].pop(ours), after[2].pop(ours)
    assert after == before


def test_files_bear_their_own_names(uri: str, tmp_path: Path) -> None:
    (tmp_path / "spooled-7").write_text("curve")
    start = run_start()
    logger = MLflowLogger(uri)
    logger.open(start)
    logger.log([File("curves/box AP.txt", str(tmp_path / "spooled-7"))])
    (run,) = runs(uri, start)
    (artifact,) = MlflowClient(uri).list_artifacts(run.info.run_id, "curves")
    assert artifact.path == "curves/box AP.txt"
    fetched = MlflowClient(uri).download_artifacts(run.info.run_id, artifact.path, str(tmp_path))
    assert Path(fetched).read_text() == "curve"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b"])
def test_a_file_leaves_its_run_by_no_name(sqlite: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "f").write_text("x")
    logger = MLflowLogger(sqlite)
    logger.open(run_start())
    with pytest.raises(Refused, match="leaves the run's folder"):
        logger.log([File(name, str(tmp_path / "f"))])


def test_a_missing_file_costs_no_point(uri: str) -> None:
    start = run_start()
    logger = MLflowLogger(uri)
    logger.open(start)
    with pytest.raises(Refused, match="nowhere"):
        logger.log([File("a.png", "/nowhere/a.png"), Point("total", 1.0, 1)])
    assert history(uri, start, "total") == [(1, 1.0)]


def test_a_deleted_run_takes_nothing_and_says_so(uri: str) -> None:
    start = run_start()
    logger = MLflowLogger(uri)
    logger.open(start)
    MlflowClient(uri).delete_run(runs(uri, start)[0].info.run_id)
    points = [Point(f"m{number}", 1.0, 1) for number in range(50)]
    with pytest.raises(Refused, match="deleted") as refusal:
        logger.log(points)
    assert list(refusal.value.items) == points


def test_a_deleted_experiment_is_named(sqlite: str) -> None:
    start = run_start(experiment="was deleted")
    MLflowLogger(sqlite).open(start)
    client = MlflowClient(sqlite)
    experiment = client.get_experiment_by_name("was deleted")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(ValueError, match="'was deleted' was deleted"):
        MLflowLogger(sqlite).open(start)


def test_a_resumed_run_repeats_no_step(sqlite: str) -> None:
    start = run_start()
    for resumed, steps in ((False, range(1, 8)), (True, range(5, 11))):
        logger = MLflowLogger(sqlite)
        logger.open(replace(start, resumed=resumed))
        logger.log([Point("total", float(resumed), step) for step in steps])
        logger.close()
    expected = [(step, float(step > 7)) for step in range(1, 11)]
    assert sorted(history(sqlite, start, "total")) == expected


@pytest.mark.parametrize("split", ["train", "test", "test-night"])
@pytest.mark.parametrize("fingerprint", ["7f3a2c000000", "v" * 36, "v" * 37, "v" * 38])
def test_a_fingerprint_is_a_dataset_input(sqlite: str, split: str, fingerprint: str) -> None:
    """Longer than MLflow's 36 characters: shortened, so that two never share a digest."""
    start = run_start()
    logger = MLflowLogger(sqlite)
    logger.open(start)
    logger.log([Tag(f"boxscore.fingerprint.{split}", fingerprint)])
    (run,) = runs(sqlite, start)
    (used,) = run.inputs.dataset_inputs
    shortened = f"{fingerprint[:23]}~{hashlib.sha256(fingerprint.encode()).hexdigest()[:12]}"
    digest = fingerprint if len(fingerprint) <= 36 else shortened
    assert (used.dataset.name, used.dataset.digest) == (f"bccd-{split}", digest)
    assert run.data.tags[f"boxscore.fingerprint.{split}"] == fingerprint
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", split)]


@pytest.mark.slow
def test_sigkill_while_the_database_is_created_breaks_nothing(tmp_path: Path) -> None:
    """MLflow itself cannot open a file that it did not complete."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    MLflowLogger(uri).prepare()
    for moment in (0.5, 1.5, 2.5, 3.5):
        child = os.fork()
        if child == 0:
            MLflowLogger(uri).open(run_start())
            os._exit(0)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    start = run_start()
    MLflowLogger(uri).open(start)
    assert len(runs(uri, start)) == 1


@pytest.mark.parametrize("uri", ["file:///srv/mlruns", "./mlruns", "mlruns"])
def test_a_folder_is_refused_with_the_way_out(uri: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///mlflow\.db"):
        MLflowLogger(uri)


def test_a_folder_by_default_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///srv/mlruns")
    with pytest.raises(ValueError, match=r"sqlite:///mlflow\.db"):
        MLflowLogger().open(run_start())


def test_mlflows_default_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert MLflowLogger().place()["tracking_uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    relative = MLflowLogger("sqlite:///runs.db?timeout=5")
    assert relative.place()["tracking_uri"] == f"sqlite:///{tmp_path}/runs.db?timeout=5"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    at_home = MLflowLogger("sqlite:///~/runs.db").place()
    assert at_home["tracking_uri"] == f"sqlite:///{tmp_path}/home/runs.db"


def test_the_files_of_sqlite_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "f.txt").write_text("x")
    logger = MLflowLogger("sqlite:///../out/mlflow.db")
    logger.open(run_start())
    logger.log([File("f.txt", str(tmp_path / "f.txt"))])
    assert len([*(tmp_path / "out" / "mlartifacts").rglob("f.txt")]) == 1
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def test_a_place_tells_no_credentials_and_leads_back(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = server.uri.replace("://", "://ann:s3cret@")
    place = MLflowLogger(secret, experiment="shelf").place()
    assert "s3cret" not in repr(place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match="credentials are missing"):
        MLflowLogger.at(place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    for back in (MLflowLogger.at(place), MLflowLogger.at(place, secret)):
        assert back.place() == place


def test_an_outage_is_a_connection_error_without_credentials() -> None:
    logger = MLflowLogger("http://ann:s3cret@127.0.0.1:9/")
    with pytest.raises(ConnectionError) as outage:
        logger.open(run_start())
    assert "s3cret" not in str(outage.value)
    assert outage.value.__cause__ is None


def test_ending_a_run_prints_no_credentials(server: Any, capfd: pytest.CaptureFixture[str]) -> None:
    logger = MLflowLogger(server.uri.replace("://", "://ann:s3cret@"))
    logger.open(run_start())
    logger.close()
    written = capfd.readouterr()
    assert "s3cret" not in written.out + written.err


def test_a_copy_is_unopened(sqlite: str) -> None:
    logger = MLflowLogger(sqlite, experiment="shelf")
    logger.open(run_start())
    copy = pickle.loads(pickle.dumps(logger))
    assert copy.place() == logger.place()
    with pytest.raises(RuntimeError, match="open"):
        copy.log([Point("total", 1.0, 1)])


def test_the_users_own_requests_keep_their_limits(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours are tried once; the user's as often and as long as their environment says."""
    import requests

    seen: list[tuple[int, Any]] = []
    send = requests.adapters.HTTPAdapter.send

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((self.max_retries.total, kwargs["timeout"]))
        return send(self, *args, **kwargs)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", spy)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    MLflowLogger(server.uri).open(run_start())
    assert {retries for retries, _ in seen} == {0}
    seen.clear()
    MlflowClient(server.uri).search_experiments()
    assert seen == [(3, 77)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_system_metrics_are_logged_where_mlflow_is_told_to(
    sqlite: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    start = run_start()
    logger = MLflowLogger(sqlite)
    logger.open(start)

    def logged() -> set[str]:
        (run,) = runs(sqlite, start)
        return {key for key in run.data.metrics if key.startswith("system/")}

    deadline = time.monotonic() + 60
    while not logged() and time.monotonic() < deadline:
        time.sleep(0.2)
    logger.close()
    assert "system/cpu_utilization_percentage" in logged()
    assert "not logged" not in capfd.readouterr().err
