"""A logger in front of a logger: what is recorded is on disk at once, and arrives in the end."""

from __future__ import annotations

import shlex
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from boxscore.logger import Logger, Status
from boxscore.records import File, Item, RunStart

from . import steps
from .fork import inert_when_forked
from .spool import Batch, Spool, batch_of, close_line, log_lines
from .sync import Delivery, asked, hand_over
from .teller import Teller
from .tracking_uri import without_credentials

PATIENCE = 15.0
"""Seconds that `DurableLogger.close` waits by default."""

MEMORY = 32 * 2**20
"""Bytes kept in memory when the disk takes nothing."""

_GATHER = 1.0  # seconds that calls are gathered for one delivery
_LONGEST_PAUSE = 30.0  # seconds between two tries
_SHORT_PAUSE = 0.5  # the same, while the training waits for the end
_COMPACT = 4 * 2**20  # bytes of a spool that are worth removing
_RISK = "what the tracker has not got when the process ends is lost"


class DurableLogger:
    """Records to a spool in ``path``, from which a thread delivers to ``logger``.

    `log` costs one write to a local file, whatever the tracker does. What is not delivered when
    the process ends, however it ends, is delivered by ``boxscore sync``, or by the same run when
    it is resumed. The tracker may be told the same thing twice, and must not mind.

    Trouble is never raised into the training: it is said once per kind, through the logger
    ``boxscore`` of `logging`. Where the disk takes nothing, up to `MEMORY` bytes are kept in
    memory. In a forked process, such as a data loader's worker, this object does nothing.

    Args:
        logger: where to.
        path: folder of the spools; each process and run has one of its own in it.
        patience: seconds that `close` waits for what is still on its way.
    """

    def __init__(self, logger: Logger, path: str | Path, *, patience: float = PATIENCE) -> None:
        self._logger, self._path, self._patience = logger, Path(path), patience
        self._courier: _Courier | None = None
        self._id = ""

    def __reduce__(self) -> tuple[object, ...]:
        """A copy in another process is unopened."""
        return _rebuilt, (self._logger, self._path, self._patience)

    def open(self, start: RunStart) -> None:
        """Begin to record, and to deliver. What an earlier process left of this run goes first.

        Raises:
            ValueError: if the tracker cannot be told from the settings, such as a ``file:`` store.
        """
        if self._courier is not None and self._id == start.id:
            return
        self.close()
        self._courier, self._id = _Courier(self._logger, self._path, start), start.id

    def log(self, items: Sequence[Item]) -> None:
        """Record ``items``; files are copied."""
        if self._courier is None:
            raise RuntimeError("DurableLogger: open() comes before log()")
        if items:
            self._courier.record(items)

    def recorded(self) -> Mapping[str, int]:
        """How far the run had come when it was opened here, as far as ``path`` tells.

        Delivered or not. Where ``path`` holds nothing of a run that is resumed, as on another
        machine, this is empty; the tracker is asked before the delivery begins, and what it has
        already is not delivered.
        """
        return {} if self._courier is None else self._courier.before

    def close(self, status: Status = "FINISHED", *, patience: float | None = None) -> None:
        """Record the end, and wait for the delivery as long as ``patience`` lasts."""
        courier, self._courier = self._courier, None
        if courier is not None:
            courier.finish(status, self._patience if patience is None else patience)


def _rebuilt(logger: Logger, path: Path, patience: float) -> DurableLogger:
    return DurableLogger(logger, path, patience=patience)


