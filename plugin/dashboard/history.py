"""What a run logged, in memory: what a report is made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boxscore.keys import FACT
from boxscore.logger import Status
from boxscore.records import File, Item, Point, RunStart, Tag

LONGEST = 2_000
"""Points of a series; of a longer one every second is dropped, never the first or the last."""

PICTURES = 12
"""The newest pictures that are kept."""


@dataclass(slots=True)
class Series:
    """The points of one key, at most `LONGEST` and evenly spread.

    Attributes:
        points: step and value.
    """

    points: list[tuple[int, float]] = field(default_factory=list)
    _stride: int = 1
    _count: int = 0

    def add(self, step: int, value: float) -> None:
        """Add a point; a step before the last one replaces what was logged since."""
        while self.points and self.points[-1][0] >= step:
            self.points.pop()
        if self._count % self._stride and self.points:
            self.points[-1] = step, value
        else:
            self.points.append((step, value))
        self._count += 1
        if len(self.points) > LONGEST:
            last = self.points[-1]
            self.points = self.points[::2]
            self._stride *= 2
            if self.points[-1] != last:
                self.points.append(last)


class History:
    """A logger that keeps what a report shows.

    Attributes:
        start: of the run, None before `open`.
        tags: the start's tags, then later ones.
        series: by key.
        tables: of JSON files, by name.
        pictures: name, step and content of the newest.
        status: how the run ended, ``"RUNNING"`` before.
    """

    in_memory = True

    def __init__(self) -> None:
        self.start: RunStart | None = None
        self.tags: dict[str, str] = {}
        self.series: dict[str, Series] = {}
        self.tables: dict[str, Any] = {}
        self.pictures: dict[str, tuple[int, bytes]] = {}
        self.status = "RUNNING"

    def open(self, start: RunStart) -> None:
        """Keep the start."""
        self.start, self.status = start, "RUNNING"
        self.tags |= start.tags

    def log(self, items: Sequence[Item]) -> None:
        """Keep ``items``."""
        for item in items:
            match item:
                case Point():
                    self.series.setdefault(item.key, Series()).add(item.step, item.value)
                case Tag():
                    self.tags[item.name] = item.value
                case File() if item.name.endswith(".json"):
                    self.tables[item.name] = json.loads(Path(item.path).read_text("utf-8"))
                case File() if item.name.endswith((".webp", ".png")):
                    self.pictures.pop(item.name, None)
                    self.pictures[item.name] = item.step, Path(item.path).read_bytes()
                    for name in list(self.pictures)[:-PICTURES]:
                        del self.pictures[name]

    def close(self, status: Status = "FINISHED") -> None:
        """Keep how the run ended."""
        self.status = status

    def fact(self, name: str) -> str:
        """A tag of boxscore's, ``""`` where there is none."""
        return self.tags.get(FACT + name, "")
