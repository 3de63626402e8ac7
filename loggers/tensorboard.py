"""Items to TensorBoard event files, one folder per split, without torch or tensorflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from boxscore.keys import FACT, parse, summary
from boxscore.logger import Refused, Status
from boxscore.records import File, Item, Point, RunStart, Tag

from . import event_files
from .event_files import EventFile
from .resume import unrecorded
from .tracking_uri import local_folder

_REMEMBERED = 10_000  # items whose repetition is noticed: ten times those of one delivery
_NOT_DRAWN = summary("")


class TensorBoardLogger:
    """Event files in ``<log_dir>/<start.folder>/<split>``.

    Points of one split, step and time share an event. Names beginning with ``summary/`` are for
    queries and are not drawn. Tags and params become texts called ``tags/<name>`` in the train
    folder, so that the event files alone describe the run; ``tags/boxscore.status`` is RUNNING
    until it ends. Params are in the folder of the test split, too, for the tab HPARAMS. PNG and
    WebP files become images; ``curves/<split>.json`` become PR curves, and what the tab BOXSCORE
    shows; other files are left to other loggers. In a forked process this object does nothing.

    Args:
        log_dir: a folder of this machine; ``~`` is expanded, a ``file:`` URI is read.

    Raises:
        ValueError: ``log_dir`` has another scheme, such as ``s3:``.
    """

    def __init__(self, log_dir: str | Path = "runs") -> None:
        self._log_dir = local_folder(log_dir, "log_dir")
        self._start: RunStart | None = None
        self._process = 0
        self._files: dict[str, EventFile] = {}
        self._recorded: Mapping[str, int] = {}
        self._written: dict[Hashable, None] = {}
        self._session = ""  # the split whose figures the tab HPARAMS shows

    def __reduce__(self) -> tuple[type[TensorBoardLogger], tuple[Path]]:
        """A copy in another process is unopened."""
        return TensorBoardLogger, (self._log_dir,)

    def prepare(self) -> None:
        """Resolve the folder, and import TensorBoard.

        A process that is forked while another thread imports it could never import it.
        """
        import tensorboard.plugins.hparams.api_pb2
        import tensorboard.plugins.hparams.metadata
        import tensorboard.plugins.pr_curve.metadata
        import tensorboard.plugins.text.summary_v2
        import tensorboard.summary.writer.record_writer  # noqa: F401

        self._log_dir = self._log_dir.absolute()

    def open(self, start: RunStart) -> None:
        """Create the run's folder, or a further event file in it.

        Raises:
            OSError: the folder cannot be written to.
            ValueError: the start's folder leaves the log folder.
        """
        is_open = self._start == start and self._process == os.getpid()
        if is_open and not start.resumed:  # or what the series hold by now would be written again
            return
        self.close()
        self.prepare()
        folder = self._log_dir / _inside(start.folder)
        self._recorded = event_files.last_steps_in(folder) if start.resumed else {}
        # train first: TensorBoard gives colours in this order
        self._files = {"train": EventFile(folder / "train")}
        self._start, self._process = start, os.getpid()
        facts = {**start.params, **start.tags}
        self.log([Tag(name, value) for name, value in facts.items()] + [_status("RUNNING")])

    def log(self, items: Sequence[Item]) -> None:
        """Write ``items``, except identical ones that were written already.

        Raises:
            OSError: the disk does not take them; those of a split are written whole or not at all.
            Refused: names items that TensorBoard cannot show; all others were written.
        """
        if self._start is None:
            raise RuntimeError("TensorBoardLogger: open() comes before log()")
        if self._process != os.getpid():
            return
        refused: list[Item] = []
        reasons: dict[str, None] = {}
        events: dict[str, list[tuple[list[Hashable], bytes]]] = {}
        self._begin_session(items)
        for split, group, make in self._events(unrecorded(items, self._recorded)):
            try:
                event = event_files.record(make())
                events.setdefault(str(_inside(split)), []).append((list(group), event))
            except Exception as error:  # such as a step beyond 64 bits
                refused += group.values()
                reasons[str(error)] = None
        for split, written in events.items():
            self._file(split).append(b"".join(event for _, event in written))
            self._written.update((identity, None) for group, _ in written for identity in group)
        for identity in list(self._written)[: len(self._written) - _REMEMBERED]:
            del self._written[identity]
        if refused:
            raise Refused(refused, "; ".join(reasons))

    def close(self, status: Status = "FINISHED") -> None:
        """Write how the run ended, and close the files.

        Raises:
            OSError: the disk does not take it.
        """
        try:
            if self._start is not None and self._process == os.getpid():
                self.log([_status(status)])
                if self._session and status == "FINISHED":
                    end = event_files.record(event_files.session_end())
                    self._files[self._session].append(end)
        finally:
            if self._process == os.getpid():
                for file in self._files.values():
                    file.close()
            self._files, self._start, self._session = {}, None, ""
            self._written.clear()

    def _begin_session(self, items: Sequence[Item]) -> None:
        """Write the params beside the first figures of a test split."""
        if self._session or self._start is None:
            return
        for item in items:
            if not isinstance(item, Point) or not item.split.startswith("test"):
                continue
            with suppress(ValueError):  # a key of others, or a text that is refused by itself
                figure = parse(item.key)
                if figure.kind == "metric":
                    begin = event_files.record(event_files.session_start(self._start, figure))
                    self._file(item.split).append(begin)
                    self._session = item.split
                    return

    def _file(self, split: str) -> EventFile:
        """The file of a split, which is made when it is needed."""
        assert self._start is not None
        if split not in self._files:
            folder = self._log_dir / self._start.folder / _inside(split)
            self._files[split] = EventFile(folder)
        return self._files[split]

    def _events(
        self, items: Sequence[Item]
    ) -> Iterator[tuple[str, Mapping[Hashable, Item], Callable[[], Any]]]:
        """Split, items by their identity, and maker of each event of what is not yet written."""
        points: dict[tuple[str, int, int], dict[Hashable, Point]] = {}
        for item in dict.fromkeys(items):
            match item:
                case Point() if not item.tag.startswith(_NOT_DRAWN):
                    # the value as text, because NaN is not equal to itself
                    same = (item.split, item.tag, item.step, item.time, repr(item.value))
                    if same not in self._written:
                        event = item.split or "train", item.step, int(item.time * 1000)
                        points.setdefault(event, {})[same] = item
                case Tag() if item not in self._written:
                    yield "train", {item: item}, partial(event_files.text, item)
                case File() if item not in self._written and (make := _maker(item)):
                    yield item.split or "train", {item: item}, partial(make, item)
        for (split, *_), group in points.items():
            yield split, group, partial(event_files.scalars, list(group.values()))


def _status(status: str) -> Tag:
    return Tag(f"{FACT}status", status)


def _maker(file: File) -> Callable[[File], Any] | None:
    """What makes an event of ``file``; None for one that is left to other loggers."""
    if file.name.lower().endswith(event_files.PICTURES):
        return event_files.image
    return event_files.curves if event_files.is_curves(file) else None


def _inside(path: str) -> PurePosixPath:
    """``path``, if it stays inside the folder that it is joined to."""
    inside = PurePosixPath(path)
    if inside.is_absolute() or ".." in inside.parts:
        raise ValueError(f"TensorBoardLogger: {path!r} leaves its folder")
    return inside
