"""What the tab's routes answer, asked through TensorBoard's own application."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.application import TensorBoardWSGI
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.summary import Writer
from werkzeug.test import Client

from boxscore import Identity, Point
from boxscore.dashboard import BoxscorePlugin
from boxscore.logger import Status
from boxscore.loggers import TensorBoardLogger
from boxscore.records import RunStart
from tests.dashboard.folders import detection, eight

RETINANET = Identity("RetinaNet", "640x640", "ResNet-18")
LOSS = "loss RetinaNet 640x640"
HOSTILE = ["<script>alert(1)</script>", "../../etc", "x" * 200, "🐟 fish", "שלום עולם"]


class Tab:
    """The routes over a log folder, read by TensorBoard's Python loader."""

    def __init__(self, folder: Path) -> None:
        runs = EventMultiplexer(tensor_size_guidance={"scalars": 0})
        runs.AddRunsFromDirectory(str(folder))
        runs.Reload()
        provider = MultiplexerDataProvider(runs, str(folder))
        plugin = BoxscorePlugin(TBContext(data_provider=provider))
        self._client = Client(TensorBoardWSGI([plugin], data_provider=provider))

    def ask(self, route: str, method: str = "GET", **query: Any) -> tuple[int, str]:
        path = f"/data/plugin/boxscore/{route}"
        answer = self._client.open(path, method=method, query_string=query)
        return answer.status_code, answer.get_data(as_text=True)

    def answer(self, route: str, **query: Any) -> Any:
        """The answer itself."""
        return self._client.get(f"/data/plugin/boxscore/{route}", query_string=query)

    def get(self, route: str, **query: Any) -> Any:
        status, text = self.ask(route, **query)
        assert status == 200, text
        return json.loads(text)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Tab:
    folder = tmp_path_factory.mktemp("runs")
    eight(folder)
    return Tab(folder)


def log(
    folder: Path,
    points: list[Point],
    name: str = "a-00000000",
    status: Status | None = "FINISHED",
) -> None:
    """Log ``points`` in a run of their own."""
    logger = TensorBoardLogger(folder)
    logger.open(RunStart("0" * 32, "a", "bccd", f"bccd/RetinaNet/640x640/{name}"))
    logger.log(points)
    if status:
        logger.close(status)


def test_the_overview_has_runs_groups_and_sets(tab: Tab) -> None:
    found = tab.get("overview")
    assert [(run["group"], run["backbone"]) for run in found["runs"]] == [
        (f"{algorithm} {size}x{size}", backbone)
        for algorithm in ("FCOS", "RetinaNet")
        for size in (320, 640)
        for backbone in ("MobileNetV3", "ResNet-18")
    ]
    assert {run["params"]["learning_rate"] for run in found["runs"]} == {"0.01", "0.02"}
    assert [run["last_step"] for run in found["runs"]] == [20] * 8
    assert [(group["dataset"], group["group"]) for group in found["groups"]] == [
        ("bccd", f"{algorithm} {size}x{size}")
        for algorithm in ("FCOS", "RetinaNet")
        for size in (320, 640)
    ]
    assert list(found["groups"][0]["losses"]) == ["total", "classification", "localization"]
    (one,) = found["sets"]
    assert (one["dataset"], one["split"], one["per_class"]) == ("bccd", "test", ["box_AP"])
    assert list(one["metrics"])[:3] == ["box_AP", "box_AP50", "box_AP75"]
    assert set(one["runs"]) == {run["id"] for run in found["runs"]}
    assert found["measures"]["total"]["better"] == "lower"
    assert found["foreign"] == {"tags": 0, "runs": 0}


def test_a_chart_has_one_groups_train_and_test(tab: Tab) -> None:
    """Exactly the logged values, those of train first so that test's are drawn above."""
    (group,) = (g for g in tab.get("overview")["groups"] if g["group"] == "RetinaNet 640x640")
    curves = tab.get("curves", tag=group["losses"]["classification"])["curves"]
    assert [curve["split"] for curve in curves] == ["train", "train", "test", "test"]
    assert {curve["run"] for curve in curves} == set(group["runs"])
    assert curves[0]["steps"] == list(range(1, 21))
    assert curves[0]["values"] == [pytest.approx(2 / step + 0.1) for step in range(1, 21)]
    assert curves[2]["steps"] == [5, 10, 15, 20]
    one = tab.get("curves", tag=group["losses"]["total"], run=group["runs"][:1])["curves"]
    assert {curve["run"] for curve in one} == {group["runs"][0]}


