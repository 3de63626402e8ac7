"""A saved view of an experiment in MLflow: its charts by evaluated set, and by group.

MLflow draws one chart for each key, and cuts titles before the measure's name. This view begins
with the main metrics and the total losses; then it has a section for each evaluated set, with all
runs in a chart, and one for each group, with the test and the train loss in a chart.

It is a tag of the experiment, in a format that MLflow does not document (read from MLflow 3.17;
saved views came with 3.15): a page of another version ignores it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from boxscore.catalogue import CATALOGUE
from boxscore.keys import FACT, Key, parse, spell, summary

VIEW = "boxscore"
"""Its id; the views that users save have others."""

_TAG = f"mlflow.sharedViewState.{VIEW}"
_LONGEST = 20_000  # characters of an experiment's tag
_PARAMS = ("algorithm", "backbone", "input_size", "learning_rate", "batch_size")
_MAIN_METRICS = ("box_AP", "mask_AP", "IoU")
_PICTURES = 12  # of a table
_COLLAPSED = ("per class", "progress", "summary", "native")


def view_fragment(experiment_id: str) -> str:
    """The part of a link to an MLflow server that opens the view."""
    place = f"#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}"
    return f"{place}&compareRunsMode=CHART&workflowType=machine_learning"


def first_keys(tags: Mapping[str, str]) -> list[str]:
    """The keys of a run that has not logged yet, from its tags: the total loss of its group."""
    group = tags.get(f"{FACT}group", "")
    return [spell(Key("loss", "total", group, split=split)) for split in ("test", "train")]


def renew_view(
    client: Any, experiment_id: str, keys: Iterable[str], pictures_at: int | None = None
) -> bool:
    """Add charts of ``keys`` to the view of an experiment, which is created where there is none.

    Args:
        client: an `MlflowClient`.
        experiment_id: of an experiment that holds runs of boxscore's.
        keys: of metrics and images in MLflow; those that have no chart in the view are left out.
        pictures_at: the step whose images are shown first; None leaves it as it is.

    Returns:
        whether the view was written; False where it has the charts already.
    """
    tag = client.get_experiment(experiment_id).tags.get(_TAG)
    known = _shown_in(tag)
    shown = {name for key in keys if (name := _shown(key))}
    if tag and shown <= known and pictures_at is None:
        return False
    client.set_experiment_tag(experiment_id, _TAG, _encoded(known | shown, tag, pictures_at or 0))
    return True


def _shown(key: str) -> str:
    """``key`` where it has a chart, its scope where that is a collapsed section, or ``""``."""
    with suppress(ValueError):
        parts = parse(key)
        return parts.scope if parts.kind in _COLLAPSED else key
    return ""


def _shown_in(tag: str | None) -> set[str]:
    """The keys and collapsed sections of a stored view; empty for one that cannot be read."""
    with suppress(ValueError, KeyError, TypeError, AttributeError, zlib.error):
        text = json.loads(tag or "")["state"].removeprefix("deflate;")
        state = json.loads(zlib.decompress(base64.b64decode(text)))
        charts = state["compareRunCharts"]
        keys = {
            key
            for chart in charts
            for key in chart.get("selectedMetricKeys", chart.get("imageKeys", ()))
        }
        sections = {s["name"] for s in state["compareRunSections"] if not s["display"]}
        return keys | sections
    return set()


def _encoded(shown: set[str], before: str | None, pictures_at: int) -> str:
    """The tag of a view; groups are left out, the last by name first, until it fits."""
    now = int(time.time() * 1000)
    created = now
    with suppress(ValueError, KeyError, TypeError):
        created = json.loads(before or "")["createdAt"]
    keys = [parse(key) for key in sorted(shown) if "/" in key]
    collapsed = sorted(name for name in shown if "/" not in name)
    groups = sorted({parts.group for parts in keys if parts.kind == "loss"})

    def tag(count: int) -> str:
        first = groups[:count]
        fitting = [parts for parts in keys if parts.kind != "loss" or parts.group in first]
        state = _state(fitting, collapsed, pictures_at)
        packed = zlib.compress(json.dumps(state).encode(), 9)
        text = "deflate;" + base64.b64encode(packed).decode()
        view = {"name": "boxscore", "createdAt": created, "updatedAt": now, "state": text}
        return json.dumps(view)

    if len(whole := tag(len(groups))) <= _LONGEST:
        return whole
    counts = range(1, len(groups))
    return tag(bisect_right(counts, _LONGEST, key=lambda count: len(tag(count))))


def _state(keys: Sequence[Key], collapsed: Iterable[str], pictures_at: int) -> dict[str, Any]:
    """The state of MLflow's chart page."""
    sections: list[dict[str, Any]] = [_section("overview")]
    charts: list[dict[str, Any]] = []
    for scope in _scopes(keys, "metric"):
        sections.append(_section(scope))
        in_set = _in_catalogue_order(parts for parts in keys if parts.scope == scope)
        for parts in in_set:
            charts.append(_chart(scope, parts.measure, [spell(parts)], is_generated=True))
        main = [parts for parts in in_set if parts.measure in _MAIN_METRICS]
        charts += [_chart("overview", f"{p.measure} {p.evaluated_set}", [spell(p)]) for p in main]
    sections.append(_section("differences", columns=1))
    charts.append(_differences("differences"))
    for scope in _scopes(keys, "loss"):
        sections.append(_section(scope))
        in_group = _in_catalogue_order(parts for parts in keys if parts.scope == scope)
        for measure in dict.fromkeys(parts.measure for parts in in_group):
            curves = sorted((p for p in in_group if p.measure == measure), key=_split_order)
            spelled = [spell(parts) for parts in curves]
            charts.append(_chart(scope, measure, spelled))
            if measure == "total":
                charts.append(_chart("overview", f"{measure} {curves[0].group}", spelled))
            # the page adds a chart for each key that has none that it generated
            charts += [_chart(scope, k, [k], is_generated=True, deleted=True) for k in spelled]
    for scope in _scopes(keys, "pictures"):
        sections.append(_section(scope, columns=1))
        pictured = sorted((spell(p) for p in keys if p.scope == scope), key=_is_worst)
        charts.append(_pictures(scope, pictured[:_PICTURES], pictures_at))
        charts += [_pictures(scope, [key], 0, deleted=True) for key in pictured]  # as with losses
    sections += [_section(scope, display=False) for scope in collapsed]
    return {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": _columns(keys),
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": False,
        "hideEmptyCharts": True,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": f"{FACT}group"}],
        },
        "groupsExpanded": {},
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
    }


