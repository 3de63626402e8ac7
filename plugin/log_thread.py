"""The one queue and thread that keep disk and network off the training thread."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence

from .logger import Logger, Refused, Status
from .records import File, Item, RunStart
from .warn import Warnings

_GATHER = 0.05  # seconds that calls are gathered for one write
_TOGETHER = 1000  # items of one write
_READ = 5.0  # seconds that `log` waits at most until a file is read


class LogThread:
    """Hands items to loggers, in their order, from a thread of its own.

    A logger with ``in_memory = True`` is called at once, on the calling thread. The others write
    within a tenth of a second, so that SIGKILL costs at most that; one whose tracker may be away
    belongs behind a `DurableLogger`, or all of them wait for it. What a logger does not take, such
    as for a full disk, is lost, counted and warned of once; with ``on_error="raise"`` the next call
    raises. In a forked process, such as a data loader's worker, every call does nothing.

    Attributes:
        most: items that may wait, of about 300 bytes each; further ones are lost and counted.
        patience: seconds that `close` waits for the queue.
    """

    most = 100_000
    patience = 30.0

    def __init__(self, loggers: Sequence[Logger], warnings: Warnings) -> None:
        self._warnings = warnings
        self._direct = [one for one in loggers if getattr(one, "in_memory", False)]
        self._queued = [one for one in loggers if not getattr(one, "in_memory", False)]
        self._process = 0  # that opened this
        self._put = self._taken = 0  # items
        self._error: Exception | None = None

    def open(self, start: RunStart) -> None:
        """Open each logger; one that fails is left out, with a warning."""
        self._process = os.getpid()
        self._queue: deque[Sequence[Item]] = deque()
        self._news, self._at_once = threading.Event(), threading.Event()
        self._lock = threading.Lock()  # the training thread and the drawing thread log
        self._is_closing = False
        self._direct = self._opened(self._direct, "open", start)
        self._queued = self._opened(self._queued, "prepare")
        self._thread = threading.Thread(target=self._run, name="boxscore-log", daemon=True)
        self._start = start
        if self._queued:
            self._thread.start()
        self._raise_error()

    def log(self, items: Sequence[Item]) -> None:
        """Hand on ``items``: in microseconds, but a `File` is waited for until it was read."""
        if self._process != os.getpid():
            if not self._process:
                self._warnings.warn_once("over", "the run is closed; later values are not logged")
            return
        with self._lock:
            for logger in self._direct:
                try:
                    logger.log(items)
                except Exception as error:
                    self._failed("{}: items are lost", logger, error)
            put = self._enqueue(items)
        if put and any(isinstance(item, File) for item in items):
            end = time.monotonic() + _READ
            self._at_once.set()
            self._news.set()
            while self._taken < put and time.monotonic() < end:
                time.sleep(0.001)
        self._raise_error()

    def _enqueue(self, items: Sequence[Item]) -> int:
        """Put ``items`` into the queue; how many items it got so far, 0 where it takes none."""
        if self._queued and self._put - self._taken + len(items) > self.most:
            self._warnings.count_error("the queue of the loggers is full", "new items are lost")
        elif self._queued:
            self._put += len(items)
            self._queue.append(tuple(items))
            self._news.set()
            return self._put
        return 0

    def close(self, status: Status = "FINISHED") -> None:
        """Wait for the queue, and close each logger."""
        if self._process != os.getpid():
            return
        self._process = 0
        self._is_closing = True
        self._at_once.set()
        self._news.set()
        if self._thread.ident is not None:
            self._thread.join(self.patience)
        if self._thread.is_alive():
            self._queue.clear()
            lost = self._put - self._taken
            self._warnings.count_error("closing", f"{lost} items were not written and are lost")
            self._thread.join(self.patience)  # the call in progress
        for logger in (*self._direct, *(() if self._thread.is_alive() else self._queued)):
            self._succeeds("closing {}", logger, "close", status)
        self._raise_error()

    def _opened(self, loggers: Sequence[Logger], verb: str, *start: RunStart) -> list[Logger]:
        return [one for one in loggers if self._succeeds("{} is left out", one, verb, *start)]

    def _run(self) -> None:
        self._queued = self._opened(self._queued, "open", self._start)
        while True:
            self._news.wait()
            self._at_once.wait(_GATHER)
            self._news.clear()
            self._at_once.clear()
            is_last = self._is_closing
            while self._queue:
                items: list[Item] = []
                while self._queue and len(items) < _TOGETHER:
                    items += self._queue.popleft()
                for logger in self._queued:
                    self._succeeds("{}: items are lost", logger, "log", items)
                self._taken += len(items)
            if is_last:
                return

    def _succeeds(self, kind: str, logger: Logger, verb: str, *args: object) -> bool:
        """Call a verb of ``logger``; keep or count its error."""
        try:
            if call := getattr(logger, verb, None):  # `prepare` is optional
                call(*args)
        except Exception as error:
            self._failed(kind, logger, error)
            return False
        return True

    def _failed(self, kind: str, logger: Logger, error: Exception) -> None:
        name = type(logger).__name__
        if self._warnings.on_error == "raise":
            self._error = self._error or error
        elif isinstance(error, Refused):
            self._warnings.count_error(f"{name} {', '.join(error.names)}", error)
        else:
            self._warnings.count_error(kind.format(name), error)

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
