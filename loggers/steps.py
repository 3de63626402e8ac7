"""How far a run came: the last step of each of its series, in a small file that stays.

A spool goes when it has been delivered. What a resumed training must know of it is folded into
``<run>-<place>.steps`` beside it before it goes: a JSON object from `Point.key` to step, readable
by its owner alone, as long as the run has series. ``<place>`` is a digest of where the run's
logger writes, because another tracker has another share of the run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from boxscore.records import Item, Point

from .alone import alone

SUFFIX = ".steps"
_NEW = ".new"


def learn(steps: dict[str, int], items: Iterable[Item]) -> None:
    """Raise ``steps``, the last step by `Point.key`, to the points among ``items``.

    >>> steps = {"total": 20}
    >>> learn(steps, [Point("total", 0.5, 30), Point("total", 0.5, 10)])
    >>> steps
    {'total': 30}
    """
    for item in items:
        if isinstance(item, Point):
            key = item.key
            if item.step > steps.get(key, item.step - 1):
                steps[key] = item.step


def raised(steps: Mapping[str, int], further: Mapping[str, int]) -> dict[str, int]:
    """The later step of each series.

    >>> raised({"a": 1, "b": 5}, {"b": 3, "c": 0})
    {'a': 1, 'b': 5, 'c': 0}
    """
    both = {**steps, **further}
    return {key: max(steps.get(key, step), further.get(key, step)) for key, step in both.items()}


def path_in(folder: Path, run: str, place: Mapping[str, str | None] | None) -> Path:
    """Where in ``folder`` the steps of ``run`` are kept."""
    where = hashlib.sha256(json.dumps(place, sort_keys=True).encode()).hexdigest()
    plain = "".join(letter for letter in run if letter.isalnum())
    return folder / f"{plain}-{where[:8]}{SUFFIX}"


def read(path: Path) -> dict[str, int]:
    """The steps in ``path``; none where it is not there, or no file of ours."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: step for key, step in found.items() if type(step) is int}


def fold(path: Path, steps: Mapping[str, int]) -> None:
    """Raise what ``path`` holds to ``steps``. Raises `OSError`; then it holds what it held."""
    with alone(path.parent):
        before = read(path)
        after = raised(before, steps)
        if after == before and path.exists():
            return
        new = path.with_name(path.name + _NEW)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(after, file, separators=(",", ":"))
        new.replace(path)
