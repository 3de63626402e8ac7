"""SIGTERM ends a training like an exception does, so that its run can say how it ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .logger import Status


class Terminated(SystemExit):
    """SIGTERM arrived, and nobody else had a plan for it."""


def last_error() -> BaseException | None:
    """What ended the training, asked while the process exits; None where all went well."""
    # Python keeps the error that it printed last; an exit by SystemExit is not among them
    return _raised or getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)


_raised: Terminated | None = None


def ended(error: BaseException | None) -> Status:
    """How a run ended that ``error`` ended, or nothing did."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt | Terminated) else "FAILED"


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated`; after it the process ends by SIGTERM as ever.

    A handler that someone else has set (a scheduler's "save and requeue") keeps its say instead.
    Handlers can only be set in the main thread; elsewhere nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.getsignal(signal.SIGTERM)
    if before not in (signal.SIG_DFL, None):
        yield
        return

    def terminate(signum: int, _: FrameType | None) -> None:
        global _raised  # noqa: PLW0603  # a process ends once
        _raised = Terminated(128 + signum)
        raise _raised

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        if signal.getsignal(signal.SIGTERM) is terminate:
            signal.signal(signal.SIGTERM, before)
