"""The rule by which a resumed run shows one curve: what the destination holds is not written again.

A training that continues from a checkpoint repeats the steps after it. Each logger's `open` reads
how far each series is in its destination, and later points alone are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from boxscore.records import File, Item, Point, Tag


def last_steps(points: Iterable[Point]) -> dict[str, int]:
    """The last step of each series, by `Point.key`."""
    steps: dict[str, int] = {}
    for point in points:
        steps[point.key] = max(point.step, steps.get(point.key, point.step))
    return steps


def unrecorded(items: Sequence[Item], recorded: Mapping[str, int]) -> Sequence[Item]:
    """``items`` without the points and files of steps that are ``recorded``.

    Args:
        items: of a run.
        recorded: the last step, by `Point.key` or `File.name`.

    >>> again = [Point("total", 0.5, step) for step in (90, 100, 110)]
    >>> [point.step for point in unrecorded(again, {"total": 100})]
    [110]
    """
    if not recorded:
        return items
    return [item for item in items if isinstance(item, Tag) or _is_new(item, recorded)]


def _is_new(item: Point | File, recorded: Mapping[str, int]) -> bool:
    name = item.key if isinstance(item, Point) else item.name
    return item.step > recorded.get(name, item.step - 1)
