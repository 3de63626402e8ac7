"""Delivery of what trainings left behind, from any process."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from boxscore.logger import Status, Warnings

from .durable import deliver, hand_over
from .mlflow import MLflowLogger
from .spool import Batch, Spool
from .tracking_uri import local_folder, without_credentials

_TRIES = 3
_PAUSE = 1.0  # seconds between two tries


@dataclass(frozen=True, slots=True)
class Synced:
    """What `sync` did with one spool.

    Attributes:
        spool: its folder.
        run: the run's name.
        items: points, tags and files that were delivered now.
        status: how the run ended, None if it lasts or this cannot be seen from here.
        left: why the spool is still there; ``""`` if it was removed.
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
    gone: Collection[str] = (),
) -> list[Synced]:
    """Deliver to MLflow every spool in ``folder`` or deeper. May be repeated, at any time.

    The spool of a live training is left to it. A run without an end whose process is gone is
    marked KILLED.

    Args:
        folder: such as a ``log_dir``.
        tracking_uri: destination instead of the training's; needed if that had credentials and
            they are not in MLFLOW_TRACKING_URI.
        progress: called with the number of bytes delivered, and of all bytes.
        gone: names of other hosts that no longer run: their spools are taken over, although
            whether a training holds them cannot be seen from here.
    """
    spools = Spool.within(local_folder(folder, "folder"))
    total = sum(spool.size - spool.cursor for spool in spools)
    done, results = 0, []
    for spool in spools:
        start, rest = done, spool.size - spool.cursor

        def tell(still: int, start: int = start, rest: int = rest) -> None:
            if progress is not None:
                progress(start + rest - still, total)

        results.append(_synced(spool, tracking_uri, gone, tell))
        done = start + rest
    return results


def _synced(
    spool: Spool, tracking_uri: str | None, gone: Collection[str], tell: Callable[[int], None]
) -> Synced:
    """Deliver one spool, as far as possible, and remove it if the run is over."""
    result, warnings = Synced(spool.folder, spool.start.name), Warnings()
    try:
        if left := _reason_to_leave(spool, gone):
            return replace(result, left=left)
        assert spool.place is not None
        logger = MLflowLogger.at(spool.place, tracking_uri)
        for batch in deliver(spool, logger, warnings, _pause):
            result = replace(result, items=result.items + len(batch.items), status=batch.status)
            tell(spool.size - spool.cursor)
            if not batch.size or batch.status is not None:
                break
        if result.status is None:
            if left := _reason_to_wait(spool, gone):
                return replace(result, left=left)
            if not _is_continued(spool, gone):
                result = replace(result, status="KILLED")
                hand_over(Batch(status="KILLED", time=spool.modified), logger, warnings)
        tell(0)
        spool.remove()
        return result
    except (ValueError, OSError) as error:
        return replace(result, status=None, left=without_credentials(str(error)))
    finally:
        spool.release()


def _pause(error: Exception, failures: int) -> None:
    if not isinstance(error, ConnectionError) or failures == _TRIES:
        raise error
    time.sleep(_PAUSE)


def _is_gone(spool: Spool, gone: Collection[str]) -> bool:
    """Whether the spool's host is another one, named as gone."""
    return spool.process.host in gone and not spool.process.is_local


def _reason_to_leave(spool: Spool, gone: Collection[str]) -> str:
    """Why ``spool`` must not be touched, or ``""``."""
    if spool.owner != os.geteuid():
        return "it belongs to another user"
    if not spool.lock() and not _is_gone(spool, gone):
        return "a live training or another sync has it in hand"
    return "" if spool.place is not None else "only the training itself knows its logger"


def _reason_to_wait(spool: Spool, gone: Collection[str]) -> str:
    """Why a run without an end may still be running, or ``""``."""
    host = spool.process.host
    if not spool.process.is_local and not _is_gone(spool, gone):
        return (
            f"whether the training still runs is only seen on {host}; if that host no longer "
            f"exists: boxscore sync {shlex.quote(str(spool.folder.parent))} --host-gone {host}"
        )
    return "its process still runs" if spool.process.is_alive else ""


def _is_continued(spool: Spool, gone: Collection[str]) -> bool:
    """Whether another live process has resumed the same run."""
    others = Spool.within(spool.folder.parent)
    try:
        return any(
            other.start.id == spool.start.id
            and other.folder != spool.folder
            and not other.lock()
            and not _is_gone(other, gone)
            for other in others
        )
    finally:
        for other in others:
            other.release()
