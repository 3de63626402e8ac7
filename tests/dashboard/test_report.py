"""A run's report: what it is made of, and what a browser shows of it."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxscore import CATALOGUE, File, Identity, Point, Run
from boxscore.cli.report import read_folder, read_run, write_report
from boxscore.dashboard.history import LONGEST, PICTURES, History, Series
from boxscore.dashboard.report import report
from boxscore.loggers import MLflowLogger, TensorBoardLogger

CHROMIUM = shutil.which("chromium")
NAMES = ["<script>alert(1)</script>", "../../etc", "n" * 200, "🐈", "قط"]
WEBP = b"RIFF\x1a\0\0\0WEBPVP8 \x0e\0\0\0\x30\1\0\x9d\1\x2a\1\0\1\0\0\0\0\0"


def logged(tmp_path: Path, *loggers: Any, dataset: str = "bccd") -> History:
    """A run of ten steps, with an evaluation, of classes with odd names."""
    history = History()
    run = Run(
        Identity("RetinaNet", "64x64", "ResNet-18"),
        task="detection",
        dataset=dataset,
        classes=dict(enumerate(NAMES)),
        loggers=[history, *loggers],
        log_every=1,
        params={"note": NAMES[0]},
        on_error="raise",
    )
    box = {"boxes": np.array([[0.0, 0, 20, 20]]), "labels": np.array([0])}
    with run:
        for step in range(1, 11):
            run.record({"loss_cls": 1 / step, "loss_bbox": 2 / step}, step=step)
        with run.evaluation() as evaluation:
            evaluation.update([box | {"scores": np.array([0.8])}], [box | {"image_id": 1}])
        picture = tmp_path / "x.webp"
        picture.write_bytes(WEBP)
        run.log([File("pictures bccd-test 123456/7.webp", str(picture), 10, "test")])
    return history


def facts(page: str) -> dict[str, Any]:
    """The facts in a page."""
    found = re.search(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def test_it_holds_curves_figures_classes_pictures_and_definitions(tmp_path: Path) -> None:
    found = facts(report(logged(tmp_path), ["a remark"]))
    assert (found["name"], found["group"]) == ("RetinaNet 64x64 ResNet-18", "RetinaNet 64x64")
    total = next(chart for chart in found["losses"] if chart["measure"] == "total")
    assert total["definition"] == CATALOGUE["total"].definition
    assert total["curves"][0]["values"] == pytest.approx([3 / step for step in range(1, 11)])
    best = {row["measure"]: row["best"] for row in found["figures"]}
    assert best["box_AP"] == [10, pytest.approx(1.0)]
    assert found["sets"][0].startswith("bccd-test ")
    table = found["tables"]["test"]
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert row["class"] == NAMES[0]
    assert (row["best_F1_confidence"], row["best_F1"]) == (0.8, 1.0)
    curves = found["curves"]["test"]
    assert curves["confusion"][0][0] == 1
    assert [one["name"] for one in curves["classes"]] == ["", NAMES[0]]
    assert found["pictures"][0]["source"].startswith("data:image/webp;base64,")
    assert found["remarks"][0] == "a remark"
    assert "1.0000 at confidence 0.8000" in found["remarks"][1]
    assert found["params"]["note"] == NAMES[0]


def test_no_name_is_markup(tmp_path: Path) -> None:
    page = report(logged(tmp_path, dataset=NAMES[0]), [NAMES[0]])
    assert "<script>alert" not in page
    assert NAMES[0] in facts(page)["remarks"]


def test_series_keep_first_last_and_order() -> None:
    series = Series()
    for step in range(10 * LONGEST):
        series.add(step, float(step))
    assert len(series.points) <= LONGEST + 1
    assert series.points[0] == (0, 0.0)
    assert series.points[-1][0] == 10 * LONGEST - 1
    assert series.points == sorted(series.points)
    series.add(50, math.nan)  # resumed
    assert [step for step, _ in series.points][-2:][1] == 50


def test_only_the_newest_pictures_are_kept(tmp_path: Path) -> None:
    history, path = History(), tmp_path / "x.webp"
    path.write_bytes(WEBP)
    for n in range(2 * PICTURES):
        history.log([File(f"pictures a-test b/{n}.webp", str(path), n, "test")])
    assert [step for step, _ in history.pictures.values()] == list(range(PICTURES, 2 * PICTURES))


def test_values_that_are_not_finite_are_gaps() -> None:
    history = History()
    history.log([Point("total", math.nan, 1, "train", scope="loss FCOS 64x64")])
    assert facts(report(history))["losses"][0]["curves"][0]["values"] == [None]


@pytest.mark.slow
def test_it_is_made_from_event_files_and_from_mlflow(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    live = logged(tmp_path, TensorBoardLogger(tmp_path / "runs"), MLflowLogger(uri))
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("bccd")
    assert experiment is not None
    run_id = client.search_runs([experiment.experiment_id])[0].info.run_id
    wanted = facts(report(live))
    for history in (read_folder(tmp_path / "runs"), read_run(run_id, uri)):
        found = facts(report(history))
        for part in ("name", "group", "task", "status", "sets", "pictures"):
            assert found[part] == wanted[part], part
        for part in ("classes", "names", "confusion"):
            assert found["curves"]["test"][part] == wanted["curves"]["test"][part], part
        for kind in ("losses", "metrics"):
            assert [one["measure"] for one in found[kind]] == [o["measure"] for o in wanted[kind]]
            for one, other in zip(found[kind], wanted[kind], strict=True):
                for curve, expected in zip(one["curves"], other["curves"], strict=True):
                    assert curve["steps"] == expected["steps"]
                    assert curve["values"] == pytest.approx(expected["values"], rel=1e-6)
    assert write_report(run_id, uri, tmp_path / "r.html").stat().st_size > 1_000_000


def test_a_folder_without_one_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        write_report(str(tmp_path), None, None)
    for name in ("a", "b"):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train" / "events.out.tfevents.1").touch()
    with pytest.raises(ValueError, match="holds 2 runs: pass the folder of one, such as a, b"):
        write_report(str(tmp_path), None, None)
    with pytest.raises(ValueError, match="neither a folder nor a run in MLflow"):
        write_report("0123", f"sqlite:///{tmp_path / 'm.db'}", None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_a_browser_shows_it_without_an_error_or_a_request(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    page_file = tmp_path / "report.html"
    page_file.write_text(report(logged(tmp_path), NAMES), encoding="utf-8")
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else said.append(r.url),
        )
        page.goto(page_file.as_uri())
        page.wait_for_selector("h2:has-text('Settings')")
        colours = page.eval_on_selector_all(
            ".chart .js-line", "lines => lines.map(line => line.style.stroke)"
        )
        assert "rgb(255, 127, 14)" in colours
        assert page.locator("li").all_inner_texts()[: len(NAMES)] == NAMES
        assert page.locator("figure img").count() == 1
        column = page.locator("th", has_text="best_F1_confidence")
        column.click()
        browser.close()
    assert [text for text in said if not text.startswith(("file:", "data:", "blob:"))] == []