def test_a_zoomed_chart_is_smoothed_as_the_whole(tab: Tab) -> None:
    """A moving average of the window alone would show other values."""
    query = {"tag": f"{LOSS}/total", "smoothing": 0.9}
    whole = tab.get("curves", **query)["curves"][0]
    part = tab.get("curves", **query, first=10, last=12)["curves"][0]
    assert part["steps"] == [9, 10, 11, 12, 13]
    assert part["smoothed"] == whole["smoothed"][8:13]
    assert whole["smoothed"] != whole["values"]


def test_the_leaderboard_tells_best_and_last(tmp_path: Path) -> None:
    scope = "metric bccd-test 7f3a2c"
    for name, values in {"a-00000000": (0.2, 0.6, 0.4), "b-00000000": (0.1, 0.2, 0.5)}.items():
        points = [
            Point(measure, value + shift, 10 * step, "test", scope=scope)
            for step, value in enumerate(values, 1)
            for measure, shift in (("box_AP", 0), ("box_AP50", 0.25))
        ]
        log(tmp_path, [*points, Point("box_AP75", float("nan"), 30, "test", scope=scope)], name)
    tab = Tab(tmp_path)
    rows = tab.get("leaderboard", set="bccd-test 7f3a2c", by="box_AP")["rows"]
    shown = [[row[k] for k in ("best", "best_step", "last", "last_step")] for row in rows]
    assert shown == [[0.6, 20, 0.4, 30], [0.5, 30, 0.5, 30]]
    assert rows[0]["at_last"] == {"box_AP": 0.4, "box_AP50": 0.65, "box_AP75": None}
    assert rows[0]["at_best"] == {"box_AP": 0.6, "box_AP50": 0.85, "box_AP75": None}
    rows = tab.get("leaderboard", set="bccd-test 7f3a2c", by="box_AP75")["rows"]
    assert [(row["best"], row["best_step"]) for row in rows] == [(None, None)] * 2


def test_classes_are_those_of_the_last_evaluation(tab: Tab) -> None:
    (one,) = tab.get("overview")["sets"]
    found = tab.get("classes", set=one["set"], measure="box_AP")
    assert set(found["classes"]) == {"RBC", "WBC", "Platelets"}
    assert found["steps"] == dict.fromkeys(found["steps"], 20)
    board = tab.get("leaderboard", set=one["set"], by="box_AP")["rows"]
    for row in board:
        of_classes = [values[row["run"]] for values in found["classes"].values()]
        assert sum(of_classes) / 3 == pytest.approx(row["last"])


def test_a_class_that_the_last_evaluation_lacks_has_no_figure(tmp_path: Path) -> None:
    scope = "per class bccd-test 7f3a2c"
    points = [Point("box_AP RBC", 0.5, 10, "test", scope=scope)]
    log(tmp_path, [*points, Point("box_AP WBC", 0.4, 20, "test", scope=scope)])
    found = Tab(tmp_path).get("classes", set="bccd-test 7f3a2c", measure="box_AP")
    values = {name: list(of_run.values()) for name, of_run in found["classes"].items()}
    assert values == {"RBC": [None], "WBC": [0.4]}


def test_a_long_curve_keeps_its_ends_and_extremes(tmp_path: Path) -> None:
    points = [Point("total", 1.0 + step % 7, step, scope=LOSS) for step in range(1, 10_001)]
    points[5_432] = Point("total", 99.0, 5_433, scope=LOSS)
    points[7_000] = Point("total", float("nan"), 7_001, scope=LOSS)
    points[8_765] = Point("total", -3.0, 8_766, scope=LOSS)
    log(tmp_path, points)
    (curve,) = Tab(tmp_path).get("curves", tag=f"{LOSS}/total")["curves"]
    assert len(curve["steps"]) <= 800
    assert (curve["steps"][0], curve["steps"][-1]) == (1, 10_000)
    shown = dict(zip(curve["steps"], curve["values"], strict=True))
    assert (shown[5_433], shown[8_766]) == (99.0, -3.0)
    assert curve["first_nan"] == 7_001


