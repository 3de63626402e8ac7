"""What boxscore's logger says within a block."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = logging.getLogger("boxscore")


class _Keep(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def warnings_logged() -> Iterator[list[str]]:
    """The warnings that are logged in the block, as they come."""
    keep = _Keep()
    LOGGER.addHandler(keep)
    try:
        yield keep.texts
    finally:
        LOGGER.removeHandler(keep)


@contextmanager
def warns(match: str) -> Iterator[list[str]]:
    """One of the warnings of the block contains ``match``, a regular expression."""
    with warnings_logged() as texts:
        yield texts
    assert any(re.search(match, text) for text in texts), f"no {match!r} among {texts}"


@contextmanager
def warns_not(match: str = "") -> Iterator[None]:
    """No warning of the block contains ``match``, a regular expression."""
    with warnings_logged() as texts:
        yield
    assert not [text for text in texts if re.search(match, text)]
