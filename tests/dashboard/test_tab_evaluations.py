"""The evaluations of a set in the tab, step by step, as people see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boxscore import Identity
from boxscore.loggers import TensorBoardLogger
from boxscore.records import Point, RunStart
from tests.dashboard.folders import detection
from tests.dashboard.pages import LOADERS, Open, serving

pytestmark = pytest.mark.slow

SCRIPT = "<script>alert(1)</script>"
IMAGES = ["9", "10", SCRIPT, "worst 1"]
# of each picture that is drawn: its row, its run, its caption and its width, which is its step
PICTURES = """() => [...document.querySelectorAll(".picture figure")].map((figure) => ({
  image: figure.closest(".picture").querySelector("h3").textContent,
  caption: figure.querySelector("figcaption").textContent,
  width: figure.querySelector("a:not([hidden]) img")?.naturalWidth ?? null,
}))"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs") / "runs"
    for algorithm, steps in (("FCOS", 10), ("RetinaNet", 20)):
        identity = Identity(algorithm, "320x320", "ResNet-18")
        detection(folder, identity, steps=steps, images=IMAGES, params={"learning_rate": "0.01"})
    tags = {"boxscore.group": "YOLO 320x320", "boxscore.backbone": "CSPDarknet"}
    running = TensorBoardLogger(folder)
    running.open(RunStart("0" * 32, "a", "bccd", "bccd/YOLO/320x320/CSPDarknet-00000000", tags))
    running.log([Point("total", 1.0, 1, scope="loss YOLO 320x320")])
    return folder


@pytest.fixture(scope="module", params=list(LOADERS.values()), ids=list(LOADERS))
def address(logged: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    with serving(logged, request.param) as found:
        yield found


def evaluations(frame: Any) -> Any:
    """The section, in sight."""
    section = frame.locator("details.section", has_text="step by step")
    section.scroll_into_view_if_needed()
    section.get_by_role("slider").wait_for()
    return section


def pictures(frame: Any, widths: list[int | None]) -> list[dict[str, Any]]:
    """The pictures, once those that are drawn have these widths."""
    drawn = f"({PICTURES})().map((one) => one.width)"
    frame.wait_for_function(f"() => JSON.stringify({drawn}) === JSON.stringify({widths})".replace(
        "None", "null"), timeout=30_000)  # fmt: skip
    found: list[dict[str, Any]] = frame.evaluate(PICTURES)
    return found


def test_the_slider_changes_the_pictures_and_a_link_restores_them(address: str, show: Open) -> None:
    frame = show(f"{address}#boxscore")
    section = evaluations(frame)
    section.locator("h3").nth(3).scroll_into_view_if_needed()
    names = [one["image"] for one in pictures(frame, [10, 20] * 4)[::2]]  # the last of each run
    assert (names[:2], names[-1]) == (["9", "10"], "worst 1 of each run's own evaluation")
    section.get_by_label("pictures of").select_option("10")
    shown = pictures(frame, [10, 20])
    assert [one["caption"] for one in shown] == [
        "FCOS 320x320 ResNet-18step 10", "RetinaNet 320x320 ResNet-18step 20",
    ]  # fmt: skip
    section.get_by_role("slider").focus()
    frame.page.keyboard.press("ArrowLeft")
    pictures(frame, [10, 15])
    frame.page.keyboard.press("Home")
    pictures(frame, [5, 5])
    section.get_by_title("the evaluation after").click()
    pictures(frame, [10, 10])
    frame.wait_for_function("() => parent.location.hash.includes('step.')")
    frame.get_by_label("only finished").check()
    other = show(frame.page.url)
    assert evaluations(other).get_by_label("pictures of").input_value() == "10"
    pictures(other, [10, 10])
    assert other.locator(".steps output").inner_text() == "10 (evaluation 2 of 4)"
    assert other.get_by_label("only finished").is_checked()
    other.locator("aside section").first.locator(".group input").uncheck()
    pictures(other, [10])


# of the precision chart: name and first precision of each curve; of each matrix its counts
CURVES = """() => [...(document.querySelector(".precision .graph")._fullData ?? [])]
  .map((curve) => [curve.name, curve.y[0]])"""
MATRICES = """() => [...document.querySelectorAll(".matrices .graph")]
  .flatMap((plot) => (plot._fullData ?? []).map((one) => one.text))"""


def test_curves_and_matrices_are_those_of_the_chosen_step(address: str, show: Open) -> None:
    frame = show(f"{address}#boxscore")
    section = evaluations(frame)
    frame.wait_for_function(f"() => ({CURVES})().length === 2 && ({MATRICES})().length === 2")
    assert [name for name, _ in frame.evaluate(CURVES)] == [
        "FCOS 320x320 ResNet-18, step 10", "RetinaNet 320x320 ResNet-18, step 20",
    ]  # fmt: skip
    fcos, retinanet = frame.evaluate(MATRICES)
    assert [sum(row) for row in retinanet[:3]] == [1, 1, 1]
    section.get_by_role("combobox", name="precision over").select_option("RBC")
    section.get_by_title("the evaluation before").click()
    frame.wait_for_function(f"() => ({CURVES})()[1][0].endsWith('step 15')")
    assert section.get_by_role("combobox", name="precision over").input_value() == "RBC"
    assert frame.evaluate(CURVES)[1][1] == 1.0
    section.get_by_role("slider").focus()
    frame.page.keyboard.press("Home")
    frame.wait_for_function(f"() => ({CURVES})().every(([name]) => name.endsWith('step 5'))")
    changed = f"(before) => JSON.stringify(({MATRICES})()[0]) !== JSON.stringify(before)"
    frame.wait_for_function(changed, arg=fcos, timeout=30_000)  # drawn after the curves


def test_only_finished_runs_are_shown_where_that_is_asked(address: str, show: Open) -> None:
    frame = show(f"{address}#boxscore")
    frame.get_by_text("Losses of YOLO 320x320").wait_for()
    names = ["ResNet-18\nonly", "ResNet-18\nonly", "CSPDarknet\nrunning\nonly"]
    assert frame.locator("aside .run").all_inner_texts() == names
    frame.get_by_label("only finished").check()
    frame.get_by_text("Losses of YOLO 320x320").wait_for(state="hidden")
    assert frame.locator("aside .run").all_inner_texts() == names[:2]
    frame.get_by_role("button", name="all runs").click()
    frame.get_by_text("Losses of YOLO 320x320").wait_for()
    assert not frame.get_by_label("only finished").is_checked()


def test_tensorboards_own_tabs_show_curves_and_params(address: str, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"{address}#pr_curves")
    page.get_by_text("all classes together").first.wait_for()
    page.locator("tf-pr-curve-card path.line").first.wait_for(state="attached")
    page.goto(f"{address}#hparams")
    page.locator("vaadin-grid").get_by_text("RetinaNet", exact=True).first.wait_for()
    text = page.locator("vaadin-grid").first.inner_text()
    assert text.count("0.01") == 2
    page.close()