@pytest.mark.parametrize(
    ("route", "query", "status", "told"),
    [
        ("curves", {"tag": "loss YOLO 640x640/total"}, 404, "tag loss YOLO 640x640/total"),
        ("curves", {"tag": f"{LOSS}/total", "run": "00000000"}, 404, "run 00000000"),
        ("curves", {}, 400, "tag is missing"),
        ("curves", {"tag": f"{LOSS}/total", "smoothing": "1"}, 400, "not in [0, 1)"),
        ("curves", {"tag": f"{LOSS}/total", "smoothing": "nan"}, 400, "not finite"),
        ("curves", {"tag": f"{LOSS}/total", "first": "x"}, 400, "could not convert"),
        ("leaderboard", {"set": "bccd-test 000000", "by": "box_AP"}, 404, "box_AP of set"),
        ("leaderboard", {"set": "bccd-test 000000"}, 400, "by is missing"),
        ("classes", {"set": "bccd-test 000000", "measure": "box_AP"}, 404, "box_AP per class"),
        ("static/../routes.py", {}, 404, ""),
        ("static/%2e%2e/routes.py", {}, 404, ""),
        ("static//etc/passwd", {}, 404, ""),
        ("static/", {}, 404, ""),
        ("static/report.html", {}, 404, ""),
        ("nothing", {}, 404, ""),
    ],
)
def test_what_is_unknown_is_refused(
    tab: Tab, route: str, query: Mapping[str, Any], status: int, told: str
) -> None:
    found, text = tab.ask(route, **query)
    assert found == status
    assert told in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_only_get_is_answered(tab: Tab, method: str) -> None:
    routes = ["overview", "curves", "leaderboard", "classes", "evaluations", "picture"]
    routes += ["precision", "confusion", "static/index.js", "plotly.js"]
    assert [tab.ask(route, method)[0] for route in routes] == [405] * len(routes)


def test_the_page_and_its_library_come_from_here(tab: Tab) -> None:
    for name in ("index.js", "chart.js", "style.css"):
        status, text = tab.ask(f"static/{name}")
        assert status == 200
        assert "https:" not in text
    status, text = tab.ask("plotly.js")
    assert status == 200
    assert "plotly.js v" in text[:200]


def test_names_of_users_are_text(tmp_path: Path) -> None:
    classes = dict(enumerate(HOSTILE, 1))
    for name in HOSTILE:
        identity = Identity("RetinaNet", "640x640", name)
        detection(tmp_path, identity, dataset=name, classes=classes, steps=5, params={name: name})
    found = Tab(tmp_path).get("overview")
    assert {run["backbone"] for run in found["runs"]} == set(HOSTILE)
    assert {run["dataset"] for run in found["runs"]} == set(HOSTILE)
    assert {value for run in found["runs"] for value in run["params"].values()} >= set(HOSTILE)
    assert set(HOSTILE) - set(found["originals"].values()) <= {"שלום עולם"}
    assert len(found["groups"]) == len(found["sets"]) == len(HOSTILE)
    assert {len(group["runs"]) for group in found["groups"]} == {1}


def test_foreign_curves_are_counted_and_left_alone(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path / "other"))
    for tag in ("loss/train", "accuracy", "loss RetinaNet 640x640/total"):
        writer.add_scalar(tag, 1.0, 1)
    writer.close()
    tab = Tab(tmp_path)
    found = tab.get("overview")
    assert found["foreign"] == {"tags": 3, "runs": 1}
    assert (found["runs"], found["groups"], found["sets"]) == ([], [], [])
    assert tab.ask("curves", tag="accuracy")[0] == 404
    assert tab.ask("curves", tag="loss RetinaNet 640x640/total")[0] == 404


