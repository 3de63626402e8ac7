"""One image's input, in any form that frameworks use: arrays, ids, sizes, masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ImageId = int | str | None
Dicts = Sequence[Mapping[str, Any]]

UNREADABLE = (TypeError, ValueError, OverflowError)
"""The errors of NumPy for a value that is no array of numbers."""

_SLACK = 0.01  # of probabilities in half precision


def as_array(value: Any) -> Array:
    """``value`` in NumPy: a tensor on any device (bfloat16 as float32), an array, a list."""
    if not hasattr(value, "detach"):  # no tensor
        if isinstance(value, list | tuple) and value and hasattr(value[0], "detach"):
            value = [as_array(one) for one in value]
        array = np.asarray(value)
        return np.array(array.tolist()) if array.dtype == object else array
    try:
        return np.asarray(value.numpy(force=True))
    except TypeError:  # NumPy has no bfloat16
        return np.asarray(value.float().numpy(force=True))


def image_name(image_id: ImageId, place: int) -> str:
    """The image's name in an error."""
    return f"image at place {place} of the batch" if image_id is None else f"image {image_id!r}"


def read_ids(targets: Dicts, others: Sequence[Any] | None = None) -> list[ImageId]:
    """Each target's ``image_id`` as an integer or a text, ``None`` where it has none.

    Args:
        targets: of a batch.
        others: the ids of those targets that have none.

    Raises:
        ValueError: if a target is no dict, or an id is something else.
    """
    if others is not None and len(others) != len(targets):
        raise ValueError(f"{len(others)} image ids for {len(targets)} targets")
    ids: list[ImageId] = []
    for place, target in enumerate(targets):
        if not hasattr(target, "get"):
            raise no_dict(target, "target", None, place)
        value: Any = target.get("image_id")
        value = others[place] if value is None and others is not None else value
        given = value
        if hasattr(given, "item"):
            with suppress(ValueError, RuntimeError):  # it has several elements
                value = given.item()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int | str | None):
            problem = f"image_id: {given!r} is neither an integer nor a string"
            raise ValueError(f"{image_name(None, place)}, target {problem}")
        ids.append(value)
    return ids


def image_size(target: Mapping[str, Any], *names: str) -> tuple[int, int] | None:
    """The image's (height, width), from the first of the fields ``names``, or the boxes' canvas.

    Raises:
        ValueError: if it is not two integers of 1 or more.
    """
    canvas = getattr(target.get("boxes"), "canvas_size", None)
    given = next((target[name] for name in names if target.get(name) is not None), canvas)
    if given is None:
        return None
    with suppress(*UNREADABLE):
        height, width = as_array(given).tolist()
        if height == int(height) > 0 and width == int(width) > 0:
            return int(height), int(width)
    raise ValueError(f"the size {given!r} is not (height, width) in pixels")


def no_dict(one: Any, word: str, image_id: ImageId, place: int) -> ValueError:
    """The error for a prediction or target of another type."""
    name, expected = image_name(image_id, place), "a dict with 'boxes' (n, 4) and 'labels' (n,)"
    return ValueError(f"{name}, {word}: must be {expected}, not a {type(one).__name__}")


def is_empty(value: Any) -> bool:
    """Whether a field holds no object, or is absent."""
    if value is None or not hasattr(value, "__len__"):
        return value is None
    return 0 in value.shape if hasattr(value, "shape") else not len(value)


def check_values(values: Any) -> None:
    """Raise for masks that are neither probabilities nor of 0 and one other value each."""
    kind = str(values.dtype).rpartition(".")[2]
    if kind == "bool" or not math.prod(values.shape):
        return
    low, high = float(values.min()), float(values.max())
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    array = as_array(values)
    top = array.max(axis=(-2, -1), keepdims=True)
    if not (top.min() >= 0 and ((array == 0) | (array == top)).all()):
        wrong = low if low < 0 or math.isnan(low) else high
        raise ValueError(
            f"a mask holds {wrong:g}: give bool masks, or probabilities from 0 to 1; the mask of "
            "logits is logits > 0"
        )


def binary(values: Any) -> Array:
    """Masks in NumPy, not 0 where they are set."""
    if str(values.dtype).rpartition(".")[2] not in ("bool", "uint8"):
        values = values > 0.5  # on the values' own device
    return as_array(values).view(np.uint8)
