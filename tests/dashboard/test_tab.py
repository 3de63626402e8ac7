"""The tab as people see it: TensorBoard's own page in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxscore import Identity, Run
from boxscore.loggers import TensorBoardLogger
from tests.dashboard.folders import detection, eight
from tests.dashboard.pages import LOADERS, Open, serving

pytestmark = pytest.mark.slow

ORANGE, BLUE = "rgb(255, 127, 14)", "rgb(31, 119, 180)"
GROUPS = ["FCOS 320x320", "FCOS 640x640", "RetinaNet 320x320", "RetinaNet 640x640"]

# of each chart in sight: its section, measure, and of each curve the run, split and drawn colour
DRAWN = """() => [...document.querySelectorAll(".plot")]
  .filter((plot) => plot._fullData)
  .map((plot) => ({
    section: plot.closest("details.section").querySelector("h2").textContent,
    measure: plot.parentElement.querySelector("figcaption").textContent,
    bottom: plot.getBoundingClientRect().bottom,
    curves: plot._fullData.map((trace) => ({
      ...trace.meta,
      name: trace.name,
      dash: trace.line.dash,
      colour: getComputedStyle(plot.querySelector(`.trace${trace.uid} .js-line`)).stroke,
    })),
  }))"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    eight(folder)
    return folder


