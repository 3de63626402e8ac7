"""Pictures of a training's evaluations, in every kind of task, and what they cost."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from boxscore import File
from boxscore.keys import parse
from tests.callbacks.test_loop import train
from tests.tiny import loader
from tests.warned import warns

from boxscore.loggers import MemoryLogger  # isort: skip


class Kept(MemoryLogger):
    """Keeps the pictures, whose files are removed later."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[tuple[str, int], tuple[int, int]] = {}
        self.threads: set[str] = set()

    def log(self, items: Any) -> None:
        for item in items:
            if isinstance(item, File) and item.name.endswith(".webp"):
                self.threads.add(threading.current_thread().name)
                with Image.open(item.path) as picture:
                    self.sizes[item.name, item.step] = picture.size
        super().log(items)


def pictures(**options: Any) -> Kept:
    kept = Kept()
    train(loggers=[kept], **{"pictures": True} | options)
    return kept


def test_the_same_images_are_drawn_at_each_evaluation_and_the_worst() -> None:
    kept = pictures(test_loader=loader(20, first=100), steps=6)
    names = [name.removesuffix(".webp") for name, _ in kept.sizes]
    assert {step for _, step in kept.sizes} == {3, 6}
    assert len(kept.sizes) == 24
    fixed = {name for name in names if "worst" not in name}
    assert len(fixed) == 8
    assert {parse(name).kind for name in names} == {"pictures"}
    metric = next(p.scope for p in kept.points if p.name == "box_AP" and p.split == "test")
    assert {parse(name).evaluated_set for name in names} == {metric.removeprefix("metric ")}
    assert kept.threads == {"boxscore-pictures"}
    other = pictures(test_loader=loader(20, first=100), steps=3)
    assert fixed == {n.removesuffix(".webp") for n, _ in other.sizes if "worst" not in n}


@pytest.mark.parametrize(("option", "count"), [(False, 0), (2, 2), ((1, 3), 4)])
def test_the_option_bounds_their_number(option: Any, count: int) -> None:
    assert len([step for _, step in pictures(pictures=option).sizes if step == 3]) == count


def test_they_change_no_weight_and_no_figure() -> None:
    def trained(option: bool) -> tuple[list[Any], Any]:
        torch.manual_seed(0)
        kept = Kept()
        train(loggers=[kept], pictures=option, steps=6)
        values = [(p.key, p.step, p.value) for p in kept.points if "progress" not in p.key]
        return values, torch.get_rng_state()

    (with_them, numbers), (without, others) = trained(True), trained(False)
    assert with_them == without
    assert torch.equal(numbers, others)


def test_an_error_of_theirs_costs_pictures_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such picture")

    monkeypatch.setattr("boxscore.pictures.capture.bytes_of", fails)
    with warns("no such picture"):
        kept = pictures(on_error="warn", steps=3)
    assert kept.sizes == {}
    assert any(p.name == "box_AP" for p in kept.points)


def test_their_folder_goes_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert pictures(steps=3).sizes
    assert list(tmp_path.iterdir()) == []


class Tracker:
    """Keeps what files it is given."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, int], str] = {}

    def open(self, start: Any) -> None:
        pass

    def log(self, items: Any) -> None:
        for item in items:
            if isinstance(item, File) and item.name == "report.html":
                self.files[item.name, item.step] = Path(item.path).read_text("utf-8")

    def close(self, status: str = "FINISHED") -> None:
        pass


def test_a_tracker_gets_the_report_at_the_first_evaluation_and_at_the_end() -> None:
    tracker = Tracker()
    train(loggers=[tracker], steps=8, pictures=True)
    assert [step for _, step in tracker.files] == [3, 8]
    first, last = tracker.files.values()
    assert '"status":"RUNNING"' in first
    assert '"status":"FINISHED"' in last
    assert last.count("data:image/webp") == 6  # the images of the set


def test_the_last_pictures_are_in_the_last_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an evaluation follows at once, and drawing is slow."""
    from boxscore.pictures import draw

    def slowly(*given: Any) -> Any:
        time.sleep(0.05)
        return draw(*given)

    monkeypatch.setattr("boxscore.pictures.drawing.draw", slowly)
    tracker, kept = Tracker(), Kept()
    often: dict[str, Any] = {"evaluate_every": 1, "evaluate_train_every": None}
    train(loggers=[tracker, kept], steps=8, pictures=True, **often)
    assert max(step for _, step in kept.sizes) == 8
    pictures = re.search(r'"pictures":(\[.*?\]),"remarks"', list(tracker.files.values())[-1])
    assert pictures
    assert {picture["step"] for picture in json.loads(pictures[1])} == {8}
