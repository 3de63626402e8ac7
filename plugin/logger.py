"""The protocol of a destination: three verbs, each safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

from .records import Item, Opening

Status = Literal["FINISHED", "FAILED", "KILLED"]


@runtime_checkable
class Logger(Protocol):
    """Somewhere that items go.

    A logger is built cheaply (no connection, thread or open file: callbacks are pickled before they
    start) and does its work from `open` on. Repeating a call with the same arguments changes
    nothing that a reader sees. Errors are raised: who calls decides what they may stop.
    """

    def open(self, opening: Opening) -> None:
        """Create the run that bears ``opening.id``, or continue it."""

    def log(self, items: Sequence[Item]) -> None:
        """Write ``items``, in their order."""

    def close(self, status: Status = "FINISHED") -> None:
        """Say how the run ended and let go of every resource."""


@runtime_checkable
class Resumable(Logger, Protocol):
    """A logger that can tell how far an earlier process of the same run came."""

    def recorded(self) -> Mapping[str, int]:
        """The last step of each series that the open run holds, by `Point.key`.

        A training that goes back to a checkpoint repeats steps; what is recorded already is not
        logged again, so that a reader sees one curve. Where nothing is known it is empty.
        """