@pytest.fixture(scope="module", params=list(LOADERS.values()), ids=list(LOADERS))
def address(logged: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    with serving(logged, request.param) as found:
        yield found


def charts(frame: Any, count: int) -> list[dict[str, Any]]:
    """The charts that are drawn, once there are ``count``."""
    frame.wait_for_function(f"() => ({DRAWN})().length >= {count}", timeout=60_000)
    found: list[dict[str, Any]] = frame.evaluate(DRAWN)
    return found


def column(frame: Any, index: int) -> list[str]:
    """Texts of a column of the leaderboard."""
    cells = frame.locator(f".board tbody tr td:nth-child({index + 1})")
    found: list[str] = cells.all_inner_texts()
    return found


def under_pointer(frame: Any) -> str:
    """What the first chart shows where the pointer comes to rest near its last step."""
    box = frame.locator(".plot").first.bounding_box()
    x, y = box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.4
    frame.page.mouse.move(x - 50, y)
    frame.page.mouse.move(x, y, steps=5)
    frame.wait_for_function("() => document.querySelector('.plot .hoverlayer').textContent")
    return str(frame.locator(".plot .hoverlayer").first.text_content())


def test_the_first_screen_shows_losses_and_metrics(address: str, show: Open) -> None:
    """Without a click; train is orange and test is blue; no chart mixes groups."""
    frame = show(f"{address}#boxscore")
    drawn = charts(frame, 4)
    metrics, *losses = drawn
    assert metrics["section"].startswith("Metrics on bccd-test")
    assert metrics["measure"] == "box_AP"
    assert len({curve["colour"] for curve in metrics["curves"]}) == 8
    assert not {ORANGE, BLUE} & {curve["colour"] for curve in metrics["curves"]}
    in_sight = [chart for chart in losses if chart["bottom"] <= 1100 - 64]
    assert [chart["measure"] for chart in in_sight][:3] == [
        "total", "classification", "localization",
    ]  # fmt: skip
    overview = frame.evaluate("() => fetch('./overview').then((answer) => answer.json())")
    groups = {run["id"]: run["group"] for run in overview["runs"]}
    for chart in losses:
        (group,) = {groups[curve["run"]] for curve in chart["curves"]}
        assert chart["section"] == f"Losses of {group}"
        colours = {(curve["split"], curve["colour"]) for curve in chart["curves"]}
        assert colours == {("train", ORANGE), ("test", BLUE)}
        dashes = {curve["run"]: curve["dash"] for curve in chart["curves"]}
        assert sorted(dashes.values()) == ["dash", "solid"]
    sections = frame.locator("details.section h2").all_inner_texts()
    assert sections[1:-1] == [f"Losses of {group}" for group in GROUPS]
    assert sections[-1].startswith("Evaluations on bccd-test")
    titles = frame.locator("figcaption, .board th button").evaluate_all(
        "found => found.map((title) => title.scrollWidth <= title.clientWidth)"
    )
    assert all(titles)


def test_the_leaderboard_is_sorted_by_any_column(address: str, show: Open) -> None:
    frame = show(f"{address}#boxscore")
    frame.locator(".board tbody tr").first.wait_for()
    assert column(frame, 0) == [str(rank) for rank in range(1, 9)]
    best = [float(text) for text in column(frame, 2)]
    assert best == sorted(best, reverse=True)
    frame.locator(".board th button[data-column=run]").click()
    names = column(frame, 1)
    assert names == sorted(names)
    button = frame.locator(".board th button[data-column=box_AP75]")
    button.focus()
    button.press("Enter")  # the best first, then the other way round; the focus stays
    index = frame.locator(".board th button").evaluate_all(
        "found => found.findIndex((one) => one.dataset.column === 'box_AP75')"
    )
    falling = [float(text) for text in column(frame, index)]
    assert falling == sorted(falling, reverse=True)
    frame.page.keyboard.press("Enter")
    assert [float(text) for text in column(frame, index)] == falling[::-1]
    frame.locator(".section").first.get_by_label("rank by").select_option("box_AP50")
    frame.locator(".board th button[data-column=best]", has_text="box_AP50").wait_for()
    frame.locator(".classes th button").nth(1).click()
    figures = frame.locator(".classes tbody td:nth-child(2)").all_inner_texts()
    assert figures == sorted(figures, reverse=True)


def test_a_link_restores_the_state(address: str, show: Open) -> None:
    frame = show(f"{address}#boxscore")
    charts(frame, 4)
    frame.get_by_label("Filter runs").fill("RetinaNet ResNet")
    frame.wait_for_function("() => document.querySelectorAll('aside .run').length === 2")
    frame.locator("aside .run input").first.uncheck()
    frame.get_by_label("losses on a log scale").check()
    frame.get_by_label("Smoothing").fill("0.6")
    frame.locator(".board th button[data-column=last]").click()
    frame.locator(".section").first.get_by_label("figures of").select_option("best")
    plot = frame.locator("figure", has_text="total").locator("visible=true").first.locator(".plot")
    plot.scroll_into_view_if_needed()
    charts(frame, 2)
    plot.focus()
    plot.press("+")
    frame.wait_for_function("() => parent.location.hash.includes('zoom')")
    link = frame.page.url
    assert "#boxscore&p.boxscore." in link
    other = show(link)
    (_, total) = charts(other, 2)[:2]
    assert other.get_by_label("Filter runs").input_value() == "RetinaNet ResNet"
    assert other.locator("aside .run").all_inner_texts() == ["ResNet-18\nonly"] * 2
    assert [box.is_checked() for box in other.locator("aside .run input").all()] == [False, True]
    assert other.get_by_label("losses on a log scale").is_checked()
    assert other.get_by_label("Smoothing").input_value() == "0.6"
    assert other.locator(".board th[aria-sort=descending]").inner_text().startswith("last")
    assert column(other, 1) == ["RetinaNet 640x640 ResNet-18"]
    assert total["measure"] == "total"
    assert total["section"] == "Losses of RetinaNet 640x640"
    assert len(total["curves"]) == 4  # smoothed ones, and faint behind them the values
    axes = """() => [...document.querySelectorAll(".plot")].filter((plot) => plot._fullLayout)
      .map((plot) => [plot._fullLayout.yaxis.type, ...plot._fullLayout.xaxis.range])"""
    assert ["log", *map(int, re.findall(r"=(\d+)%2C(\d+)", link)[0])] in other.evaluate(axes)
    assert other.page.url == link
    other.page.get_by_role("tab", name="TIME SERIES").click()
    other.page.wait_for_url(re.compile("#timeseries"))
    other.page.get_by_role("tab", name="BOXSCORE").click()
    other.page.wait_for_url(link)


def test_values_are_shown_under_the_pointer(address: str, show: Open) -> None:
    frame = show(f"{address}#boxscore")
    charts(frame, 4)
    text = under_pointer(frame)
    best = column(frame, 2)[0].rstrip("0")
    assert f"RetinaNet 640x640 ResNet-18 : {best} at step 20" in text


def test_runs_are_switched_off_in_chart_and_leaderboard(address: str, show: Open) -> None:
    frame = show(f"{address}#boxscore")
    charts(frame, 4)
    frame.locator("aside section").first.locator(".group input").uncheck()
    frame.wait_for_function("() => document.querySelectorAll('.board tbody tr').length === 6")
    frame.wait_for_function("() => document.querySelector('.plot')._fullData.length === 6")
    assert not frame.get_by_text("Losses of FCOS 320x320").is_visible()
    frame.get_by_role("button", name="all runs").click()
    frame.wait_for_function("() => document.querySelector('.plot')._fullData.length === 8")


def test_dark_mode_is_tensorboards(address: str, show: Open) -> None:
    frame = show(f"{address}?darkMode=true#boxscore")
    charts(frame, 1)
    ground = "() => getComputedStyle(document.body).backgroundColor"
    assert frame.evaluate(ground) == "rgb(30, 30, 30)"
    frame.evaluate("() => parent.document.body.classList.remove('dark-mode')")
    frame.wait_for_function(f"() => ({ground})() === 'rgb(245, 246, 247)'")


def test_an_empty_folder_fills_when_a_training_begins(tmp_path: Path, show: Open) -> None:
    with serving(tmp_path) as address:
        frame = show(address)  # TensorBoard opens the tab by itself: no other has data
        frame.get_by_text("This log folder is empty").wait_for()
        detection(tmp_path, Identity("FCOS", "320x320", "ResNet-18"))
        drawn = charts(frame, 3)
        assert [chart["measure"] for chart in drawn[:3]] == ["box_AP", "total", "classification"]
        assert not frame.get_by_text("This log folder is empty").is_visible()
        frame.page.close()  # before its server ends


def test_a_loss_that_is_not_finite_is_told(tmp_path: Path, show: Open) -> None:
    identity = Identity("FCOS", "320x320", "ResNet-18")
    classes, values = {1: "RBC"}, [1.0, 0.5, float("nan"), float("nan")]
    loggers = [TensorBoardLogger(tmp_path)]
    with Run(
        identity, task="detection", dataset="bccd", classes=classes, loggers=loggers, log_every=1
    ) as run:  # fmt: skip
        for step, value in enumerate(values, 1):
            run.record({"loss_cls": value}, step=step)
    with serving(tmp_path) as address:
        frame = show(f"{address}#boxscore")
        charts(frame, 1)
        frame.get_by_text("ResNet-18 train: not finite at step 3.").first.wait_for()
        frame.page.close()  # before its server ends


def test_names_of_users_are_shown_as_text(tmp_path: Path, show: Open) -> None:
    script, bold = "<script>alert(1)</script>", "<b>%{y}</b>"
    for backbone in (script, bold):
        identity = Identity("FCOS", "320x320", backbone)
        classes = {1: script, 2: bold, 3: "שלום עולם"}
        detection(tmp_path, identity, dataset=script, classes=classes, params={"a": script})
    with serving(tmp_path) as address:
        frame = show(f"{address}#boxscore")
        charts(frame, 2)
        assert frame.locator("aside .run bdi").all_inner_texts() == [script, bold]
        heading = frame.locator("details.section h2").first.inner_text()
        assert heading.startswith(f"Metrics on {script}-test ")
        names = frame.locator(".classes tbody td:first-child").all_inner_texts()
        assert set(names) == {script, bold, "שלום עולם"}
        text = under_pointer(frame)
        assert script in text
        assert bold in text
        frame.locator("details.section", has_text="step by step").scroll_into_view_if_needed()
        frame.locator(".matrices .ytick text").first.wait_for()
        ticks = frame.locator(".matrices .ytick text").all_text_contents()
        assert {bold, f"{script[:15]}…"} <= set(ticks)
        options = frame.locator(".precision option").all_text_contents()
        assert options == ["all classes", script, bold, "שלום עולם"]
        frame.page.close()  # before its server ends
