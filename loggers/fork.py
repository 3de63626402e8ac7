"""A forked child, such as a data loader's worker, has none of our threads."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inert(Protocol):
    """What has a thread of its own."""

    def go_inert(self) -> None:
        """Let go in a forked child, where there is no thread, and a lock may be held for ever."""


_alive: weakref.WeakSet[Inert] = weakref.WeakSet()


def inert_when_forked(one: Inert) -> None:
    """Call ``one.go_inert()`` in every process that is forked from this one from now on."""
    _alive.add(one)


def _after_fork() -> None:
    for one in _alive:
        one.go_inert()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
