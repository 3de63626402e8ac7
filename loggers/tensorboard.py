"""Items to TensorBoard event files, one folder per split, without torch or tensorflow."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from boxscore.items import File, Item, Opening, Point, Tag
from boxscore.logger import Status

REMEMBERED = 10_000
"""Points whose repetition is noticed: ten times what comes in one delivery."""

_FLUSH_SECONDS = 1
_QUEUE = 10_000  # events; the library's own ten make the training wait for the disk
_NOT_DRAWN = "summary/"
_PNG = b"\x89PNG\r\n\x1a\n"


class TensorBoardLogger:
    """Event files in ``<log_dir>/<opening.folder>/<split>``, written by the library's own thread.

    Points of one split, step and time share an event. Names beginning with ``summary/`` are for
    queries and are not drawn. Tags and params become texts called ``tags/<name>`` in the train
    folder, so that the event files alone tell what the run was. PNG files become images; other
    files are left to other loggers.
    """

    def __init__(self, log_dir: str | Path = "runs") -> None:
        self._log_dir = Path(log_dir)
        self._folder: Path | None = None
        self._writers: dict[str, Any] = {}
        self._written: dict[tuple[object, ...], None] = {}

    def __reduce__(self) -> tuple[type[TensorBoardLogger], tuple[Path]]:
        """A copy in another process is unopened."""
        return TensorBoardLogger, (self._log_dir,)

    def open(self, opening: Opening) -> None:
        """Create the run's folder, or a further event file in it.

        Raises:
            OSError: if the folder cannot be written to.
            ValueError: if the opening's folder leaves the log folder.
        """
        folder = self._log_dir / _inside(opening.folder)
        if folder == self._folder:
            return
        self.close()
        self._folder = folder
        self._writer("train")  # first: TensorBoard gives colours in this order
        facts = {**opening.params, **opening.tags}
        self.log([Tag(name, value) for name, value in facts.items()])

    def log(self, items: Sequence[Item]) -> None:
        """Hand ``items`` to the writing threads; a point that was written already is left out."""
        events: dict[tuple[str, int, int], list[Point]] = {}
        for point in (item for item in items if isinstance(item, Point)):
            if self._is_news(point):
                event = point.split, point.step, int(point.time * 1000)
                events.setdefault(event, []).append(point)
        for (split, step, _), points in events.items():
            values = [_scalar(point) for point in points]
            self._write(split, step, points[0].time, values)
        for item in items:
            match item:
                case Tag() if self._remember("tag", item.name, item.value):
                    self._write("train", 0, time.time(), [_text(item)])
                case File() if item.name.lower().endswith(".png"):
                    if self._remember("file", item.name, item.step, item.time):
                        self._write(item.split, item.step, item.time, [_image(item)])

    def close(self, status: Status = "FINISHED") -> None:  # noqa: ARG002  # files hold no status
        """Write what is waiting and close the files."""
        writers, self._writers = self._writers, {}
        self._folder = None
        self._written.clear()
        with ExitStack() as closing:  # one file's trouble keeps no other open
            for writer in writers.values():
                closing.callback(writer.close)

    def _write(self, split: str, step: int, wall_time: float, values: Sequence[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        event = Event(wall_time=wall_time, step=step, summary=Summary(value=values))
        self._writer(split).add_event(event)

    def _writer(self, split: str) -> Any:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        split = split or "train"
        if split not in self._writers:
            if self._folder is None:
                raise RuntimeError("TensorBoardLogger: open() comes before log()")
            folder = self._folder / _inside(split)
            self._writers[split] = EventFileWriter(str(folder), _QUEUE, _FLUSH_SECONDS)
        return self._writers[split]

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


def _scalar(point: Point) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=point.tag, simple_value=point.value)


def _text(tag: Tag) -> Any:
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(f"tags/{tag.name}", tag.value).value[0]


def _image(file: File) -> Any:
    """One picture. Raises `ValueError` if the file is no PNG."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = Path(file.path).read_bytes()
    if not content.startswith(_PNG):
        raise ValueError(f"TensorBoardLogger: {file.path} is not a PNG file")
    width, height = struct.unpack(">II", content[16:24])
    image = Summary.Image(width=width, height=height, encoded_image_string=content)
    return Summary.Value(tag=file.name[: -len(".png")], image=image)
