"""From spool to logger: in order, in batches, as often as it takes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from boxscore.logger import Logger, Status

from .mlflow import MLflowLogger
from .refused import Refused
from .spool import Batch, Spool
from .uri import without_credentials

_TRIES = 3
_PAUSE = 1.0  # seconds between two tries


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


class Delivery:
    """One spool on its way to one logger."""

    def __init__(self, spool: Spool, logger: Logger, tell: Teller) -> None:
        self.spool, self.logger, self._tell = spool, logger, tell
        self._open = False

    def step(self) -> Batch:
        """Deliver one batch, which is empty when there is none; raise what the logger raises.

        The cursor stays in front of the end of the run: a spool that was not removed after all
        must not look like one without an end.
        """
        if not self._open:
            self.logger.open(self.spool.opening)
            self._open = True
        batch = self.spool.next()
        if batch.size:
            hand_over(batch, self.logger, self.spool, self._tell)
        if batch.status is None:
            self.spool.delivered(batch)
        return batch


def hand_over(batch: Batch, logger: Logger, spool: Spool | None, tell: Teller) -> None:
    """Call ``logger`` once; what it refuses for good is named and set aside."""
    if batch.broken:
        tell("broken", "%d unreadable lines of a spool were passed over", batch.broken)
    if batch.status is None:
        try:
            logger.log(batch.items)
        except Refused as refusal:
            where = _set_aside(refusal, spool)
            tell(f"refused {refusal.names}", "%s; %s", refusal, where)
    elif isinstance(logger, MLflowLogger):
        logger.close(batch.status, time=batch.time)  # it may have ended long ago
    else:
        logger.close(batch.status)


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
    result = Synced(spool.folder, spool.opening.name)
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
    if spool.folder.stat().st_uid != os.geteuid():
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
        status = "KILLED"
        end = Batch(status=status, time=spool.last_sign)
        hand_over(end, delivery.logger, spool, Teller())
    tell(0)
    spool.remove()
    return replace(result, status=status)
