"""How a process ends; SIGTERM as an exception, so that a run can be closed with its status."""

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
    """SIGTERM was received and no handler of the user's is set."""


def last_error() -> BaseException | None:
    """The exception that ends the process, asked while it exits; None without one."""
    # Python keeps the last exception that it printed; SystemExit is not printed (`exits_noted`)
    printed = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if hasattr(sys, "ps1"):  # a shell or notebook goes on after an exception
        return _raised or printed
    return printed or _raised  # a SIGTERM came later, when the process was ending


_raised: SystemExit | None = None


def ended(error: BaseException | None) -> Status:
    """The status of a run that ``error`` ended."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt | Terminated) else "FAILED"


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within the block SIGTERM raises `Terminated`; after it the process ends by SIGTERM.

    A handler of the user's (a scheduler's "save and requeue"), or a signal that the parent process
    ignores, is left as it is; so are threads other than the main one, which can set no handler.
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


@contextmanager
def exits_noted() -> Iterator[None]:
    """Within the block `last_error` knows of ``sys.exit`` in the main thread, too."""
    exit_process: Any = sys.exit

    def noted(status: Any = None, /) -> None:
        global _raised  # noqa: PLW0603
        if threading.current_thread() is threading.main_thread():
            _raised = SystemExit(status)
        exit_process(status)

    sys.exit = noted  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.exit is noted:
            sys.exit = exit_process
        _forget_exit()


def _forget_exit() -> None:
    global _raised  # noqa: PLW0603
    if not isinstance(_raised, Terminated):
        _raised = None
