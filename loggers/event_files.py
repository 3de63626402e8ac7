"""TensorBoard's event files: written whole or not at all, and read back.

Only TensorBoard's protocol buffers and its framing of records are used. Its own writer would bring
a further thread, and TensorFlow where that is installed.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from boxscore.keys import key_of_tag, table_name
from boxscore.records import File, Point, Tag

from .spool import append_atomically

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_PNG, _WEBP = b"\x89PNG\r\n\x1a\n", b"WEBPVP8 "
PICTURES = (".png", ".webp")
"""The endings of files that are shown."""
PLUGIN = "boxscore"
"""The tab's name, by which TensorBoard keeps what that alone reads."""
_VERSION = "brain.Event:2"
_LENGTH, _CHECK = 8, 4  # bytes of a record's length, and of each of its two checksums


class EventFile:
    """A new event file in ``folder``. Raises `OSError` if it cannot be created."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a folder's files in the order of their names: that of a resumed run
        # must come later, even within one second
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._size, self._file = 0, os.open(folder / name, _NEW, 0o644)
        try:
            self.append(record(Event(wall_time=time.time(), file_version=_VERSION)))
        except OSError:
            self.close()
            (folder / name).unlink()
            raise

    def append(self, data: bytes) -> None:
        """Write what `record` made, whole or not at all. Raises `OSError` for a full disk."""
        self._size = append_atomically(self._file, data, self._size)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def record(event: Any) -> bytes:
    """``event`` as an event file holds it."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()


def scalars(points: Sequence[Point]) -> Any:
    """One event for ``points`` of one step and time."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=point.tag, simple_value=point.value) for point in points]
    return event(points[0].step, points[0].time, values)


def text(tag: Tag) -> Any:
    """An event that shows ``tag`` under ``tags/<name>``."""
    from tensorboard.plugins.text.summary_v2 import text_pb

    return event(0, time.time(), text_pb(f"tags/{tag.name}", tag.value).value)


def image(file: File) -> Any:
    """An event that shows a PNG or WebP file. Raises `OSError`, and `ValueError` if it is none."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    content = Path(file.path).read_bytes()
    if content.startswith(_PNG):
        width, height = struct.unpack(">II", content[16:24])
    elif content[8:16] == _WEBP:
        width, height = struct.unpack("<HH", content[26:30])
    else:
        raise ValueError(f"{file.path} is not a PNG or WebP file")
    shown = Summary.Image(width=width, height=height, encoded_image_string=content)
    value = Summary.Value(tag=str(PurePosixPath(file.name).with_suffix("")), image=shown)
    return event(file.step, file.time, [value])


def event(step: int, wall_time: float, values: Sequence[Any]) -> Any:
    """An event with summary ``values``."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Event(wall_time=wall_time, step=step, summary=Summary(value=values))


def last_steps_in(folder: Path) -> dict[str, int]:
    """The last step of each series in the event files of a run, by `Point.key` or `File.name`.

    Args:
        folder: the run's, with a folder for each split.
    """
    steps: dict[str, int] = {}
    for file in folder.glob("*/*tfevents*"):
        for found in events(file):
            for value in found.summary.value:
                if name := _name_of(value, file.parent.name):
                    steps[name] = max(found.step, steps.get(name, found.step))
    return steps


def _name_of(value: Any, split: str) -> str:
    """`Point.key` or `File.name` of what a summary value shows; ``""`` of a tag's."""
    if value.HasField("simple_value"):
        return key_of_tag(value.tag, split)
    if value.HasField("image"):
        ending = ".png" if value.image.encoded_image_string.startswith(_PNG) else ".webp"
        return f"{value.tag}{ending}"
    plugin = value.metadata.plugin_data.plugin_name
    return table_name("curves", split) if plugin == PLUGIN else ""


def events(file: Path) -> Iterator[Any]:
    """The events in ``file``, up to a record that a crash tore off."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorboard.compat.proto.event_pb2 import Event

    rest = file.stat().st_size
    with file.open("rb") as lines:
        while len(head := lines.read(_LENGTH + _CHECK)) == _LENGTH + _CHECK:
            length = int.from_bytes(head[:_LENGTH], "little")
            rest -= len(head) + length + _CHECK
            if rest < 0:
                return
            try:
                yield Event.FromString(lines.read(length + _CHECK)[:length])
            except DecodeError:
                return
