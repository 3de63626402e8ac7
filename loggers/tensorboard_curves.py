"""Events with the precision-recall curves and the confusion matrix of one evaluation.

TensorBoard's tab PR CURVES shows counts at evenly spaced confidences; the tab BOXSCORE the rest of
the file, as it is: finer curves, and the confusion matrix.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from boxscore.keys import curves_tag, pr_tag, table_name
from boxscore.records import File

from .event_files import PLUGIN, event

_EXACT = 2**24  # integers up to here are exact in float32


def is_curves(file: File) -> bool:
    """Whether ``file`` is an evaluation's table of curves, by its name."""
    return file.name == table_name("curves", file.split)


def curves(file: File) -> Any:
    """One event for a table of curves. Raises `OSError`, and `ValueError` if it is none."""
    try:
        table = json.loads(Path(file.path).read_text("utf-8"))
        return event(file.step, file.time, [*_pr_curves(table), _whole(table)])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file.path} is no table of curves: {error!r}") from error


def table_of(tensor: Any) -> Any:
    """The table in the tensor of an event that `curves` made."""
    return json.loads(zlib.decompress(tensor.string_val[0]))


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
