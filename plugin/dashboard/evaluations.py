"""What a set's evaluations left beside their figures, step by step: pictures and curves."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from boxscore import keys

from .contents import Series, Source, run_id

_LARGEST = 1 << 26  # bytes of a table
_SIZES = 2  # width and height come before the picture
_KINDS = ((b"\x89PNG\r\n\x1a\n", 0, "image/png"), (b"WEBP", 8, "image/webp"))


def steps(source: Source, series: Iterable[Series]) -> dict[str, Any]:
    """The steps of all ``series``, and those of pictures by image and training."""
    images: dict[str, dict[str, list[int]]] = {}
    wanted, every = list(series), set()
    tags, names = {one.tag for one in wanted}, {one.name for one in wanted}
    read = {
        "pictures": source.read_pictures(tags, names),
        "curves": source.read_tables(tags, names),
    }
    for one in wanted:
        data = read[one.key.kind].get(one.name, {}).get(one.tag, ())
        own = sorted({datum.step for datum in data})
        every.update(own)
        if one.key.kind == "pictures":
            images.setdefault(one.key.measure, {})[run_id(one.folder)] = own
    return {"steps": sorted(every), "images": images}


def picture(
    source: Source, names: Iterable[str], evaluated_set: str, image: str, step: int
) -> tuple[bytes, str] | None:
    """A picture and its media type; None where there is none of WebP or PNG.

    Args:
        source: the log folder.
        names: TensorBoard's runs of one training.
        evaluated_set: as keys show it.
        image: as keys show it.
        step: of the evaluation.
    """
    tag = keys.tag(f"pictures {evaluated_set}", image)
    for of_run in source.read_pictures([tag], names).values():
        for datum in of_run.get(tag, ()):
            if datum.step == step and len(datum.values) > _SIZES:
                content = source.read_blob(datum.values[_SIZES])
                for mark, place, kind in _KINDS:
                    if content[place:].startswith(mark):
                        return content, kind
    return None


def precision(source: Source, series: Iterable[Series], step: int, name: str) -> dict[str, Any]:
    """The curve of a class in the last evaluation of each training up to ``step``.

    Args:
        source: the log folder.
        series: the curves of one evaluated set.
        step: the highest.
        name: the class's; ``""`` for the curve of all classes together.

    Returns:
        ``curves`` with ``run``, ``step``, ``recall``, ``precision`` and ``note``; and the names of
        all ``classes`` that have one.
    """
    drawn: list[dict[str, Any]] = []
    classes: dict[str, None] = {}
    for run, at, table in _tables(source, series, step):
        classes.update(dict.fromkeys(one["name"] for one in table["classes"]))
        for one in table["classes"]:
            if one["name"] == name:
                axes = {axis: one[axis] for axis in ("recall", "precision")}
                drawn.append({"run": run, "step": at, "note": table["note"]} | axes)
    return {"classes": list(classes), "curves": drawn}


def confusion(source: Source, series: Iterable[Series], step: int) -> dict[str, Any] | None:
    """The confusion matrix of a training's last evaluation up to ``step``; None without one."""
    for _, at, table in _tables(source, series, step):
        if "confusion" in table:
            return {"step": at} | {key: table[key] for key in ("names", "confusion", "note")}
    return None


def _tables(
    source: Source, series: Iterable[Series], step: int
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Training, step and content of the last table of each of ``series`` up to ``step``."""
    wanted = list(series)
    read = source.read_tables({one.tag for one in wanted}, {one.name for one in wanted})
    for one in wanted:
        data = read.get(one.name, {}).get(one.tag, ())
        until = [datum for datum in data if datum.step <= step]
        last = max(until, key=lambda datum: datum.step, default=None)
        if last is not None and (table := _table(last.numpy)):
            yield run_id(one.folder), last.step, table


def _table(tensor: Any) -> dict[str, Any] | None:
    """A table that TensorBoardLogger wrote; None of anything else."""
    try:
        table = json.loads(zlib.decompressobj().decompress(tensor.item(), _LARGEST))
        whole = {one["name"]: (one["recall"], one["precision"]) for one in table["classes"]}
    except (zlib.error, ValueError, KeyError, TypeError):
        return None
    return table if whole and "note" in table else None
