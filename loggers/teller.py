"""Trouble of a thread of ours, told to the user."""

from __future__ import annotations

import logging


class Teller:
    """Tells the user of each kind of trouble once, from any thread.

    Through `logging`: a Python warning may be turned into an exception, and end the delivery.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, kind: str, message: str, *args: object) -> None:
        """Tell, unless something of this ``kind`` was told before."""
        if kind not in self._told:
            self._told.add(kind)
            logging.getLogger("boxscore").warning(f"boxscore: {message}", *args)
