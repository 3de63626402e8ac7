"""A logger in front of a logger: items are written to disk at once, and delivered later."""

from __future__ import annotations

import os
import shlex
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from boxscore.logger import Logger, Refused, Status, Warnings
from boxscore.records import Item, RunStart

from .mlflow import MLflowLogger
from .spool import Batch, Place, Spool, folder_lock
from .tracking_uri import local_folder, without_credentials

PATIENCE = 15.0
"""Seconds that `DurableLogger.close` waits by default, once the tracker was tried."""

_FIRST_TRY = 120.0  # seconds that a new SQLite store may take: a busy machine needs 12 to 60
_GATHER = 1.0  # seconds that calls are gathered for one delivery
_LONGEST_PAUSE = 30.0  # seconds between two tries
_SHORT_PAUSE = 0.5  # the same while `close` waits
_COMPACT = 4 * 2**20  # bytes of a delivered spool that are worth removing


class DurableLogger:
    """Writes to a spool in ``path``, from which a thread delivers to ``logger``.

    `log` costs one write to a local file, whatever the tracker does. What is not delivered when
    the process ends, however it ends, is delivered by ``boxscore sync``, or by the same run when
    it is resumed. The same call may be delivered twice, as the protocol allows.

    Errors of the tracker are never raised but warned of once per kind. An error of the disk is
    raised by `log`: its items are lost. In a forked process, such as a data loader's worker, this
    object does nothing.

    Args:
        logger: the destination.
        path: folder of the spools; each process and run has one of its own in it.
        patience: seconds that `close` waits for the delivery, beyond the tracker's first answer.

    Raises:
        ValueError: ``path`` is no folder of this machine.
    """

    def __init__(self, logger: Logger, path: str | Path, *, patience: float = PATIENCE) -> None:
        self._logger, self._patience = logger, patience
        self._path = local_folder(path, "path")
        self._delivery: DeliveryThread | None = None
        self._start: RunStart | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """A copy in another process is unopened."""
        return _rebuilt, (self._logger, self._path, self._patience)

    def prepare(self) -> None:
        """Resolve paths, and prepare ``logger``. Raises `ValueError` for its settings."""
        self._path = self._path.absolute()
        if prepare := getattr(self._logger, "prepare", None):
            prepare()

    def open(self, start: RunStart) -> None:
        """Begin to record, and to deliver: first what an earlier process of this run left.

        Raises:
            OSError: the spool cannot be created.
            ValueError: the settings of ``logger`` cannot work.
        """
        if self._delivery is not None and self._start == start:
            return
        self.close()
        self.prepare()
        self._delivery, self._start = DeliveryThread(self._logger, self._path, start), start

    def log(self, items: Sequence[Item]) -> None:
        """Write ``items`` to the spool; files are copied.

        Raises:
            OSError: the disk does not take them; they are lost.
        """
        if self._delivery is None:
            raise RuntimeError("DurableLogger: open() comes before log()")
        if items:
            self._delivery.record(items)

    def close(self, status: Status = "FINISHED", *, patience: float | None = None) -> None:
        """Record the end, and wait for the delivery.

        Args:
            status: how the run ended.
            patience: seconds to wait, instead of the object's.

        Raises:
            OSError: the disk does not take the end: MLflow shows the run as running until
                ``boxscore sync`` ends it.
        """
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            first_try = _FIRST_TRY if patience is None and self._patience else 0.0
            delivery.finish(status, first_try, self._patience if patience is None else patience)


def _rebuilt(logger: Logger, path: Path, patience: float) -> DurableLogger:
    return DurableLogger(logger, path, patience=patience)


def deliver(
    spool: Spool,
    logger: Logger,
    warnings: Warnings,
    pause: Callable[[Exception, int], None],
) -> Iterator[Batch]:
    """Deliver ``spool`` batch by batch, in order; an empty batch where nothing is left.

    The cursor stays before the end of the run, so that a spool whose removal fails is still known
    to have one.

    ``pause`` is called with an error of ``logger`` and how many there were in a row; it waits, or
    raises to end the delivery.
    """
    is_open, failures = False, 0
    while True:
        try:
            if not is_open:
                with folder_lock(spool.folder.parent):  # two processes would each create the run
                    logger.open(spool.start)
                is_open = True
            batch = spool.next()
            hand_over(batch, logger, warnings)
        except Exception as error:
            failures += 1
            pause(error, failures)
            continue
        failures = 0
        if batch.status is None:
            spool.delivered(batch)
        yield batch


def hand_over(batch: Batch, logger: Logger, warnings: Warnings) -> None:
    """Call ``logger`` once; what it refuses for good is named and lost."""
    name = type(logger).__name__
    if batch.unreadable:
        warnings.warn_once("unreadable", f"{batch.unreadable} unreadable lines of a spool are lost")
    try:
        if batch.items:
            logger.log(batch.items)
        elif batch.status is not None:
            if isinstance(logger, MLflowLogger):
                logger.close(batch.status, time=batch.time)  # it may have ended long ago
            else:
                logger.close(batch.status)
    except Refused as refusal:
        warnings.warn_once(f"refused {refusal.names}", f"{name} {refusal}; nothing else is lost")


