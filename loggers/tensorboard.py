"""Items to TensorBoard event files, one folder per split, without torch or tensorflow."""

from __future__ import annotations

import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from boxscore.logger import Status
from boxscore.records import File, Item, Point, RunStart, Tag

from . import event_files
from .event_files import EventFile, Picture
from .fork import inert_when_forked
from .teller import Teller

REMEMBERED = 10_000
"""Points whose repetition is noticed: ten times what comes in one delivery."""

MEMORY = 32 * 2**20
"""Bytes that may wait to be written, about."""

_GATHER = 0.1  # seconds that calls are gathered for one write
_PAUSE = 1.0  # seconds between two tries when the disk takes nothing
_AT_ONCE = 2**20  # bytes that are written together
_ITEM = 200  # bytes of one that waits, about
_NOT_DRAWN = "summary/"
_CALL = Sequence[Point | Tag | Picture]


class TensorBoardLogger:
    """Event files in ``<log_dir>/<start.folder>/<split>``, written by a thread of its own.

    `log` only appends to a list: what it was told is on the disk about a tenth of a second later,
    without a call. Trouble of the disk is never raised into the training but said once, through
    the logger ``boxscore`` of `logging`. Meanwhile up to `MEMORY` bytes are kept in memory. In a
    forked process, such as a data loader's worker, this object does nothing.

    Points of one split, step and time share an event. Names beginning with ``summary/`` are for
    queries and are not drawn. Tags and params become texts called ``tags/<name>`` in the train
    folder, so that the event files alone tell what the run was. PNG files become images; other
    files are left to other loggers.
    """

    def __init__(self, log_dir: str | Path = "runs") -> None:
        self._log_dir = Path(log_dir)
        self._folder: Path | None = None
        self._writing: _Writing | None = None

    def __reduce__(self) -> tuple[type[TensorBoardLogger], tuple[Path]]:
        """A copy in another process is unopened."""
        return TensorBoardLogger, (self._log_dir,)

    def open(self, start: RunStart) -> None:
        """Create the run's folder, or a further event file in it.

        Raises:
            OSError: if the folder cannot be written to.
            ValueError: if the start's folder leaves the log folder.
        """
        folder = (self._log_dir / _inside(start.folder)).absolute()
        if folder == self._folder:
            return
        self.close()
        self._writing = _Writing(folder)
        self._folder = folder
        # where a training forgets to close, the interpreter's end still writes what waits
        weakref.finalize(self, self._writing.close)
        facts = {**start.params, **start.tags}
        self.log([Tag(name, value) for name, value in facts.items()])

    def log(self, items: Sequence[Item]) -> None:
        """Hand ``items`` to the writing thread; a point that was written already is left out.

        Raises:
            OSError: if a PNG file cannot be read.
            ValueError: if a file is called PNG and is none.
        """
        if self._writing is None:
            raise RuntimeError("TensorBoardLogger: open() comes before log()")
        self._writing.put(
            [
                Picture.of(item) if isinstance(item, File) else item
                for item in items
                if not isinstance(item, File) or item.name.lower().endswith(".png")
            ]
        )

    def recorded(self) -> Mapping[str, int]:
        """The last step of each series that lies in the run's folder, of every split."""
        return {} if self._folder is None else event_files.last_steps(self._folder)

    def close(self, status: Status = "FINISHED") -> None:  # noqa: ARG002  # files hold no status
        """Write what is waiting and close the files."""
        writing, self._writing = self._writing, None
        self._folder = None
        if writing is not None:
            writing.close()


