"""A logger that keeps everything in memory, for tests and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boxscore.logger import Status
from boxscore.records import File, Item, Point, RunStart, Tag

from .resume import last_steps, unrecorded


class MemoryLogger:
    """Everything in attributes.

    Attributes:
        start: the start of the run, None before `open`.
        tags: the start's tags, then later ones.
        files: files by name.
        status: how the run ended, None before `close`.
    """

    in_memory = True

    def __init__(self) -> None:
        self.start: RunStart | None = None
        self.status: Status | None = None
        self.tags: dict[str, str] = {}
        self.files: dict[str, File] = {}
        self._points: dict[tuple[object, ...], Point] = {}
        self._recorded: Mapping[str, int] = {}

    @property
    def points(self) -> list[Point]:
        """Every point, in the order of arrival."""
        return list(self._points.values())

    def open(self, start: RunStart) -> None:
        """Keep the start; of a resumed run, points that are held already are left out."""
        self.start, self.status = start, None
        self.tags.update(start.tags)
        self._recorded = last_steps(self.points) if start.resumed else {}

    def log(self, items: Sequence[Item]) -> None:
        """Keep ``items``; an identical point is kept once."""
        for item in unrecorded(items, self._recorded):
            match item:
                case Point():
                    # the value as text, because NaN is not equal to itself
                    name = item.scope, item.name, item.split
                    same = (*name, item.step, item.time, repr(item.value))
                    self._points.setdefault(same, item)
                case Tag():
                    self.tags[item.name] = item.value
                case File():
                    self.files[item.name] = item

    def close(self, status: Status = "FINISHED") -> None:
        """Keep how the run ended; a second call changes nothing."""
        self.status = self.status or status
