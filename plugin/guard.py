"""Trouble in measuring is told once per kind and counted; it never ends a training."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

OnError = Literal["warn", "raise"]


class Guard:
    """What stands between measuring and the training that is measured.

    >>> guard = Guard()
    >>> with warnings.catch_warnings(action="ignore"):
    ...     for _ in range(3):
    ...         with guard("evaluation"):
    ...             raise ValueError("image 7: score is nan")
    >>> guard.counts["evaluation"]
    3
    """

    def __init__(self, on_error: OnError = "warn") -> None:
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error: {on_error!r} is neither 'warn' nor 'raise'")
        self.on_error = on_error
        self.counts: Counter[str] = Counter()
        self._remarks: set[str] = set()

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Do ``what``; if that raises, tell it and go on."""
        try:
            yield
        except Exception as error:
            if self.on_error == "raise":
                raise
            self.tell(what, error)

    def tell(self, what: str, trouble: object) -> None:
        """Warn of the first ``trouble`` of the kind ``what``; count the others."""
        self.counts[what] += 1
        if self.counts[what] == 1:
            message = f"boxscore: {what}: {_line(trouble)}; training goes on, further such trouble"
            warnings.warn(f"{message} is counted", stacklevel=3)

    def remark(self, what: str, text: str) -> None:
        """Warn once of ``what``, which is no trouble in measuring but worth knowing."""
        if what not in self._remarks:
            self._remarks.add(what)
            warnings.warn(f"boxscore: {text}", stacklevel=3)

    def report(self) -> None:
        """Warn of what came more than once, with its count."""
        for what, count in self.counts.items():
            if count > 1:
                warnings.warn(f"boxscore: {what}: {count} times in this run", stacklevel=2)


def _line(trouble: object) -> str:
    text = " ".join(str(trouble).split()) or "no message"
    return f"{type(trouble).__name__}: {text}" if isinstance(trouble, Exception) else text
