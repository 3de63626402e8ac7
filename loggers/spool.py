"""The folder that keeps what one process recorded of one run until it has been delivered.

::

    <run>-<hex>/            readable by its owner alone
        calls.jsonl         first line: whose and where to; then one line per call, only appended
        cursor              how many bytes of calls.jsonl were delivered
        files/              copies of the files that were recorded
    <run>-<hex>.refused/    what the tracker will never take; it stays when the spool has gone
    <run>-<place>.steps     how far the run came (`steps`); it stays too

Every process has a folder of its own, and holds a lock on it while it may write to or deliver it.
Each call is one unbuffered write: it survives SIGKILL at once, but not a power cut, as there is no
fsync. Nothing here is ever unpickled, and no credential comes here.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from boxscore.logger import Status
from boxscore.records import File, Item, Point, RunStart, Tag

from . import steps
from .whole import append

BATCH = 1000
"""Items in one delivery, and at most in one line."""

FORMAT = 1
_CALLS, _CURSOR, _FILES = "calls.jsonl", "cursor", "files"
_REFUSED, _ITEMS = ".refused", "items.jsonl"
_CHUNK = 1 << 16
_NEW = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
Place = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Process:
    """Who wrote a spool; the start time tells it from a later process of the same number."""

    host: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Process:
        """The process that asks."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()))

    @property
    def here(self) -> bool:
        """Whether it ran on this host, so that its end can be seen."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether it runs on this host."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's, but there
            pass
        return self.here and _started(self.pid) == self.started


def _started(pid: int) -> str:
    """When a process started, in ticks; ``""`` where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Calls that may be delivered together: items, or the end of the run, or nothing."""

    items: tuple[Item, ...] = ()
    status: Status | None = None
    time: float = 0.0
    lines: int = 0
    size: int = 0
    broken: int = 0


def log_lines(items: Sequence[Item]) -> Iterator[bytes]:
    """One call of `log` as lines."""
    for start in range(0, len(items), BATCH):
        yield _line([_encoded(item) for item in items[start : start + BATCH]])


def close_line(status: Status, time: float) -> bytes:
    """A call of `close` as a line."""
    return _line({"close": status, "time": time})


def batch_of(lines: Iterable[bytes], files: Path) -> Batch:
    """The first lines that may be delivered together; a line that cannot be read is passed over.

    Args:
        lines: as `log_lines` and `close_line` make them.
        files: the folder of the files that were copied.
    """
    items: list[Item] = []
    count = size = broken = 0
    for line in lines:
        try:
            call = json.loads(line)
            if isinstance(call, dict):
                if items:
                    break
                end = count + 1, size + len(line)
                return Batch((), call["close"], float(call["time"]), *end, broken)
            more = [_decoded(item, files) for item in call]
        except (ValueError, TypeError, KeyError, IndexError):
            more, broken = [], broken + 1
        if items and len(items) + len(more) > BATCH:
            break
        items += more
        count, size = count + 1, size + len(line)
    return Batch(tuple(items), None, 0.0, count, size, broken)


class Spool:
    """One such folder. Its writer and its reader may be two threads of one process.

    Attributes:
        folder: where it lies.
        start: the run.
        place: where the run's logger writes, None if only its own process can know.
        process: who recorded it.
        asks: whether the run was resumed where nothing was known of it: before this spool is
            delivered, the tracker is asked how far the run came, and steps up to there are left
            out.
        cursor: bytes delivered.
        size: bytes recorded.
    """

    def __init__(self, folder: Path, descriptor: int | None = None) -> None:
        """Read the spool in ``folder``. Raises `ValueError` if it holds none, or none yet."""
        self.folder = folder
        path = folder / _CALLS
        self._cursor = -1
        self._calls = os.open(path, os.O_RDWR | os.O_APPEND) if descriptor is None else descriptor
        try:
            # somebody else's is never made: it may be about to go, and must not come back
            self._cursor = self._opened_cursor(make=descriptor is not None)
            head = next(self._whole_lines(0), b"")
            facts = json.loads(head)
            if facts["boxscore"] != FORMAT:
                raise ValueError("another version of boxscore wrote it")
            self.start = RunStart(**facts["opening"])
            self.place: Place | None = facts["place"]
            self.process = Process(**facts["process"])
            self.asks: bool = facts.get("asks") is True
            self._head = self._learned = len(head)
            self._steps: dict[str, int] = {}
            self.size = os.fstat(self._calls).st_size
            self.cursor = self._read_cursor()
        except (ValueError, TypeError, KeyError) as error:
            self.release()
            raise ValueError(f"{folder} is not a spool: {error}") from None
        except OSError:
            self.release()
            raise

    @classmethod
    def create(
        cls, parent: Path, start: RunStart, place: Place | None, *, asks: bool = False
    ) -> Spool:
        """Begin a spool in ``parent``, locked. Raises `OSError`."""
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = parent.absolute() / f"{_plain(start.id)[:8]}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(mode=0o700)
        descriptor = os.open(folder / _CALLS, _NEW, 0o600)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        facts = {"opening": asdict(start), "place": place, "process": asdict(Process.this())}
        os.write(descriptor, _line({"boxscore": FORMAT, **facts, "asks": asks}))
        return cls(folder, descriptor)

    @classmethod
    def within(cls, folder: Path) -> list[Spool]:
        """Every spool in ``folder`` or deeper, the earliest run first; release them."""
        found = []
        for path, _, names in os.walk(folder):  # which minds no folder that has just gone
            if _CALLS in names:
                try:
                    found.append(cls(Path(path)))
                except (ValueError, OSError):  # it has just been begun, or has just gone
                    continue
        return sorted(found, key=lambda spool: spool.last_sign)

    @property
    def owner(self) -> int:
        """The number of the user whose it is."""
        return os.fstat(self._calls).st_uid

    @property
    def last_sign(self) -> float:
        """When something was recorded last, in seconds since the epoch."""
        return os.fstat(self._calls).st_mtime

    def lock(self) -> bool:
        """Take the spool for this object, unless somebody else has it."""
        try:
            fcntl.flock(self._calls, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: go by the process that wrote it
            return not self.process.alive
        return (self.folder / _CALLS).exists()

    def append(self, line: bytes) -> None:
        """Keep ``line``, whole or not at all. Raises `OSError`, such as for a full disk."""
        self.size = append(self._calls, line, self.size)

    def keep(self, file: File) -> File:
        """``file``, lying in the spool from now on; or where it lies, if it cannot be copied."""
        name = f"{uuid.uuid4().hex[:8]}-{PurePosixPath(file.name).name}"
        path = self.folder / _FILES / name
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(file.path, path)
        except OSError:
            path.unlink(missing_ok=True)
            return replace(file, path=str(Path(file.path).absolute()))
        return replace(file, path=name)  # without its folder, as that may be moved

    def next(self) -> Batch:
        """What follows the cursor. A last line that was torn off is not there."""
        return self._batch(self.cursor)

    def _batch(self, position: int) -> Batch:
        return batch_of(self._whole_lines(position), self.folder / _FILES)

    def _whole_lines(self, position: int) -> Iterator[bytes]:
        rest = b""
        while chunk := os.pread(self._calls, _CHUNK, position):
            position += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line + b"\n" for line in lines)

    def delivered(self, batch: Batch) -> None:
        """Move the cursor past ``batch`` and let its files go."""
        if self._learned == self.cursor:
            self.learn(batch.items)
            self._learned += batch.size
        self._move(self.cursor + batch.size)
        for item in batch.items:
            if self._keeps(item):
                Path(item.path).unlink(missing_ok=True)

    def learn(self, items: Iterable[Item]) -> None:
        """Know of points that were recorded past this spool, as the disk was full."""
        steps.learn(self._steps, items)

    def last_steps(self) -> Mapping[str, int]:
        """The last step of each series that was recorded here, delivered or not."""
        while (batch := self._batch(self._learned)).size:
            steps.learn(self._steps, batch.items)
            self._learned += batch.size
        return self._steps

    def fold(self, known: Mapping[str, int]) -> None:
        """Keep `last_steps`, and what else is ``known`` of the run, beside the spool.

        It comes before `restart` and `remove`: a crash in between costs nothing.

        Raises:
            OSError: if the disk takes nothing.
        """
        beside = steps.path_in(self.folder.parent, self.start.id, self.place)
        steps.fold(beside, steps.raised(self.last_steps(), known))

    def restart(self) -> None:
        """Forget what was delivered, if that is all."""
        if self.cursor == self.size > self._head:
            self._move(self._head)  # first: a crash in between only repeats a delivery
            os.ftruncate(self._calls, self._head)
            self.size = self._learned = self._head

    def set_aside(self, items: Sequence[Item], reason: str) -> Path:
        """Keep what was refused in a folder beside; return it."""
        folder = self.folder.with_name(self.folder.name + _REFUSED)
        folder.mkdir(mode=0o700, exist_ok=True)
        kept = []
        for item in items:
            if self._keeps(item):
                moved = folder / Path(item.path).name
                shutil.move(item.path, moved)
                kept.append(_encoded(replace(item, path=str(moved))))
            else:
                kept.append(_encoded(item))
        descriptor = os.open(folder / _ITEMS, _NEW & ~os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "ab") as lines:
            lines.write(_line({"reason": reason, "items": kept}))
        return folder

    def remove(self) -> None:
        """Delete the spool, which was delivered. The lock stays until `release`."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        """Let go of the files and the lock, once: later the numbers are somebody else's files."""
        descriptors, self._calls, self._cursor = (self._calls, self._cursor), -1, -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def _keeps(self, item: Item) -> TypeGuard[File]:
        """Whether ``item`` is a file that was copied here and is still there."""
        return (
            isinstance(item, File)
            and Path(item.path).parent == self.folder / _FILES
            and Path(item.path).exists()
        )

    def _opened_cursor(self, *, make: bool) -> int:
        """The cursor's file, -1 where it is not there."""
        try:
            kind = os.O_RDWR | os.O_CREAT if make else os.O_RDWR
            return os.open(self.folder / _CURSOR, kind, 0o600)
        except FileNotFoundError:
            return -1

    def _read_cursor(self) -> int:
        """Where delivery goes on; from the start if that cannot be read, as it may be repeated."""
        if self._cursor < 0:
            return self._head
        try:
            cursor = int(os.pread(self._cursor, 20, 0))
        except ValueError:
            return self._head
        return cursor if self._head <= cursor <= self.size else self._head

    def _move(self, cursor: int) -> None:
        self.cursor = cursor
        if self._cursor >= 0:
            os.pwrite(self._cursor, b"%020d" % cursor, 0)


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


def _line(call: object) -> bytes:
    return json.dumps(call, separators=(",", ":")).encode() + b"\n"


def _encoded(item: Item) -> list[Any]:
    match item:
        case Point():
            value, step = float(item.value), int(item.step)
            return ["p", item.name, value, step, item.split, item.time, item.scope]
        case Tag():
            return ["t", item.name, item.value]
        case File():
            return ["f", item.name, item.path, item.step, item.split, item.time]


def _decoded(item: list[Any], files: Path) -> Item:
    kind, *fields = item
    match kind:
        case "p":
            name, value, step, split, time, scope = fields
            return Point(str(name), float(value), int(step), str(split), float(time), str(scope))
        case "t":
            name, value = fields
            return Tag(str(name), str(value))
        case "f":
            name, path, step, split, time = fields
            return File(str(name), str(files / path), int(step), str(split), float(time))
    raise ValueError(f"unknown kind of item {kind!r}")
