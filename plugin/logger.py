"""The protocol of a destination: three verbs, each safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from .records import Item, Point, RunStart
from .warn import Warnings  # what a logger's own thread warns through

__all__ = ["Logger", "Refused", "Resumable", "Status", "Warnings"]

Status = Literal["FINISHED", "FAILED", "KILLED"]


@runtime_checkable
class Logger(Protocol):
    """A destination of points, tags and files.

    A logger is plain and synchronous: a run calls it from a thread of its own, so that disk and
    network never hold up a training step. One with ``in_memory = True`` uses neither, and is called
    on the training thread. It is built cheaply (no connection, no open file: callbacks are pickled
    before they start) and does its work from `open` on. Repeating a call with the same arguments
    changes nothing that a reader sees. Errors are raised; `Refused` means that no repetition helps.
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


@runtime_checkable
class Resumable(Logger, Protocol):
    """A logger that delivery can ask how far an earlier process of the run got."""

    def recorded(self) -> Mapping[str, int]:
        """The last step of each series that the open run holds, by `Point.key`."""


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
        super().__init__(f"rejected {', '.join(self.names) or 'the call'}: {reason}")
