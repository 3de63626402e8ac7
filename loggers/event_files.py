"""TensorBoard's event files: written whole or not at all, and read back.

Only TensorBoard's protocol buffers and its framing of records are used. Its own writer would bring
a further thread, and TensorFlow where that is installed.
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from boxscore.catalogue import CATALOGUE, documented
from boxscore.keys import FACT, Key, curves_tag, key_of_tag, loss_scope, pr_tag, table_name
from boxscore.keys import tag as tag_of
from boxscore.records import File, Point, RunStart, Tag

from .spool import append_atomically

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_PNG, _WEBP = b"\x89PNG\r\n\x1a\n", b"WEBPVP8 "
PICTURES = (".png", ".webp")
"""The endings of files that are shown."""
PLUGIN = "boxscore"
"""The tab's name, by which TensorBoard keeps what that alone reads."""
_VERSION = "brain.Event:2"
_EXACT = 2**24  # integers up to here are exact in float32
_TELLING = {"algorithm", "input_size", "backbone", "learning_rate", "batch_size"}  # come first
_BEFORE_LOSS = 4  # metrics; TensorBoard shows five columns of figures unless asked for more
_LARGEST = 1 << 26  # bytes of a table of curves
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


def is_curves(file: File) -> bool:
    """Whether ``file`` is an evaluation's table of curves, by its name."""
    return file.name == table_name("curves", file.split)


def curves(file: File) -> Any:
    """An event for a table of curves. Raises `OSError`, and `ValueError` if it is none.

    TensorBoard's tab PR CURVES shows counts at evenly spaced confidences, the tab BOXSCORE the rest
    of the file as it is: finer curves, and the confusion matrix.
    """
    try:
        table = json.loads(Path(file.path).read_text("utf-8"))
        return event(file.step, file.time, [*_pr_curves(table), _whole(table)])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file.path} is no table of curves: {error!r}") from error


def table_of(tensor: Any) -> Any:
    """The table in the tensor of an event that `curves` made. Raises `ValueError` of any other."""
    try:
        return json.loads(zlib.decompressobj().decompress(tensor.string_val[0], _LARGEST))
    except (zlib.error, IndexError) as error:
        raise ValueError(f"no table of curves: {error}") from None


def _whole(table: Mapping[str, Any]) -> Any:
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.util.tensor_util import make_tensor_proto

    kept = {name: value for name, value in table.items() if name != "counts"}
    content = zlib.compress(json.dumps(kept, separators=(",", ":")).encode())
    metadata = summary_pb2.SummaryMetadata(data_class=summary_pb2.DATA_CLASS_TENSOR)
    metadata.plugin_data.plugin_name = PLUGIN
    tag, tensor = curves_tag(table["set"]), make_tensor_proto(content)
    return summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _pr_curves(table: Mapping[str, Any]) -> Iterator[Any]:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.pr_curve.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    note = table["counts"]["note"]
    for one in table["counts"]["classes"]:
        data = _rows(one)
        title = one["name"] or "all classes together"
        yield Summary.Value(
            tag=pr_tag(table["set"], one["name"]),
            metadata=create_summary_metadata(title, note, data.shape[1]),
            tensor=make_tensor_proto(data),
        )


def _rows(counted: Mapping[str, Any]) -> Any:
    """TensorBoard's rows (6, N): TP, FP, TN, FN, precision and recall.

    Detections have no true negatives: 0. Without a detection precision is 0, and is not shown.
    """
    import numpy as np

    tp, fp = (np.array(counted[name], np.float64) for name in ("tp", "fp"))
    tn = counted["others"] - fp if "others" in counted else np.zeros_like(tp)
    fn = counted["truths"] - tp
    precision, recall = tp / np.maximum(tp + fp, 1), tp / max(counted["truths"], 1)
    rows = np.stack([tp, fp, tn, fn, precision, recall])
    return rows if rows.max() > _EXACT else rows.astype(np.float32)


def session_start(start: RunStart, figure: Key) -> Any:
    """An event for the tab HPARAMS: the run's params, and which figures are shown with them.

    TensorBoard reads the last figures in the folder with this event, and keeps the first event of a
    folder.

    Args:
        start: of the run.
        figure: one of the evaluated set.
    """
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    numbers = {name: _number(text) for name, text in start.params.items()}
    info = plugin_data_pb2.SessionStartInfo(
        group_name=f"{start.id[:8]} {start.name}", start_time_secs=start.time
    )
    for name, number in numbers.items():
        if number is None:
            info.hparams[name].string_value = start.params[name]
        else:
            info.hparams[name].number_value = number
    experiment = api_pb2.Experiment(time_created_secs=start.time)
    for name, number in numbers.items():
        kind = api_pb2.DATA_TYPE_STRING if number is None else api_pb2.DATA_TYPE_FLOAT64
        experiment.hparam_infos.add(name=name, type=kind, differs=name in _TELLING)
    for scope, measure in _figures(start, figure.scope):
        shown = experiment.metric_infos.add(description=CATALOGUE[measure].definition)
        shown.name.tag = tag_of(scope, measure)
    values = [
        _shown_by_hparams(metadata.EXPERIMENT_TAG, experiment=experiment),
        _shown_by_hparams(metadata.SESSION_START_INFO_TAG, session_start_info=info),
    ]
    return event(0, start.time, values)


def session_end() -> Any:
    """An event for the same tab: the run ended well.

    One that failed may be resumed and end well, but TensorBoard keeps the first end.
    """
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    info = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    return event(
        0, time.time(), [_shown_by_hparams(metadata.SESSION_END_INFO_TAG, session_end_info=info)]
    )


def _figures(start: RunStart, scope: str) -> Iterator[tuple[str, str]]:
    """Scope and measure of the task's metrics, the main ones first, and of the total loss."""
    task, group = (start.tags.get(FACT + name, "") for name in ("task", "group"))
    metrics = [one.name for one in documented(task) if one.kind == "metric"]  # type: ignore[arg-type]
    metrics.sort(key=lambda name: not name.endswith("AP"))
    found = [(scope, name) for name in metrics]
    yield from found[:_BEFORE_LOSS]
    if group:
        yield loss_scope(group), "total"
    yield from found[_BEFORE_LOSS:]


def _number(text: str) -> float | None:
    with suppress(ValueError):
        number = float(text)
        return number if math.isfinite(number) else None
    return None


def _shown_by_hparams(name: str, **content: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    return Summary.Value(tag=name, metadata=described, tensor=metadata.NULL_TENSOR)


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


def picture_file(value: Any) -> str:
    """`File.name` of the picture that a summary value shows."""
    ending = ".png" if value.image.encoded_image_string.startswith(_PNG) else ".webp"
    return f"{value.tag}{ending}"


def _name_of(value: Any, split: str) -> str:
    """`Point.key` or `File.name` of what a summary value shows; ``""`` of a tag's."""
    if value.HasField("simple_value"):
        return key_of_tag(value.tag, split)
    if value.HasField("image"):
        return picture_file(value)
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
