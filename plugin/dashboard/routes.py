"""The tab's routes: its page, and what a log folder holds, as JSON. They answer GET alone."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from functools import cache, partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard import plugin_util
from tensorboard.backend import http_util
from tensorboard.data.provider import DataProvider
from werkzeug.wrappers import Request, Response

from boxscore import keys

from . import evaluations, tables
from .contents import Contents, Series, Source, run_id, series_by_step, split_of
from .curves import in_steps, numbers, points_per_curve, sample, smooth, within
from .plotly_js import plotly_js

_SCRIPT = "text/javascript"
_KINDS = {".js": _SCRIPT, ".css": "text/css"}
_STATIC = {
    path.name: path
    for path in (Path(__file__).parent / "static").iterdir()
    if path.suffix in _KINDS
}
_DAY = 24 * 3600


class NotHere(Exception):
    """No such run, tag, set or file."""


def apps(provider: DataProvider | None) -> Mapping[str, Any]:
    """The WSGI application of each route.

    Raises:
        ValueError: TensorBoard was started without its data provider.
    """
    if provider is None:
        raise ValueError("TensorBoard has no data provider: start it without --generic_data=false")
    answers: Mapping[str, Callable[[Source, Request], Any]] = {
        "/overview": lambda source, _: Contents.of(source).overview(),
        "/curves": _curves,
        "/leaderboard": _leaderboard,
        "/classes": _classes,
        "/evaluations": _evaluations,
        "/precision": _precision,
        "/confusion": _confusion,
    }
    data = {route: _get(partial(_json, provider, answer)) for route, answer in answers.items()}
    files: Mapping[str, Callable[[Request], Response]] = {
        "/picture": partial(_picture, provider),
        "/static/*": _static,
        "/plotly.js": _plotly,
    }
    return data | {route: _get(answer) for route, answer in files.items()}


def _get(answer: Callable[[Request], Response]) -> Any:
    @Request.application
    def app(request: Request) -> Response:
        if request.method != "GET":
            return _respond(request, "GET only", "text/plain", code=405, headers=[("Allow", "GET")])
        try:
            return answer(request)
        except NotHere as error:
            return _respond(request, f"not here: {error}", "text/plain", code=404)
        except ValueError as error:
            return _respond(request, str(error), "text/plain", code=400)

    return app


def _respond(request: Request, content: str | bytes, kind: str, **more: Any) -> Response:
    response: Response = http_util.Respond(request, content, kind, **more)
    return response


def _json(
    provider: DataProvider, answer: Callable[[Source, Request], Any], request: Request
) -> Response:
    found = answer(_source(provider, request), request)
    content = json.dumps(found, separators=(",", ":"), allow_nan=False)
    return _respond(request, content, "application/json")


def _source(provider: DataProvider, request: Request) -> Source:
    environ = request.environ
    return Source(provider, plugin_util.context(environ), plugin_util.experiment_id(environ))


def _curves(source: Source, request: Request) -> dict[str, Any]:
    """The curves of one chart.

    Of the query, ``tag`` is TensorBoard's; ``run`` names trainings, by default all; ``first`` and
    ``last`` bound the steps; ``smoothing`` is the weight of the past, in [0, 1).
    """
    tag = _argument(request, "tag")
    first, last = _number(request, "first"), _number(request, "last")
    weight = _number(request, "smoothing") or 0.0
    if not 0 <= weight < 1:
        raise ValueError(f"smoothing: {weight} is not in [0, 1)")
    read = source.read_scalars([tag], _names(source, request.args.getlist("run")))
    curves = {
        name: in_steps(data)
        for name, of_run in read.items()
        if (data := of_run.get(tag)) and _is_ours(tag, name)
    }
    if not curves:
        raise NotHere(f"tag {tag}")
    points = points_per_curve(len(curves))
    drawn = []
    for name, (steps, values) in sorted(curves.items(), key=lambda curve: _train_first(curve[0])):
        smoothed = smooth(values, weight) if weight else None
        window = within(steps, first, last)
        shown = sample(values[window], points)
        folder, split = split_of(name)
        lost = np.flatnonzero(~np.isfinite(values))
        drawn.append(
            {
                "run": run_id(folder),
                "split": split,
                "steps": steps[window][shown].tolist(),
                "values": numbers(values[window][shown]),
                "smoothed": None if smoothed is None else numbers(smoothed[window][shown]),
                "first_nan": int(steps[lost[0]]) if len(lost) else None,
            }
        )
    return {"curves": drawn}


def _train_first(name: str) -> tuple[bool, str]:
    """Test curves are fewer points, drawn above the others."""
    return split_of(name)[1] != "train", name


def _is_ours(tag: str, name: str) -> bool:
    try:
        keys.parse(keys.key_of_tag(tag, split_of(name)[1]))
    except ValueError:
        return False
    return True


def _names(source: Source, ids: list[str]) -> list[str] | None:
    """TensorBoard's runs of trainings; None for all."""
    if not ids:
        return None
    names: dict[str, list[str]] = {}
    for run in source.runs():
        names.setdefault(run_id(split_of(run.run_name)[0]), []).append(run.run_name)
    if unknown := [one for one in ids if one not in names]:
        raise NotHere(f"run {', '.join(unknown)}")
    return [name for one in ids for name in names[one]]


