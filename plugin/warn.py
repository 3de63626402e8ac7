"""The one way to warn the user: through `logging`, once per run and kind, with a count at the end.

Python's own `warnings` show a text once per process, point at a line of boxscore, and end the
training under ``-W error``; the logger ``boxscore`` does none of these.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Literal

OnError = Literal["warn", "raise"]

LOG = logging.getLogger("boxscore")


class Warnings:
    """The warnings of one run, from any thread.

    Attributes:
        counts: errors by kind.

    Raises:
        ValueError: ``on_error`` is neither ``"warn"`` nor ``"raise"``.

    >>> warnings = Warnings()
    >>> for _ in range(3):
    ...     with warnings.catch("evaluation"):
    ...         raise ValueError("image 7: score is nan")
    >>> warnings.counts["evaluation"]
    3
    """

    def __init__(self, on_error: OnError = "warn") -> None:
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error: {on_error!r} is neither 'warn' nor 'raise'")
        self.on_error = on_error
        self.counts: Counter[str] = Counter()
        self._texts: dict[str, str] = {}

    def warn_once(self, kind: str, text: str) -> None:
        """Log ``text``, unless a text of this ``kind`` was logged before."""
        if kind not in self._texts:
            self._texts[kind] = " ".join(text.split())
            LOG.warning("boxscore: %s", self._texts[kind])

    def count_error(self, kind: str, error: BaseException | str) -> None:
        """Log the first ``error`` of this ``kind``; count the others."""
        self.counts[kind] += 1
        text = " ".join(str(error).split()) or "no message"
        name = f"{type(error).__name__}: " if isinstance(error, BaseException) else ""
        self.warn_once(f"error {kind}", f"{kind}: {name}{text}; training continues")

    def handle(self, kind: str, error: Exception) -> None:
        """Count ``error``, or raise it with ``on_error="raise"``; for an ``except`` clause."""
        if self.on_error == "raise":
            raise error
        self.count_error(kind, error)

    def catch(self, kind: str) -> _Catch:
        """A context in which an `Exception` is counted and suppressed, or with ``raise`` raised."""
        return _Catch(self, kind)

    @property
    def texts(self) -> list[str]:
        """What was logged, in its order."""
        return list(self._texts.values())

    def report(self) -> None:
        """Log the errors that occurred more than once, with their counts."""
        for kind, count in self.counts.items():
            if count > 1:
                self.warn_once(f"count {kind}", f"{kind}: {count} times in this run")


class _Catch:
    """What `Warnings.catch` returns; where calls count, `Warnings.handle` saves three."""

    __slots__ = ("_kind", "_warnings")

    def __init__(self, warnings: Warnings, kind: str) -> None:
        self._warnings, self._kind = warnings, kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or self._warnings.on_error == "raise":
            return False
        self._warnings.count_error(self._kind, error)
        return True
