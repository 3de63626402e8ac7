"""From spool to logger: in order, in batches, as often as it takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from boxscore.logger import Logger, Refused, Resumable, Status
from boxscore.records import unrecorded

from .alone import alone
from .mlflow import MLflowLogger
from .spool import Batch, Spool
from .teller import Teller
from .tracking_uri import without_credentials

_TRIES = 3
_PAUSE = 1.0  # seconds between two tries


class Delivery:
    """One spool on its way to one logger.

    Attributes:
        known: what the logger said of how far the run came before, if the spool asks.
    """

    def __init__(self, spool: Spool, logger: Logger, tell: Teller) -> None:
        self.spool, self.logger, self._tell = spool, logger, tell
        self.known: Mapping[str, int] = {}
        self._open = False

    def step(self) -> Batch:
        """Deliver one batch, which is empty when there is none; raise what the logger raises.

        The cursor stays in front of the end of the run: a spool that was not removed after all
        must not look like one without an end.
        """
        if not self._open:
            with alone(self.spool.folder.parent):  # or two would each create the run
                self.logger.open(self.spool.start)
            if self.spool.asks:
                # again by whoever goes on after a crash: what this spool has delivered by then
                # is left out too, and its later steps are not
                self.known = asked(self.logger)
            self._open = True
        batch = self.spool.next()
        if batch.size:
            hand_over(batch, self.logger, self.spool, self._tell, self.known)
        if batch.status is None:
            self.spool.delivered(batch)
        return batch

    def retire(self) -> None:
        """Delete the spool, which was delivered; how far the run came is kept.

        Raises:
            OSError: if it cannot be kept; then the spool stays.
        """
        self.spool.fold(self.known)
        self.spool.remove()


def asked(logger: Logger) -> Mapping[str, int]:
    """How far the open run came, as far as ``logger`` can tell."""
    try:
        return logger.recorded() if isinstance(logger, Resumable) else {}
    except Refused:  # the run was deleted just now, and will take nothing
        return {}


def hand_over(
    batch: Batch,
    logger: Logger,
    spool: Spool | None,
    tell: Teller,
    known: Mapping[str, int] | None = None,
) -> None:
    """Call ``logger`` once; what it refuses for good is named and set aside.

    Args:
        batch: what to tell.
        logger: whom.
        spool: where the batch comes from.
        tell: tells the user of trouble.
        known: the last step of each series that is left out.
    """
    if batch.broken:
        tell("broken", "%d unreadable lines of a spool were passed over", batch.broken)
    try:
        if batch.status is None:
            logger.log(unrecorded(batch.items, known) if known else batch.items)
        elif isinstance(logger, MLflowLogger):
            logger.close(batch.status, time=batch.time)  # it may have ended long ago
        else:
            logger.close(batch.status)
    except Refused as refusal:
        where = _set_aside(refusal, spool) if refusal.items else "nothing else is lost by that"
        tell(f"refused {refusal.names}", "%s; %s", refusal, where)


def _set_aside(refusal: Refused, spool: Spool | None) -> str:
    """Keep what was refused, if that can be; say where."""
    if spool is None:
        return "it is lost"
    try:
        return f"kept in {spool.set_aside(refusal.items, refusal.reason)}"
    except OSError as error:
        return f"it is lost ({error})"


@dataclass(frozen=True, slots=True)
class Synced:
    """What `sync` did with one spool.

    Attributes:
        spool: its folder.
        run: the run's name.
        items: points, tags and files that were delivered now.
        status: how the run ended, None if it lasts or this cannot be told from here.
        left: why the spool is still there; ``""`` if it has gone.
    """

    spool: Path
    run: str
    items: int = 0
    status: Status | None = None
    left: str = ""


def sync(
    folder: str | Path,
    tracking_uri: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Synced]:
    """Deliver to MLflow every spool in ``folder`` or deeper. May be repeated, at any time.

    What a live training has in hand is left to it. A run without an end whose process is gone is
    marked KILLED.

    Args:
        folder: such as a ``log_dir``.
        tracking_uri: where to instead of where the training did; needed if that took credentials
            and they are not in MLFLOW_TRACKING_URI.
        progress: told how many bytes of how many have been delivered.
    """
    spools = Spool.within(Path(folder))
    total = sum(spool.size - spool.cursor for spool in spools)
    done, results = 0, []
    for spool in spools:
        start, rest = done, spool.size - spool.cursor

        def tell(still: int, start: int = start, rest: int = rest) -> None:
            if progress is not None:
                progress(start + rest - still, total)

        results.append(_synced(spool, tracking_uri, tell))
        done = start + rest
    return results


def _synced(spool: Spool, tracking_uri: str | None, tell: Callable[[int], None]) -> Synced:
    """Deliver one spool, as far as that goes."""
    result = Synced(spool.folder, spool.start.name)
    try:
        left = _not_ours(spool)
        if not left:
            assert spool.place is not None
            logger = MLflowLogger.at(spool.place, tracking_uri)
            return _delivered(Delivery(spool, logger, Teller()), result, tell)
    except (ValueError, OSError) as error:
        left = without_credentials(str(error))
    finally:
        spool.release()
    return replace(result, left=left)


def _not_ours(spool: Spool) -> str:
    """Why nothing may be done with ``spool``, or ``""``."""
    if spool.owner != os.geteuid():
        return "it belongs to another user"
    if not spool.lock():
        return "a live training or another sync has it in hand"
    if spool.place is None:
        return "only the training itself knows its logger"
    return ""


def _delivered(delivery: Delivery, result: Synced, tell: Callable[[int], None]) -> Synced:
    """Deliver all of a spool and remove it, if the run is over."""
    spool, failures, status = delivery.spool, 0, None
    while status is None:
        try:
            batch = delivery.step()
        except ConnectionError as error:
            failures += 1
            if failures == _TRIES:
                return replace(result, left=str(error))
            time.sleep(_PAUSE)
            continue
        failures, status = 0, batch.status
        result = replace(result, items=result.items + len(batch.items))
        tell(spool.size - spool.cursor)
        if not batch.size:
            break
    if status is None:
        if not spool.process.here:
            host = spool.process.host
            return replace(result, left=f"whether the training still runs is only seen on {host}")
        if spool.process.alive:
            return replace(result, left="its process still runs")
        if not _goes_on(spool):
            status = "KILLED"
            end = Batch(status=status, time=spool.last_sign)
            hand_over(end, delivery.logger, spool, Teller())
    tell(0)
    delivery.retire()
    return replace(result, status=status)


def _goes_on(spool: Spool) -> bool:
    """Whether another process has the same run in hand: it was resumed, and lasts."""
    others = Spool.within(spool.folder.parent)
    try:
        return any(
            other.start.id == spool.start.id and other.folder != spool.folder and not other.lock()
            for other in others
        )
    finally:
        for other in others:
            other.release()