class _Courier:
    """The spool of one run, the lines that the disk did not take, and the thread that delivers.

    Attributes:
        before: the last step of each series that was recorded before.
    """

    def __init__(self, logger: Logger, path: Path, start: RunStart) -> None:
        place = getattr(logger, "place", None)
        self._place = None if place is None else place()
        self._logger, self._path, self._start = logger, path.absolute(), start
        self._tell = Teller()
        self._lock = threading.Lock()
        self._held: deque[bytes] = deque()  # what the disk did not take
        self._held_size = 0
        self._holding = False  # held lines are on their way: no later line may pass them
        self._recorded = self._arrived = 0  # items
        self._news, self._hurry = threading.Event(), threading.Event()
        self._opened = self._given_up = self._inert = False
        self.before: Mapping[str, int] = {}
        self._asks = False
        self._known: Mapping[str, int] = {}  # without a spool: what the tracker has already
        self._earlier = [Delivery(spool, logger, self._tell) for spool in self._left_behind()]
        self._spool = self._begun()
        self._own = None if self._spool is None else Delivery(self._spool, logger, self._tell)
        inert_when_forked(self)
        self._news.set()
        self._thread = threading.Thread(target=self._deliver, name="boxscore", daemon=True)
        self._thread.start()

    def record(self, items: Sequence[Item]) -> None:
        """Write ``items`` to the disk, or hold them."""
        if not self._inert:
            self._recorded += len(items)
            self._put(log_lines([self._kept(item) for item in items]))

    def finish(self, status: Status, patience: float) -> None:
        """Write the end of the run, wait for ``patience`` seconds, and let go."""
        if self._inert:
            return
        self._put([close_line(status, time.time())])
        self._hurry.set()
        self._thread.join(patience)
        if self._thread.is_alive():
            self._given_up = True
            self._hurry.set()
            later = f"deliver them with: boxscore sync {shlex.quote(str(self._path))}"
            fate = "they are lost" if self._spool is None else later
            self._tell(
                "left",
                "%d items and the end of run %r have not arrived yet; %s",
                *(self._recorded - self._arrived, self._start.name, fate),
            )

    def go_inert(self) -> None:
        """Let go in a forked child, where there is no thread, and the lock may be held for ever."""
        self._inert = True
        for delivery in (*self._earlier, self._own):
            if delivery is not None:
                delivery.spool.release()

    def _left_behind(self) -> list[Spool]:
        """Spools of this run whose processes have gone, locked; learn how far the run came."""
        mine, left = [], []
        for spool in Spool.within(self._path):
            if spool.start.id == self._start.id and spool.place == self._place:
                mine.append(spool)
            else:
                spool.release()
        for spool in mine:
            self.before = steps.raised(self.before, spool.last_steps())
        # afterwards: a spool that has gone meanwhile was folded into this
        kept = steps.read(steps.path_in(self._path, self._start.id, self._place))
        self.before = steps.raised(self.before, kept)
        self._asks = self._start.resumed and not kept and all(spool.asks for spool in mine)
        for spool in mine:
            if spool.lock():
                left.append(spool)
            else:
                spool.release()
        return left

    def _begun(self) -> Spool | None:
        try:
            return Spool.create(self._path, self._start, self._place, asks=self._asks)
        except OSError as error:
            self._tell("disk", "nothing can be kept in %s (%s): %s", self._path, error, _RISK)
            return None

    def _kept(self, item: Item) -> Item:
        if isinstance(item, File) and self._spool is not None:
            return self._spool.keep(item)
        return item

    def _put(self, lines: Iterable[bytes]) -> None:
        trouble, dropped = None, 0
        with self._lock:
            for line in lines:
                self._held.append(line)
                self._held_size += len(line)
            try:
                while self._spool is not None and self._held and not self._holding:
                    self._spool.append(self._held[0])
                    self._held_size -= len(self._held.popleft())
            except OSError as error:
                trouble = error
            while self._held_size > MEMORY:
                self._held_size -= len(self._held.popleft())
                dropped += 1
        self._news.set()
        if trouble:
            self._tell("disk", "%s takes nothing (%s): %s", self._path, trouble, _RISK)
        if dropped:
            self._tell("memory", "memory is full too: the oldest items are lost")

    def _deliver(self) -> None:
        """What the thread does."""
        pause = 0.0
        while not self._given_up:
            try:
                batch = self._step()
            except Exception as error:  # a tracker's trouble is of any type
                self._say_outage(error)
                pause = min(max(2 * pause, 1.0), _LONGEST_PAUSE)
                self._rest(pause)
                continue
            pause = 0.0
            if batch.status is not None:
                if self._own is not None:
                    self._retire(self._own)
                break
            if not batch.lines:
                self._compact()
                self._news.wait()
                self._news.clear()
                self._hurry.wait(_GATHER)
        for delivery in (*self._earlier, self._own):
            if delivery is not None:
                delivery.spool.release()

    def _step(self) -> Batch:
        """Deliver one batch, the earliest first: what lies on the disk before what is held."""
        while self._earlier:
            batch = self._earlier[0].step()
            if batch.lines and batch.status is None:
                return batch
            earlier = self._earlier.pop(0)
            self._retire(earlier)
            earlier.spool.release()
        if self._own is not None:
            batch = self._own.step()
            if batch.lines:
                self._arrived += len(batch.items)
                return batch
        return self._step_held()

    def _step_held(self) -> Batch:
        with self._lock:
            if self._spool is not None and self._spool.cursor < self._spool.size:
                return Batch(lines=1)  # it came just now, and goes first
            batch = batch_of(self._held, self._path)
            lines = [self._held.popleft() for _ in range(batch.lines)]
            self._held_size -= batch.size
            self._holding = bool(lines)
        try:
            if self._own is None and not self._opened:
                self._logger.open(self._start)
                self._known = asked(self._logger) if self._asks else {}
                self._opened = True
            if lines:
                known = self._known if self._own is None else self._own.known
                hand_over(batch, self._logger, self._spool, self._tell, known)
        except Exception:
            with self._lock:
                self._held.extendleft(reversed(lines))
                self._held_size += batch.size
            raise
        finally:
            self._holding = False
        if self._spool is not None:
            self._spool.learn(batch.items)
        self._arrived += len(batch.items)
        return batch

    def _retire(self, delivery: Delivery) -> None:
        try:
            delivery.retire()
        except OSError as error:
            self._say_kept(error)

    def _compact(self) -> None:
        own = self._own
        if own is None or own.spool.size <= _COMPACT or own.spool.cursor < own.spool.size:
            return
        try:
            own.spool.fold(own.known)
        except OSError as error:
            self._say_kept(error)
            return
        with self._lock:
            own.spool.restart()

    def _say_kept(self, error: OSError) -> None:
        said = "%s takes nothing (%s): a spool stays in it though it was delivered"
        self._tell("disk", said, self._path, error)

    def _rest(self, pause: float) -> None:
        if self._hurry.is_set():  # closing: there is no time for long pauses
            time.sleep(min(pause, _SHORT_PAUSE))
        else:
            self._hurry.wait(pause)

    def _say_outage(self, error: Exception) -> None:
        reason = without_credentials(str(error)) or type(error).__name__
        kept = "in memory" if self._spool is None else f"in {self._path}"
        said = "%s cannot be reached (%s); what is recorded is kept %s meanwhile"
        self._tell(reason, said, type(self._logger).__name__, reason, kept)