class DeliveryThread:
    """The spools of one run, and the thread that delivers them, the earliest first."""

    def __init__(self, logger: Logger, path: Path, start: RunStart) -> None:
        self._logger, self._path, self._start = logger, path, start
        self._warnings = Warnings()
        self._lock = threading.Lock()  # of the own spool's size
        self._recorded = self._arrived = 0  # items
        self._news, self._hurry, self._tried = (threading.Event() for _ in range(3))
        self._has_given_up = self._is_disabled = False
        self._end: tuple[Status, float] | None = None  # until it is recorded
        self._spools: list[Spool] = []
        _alive.add(self)
        place = logger.place() if hasattr(logger, "place") else None
        self._spools += _left_behind(path, start, place)
        try:
            self._own = Spool.create(path, start, place)
        except OSError:
            self._release()
            raise
        self._spools.append(self._own)
        self._thread = threading.Thread(target=self._run, name="boxscore-delivery", daemon=True)
        self._thread.start()

    def record(self, items: Sequence[Item]) -> None:
        """Write ``items`` to the spool. Raises `OSError`."""
        if not self._is_disabled:
            with self._lock:
                self._own.record(items)
            self._recorded += len(items)
            self._news.set()

    def finish(self, status: Status, first_try: float, patience: float) -> None:
        """Record the end; wait ``first_try`` s until the tracker was tried, ``patience`` s more."""
        if self._is_disabled:
            return
        self._end = status, time.time()
        with self._lock, suppress(OSError):
            self._record_end()
        self._hurry.set()
        self._news.set()
        self._tried.wait(first_try)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._has_given_up = True
            self._warnings.warn_once(
                "left",
                f"{self._recorded - self._arrived} items and the end of run {self._start.name!r} "
                "are not delivered yet; deliver them with: "
                f"boxscore sync {shlex.quote(str(self._path))}",
            )
        if self._end is not None:
            raise OSError(f"{self._path} does not take the end of run {self._start.name!r}")

    def _record_end(self) -> None:
        if self._end is not None:
            self._own.record_end(*self._end)
            self._end = None

    def disable_after_fork(self) -> None:
        """In a forked child: it has no thread, and must not hold the spools' locks."""
        self._is_disabled = True
        self._release()

    def _release(self) -> None:
        for spool in self._spools:
            spool.release()

    def _run(self) -> None:
        try:
            for spool in self._spools:
                self._deliver(spool)
        except Exception:
            if not self._has_given_up:
                raise
        finally:
            self._release()

    def _deliver(self, spool: Spool) -> None:
        """Deliver all of ``spool``, until the end of the run if it is the own one."""
        for batch in deliver(spool, self._logger, self._warnings, self._pause):
            self._tried.set()
            if self._has_given_up:
                return
            if spool is self._own:
                self._arrived += len(batch.items) + batch.replaced
            if batch.status is None and (batch.size or not self._is_drained(spool)):
                continue
            if spool is not self._own or batch.status is not None:
                spool.remove()
            return

    def _is_drained(self, spool: Spool) -> bool:
        """Whether nothing more follows an empty batch; waits for it."""
        if spool is not self._own:
            return True
        with self._lock:
            if spool.size > _COMPACT or self._end is not None:
                spool.truncate()
            with suppress(OSError):  # a full disk has room for the end where calls were truncated
                self._record_end()
            if spool.cursor < spool.size:
                return False
        if self._hurry.is_set():
            return True
        self._news.wait()
        self._news.clear()
        self._hurry.wait(_GATHER)
        return False

    def _pause(self, error: Exception, failures: int) -> None:
        """Warn of an error of the tracker, and wait before the next try."""
        self._tried.set()
        reason = without_credentials(str(error)) or type(error).__name__
        problem = "cannot be reached" if type(error) is ConnectionError else "failed"
        self._warnings.warn_once(
            reason,
            f"{type(self._logger).__name__} {problem} ({reason}); what is recorded is kept in "
            f"{self._path} and delivered later",
        )
        seconds = min(2.0 ** (failures - 1), _LONGEST_PAUSE)
        if self._hurry.is_set():
            time.sleep(min(seconds, _SHORT_PAUSE))
        else:
            self._hurry.wait(seconds)
        if self._has_given_up:
            raise error


def _left_behind(path: Path, start: RunStart, place: Place | None) -> list[Spool]:
    """The spools of the same run whose processes have ended, locked."""
    left = []
    for spool in Spool.within(path):
        if spool.start.id == start.id and spool.place == place and spool.lock():
            left.append(spool)
        else:
            spool.release()
    return left


_alive: weakref.WeakSet[DeliveryThread] = weakref.WeakSet()


def _after_fork() -> None:
    for delivery in _alive:
        delivery.disable_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
