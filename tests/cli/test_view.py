"""What people see: both trackers' own pages, in a real browser."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from PIL import Image

from boxscore import Identity, Run
from boxscore.cli.view import Links, servers
from boxscore.keys import picture_name, pictures_scope
from boxscore.logger import Logger
from boxscore.loggers import DurableLogger, MLflowLogger, TensorBoardLogger
from boxscore.records import File

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
GROUPS = ["FCOS 320x320", "FCOS 640x640", "RetinaNet 320x320", "RetinaNet 640x640"]
TARGET: dict[str, Any] = {
    "boxes": np.array([[10.0, 10.0, 50.0, 50.0]]),
    "labels": np.array([1]),
    "image_id": 1,
}
PERFECT = {**TARGET, "scores": np.array([0.9])}


BACKBONES = ["MobileNetV3", "ResNet-18"]
HOSTILE = "<script>alert(1)</script>"
PICTURE_STEPS = (10, 20)


def pictures(run: Run, folder: Path) -> list[File]:
    """Two images of the evaluation at the run's step."""
    scope = pictures_scope("bccd", "test", run.tagged("fingerprint.test"))
    files = []
    for image_id in ("1", "2"):
        path = folder / f"{image_id}.webp"
        Image.new("RGB", (64, 32), (0, 8 * run.step, 0)).save(path)
        files.append(File(picture_name(scope, image_id), str(path), run.step, "test"))
    return files


def train(folder: Path, uri: str, identity: Identity) -> None:
    """Log twenty steps, as a callback would."""
    tracker = MLflowLogger(uri)
    loggers: list[Logger] = [
        TensorBoardLogger(folder / "runs"),
        DurableLogger(tracker, folder / "spool", patience=200),
    ]
    run = Run(
        identity,
        task="detection",
        dataset="bccd",
        classes={1: "RBC"},
        loggers=loggers,
        log_every=1,
        on_error="raise",
        params={HOSTILE: HOSTILE},
    )
    with run:
        for step in range(1, 21):
            run.record({"loss_cls": 2 / step, "loss_bbox": 1 / step}, step=step)
            if step % 5 == 0:
                with run.evaluation(step=step) as evaluation:
                    found = PERFECT | {"boxes": TARGET["boxes"] + 20 / step}
                    evaluation.update([found], [TARGET], {"loss_cls": 3 / step, "loss_bbox": 1.0})
            if step in PICTURE_STEPS:
                run.log(pictures(run, folder))


def train_all(folder: Path, uri: str) -> None:
    """Two algorithms at two input sizes with two backbones, in one experiment."""
    for algorithm, size, backbone in product(("FCOS", "RetinaNet"), (320, 640), BACKBONES):
        train(folder, uri, Identity(algorithm, f"{size}x{size}", backbone))


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logged")
    train_all(folder, f"sqlite:///{folder / 'mlflow.db'}")
    return folder


