"""A run as one HTML file that needs nothing else: identity, curves, figures, classes, pictures."""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from boxscore.catalogue import CATALOGUE
from boxscore.keys import Key, parse

from .history import History
from .plotly_js import plotly_js

_STATIC = Path(__file__).parent / "static"


def report(history: History, remarks: Sequence[str] = ()) -> str:
    """The HTML of a run.

    What users named is in the page as text only; the page requests nothing.

    Args:
        history: what the run logged.
        remarks: the warnings of the run.

    Raises:
        FileNotFoundError: the package plotly is not installed whole.
    """
    facts = json.dumps(_facts(history, remarks), separators=(",", ":"))
    parts = {
        "title": html.escape(history.start.name if history.start else "boxscore"),
        "style": (_STATIC / "report.css").read_text("utf-8"),
        # no text can end the element, or begin a comment in it
        "facts": facts.replace("<", "\\u003c").replace("\u2028", "\\u2028"),
        # without any text that would end its element
        "plotly": plotly_js().decode().replace("</script", "<\\/script"),
        "script": (_STATIC / "report.js").read_text("utf-8"),
    }
    page = (_STATIC / "report.html").read_text("utf-8")
    return re.sub("{{([a-z]+)}}", lambda place: parts[place[1]], page)  # of the page alone


def _facts(history: History, remarks: Sequence[str]) -> dict[str, Any]:
    start = history.start
    keys = {}
    for key in history.series:
        with suppress(ValueError):  # another's, in a run that was joined
            keys[key] = parse(key)
    sets = sorted({k.evaluated_set for k in keys.values() if k.kind == "metric"})
    return {
        "name": start.name if start else "",
        "status": history.status,
        "task": history.fact("task"),
        "dataset": history.fact("dataset"),
        "group": history.fact("group"),
        "sets": sets,
        "params": dict(start.params) if start else {},
        "losses": _charts(history, keys, "loss"),
        "metrics": _charts(history, keys, "metric"),
        "figures": _figures(history, keys),
        "tables": {
            name.removeprefix("per_class/").removesuffix(".json"): table
            for name, table in history.tables.items()
            if name.startswith("per_class/")
        },
        "curves": {
            name.removeprefix("curves/").removesuffix(".json"): table
            for name, table in history.tables.items()
            if name.startswith("curves/")
        },
        "pictures": [
            {
                "name": name.rpartition("/")[2].rpartition(".")[0],
                "step": step,
                "source": _data_uri(name, content),
            }
            for name, (step, content) in sorted(history.pictures.items(), key=_worst_last)
        ],
        "remarks": [*remarks, *_remarks(history)],
    }


def _worst_last(picture: tuple[str, Any]) -> tuple[bool, str]:
    return "/worst " in picture[0], picture[0]


def _data_uri(name: str, content: bytes) -> str:
    kind = "webp" if name.endswith(".webp") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _charts(history: History, keys: dict[str, Key], kind: str) -> list[dict[str, Any]]:
    """A chart for each measure of ``kind``, in the catalogue's order, with all splits."""
    order = {name: place for place, name in enumerate(CATALOGUE)}
    charts: dict[str, dict[str, Any]] = {}
    chosen = [(key, parts) for key, parts in keys.items() if parts.kind == kind]
    for key, parts in sorted(chosen, key=lambda p: (order.get(p[1].measure, 999), p[1].split)):
        points = history.series[key].points
        curve = {
            "split": parts.split,
            "steps": [step for step, _ in points],
            "values": [value if math.isfinite(value) else None for _, value in points],
        }
        described = CATALOGUE.get(parts.measure)
        chart = charts.setdefault(
            parts.measure,
            {
                "measure": parts.measure,
                "definition": described.definition if described else "",
                "curves": [],
            },
        )
        chart["curves"].append(curve)
    return list(charts.values())


def _figures(history: History, keys: dict[str, Key]) -> list[dict[str, Any]]:
    """The last and the best value of each metric of each evaluated set."""
    rows = []
    for key, parts in sorted(keys.items(), key=lambda pair: pair[1].split == "train"):
        points = [p for p in history.series[key].points if math.isfinite(p[1])]
        if parts.kind == "metric" and points:
            best = max(points, key=lambda point: point[1])
            described = CATALOGUE.get(parts.measure)
            rows.append(
                {
                    "set": parts.evaluated_set,
                    "measure": parts.measure,
                    "definition": described.definition if described else "",
                    "last": points[-1],
                    "best": best,
                }
            )
    return rows


def _remarks(history: History) -> list[str]:
    """Tags that a reader of the figures must know."""
    named = {
        "first_nan": "The first NaN: {}",
        "evaluation_failed": "An evaluation failed: {}",
        "leak": "Images are in both the train and test set: {}",
        "best_F1.test": "Best F1 at IoU 0.5 on the test set: {}",
    }
    told = [text.format(value) for tag, text in named.items() if (value := history.fact(tag))]
    first = min((s.points[0][0] for s in history.series.values() if s.points), default=0)
    if history.start is not None and history.start.resumed:
        told.append(f"The run was resumed: what it logged before step {first} is in the trackers")
    return told
