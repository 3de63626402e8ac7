"""``boxscore report``: reads a run back from event files or MLflow, and writes its report."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from boxscore.dashboard.history import History, Series
from boxscore.dashboard.report import report
from boxscore.keys import FACT, key_of_tag, table_name
from boxscore.logger import Status
from boxscore.loggers.event_files import PLUGIN, events, picture_file, table_of
from boxscore.records import RunStart

_PICTURES = "images"  # MLflow's folder of them


def write_report(run: str, tracking_uri: str | None, target: Path | None) -> Path:
    """Write the report of ``run``; returns the file.

    Args:
        run: a folder with the event files of one run, or the id of a run in MLflow.
        tracking_uri: MLflow's; None is its default.
        target: the file, by default ``report.html`` in the folder, or here.

    Raises:
        ValueError: it is neither, or the folder holds several runs.
    """
    folder = Path(os.path.expanduser(run))
    history = read_folder(folder) if folder.is_dir() else read_run(run, tracking_uri)
    place = target or (folder if folder.is_dir() else Path()) / "report.html"
    place.write_text(report(history), encoding="utf-8")
    return place


def read_folder(folder: Path) -> History:
    """What the event files of one run hold. Raises `ValueError` where there are none, or several.

    Args:
        folder: of the run, or one above it.
    """
    files = sorted(folder.rglob("*tfevents*"))
    runs = sorted({file.parent.parent for file in files})
    if len(runs) != 1:
        listed = ", ".join(str(run.relative_to(folder)) for run in runs[:5])
        found = f"{len(runs)} runs: pass the folder of one, such as {listed}" if runs else "no run"
        raise ValueError(f"{folder} holds {found}")
    history, texts = History(), {}
    for file in files:
        split = file.parent.name
        for event in events(file):
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    key = key_of_tag(value.tag, split)
                    series = history.series.setdefault(key, Series())
                    series.add(event.step, value.simple_value)
                elif value.HasField("image"):
                    content = value.image.encoded_image_string
                    history.pictures[picture_file(value)] = event.step, content
                elif value.metadata.plugin_data.plugin_name == PLUGIN:
                    history.tables[table_name("curves", split)] = table_of(value.tensor)
                elif value.tag.startswith("tags/") and value.tensor.string_val:
                    name = value.tag.removeprefix("tags/")
                    texts[name] = value.tensor.string_val[0].decode("utf-8", "replace")
    _start(history, texts, {n: t for n, t in texts.items() if not n.startswith(FACT)})
    _end(history, history.fact("status"))
    return history


def read_run(run_id: str, tracking_uri: str | None) -> History:
    """What MLflow holds of a run. Raises `ValueError` where it has no such run."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri)
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise ValueError(f"{run_id} is neither a folder nor a run in MLflow: {error}") from None
    history = History()
    for key in run.data.metrics:
        series = history.series.setdefault(key, Series())
        for point in sorted(client.get_metric_history(run_id, key), key=lambda p: p.step):
            series.add(point.step, point.value)
    _start(history, run.data.tags, run.data.params)
    _end(history, run.info.status)
    with tempfile.TemporaryDirectory() as copies:
        for name in ("per_class", "curves", _PICTURES):
            for artifact in client.list_artifacts(run_id, name):
                if name != _PICTURES or "+compressed" not in artifact.path:
                    _read_artifact(history, artifact.path, client, run_id, copies)
    return history


def _read_artifact(history: History, path: str, client: object, run_id: str, copies: str) -> None:
    local = Path(client.download_artifacts(run_id, path, copies))  # type: ignore[attr-defined]
    if path.endswith(".json"):
        history.tables[path] = json.loads(local.read_text("utf-8"))
        return
    key, _, rest = Path(path).name.partition("+step+")
    step = int(rest.partition("+")[0])
    name = key.replace("~", "/") + Path(path).suffix
    if step >= history.pictures.get(name, (-1, b""))[0]:
        history.pictures[name] = step, local.read_bytes()


def _end(history: History, status: str) -> None:
    statuses: dict[str, Status] = {"FAILED": "FAILED", "KILLED": "KILLED", "FINISHED": "FINISHED"}
    if status in statuses:
        history.close(statuses[status])


def _start(history: History, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
    facts = {name: value for name, value in tags.items() if name.startswith(FACT)}
    parts = (facts.get(FACT + "group", ""), facts.get(FACT + "backbone", ""))
    name = " ".join(filter(None, parts)) or "a run"
    history.open(RunStart("", name, "", "", facts, dict(params)))