def _scopes(keys: Iterable[Key], kind: str) -> list[str]:
    return sorted({parts.scope for parts in keys if parts.kind == kind})


def _in_catalogue_order(keys: Iterable[Key]) -> list[Key]:
    order = {name: place for place, name in enumerate(CATALOGUE)}
    return sorted(keys, key=lambda parts: (order.get(parts.measure, len(order)), parts.measure))


def _split_order(parts: Key) -> tuple[bool, bool, str]:
    """Test, whose line is solid, then train, which is dashed, then further test sets."""
    return parts.split != "test", parts.split != "train", parts.split


def _columns(keys: Iterable[Key]) -> list[str]:
    measured = {parts.measure for parts in keys if parts.kind == "metric"}
    best = [summary(f"best_{name}") for name in _MAIN_METRICS if name in measured]
    return [f"params.`{name}`" for name in _PARAMS] + [f"metrics.`{name}`" for name in best]


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _section(name: str, *, display: bool = True, columns: int = 2) -> dict[str, Any]:
    return {
        "uuid": _id(name),
        "name": name,
        "display": display,
        "columns": columns,
        "cardHeight": 280,  # pixels
        "isReordered": False,
        "deleted": False,
        "isGenerated": False,
    }


def _chart(
    section: str,
    title: str,
    keys: Sequence[str],
    *,
    is_generated: bool = False,
    deleted: bool = False,
) -> dict[str, Any]:
    """A line chart of one key or several; the first has a solid line, the second a dashed one."""
    return {
        "uuid": _id(f"{section}/{title}"),
        "type": "LINE",
        "runsCountToCompare": 100,
        "metricSectionId": _id(section),
        "deleted": deleted,
        "isGenerated": is_generated,
        "displayName": title,
        "metricKey": keys[0],
        "selectedMetricKeys": list(keys),
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "range": {},
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
        # a chart of keys that several nodes log has a title, others the keys themselves
        "nodeLevelSystemMetricConfiguration": {"metric": title, "type": "node"},
    }


def _is_worst(key: str) -> tuple[bool, str]:
    """Sorts the images that are the same in each run before the worst of each evaluation."""
    return "/worst " in key, key


def _pictures(
    section: str, keys: Sequence[str], step: int, *, deleted: bool = False
) -> dict[str, Any]:
    """A table of images, with a column for each run and a slider over steps."""
    return {
        "uuid": _id(f"{section}/{'' if deleted else 'pictures '}{keys[0]}"),
        "type": "IMAGE",
        "runsCountToCompare": 10,
        "metricSectionId": _id(section),
        "deleted": deleted,
        "isGenerated": deleted,
        "imageKeys": list(keys),
        "step": step,
    }


def _differences(section: str) -> dict[str, Any]:
    """A table of each run's figures against those of a baseline run."""
    return {
        "uuid": _id(f"{section}/table"),
        "type": "DIFFERENCE",
        "runsCountToCompare": 10,
        "metricSectionId": _id(section),
        "deleted": False,
        "isGenerated": False,
        "selectedMetricKeys": [],
        "chartName": "Differences from the baseline run",
        "compareGroups": ["Model metrics"],
        "showChangeFromBaseline": True,
        "showDifferencesOnly": True,
        "baselineColumnUuid": "",
    }