class _Writing:
    """What waits to be written to the folder of a run, and the thread that writes it."""

    def __init__(self, folder: Path) -> None:
        # in the training's thread: a process that is forked while another thread imports could
        # never import the same modules
        import tensorboard.plugins.text.summary_v2
        import tensorboard.summary.writer.record_writer  # noqa: F401

        self._folder, self._tell = folder, Teller()
        # train first: TensorBoard gives colours in this order
        self._files = {"train": EventFile(folder / "train")}
        self._waiting: deque[tuple[_CALL, int]] = deque()
        self._size = 0
        self._room = threading.Condition()
        self._unwritten: dict[str, bytes] = {}
        self._written: dict[tuple[object, ...], None] = {}
        self._trouble = self._inert = False
        self._news, self._closing = threading.Event(), threading.Event()
        inert_when_forked(self)
        self._thread = threading.Thread(target=self._run, name="boxscore-events", daemon=True)
        self._thread.start()

    def put(self, call: _CALL) -> None:
        """Let ``call`` wait.

        This waits too where more than `MEMORY` would, as long as the disk takes something: no
        training is that fast.
        """
        if self._inert or not call:
            return
        size = sum(len(i.content) if isinstance(i, Picture) else _ITEM for i in call)
        with self._room:
            while self._size > MEMORY and not self._trouble and self._thread.is_alive():
                self._news.set()
                self._room.wait(_PAUSE)
            self._waiting.append((call, size))
            self._size += size
            dropped = 0
            while self._size > MEMORY and len(self._waiting) > 1 and self._trouble:
                self._size -= self._waiting.popleft()[1]
                dropped += 1
        self._news.set()
        if dropped:
            self._tell("memory", "memory is full too: the oldest points for TensorBoard are lost")

    def close(self) -> None:
        """Wait until all is written, or the disk takes nothing, and let go."""
        if self._inert:
            return
        self._closing.set()
        self._news.set()
        if threading.current_thread() is not self._thread:  # where garbage is collected in it
            self._thread.join()

    def go_inert(self) -> None:
        """In a forked child."""
        self._inert = True

    def _run(self) -> None:
        """What the thread does."""
        over = False
        while not over:
            if self._trouble:
                self._closing.wait(_PAUSE)
            else:
                self._news.wait()
                self._closing.wait(_GATHER)
            self._news.clear()
            over = self._closing.is_set()  # asked first: nothing comes after it
            while self._write() and self._take():
                pass
        if self._unwritten or self._waiting:
            self._tell("lost", "what %s did not take is lost", self._folder)
        for file in self._files.values():
            file.close()

    def _take(self) -> bool:
        """Make events of what waits; whether there was any."""
        calls, size = [], 0
        with self._room:
            while self._waiting and size < _AT_ONCE:
                call, one = self._waiting.popleft()
                calls.append(call)
                size += one
            self._size -= size
            self._room.notify_all()
        made: dict[str, list[bytes]] = {}
        for split, make in (new for call in calls for new in self._new(call)):
            try:
                made.setdefault(str(_inside(split)), []).append(event_files.record(make()))
            except Exception as error:  # such as a step beyond 64 bits: the others are well
                self._tell("event", "TensorBoard cannot show an item (%s)", error)
        self._unwritten = {split: b"".join(data) for split, data in made.items()}
        return bool(calls)

    def _write(self) -> bool:
        """Write the events that were made; whether the disk took them."""
        for split, data in [*self._unwritten.items()]:
            try:
                if split not in self._files:
                    self._files[split] = EventFile(self._folder / split)
                self._files[split].append(data)
            except OSError as error:
                said = "%s takes nothing (%s): its points are kept in memory meanwhile"
                self._tell("disk", said, self._folder, error)
                self._trouble = True
                return False
            del self._unwritten[split]
        self._trouble = False
        return True

    def _new(self, call: _CALL) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Split and maker of an event for all that is new in ``call``."""
        together: dict[tuple[str, int, int], list[Point]] = {}
        for point in (item for item in call if isinstance(item, Point)):
            if self._is_news(point):
                key = point.split or "train", point.step, int(point.time * 1000)
                together.setdefault(key, []).append(point)
        for (split, *_), points in together.items():
            yield split, functools.partial(event_files.scalars, points)
        for item in call:
            match item:
                case Tag() if self._remember("tag", item.name, item.value):
                    yield "train", functools.partial(event_files.text, item)
                case Picture(file) if self._remember("file", file.name, file.step, file.time):
                    yield file.split or "train", functools.partial(event_files.image, item)

    def _is_news(self, point: Point) -> bool:
        if point.tag.startswith(_NOT_DRAWN):
            return False
        # the value by its text, because a NaN is not equal to itself
        return self._remember(point.split, point.tag, point.step, point.time, repr(point.value))

    def _remember(self, *what: object) -> bool:
        """Whether ``what`` is new; only the last ones are remembered."""
        if what in self._written:
            return False
        self._written[what] = None
        if len(self._written) > REMEMBERED:
            del self._written[next(iter(self._written))]
        return True


def _inside(path: str) -> PurePosixPath:
    """``path``, if it stays inside the folder that it is joined to."""
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts:
        raise ValueError(f"TensorBoardLogger: {path!r} leaves its folder")
    return inside