@pytest.fixture(scope="module")
def links(logged: Path) -> Iterator[Links]:
    with servers(logged) as found:
        yield found


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def view(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of MLflow's saved view, of each store in turn."""
    if request.param == "sqlite":
        yield request.getfixturevalue("links").mlflow
        return
    folder, uri = tmp_path_factory.mktemp("logged"), request.getfixturevalue("postgres")
    train_all(folder, uri)
    with servers(folder, uri) as found:
        assert found.mlflow is not None
        yield found.mlflow


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is absent")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser.new_page(viewport={"width": 1600, "height": 3000})
        browser.close()


def fetch(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.loads(answer.read())


def test_names_in_mlflow(logged: Path) -> None:
    client = MlflowClient(f"sqlite:///{logged / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("bccd")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL)
    names = [f"{group} {backbone}" for group, backbone in product(GROUPS, BACKBONES)]
    assert sorted(run.info.run_name for run in runs) == names
    keys = [set(run.data.metrics) for run in runs]
    for run, own in zip(runs, keys, strict=True):
        group = run.data.tags["boxscore.group"]
        digest = run.data.tags["boxscore.fingerprint.test"]
        assert {k.split("/")[0] for k in own if k.startswith("loss")} == {f"loss {group}"}
        assert {f"loss {group}/total.train", f"loss {group}/total.test"} <= own
        assert {f"metric bccd-test {digest[:6]}/box_AP", "summary/box_AP"} <= own
        assert f"per class bccd-test {digest[:6]}/box_AP RBC" in own
        assert run.info.status == "FINISHED"
        assert run.data.params["input_size"] == run.data.tags["boxscore.input_size"]
        assert run.inputs is not None
        (used,) = run.inputs.dataset_inputs
        assert (used.dataset.digest, used.tags[0].value) == (digest, "test")
        steps = [
            p.step for p in client.get_metric_history(run.info.run_id, f"loss {group}/total.train")
        ]
        assert steps == list(range(1, 21))
    shared = set.intersection(*keys)
    assert not any(key.startswith("loss") for key in shared)
    assert any(key.endswith("/box_AP") for key in shared)


def test_names_in_tensorboard(logged: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for group, backbone in product(GROUPS, BACKBONES):
        algorithm, size = group.split()
        (folder,) = (logged / "runs" / "bccd" / algorithm / size).glob(f"{backbone}-*")
        assert re.fullmatch(r".*-[0-9a-f]{8}", folder.name)
        tags = {}
        for split in ("train", "test"):
            events = EventAccumulator(str(folder / split))
            events.Reload()
            tags[split] = set(events.Tags()["scalars"])
            total = [(e.step, e.value) for e in events.Scalars(f"loss {group}/total")]
            expected = [(s, 3 / s) for s in range(1, 21)]
            if split == "test":
                expected = [(s, 3 / s + 1) for s in (5, 10, 15, 20)]
            assert total == [(step, pytest.approx(value)) for step, value in expected]
        assert f"loss {group}/total" in tags["train"] & tags["test"]
        assert not any(tag.startswith("summary") for tag in tags["train"] | tags["test"])


@pytest.mark.slow
def test_tensorboard_keeps_every_point_and_overlays_train_and_test(links: Links, page: Any) -> None:
    runs = fetch(f"{links.tensorboard}data/runs")
    tag = "loss RetinaNet 640x640/total"
    having = [run for run in runs if "RetinaNet/640x640/ResNet-18" in run]
    assert len(having) == 2
    for run in having:
        query = urllib.parse.urlencode({"run": run, "tag": tag})
        points = fetch(f"{links.tensorboard}data/plugin/scalars/scalars?{query}")
        assert len(points) == (20 if run.endswith("train") else 4)
    page.goto(f"{links.tensorboard}?tagFilter={urllib.parse.quote(tag)}#timeseries")
    cards = page.locator("card-view", has_text="total")  # one chart holds both splits
    cards.get_by_text(re.compile("ResNet-18-.*/test")).first.wait_for(timeout=90_000)
    cards.get_by_text(re.compile("ResNet-18-.*/train")).first.wait_for(timeout=90_000)
    assert cards.count() == 1


@pytest.mark.slow
def test_mlflow_opens_on_metrics_and_losses_by_group(view: str, page: Any) -> None:
    odd: list[str] = []
    page.on("dialog", lambda dialog: odd.append(dialog.message))
    page.on("pageerror", lambda error: odd.append(str(error)))
    page.on("request", lambda one: odd.append(one.url) if is_elsewhere(one.url) else None)
    page.goto(view)
    for group in GROUPS:
        page.get_by_text(f"loss {group}", exact=True).first.wait_for(timeout=90_000)
    lines = page.locator("body").inner_text().splitlines()
    shown = [re.sub(r" \(\d+\)$", "", line) for line in lines]
    sections = [line for line in shown if re.fullmatch(r"(loss|metric|overview|pict)[^/]*", line)]
    (of_set,) = (line for line in sections if line.startswith("metric bccd-test"))
    named = of_set.removeprefix("metric ")
    groups = [f"loss {group}" for group in GROUPS]
    assert sections == ["overview", of_set, *groups, f"pictures {named}"]
    titles = [f"box_AP {named}", *(f"total {group}" for group in GROUPS)]
    for title in titles:  # without a click, and whole
        box = page.get_by_text(title, exact=True).first
        assert box.evaluate("title => title.scrollWidth <= title.clientWidth"), title
        assert box.bounding_box()["y"] < 1100, title
    page.get_by_text(f"pictures {named}", exact=True).first.scroll_into_view_if_needed()
    loaded = "[...document.images].filter(one => one.naturalWidth == 64).length"
    page.wait_for_function(f"{loaded} >= 8", timeout=90_000)  # one of each run, at least
    assert odd == []


def is_elsewhere(url: str) -> bool:
    return urllib.parse.urlsplit(url).hostname not in ("127.0.0.1", None)


@pytest.mark.slow
def test_the_command_serves_until_sigterm_and_leaves_no_process(logged: Path) -> None:
    command = [sys.executable, "-m", "boxscore", "view", str(logged)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = [process.stdout.readline() for _ in range(3)]
        addresses = [re.search(r"http://127\.0\.0\.1:\d+/", line) for line in shown[:2]]
        assert all(addresses), shown
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode == -signal.SIGTERM
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert os.path.exists(logged / "mlflow.db")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda _: None, r"no folder runs \(TensorBoard\); .* no mlflow\.db \(MLflow\)"),
        (
            lambda path: (path / "runs").mkdir(),
            r"runs holds no event file \(TensorBoard\); .* no ml",
        ),
        (lambda path: (path / "runs").touch(), "no folder runs"),
        (lambda path: (path / "mlflow.db").mkdir(), r"no mlflow\.db"),
        (
            lambda path: (path / "mlflow.db").touch(),
            r"mlflow\.db is not a database of MLflow: no such",
        ),
        (lambda path: (path / "mlflow.db").write_text("x" * 200), "is not a database of MLflow"),
    ],
)
def test_a_folder_without_logs_is_an_error(
    tmp_path: Path, make: Callable[[Path], Any], told: str
) -> None:
    make(tmp_path)
    with pytest.raises(ValueError, match=told), servers(tmp_path):
        pass


@pytest.mark.slow
def test_any_log_folder_and_any_store_are_shown(logged: Path, tmp_path: Path) -> None:
    """Event files without a folder ``runs``, and several experiments of a database elsewhere."""
    (tmp_path / "logs").symlink_to(logged / "runs" / "bccd")
    uri = f"sqlite:///{tmp_path / 'else.db'}"
    shutil.copy(logged / "mlflow.db", tmp_path / "else.db")
    MlflowClient(uri).create_experiment("another")
    with servers(tmp_path / "logs", uri) as found:
        assert found.tensorboard is not None
        with urllib.request.urlopen(f"{found.tensorboard}data/runs", timeout=20) as answer:
            assert json.load(answer)
        assert found.absent == ()
        assert list(found.experiments) == ["another", "bccd"]
        assert found.mlflow == found.experiments["another"]
        with servers(tmp_path / "logs", found.mlflow.partition("#")[0]) as again:
            assert list(again.experiments) == ["another", "bccd"]  # of a server that runs


@pytest.mark.slow
def test_the_tracker_without_logs_is_told(logged: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(logged / "runs")
    with servers(tmp_path) as found:
        assert found.tensorboard is not None
        assert (found.mlflow, found.absent) == (None, (f"{tmp_path} has no mlflow.db (MLflow)",))
