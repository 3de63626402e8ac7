"""A run's description in MLflow: model, data, figures, and the runs that it compares with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress

from boxscore.catalogue import CATALOGUE
from boxscore.keys import FACT, parse
from boxscore.records import Point, RunStart

NOTE = "mlflow.note.content"
"""MLflow's tag of a description."""

_HEADER = "**boxscore**: "


def is_ours(note: str) -> bool:
    """Whether a description may be replaced: it is empty, or this module's."""
    return not note or note.startswith(_HEADER)


class Description:
    """Follows the points of a run.

    Args:
        start: of the run.
    """

    def __init__(self, start: RunStart) -> None:
        self._start = start
        self._sets: dict[str, None] = {}  # evaluated sets, in their order
        self._figures: dict[str, tuple[float, int]] = {}  # value and step by name

    def follow(self, points: Iterable[Point]) -> bool:
        """Whether ``points`` change the description."""
        before = dict(self._figures)
        for point in points:
            with suppress(ValueError):  # another's key, in a run that was joined
                parts = parse(point.key)
                if parts.kind == "metric":
                    self._sets[parts.evaluated_set] = None
                elif parts.kind == "summary":
                    self._figures[parts.measure] = point.value, point.step
        return before != self._figures

    def markdown(self) -> str:
        """The description in Markdown."""
        tags: Mapping[str, str] = self._start.tags
        task, dataset, group = (tags.get(FACT + name, "") for name in ("task", "dataset", "group"))
        lines = [f"{_HEADER}{_text(self._start.name)}, {task} on {_text(dataset)}", ""]
        rows = [name for name in CATALOGUE if name in self._figures]
        if rows:
            lines += ["| main test set | last | step | best | step |", "|---|--:|--:|--:|--:|"]
            lines += [
                f"| {name} | {self._cells(name)} | {self._cells(f'best_{name}')} |" for name in rows
            ]
            lines.append("")
        lines.append(f"Losses compare with runs of **{_text(group)}** only.")
        lines += [f"Metrics compare with runs evaluated on **{_text(s)}**." for s in self._sets]
        return "\n".join(lines)

    def _cells(self, name: str) -> str:
        value, step = self._figures.get(name, (math.nan, 0))
        return "- | -" if math.isnan(value) else f"{value:.4g} | {step}"


def _text(text: str) -> str:
    """A user's text without the characters that mean something in Markdown or HTML."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|" else c for c in text.replace("\n", " "))
