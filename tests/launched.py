"""Trainings by several processes, and what each of them tells."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from boxscore import distributed
from boxscore.loggers import MemoryLogger
from tests.together import together, torchrun

TIMED = ("progress/images_per_second", "progress/evaluation_seconds")


def fails_launched(module: str, size: int, folder: Path) -> None:
    """Run ``python -m module folder`` in ``size`` processes by torchrun; one of them is to fail."""
    ended = torchrun(size, "-m", module, folder, seconds=150)
    assert ended.returncode != 0, ended.stderr[-8000:]


Cases = Callable[[int], dict[str, Callable[[Path], Any]]]


def gone_through(size: int, cases: Cases, folder: Path) -> list[dict[str, Any]]:
    """What each of ``size`` processes gave in ``cases(size)``, by rank.

    Each case gets a folder that all processes share.
    """
    return together(size, _go_through, cases, folder, seconds=240)


def _go_through(cases: Cases, folder: Path) -> dict[str, Any]:
    os.environ["TORCHELASTIC_RUN_ID"] = "none"  # as torchrun has it, which Lightning asks for
    given = {}
    for name, case in cases(distributed.size()).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        given[name] = case(folder / name)
    return given


def sized(of_three: Collection[str], *groups: dict[str, Any]) -> pytest.MarkDecorator:
    """Each case of the ``groups`` with two processes, and those ``of_three`` with three, too."""
    names = [name for group in groups for name in group]
    both = [(name, 2) for name in names] + [(name, 3) for name in names if name in of_three]
    return pytest.mark.parametrize(("name", "size"), both)


def differing(one: dict[str, Any], several: dict[str, Any], rel: float = 1e-6) -> list[str]:
    """What several processes logged otherwise than one: figures by a bit, losses by ``rel``.

    Focal, cross-entropy and Dice loss of the train split are of the due batch, which is another.
    """
    points = several["points"]
    wrong = sorted(one["points"].keys() ^ points.keys())
    for key, value in one["points"].items():
        kind, _, name = key.partition("/")
        if key not in points or name.split(".train")[0] in ("focal", "cross_entropy", "dice"):
            continue
        close = math.isclose(
            points[key], value, rel_tol=rel if kind.startswith(("loss", "native")) else 0.0
        )
        if not close:
            wrong.append(f"{key}: {value!r}, of several {points[key]!r}")
    tags = one["tags"].keys() | several["tags"].keys()
    return wrong + [t for t in sorted(tags) if one["tags"].get(t) != several["tags"].get(t)]


def heard(memory: MemoryLogger, score: Any) -> dict[str, Any]:
    """What a process logged and knows, as JSON keeps it; times left out."""
    points = [p for p in memory.points if p.name not in TIMED]
    return {
        "points": {f"{p.key}@{p.step}": p.value for p in points},
        "count": len(points),
        "tags": {k: v for k, v in memory.tags.items() if k != "boxscore.run"},
        "run": score.run.id,
        "status": memory.status if memory.start else None,
        "opened": memory.start is not None,
        "latest": dict(score.latest),
        "best": dict(score.best),
    }


class Witness(MemoryLogger):
    """Writes how the run ended, for those who outlive it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def close(self, status: Any = "FINISHED") -> None:
        """As MemoryLogger, and to the file."""
        super().close(status)
        self.file.write_text(status)