def _leaderboard(source: Source, request: Request) -> dict[str, Any]:
    evaluated_set, by = _argument(request, "set"), _argument(request, "by")
    series = Contents.of(source).of_set(evaluated_set)
    if not any(one.key.measure == by for one in series):
        raise NotHere(f"{by} of set {evaluated_set}")
    return {"rows": tables.leaderboard(source, series, by)}


def _classes(source: Source, request: Request) -> dict[str, Any]:
    evaluated_set, measure = _argument(request, "set"), _argument(request, "measure")
    series = Contents.of(source).of_set(evaluated_set, "per class")
    if not any(one.key.measure == measure for one in series):
        raise NotHere(f"{measure} per class of set {evaluated_set}")
    return tables.classes(source, series, measure)


def _evaluations(source: Source, request: Request) -> dict[str, Any]:
    return evaluations.steps(source, _of_set(source, request))


def _precision(source: Source, request: Request) -> dict[str, Any]:
    """Of the query, ``class`` names the class; without it the curve is that of all together."""
    series, step = _of_set(source, request, "curves"), int(_argument(request, "step"))
    return evaluations.precision(source, series, step, request.args.get("class", ""))


def _confusion(source: Source, request: Request) -> dict[str, Any]:
    _argument(request, "run")
    series, step = _of_set(source, request, "curves"), int(_argument(request, "step"))
    found = evaluations.confusion(source, series, step)
    if found is None:
        raise NotHere(f"a confusion matrix up to step {step}")
    return found


def _of_set(source: Source, request: Request, *kinds: str) -> list[Series]:
    """What is shown of a set's evaluations, of the trainings named ``run`` or of all."""
    evaluated_set = _argument(request, "set")
    names = _names(source, request.args.getlist("run"))
    found = [
        one
        for one in series_by_step(source)
        if one.key.evaluated_set == evaluated_set
        and (not kinds or one.key.kind in kinds)
        and (names is None or one.name in names)
    ]
    if not found:
        raise NotHere(f"evaluations of set {evaluated_set}")
    return found


def _picture(provider: DataProvider, request: Request) -> Response:
    """A picture of one image of a training's evaluation; the browser keeps it for a day."""
    run, evaluated_set, image = (_argument(request, name) for name in ("run", "set", "image"))
    step = int(_argument(request, "step"))
    source = _source(provider, request)
    names = _names(source, [run]) or ()
    found = evaluations.picture(source, names, evaluated_set, image, step)
    if found is None:
        raise NotHere(f"image {image} of set {evaluated_set} at step {step}")
    return _respond(request, *found, expires=_DAY)


def _argument(request: Request, name: str) -> str:
    value: str | None = request.args.get(name)
    if not value:
        raise ValueError(f"{name} is missing: …?{name}=…")
    return value


def _number(request: Request, name: str) -> float | None:
    text = request.args.get(name)
    if text is None:
        return None
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{name}: {text} is not finite")
    return value


def _static(request: Request) -> Response:
    """A file of the page, by its bare name."""
    name = request.path.rpartition("/static/")[2]
    if name not in _STATIC:
        raise NotHere(name)
    path = _STATIC[name]
    return _respond(request, path.read_bytes(), _KINDS[path.suffix])


def _plotly(request: Request) -> Response:
    """plotly.js, as the package plotly has it; the browser keeps it for a day."""
    packed = _packed_plotly()
    return _respond(request, packed, _SCRIPT, content_encoding="gzip", expires=_DAY)


@cache
def _packed_plotly() -> bytes:
    try:
        return gzip.compress(plotly_js(), 6, mtime=0)
    except FileNotFoundError as error:
        raise NotHere(str(error)) from None
