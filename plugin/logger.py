"""The protocol of a destination: three verbs, each safe to repeat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from .records import Item, Point, RunStart, Tag
from .warn import Warnings  # what a logger's own thread warns through

__all__ = ["Logger", "Refused", "Status", "Warnings"]

Status = Literal["FINISHED", "FAILED", "KILLED"]


@runtime_checkable
class Logger(Protocol):
    """A destination of points, tags and files.

    A logger is plain and synchronous: a run calls it from a thread of its own, so that disk and
    network never hold up a training step. One with ``in_memory = True`` uses neither, and is called
    on the training thread. It is built cheaply (no connection, no open file: callbacks are pickled
    before they start) and does its work from `open` on. Repeating a call with the same arguments
    changes nothing that a reader sees. Errors are raised; `Refused` means that no repetition helps.

    What depends on the training thread or its folder, or imports a library, goes into an optional
    ``prepare()``, which is called there before `open`: a process that is forked while another
    thread imports a module can never import it.
    """

    def open(self, start: RunStart, /) -> None:
        """Create the run ``start.id``, or continue it.

        Where ``start.resumed``, points of steps that the destination already holds are left out
        from then on, so that a reader sees one curve.
        """

    def log(self, items: Sequence[Item], /) -> None:
        """Write ``items``, in their order."""

    def close(self, status: Status = "FINISHED", /) -> None:
        """Record how the run ended and release every resource."""


class Refused(Exception):
    """The destination rejects these items for good; it took the rest of the call.

    Any other exception of a logger may pass: the same call is worth repeating.

    Attributes:
        items: those that were rejected.
        names: their keys, once each.
        reason: in the destination's words, without credentials.
    """

    def __init__(self, items: Sequence[Item], reason: str) -> None:
        self.items, self.reason = tuple(items), reason
        self.names = sorted({item.key if isinstance(item, Point) else item.name for item in items})
        super().__init__(f"rejected {_named(self.items)}: {reason}")


def _named(items: Sequence[Item]) -> str:
    """Key, step and value of the first item of each name, ten at most."""
    named: dict[str, str] = {}
    for item in items:
        match item:
            case Point():
                named.setdefault(item.key, f"{item.key} at step {item.step} ({item.value!r})")
            case Tag():
                named.setdefault(item.name, f"{item.name} = {item.value[:60]!r}")
            case _:
                named.setdefault(item.name, item.name)
    further = len(items) - min(len(named), 10)
    told = ", ".join([*named.values()][:10]) or "the call"
    return f"{told} and {further} further" if further > 0 else told
