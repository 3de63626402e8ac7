"""Trouble in measuring is told once per kind and counted; it never ends a training."""

from __future__ import annotations

import warnings
from collections import Counter
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

    def __call__(self, what: str) -> _Doing:
        """A context in which to do ``what``; if that raises, it is told and the program goes on."""
        return _Doing(self, what)

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


class _Doing:
    """One thing that is done under a guard; a class, as a generator costs each step more."""

    __slots__ = ("_guard", "_what")

    def __init__(self, guard: Guard, what: str) -> None:
        self._guard, self._what = guard, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or self._guard.on_error == "raise":
            return False
        self._guard.tell(self._what, error)
        return True


def _line(trouble: object) -> str:
    text = " ".join(str(trouble).split()) or "no message"
    return f"{type(trouble).__name__}: {text}" if isinstance(trouble, Exception) else text
