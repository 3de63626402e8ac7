"""Several processes that train one model: what all of them saw, told by the first.

Only what must be is exchanged, and only when a point is due: sums of losses, compact states of
metrics, figures. Everything goes through torch's process group, on the thread that trains, so that
its order is that of the training's own exchanges. In a single process each function hands back
what it was given, and imports nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def rank() -> int:
    """This process's number among those that train together, from 0."""
    group = _group()
    return int(group.get_rank()) if group else 0


def size() -> int:
    """How many processes train together."""
    group = _group()
    return int(group.get_world_size()) if group else 1


def gathered(value: T) -> list[T]:
    """The ``value`` of every rank, by rank, on every rank.

    All ranks must call it. Values are pickled, which is safe among the processes of one training.
    """
    group = _group()
    if not group:
        return [value]
    values: list[Any] = [None] * size()
    group.all_gather_object(values, value)
    return values


def to_first(value: T) -> list[T]:
    """The ``value`` of every rank, by rank, on the first, which gets its own object back.

    The others get an empty list.
    """
    group = _group()
    if not group:
        return [value]
    values: list[Any] | None = [None] * size() if rank() == 0 else None
    group.gather_object(value, values, dst=0)
    return [value, *values[1:]] if values else []


def from_first(make: Callable[[], T]) -> T:
    """What ``make`` returns on the first rank, on every rank.

    Raises:
        Exception: what ``make`` raised on the first rank, on every rank.
    """
    group = _group()
    if not group:
        return make()
    made: list[Any] = [None, None]
    if rank() == 0:
        try:
            made[0] = make()
        except Exception as error:
            made[1] = error
    try:
        group.broadcast_object_list(made, src=0)
    except TypeError:  # an error that does not pickle: the others need only its text
        made[1] = RuntimeError(f"{type(made[1]).__name__}: {made[1]}")
        group.broadcast_object_list(made, src=0)
    if made[1] is not None:
        raise made[1]
    return made[0]  # type: ignore[no-any-return]


def meet(topic: str, value: T) -> list[T]:
    """The ``value`` of those ranks that are at the same ``topic`` now.

    Ranks whose loaders differ in length may be at different points of their training: then each
    goes on with what it has, and nobody waits for somebody who waits in turn.
    """
    return [told for at, told in gathered((topic, value)) if at == topic]


def until_all(topic: str) -> None:
    """Wait until every rank is at ``topic``, answering meanwhile those that are not yet."""
    while len(meet(topic, None)) < size():
        pass


def _group() -> Any:
    """The module of torch's process groups, where this process is in one with others."""
    group: Any = sys.modules.get("torch.distributed")
    joined = group and group.is_available() and group.is_initialized()
    return group if joined and group.get_world_size() > 1 else None
