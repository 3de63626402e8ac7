"""A logger that keeps what it is told, for tests and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boxscore.logger import Status
from boxscore.records import File, Item, Point, RunStart, Tag

from .steps import learn


class MemoryLogger:
    """Everything in attributes.

    Attributes:
        start: what `open` was told, None before.
        tags: the start's tags, then those that came later.
        files: files by name.
        status: what `close` was told, None while the run lasts.
    """

    def __init__(self) -> None:
        self.start: RunStart | None = None
        self.status: Status | None = None
        self.tags: dict[str, str] = {}
        self.files: dict[str, File] = {}
        self._points: dict[tuple[str, str, int, float, str], Point] = {}

    @property
    def points(self) -> list[Point]:
        """Every point, in the order of arrival."""
        return list(self._points.values())

    def open(self, start: RunStart) -> None:
        """Remember what the run is."""
        self.start, self.status = start, None
        self.tags.update(start.tags)

    def log(self, items: Sequence[Item]) -> None:
        """Keep ``items``; a point that was kept already is not kept twice."""
        for item in items:
            match item:
                case Point():
                    # by its text, because a NaN is not equal to itself
                    same = (item.key, item.split, item.step, item.time, repr(item.value))
                    self._points.setdefault(same, item)
                case Tag():
                    self.tags[item.name] = item.value
                case File():
                    self.files[item.name] = item

    def recorded(self) -> Mapping[str, int]:
        """The last step of each series among `points`."""
        steps: dict[str, int] = {}
        learn(steps, self.points)
        return steps

    def close(self, status: Status = "FINISHED") -> None:
        """Remember how the run ended; what it said first stands."""
        self.status = self.status or status
