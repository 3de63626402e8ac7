"""The folder that keeps what one process recorded of one run until it is delivered.

::

    <run>-<hex>/            readable by its owner alone
        calls.jsonl         the cursor: bytes that were delivered; run, destination, process;
                            then one line per call
        files/              copies of the files that were recorded; of two reports of one name the
                            earlier is replaced by a mark, as trackers keep the later one

Every process has a folder of its own and locks it while it may write to or deliver it. A call is
one unbuffered write: it survives SIGKILL at once, but not a power cut, as there is no fsync.
Nothing here is unpickled, and no credential is written.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any

from boxscore.logger import Status
from boxscore.records import File, Item, Point, RunStart, Tag

BATCH = 1000
"""Items in one delivery, and at most in one line."""

FORMAT = 2
_CALLS, _FILES = "calls.jsonl", "files"
_MARK = ".replaced"
_REPORT = ".html"
_CURSOR = b"%020d\n"
_CHUNK = 1 << 16
Place = Mapping[str, str | None]


def append_atomically(descriptor: int, data: bytes, size: int) -> int:
    """Write ``data`` at the end of a file of ``size`` bytes; return its size afterwards.

    Raises:
        OSError: the disk does not take all of it; the file is then as before.
    """
    written = os.pwrite(descriptor, data, size)
    if written < len(data):
        os.ftruncate(descriptor, size)
        raise OSError(f"no space left: the disk took {written} of {len(data)} bytes")
    return size + written


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Exclude other processes and threads, where the file system has locks.

    Raises:
        OSError: there is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # explicitly: a child forked inside the block keeps the descriptor open
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Process:
    """The process that wrote a spool.

    Attributes:
        host: name of its machine or container.
        pid: its number there.
        started: its start time, which differs for a later process of the same number.
        boot: the kernel's boot id, which containers on one machine share.
    """

    host: str
    pid: int
    started: str
    boot: str = ""

    @classmethod
    def this(cls) -> Process:
        """The calling process."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()), _boot())

    @property
    def is_local(self) -> bool:
        """Whether it ran on this machine, so that a free lock proves its end."""
        return self.host == socket.gethostname() or bool(self.boot and self.boot == _boot())

    @property
    def is_alive(self) -> bool:
        """Whether it runs under this host name."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            pass
        return self.host == socket.gethostname() and _started(self.pid) == self.started


def _started(pid: int) -> str:
    """Start time of a process in ticks; ``""`` where the system does not offer it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Calls that are delivered together: items, or the end of the run, or nothing.

    Attributes:
        items: of `log`.
        status: of `close`.
        time: of `close`, in seconds since the epoch.
        size: bytes in the spool.
        unreadable: lines that are skipped.
        replaced: files that are skipped, as a later one has the same name.
    """

    items: tuple[Item, ...] = ()
    status: Status | None = None
    time: float = 0.0
    size: int = 0
    unreadable: int = 0
    replaced: int = 0


class Spool:
    """One such folder. Its writer and its reader may be two threads of one process.

    Attributes:
        folder: its path.
        start: the run.
        place: where the run's logger writes; None if only the recording process can reach it.
        process: the process that recorded it.
        cursor: bytes delivered.
        size: bytes recorded.
    """

    def __init__(self, folder: Path, descriptor: int | None = None) -> None:
        """Read the spool in ``folder``. Raises `ValueError` if it holds none, or none yet."""
        self.folder = folder
        self._calls = os.open(folder / _CALLS, os.O_RDWR) if descriptor is None else descriptor
        self._last: dict[str, Path] = {}  # copies by the names of their files
        self._in_delivery: set[Path] = set()
        self._copies_lock = threading.Lock()
        try:
            cursor, head = itertools.islice(self._whole_lines(0), 2)
            facts = json.loads(head)
            if facts["boxscore"] != FORMAT:
                raise ValueError("another version of boxscore wrote it")
            self.start = RunStart(**facts["start"])
            self.place: Place | None = facts["place"]
            self.process = Process(**facts["process"])
            self._head = len(cursor) + len(head)
            self.size = os.fstat(self._calls).st_size
            # at the start if it is unreadable: repeating a delivery is harmless
            at = int(cursor) if cursor.strip().isdigit() else 0
            self.cursor = at if self._head <= at <= self.size else self._head
        except (ValueError, TypeError, KeyError) as error:
            self.release()
            raise ValueError(f"{folder} is not a spool: {error}") from None

    @classmethod
    def create(cls, parent: Path, start: RunStart, place: Place | None) -> Spool:
        """Begin a spool in ``parent``, locked. Raises `OSError`."""
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = parent.absolute() / f"{_alphanumeric(start.id)[:8]}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(mode=0o700)
        facts = {"start": asdict(start), "place": place, "process": asdict(Process.this())}
        descriptor = os.open(folder / _CALLS, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            append_atomically(descriptor, _CURSOR % 0 + _line({"boxscore": FORMAT, **facts}), 0)
        except OSError:
            os.close(descriptor)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(folder, descriptor)

    @classmethod
    def within(cls, folder: Path) -> list[Spool]:
        """Every spool in ``folder`` or deeper, the earliest run first; release each of them."""
        found = []
        for path, _, names in os.walk(folder):  # it skips deleted folders
            if _CALLS in names:
                with suppress(ValueError, OSError):  # just being created or deleted
                    found.append(cls(Path(path)))
        return sorted(found, key=lambda spool: spool.modified)

    @property
    def owner(self) -> int:
        """User id of its owner."""
        return os.fstat(self._calls).st_uid

    @property
    def modified(self) -> float:
        """When it was last recorded to, in seconds since the epoch."""
        return os.fstat(self._calls).st_mtime

    def lock(self) -> bool:
        """Take the spool for this object; False if another process or object has it."""
        try:
            fcntl.flock(self._calls, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: only the process itself tells
            return self.process.host == socket.gethostname() and not self.process.is_alive
        return (self.folder / _CALLS).exists()

    def record(self, items: Sequence[Item]) -> None:
        """Append ``items``, copying files. Raises `OSError`, such as for a full disk."""
        kept = [self._copied(item) if isinstance(item, File) else item for item in items]
        for start in range(0, len(kept), BATCH):
            self._append([_encoded(item) for item in kept[start : start + BATCH]])

    def record_end(self, status: Status, time: float) -> None:
        """Append the end of the run. Raises `OSError`."""
        self._append({"close": status, "time": time})

    def _append(self, call: object) -> None:
        self.size = append_atomically(self._calls, _line(call), self.size)

    def _copied(self, file: File) -> File:
        """``file`` with a path in the spool; or where it lies, if it cannot be copied."""
        name = f"{uuid.uuid4().hex[:8]}-{PurePosixPath(file.name).name}"
        path = self.folder / _FILES / name
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(file.path, path)
        except OSError:
            path.unlink(missing_ok=True)
            return replace(file, path=str(Path(file.path).absolute()))
        if name.endswith(_REPORT):
            self._replace_earlier(file.name, path)
        return replace(file, path=name)  # relative, as the spool may be moved

    def _replace_earlier(self, name: str, copy: Path) -> None:
        """Delete the last copy of a file called ``name``, unless it is being delivered."""
        with self._copies_lock:
            earlier, self._last[name] = self._last.get(name), copy
            if earlier and earlier not in self._in_delivery and earlier.exists():
                _mark_of(earlier).touch(mode=0o600)
                earlier.unlink()

    def next(self) -> Batch:
        """The calls after the cursor; a torn last line is ignored."""
        items: list[Item] = []
        size = unreadable = 0
        for line in self._whole_lines(self.cursor):
            try:
                call = json.loads(line)
                if isinstance(call, dict):
                    if items:
                        break
                    end = call["close"], float(call["time"])
                    return Batch((), *end, size + len(line), unreadable)
                more = [_decoded(item, self.folder / _FILES) for item in call]
            except (ValueError, TypeError, KeyError, IndexError):
                more, unreadable = [], unreadable + 1
            if items and len(items) + len(more) > BATCH:
                break
            items += more
            size += len(line)
        kept = self._not_replaced(items)
        return Batch(kept, size=size, unreadable=unreadable, replaced=len(items) - len(kept))

    def _not_replaced(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """``items`` without files of which a later one follows; the copies of others stay."""
        with self._copies_lock:
            self._in_delivery = {Path(item.path) for item in items if isinstance(item, File)}
            return tuple(item for item in items if not _is_replaced(item))

    def _whole_lines(self, position: int) -> Iterator[bytes]:
        rest = b""
        while chunk := os.pread(self._calls, _CHUNK, position):
            position += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line + b"\n" for line in lines)

    def delivered(self, batch: Batch) -> None:
        """Move the cursor past ``batch`` and delete its copied files."""
        self._move(self.cursor + batch.size)
        for item in batch.items:
            if isinstance(item, File) and Path(item.path).parent == self.folder / _FILES:
                Path(item.path).unlink(missing_ok=True)

    def truncate(self) -> None:
        """Drop the calls, if all of them were delivered."""
        if self.cursor == self.size > self._head:
            self._move(self._head)  # first: a crash in between only repeats a delivery
            os.ftruncate(self._calls, self._head)
            self.size = self._head

    def remove(self) -> None:
        """Delete the folder. The lock stays until `release`."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def release(self) -> None:
        """Close the file and drop the lock; a second call does nothing."""
        calls, self._calls = self._calls, -1
        if calls >= 0:
            os.close(calls)

    def _move(self, cursor: int) -> None:
        modified, self.cursor = self.modified, cursor
        os.pwrite(self._calls, _CURSOR % cursor, 0)
        os.utime(self._calls, (modified, modified))


def _mark_of(copy: Path) -> Path:
    return copy.with_name(copy.name + _MARK)


def _is_replaced(item: Item) -> bool:
    return isinstance(item, File) and _mark_of(Path(item.path)).exists()


def _alphanumeric(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


def _line(call: object) -> bytes:
    # NumPy's numbers and tensors of one element have `item`
    return json.dumps(call, separators=(",", ":"), default=lambda x: x.item()).encode() + b"\n"


_KINDS: dict[str, type[Item]] = {"p": Point, "t": Tag, "f": File}
_FIELDS = {
    kind: (letter, attrgetter(*(field.name for field in fields(kind))))
    for letter, kind in _KINDS.items()
}


def _encoded(item: Item) -> list[Any]:
    letter, values = _FIELDS[type(item)]
    return [letter, *values(item)]


def _decoded(encoded: list[Any], files: Path) -> Item:
    item = _KINDS[encoded[0]](*encoded[1:])
    return replace(item, path=str(files / item.path)) if isinstance(item, File) else item
