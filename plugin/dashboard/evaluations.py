"""What a set's evaluations left beside their figures, step by step: pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from boxscore import keys

from .contents import Series, Source, run_id

_SIZES = 2  # width and height come before the picture
_KINDS = ((b"\x89PNG\r\n\x1a\n", 0, "image/png"), (b"WEBP", 8, "image/webp"))


def steps(source: Source, series: Iterable[Series]) -> dict[str, Any]:
    """The steps of the pictures ``series``: of all of them, and by image and training."""
    images: dict[str, dict[str, list[int]]] = {}
    wanted = list(series)
    read = source.read_pictures({one.tag for one in wanted}, {one.name for one in wanted})
    for one in wanted:
        own = sorted({datum.step for datum in read.get(one.name, {}).get(one.tag, ())})
        images.setdefault(one.key.measure, {})[run_id(one.folder)] = own
    every = {step for of_image in images.values() for own in of_image.values() for step in own}
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
