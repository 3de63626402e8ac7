"""Exchanges between the processes that train one model.

Values are exchanged only when a point is due: sums of losses, compact states of metrics, results.
Every exchange goes through torch's process group, on the training thread, so that its order is that
of the training's own exchanges. In a single process each function returns its argument, and imports
nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds for which a process that begins a training waits for the others to begin theirs."""

_trainings = 0
_alone_as: int | None = None  # this process's number where some ranks are missing


def all_ranks_present() -> bool:
    """Whether every rank has a callback; each calls it when a training begins.

    A callback on rank 0 alone would wait for exchanges in which the other ranks take no part. Where
    some ranks do not call this within `PATIENCE`, the others agree to measure alone: from then on
    each is a single process, and only the first of them has number 0.
    """
    global _trainings, _alone_as  # noqa: PLW0603  # a process is in one training at a time
    _alone_as = None
    group = _group()
    if not group:
        return True
    _trainings += 1
    keys = [f"boxscore/{_trainings}/{one}" for one in range(size())]
    store = group.distributed_c10d._get_default_store()
    store.set(keys[rank()], "here")
    with suppress(RuntimeError):  # torch's, when time is over
        store.wait(keys, timedelta(seconds=PATIENCE))
    came = " ".join(str(one) for one, key in enumerate(keys) if store.check([key]))
    # the first rank to store the list decides it for all
    came = store.compare_set(f"boxscore/{_trainings}", "", came).decode()
    if len(came.split()) < size():
        _alone_as = 0 if came.split()[0] == str(rank()) else max(1, rank())
    return _alone_as is None


def rank() -> int:
    """This process's number among those that train together, from 0."""
    if _alone_as is not None:
        return _alone_as
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


def gather_to_rank0(value: T) -> list[T]:
    """The ``value`` of every rank, by rank, on the first, which gets its own object back.

    The others get an empty list.
    """
    group = _group()
    if not group:
        return [value]
    values: list[Any] | None = [None] * size() if rank() == 0 else None
    group.gather_object(value, values, dst=0)
    return [value, *values[1:]] if values else []


def broadcast_from_rank0(make: Callable[[], T]) -> T:
    """What ``make`` returns on the first rank, on every rank.

    Raises:
        Exception: what ``make`` raised on the first rank, on every rank.
    """
    group = _group()
    if not group:
        return make()
    import pickle

    value: Any = None
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            value = make()
            told[0] = pickle.dumps(value)
        except Exception as error:
            told[1] = _sendable(error)
    group.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    return value if rank() == 0 else pickle.loads(told[0])  # type: ignore[no-any-return]


def raise_if_any_rank_failed(work: Callable[[], T]) -> T:
    """What ``work`` returns here, if it raises on no rank.

    Raises:
        Exception: what it raised here, or else on the first rank where it did.
    """
    value: Any = None
    error: Exception | None = None
    try:
        value = work()
    except Exception as raised:
        error = raised
    errors = gathered(None if error is None or size() == 1 else _sendable(error))
    for other in (error, *errors):
        if other is not None:
            raise other
    return value  # type: ignore[no-any-return]


def _sendable(error: Exception) -> Exception:
    """``error``, or of one that does not survive pickling its text."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def copy_from_rank0(tensors: Iterable[Any]) -> None:
    """Overwrite ``tensors`` with those of the first rank, which are as many and of such shapes."""
    group = _group()
    for tensor in tensors if group else ():
        group.broadcast(tensor, src=0)


def gather_at(topic: str, value: T, step: float) -> list[T]:
    """The ``value`` of those ranks that are at the same ``topic`` of the same ``step``.

    Ranks whose loaders differ in length may be at different steps. A rank at an earlier step
    returns immediately with the ranks at the same step; a rank at a later step repeats the gather
    until the others have reached it.
    """
    while True:
        told = gathered((step, topic, value))
        if all(at >= step for at, _, _ in told):
            return [other for at, about, other in told if (at, about) == (step, topic)]


def gather_at_end(topic: str, value: T) -> list[T]:
    """The ``value`` of every rank, once all are at ``topic``, after all steps."""
    return gather_at(topic, value, math.inf)


def _group() -> Any:
    """The module of torch's process groups, where this process is in one with others."""
    group: Any = sys.modules.get("torch.distributed")
    joined = _alone_as is None and group and group.is_available() and group.is_initialized()
    return group if joined and group.get_world_size() > 1 else None