def test_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    found = Tab(tmp_path).get("overview")
    assert (found["runs"], found["groups"], found["sets"]) == ([], [], [])


@pytest.mark.parametrize("cut", [1, 3])
def test_a_torn_file_shows_what_is_whole(tmp_path: Path, cut: int) -> None:
    points = [Point("total", float(step), step, scope=LOSS) for step in range(1, 11)]
    log(tmp_path, points, status=None)
    (file,) = tmp_path.rglob("*tfevents*")
    file.write_bytes(file.read_bytes()[:-cut])
    (curve,) = Tab(tmp_path).get("curves", tag=f"{LOSS}/total")["curves"]
    assert curve["steps"] == list(range(1, 10))


def test_a_run_that_has_no_points_yet_is_listed(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    tags = {"boxscore.group": "FCOS 640x640", "boxscore.dataset": "bccd"}
    logger.open(RunStart("1" * 32, "a", "bccd", "bccd/FCOS/640x640/b-11111111", tags=tags))
    logger.close()
    (run,) = Tab(tmp_path).get("overview")["runs"]
    assert (run["group"], run["dataset"], run["last_step"]) == ("FCOS 640x640", "bccd", None)


@pytest.mark.parametrize("part", ["bccd", "bccd/RetinaNet", "bccd/RetinaNet/640x640"])
def test_a_part_of_a_log_folder_shows_the_same(tmp_path: Path, part: str) -> None:
    detection(tmp_path, RETINANET, steps=5)
    (run,) = Tab(tmp_path / part).get("overview")["runs"]
    assert (run["group"], run["backbone"], run["dataset"]) == (
        "RetinaNet 640x640", "ResNet-18", "bccd",
    )  # fmt: skip


def test_a_run_tells_how_it_ended(tmp_path: Path) -> None:
    points = [Point("total", 1.0, 1, scope=LOSS)]
    log(tmp_path, points, "a-running", None)
    log(tmp_path, points, "b-failed", "FAILED")
    log(tmp_path, points, "c-resumed", "KILLED")
    log(tmp_path, points, "c-resumed", "FINISHED")
    runs = Tab(tmp_path).get("overview")["runs"]
    found = {run["folder"].rpartition("/")[2]: run["status"] for run in runs}
    assert found == {"a-running": "RUNNING", "b-failed": "FAILED", "c-resumed": "FINISHED"}


def test_two_datasets_share_no_losses(tmp_path: Path) -> None:
    for dataset in ("bccd", "night"):
        detection(tmp_path, RETINANET, dataset=dataset, steps=5)
    groups = Tab(tmp_path).get("overview")["groups"]
    assert [(group["dataset"], len(group["runs"])) for group in groups] == [
        ("bccd", 1),
        ("night", 1),
    ]


def test_tensorboard_finds_the_tab() -> None:
    (found,) = importlib.metadata.entry_points(group="tensorboard_plugins", name="boxscore")
    assert found.load() is BoxscorePlugin


@pytest.mark.parametrize("absent", ["numpy", "werkzeug", "boxscore.keys", "tensorboard.data"])
def test_a_failing_import_is_told_in_the_tab_alone(absent: str) -> None:
    """TensorBoard would not start if importing the entry point's module failed."""
    code = f"""
import sys, boxscore.dashboard
sys.modules[{absent!r}] = None
[sys.modules.pop(name) for name in list(sys.modules) if name.startswith({absent!r} + ".")]
from tensorboard.plugins.base_plugin import TBContext
apps = boxscore.dashboard.BoxscorePlugin(TBContext()).get_plugin_apps()
print(list(apps), b"".join(apps["/static/index.js"]({{}}, lambda *_: None)).decode())
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("['/static/index.js'] export function render()")
    assert f"No module named '{absent}" in shown.stdout or f"import of {absent}" in shown.stdout


def test_a_missing_data_provider_is_told() -> None:
    apps = BoxscorePlugin(TBContext()).get_plugin_apps()
    page: Callable[..., Any] = apps["/static/index.js"]
    assert b"generic_data" in b"".join(page({}, lambda *_: None))
