"""Values for TensorBoard's tab HPARAMS: the params of a run beside its last figures.

The figures are those in the folder with these values, which is that of a test split. Of a tag and
folder TensorBoard keeps the first of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from boxscore.catalogue import CATALOGUE, documented
from boxscore.keys import FACT, Key, loss_scope, tag
from boxscore.records import RunStart

_TELLING = {"algorithm", "input_size", "backbone", "learning_rate", "batch_size"}  # come first
_BEFORE_LOSS = 4  # metrics; TensorBoard shows five columns unless asked for more


def session(start: RunStart, figure: Key) -> list[Any]:
    """The run's params, and which figures are shown with them.

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
        shown.name.tag = tag(scope, measure)
    return [
        _value(metadata.EXPERIMENT_TAG, experiment=experiment),
        _value(metadata.SESSION_START_INFO_TAG, session_start_info=info),
    ]


def success() -> Any:
    """That the run ended well; a run that failed may still be resumed, and end well."""
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    info = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    return _value(metadata.SESSION_END_INFO_TAG, session_end_info=info)


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


def _value(name: str, **content: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    return Summary.Value(tag=name, metadata=described, tensor=metadata.NULL_TENSOR)
