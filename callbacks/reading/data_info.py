"""What a data set says of itself: its name, its size, which images it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from .batches import IMAGES, length

FILES = (
    *("files", "paths", "image_paths", "image_files", "im_files"),
    *("imgs", "images", "samples", "filenames"),
)
"""Attributes in which data sets keep the files of their images, in the order of the indices."""


def dataset_name(loader: Any) -> str:
    """The data's name where the user gives none: that of its class."""
    data: Any = getattr(loader, "dataset", None)
    while type(data).__name__ == "Subset":
        data = data.dataset
    return "dataset" if data is None else type(data).__name__


def paths(data: Any) -> list[str]:
    """The files of the images of ``data``, in the order of the indices; empty if it holds none."""
    if indices := _indices(data):
        files = paths(data.dataset)
        return [files[index] for index in indices] if files else []
    if parts := getattr(data, "datasets", None):  # a ConcatDataset
        every = [paths(part) for part in parts]
        return [file for part in every for file in part] if all(every) else []
    if (coco := getattr(data, "coco", None)) is not None and hasattr(data, "ids"):
        root = str(getattr(data, "root", ""))
        return [str(PurePath(root, coco.imgs[i].get("file_name", str(i)))) for i in data.ids]
    for attribute in FILES:
        listed = getattr(data, attribute, None)
        if isinstance(listed, list | tuple) and listed and len(listed) == length(data):
            files = [e[0] if isinstance(e, tuple | list) and e else e for e in listed]
            if all(isinstance(file, str | PurePath) for file in files):
                return [str(file) for file in files]
    return []


def _indices(data: Any) -> list[int]:
    """The indices that a ``Subset`` takes of its data set, else none."""
    indices = getattr(data, "indices", ()) if hasattr(data, "dataset") else ()
    return [int(index) for index in indices]


def image_names(data: Any) -> list[str]:
    """One text an image that tells it from those of other folds and versions, on any machine.

    Its file and that file's folder, or the index that a ``Subset`` takes; empty where the data set
    holds neither.
    """
    if files := paths(data):
        return ["/".join(PurePath(file).parts[-2:]) for file in files]
    return [str(index) for index in _indices(data)]


def in_both(one: Any, other: Any) -> list[str]:
    """The images that two data sets both hold, by file or as indices of one data set."""
    files = set(paths(one)) & set(paths(other))
    if not files and getattr(one, "dataset", one) is getattr(other, "dataset", other):
        every = [set(_indices(d) or range(length(d))) for d in (one, other)]
        return [str(index) for index in sorted(every[0] & every[1])]
    return sorted(files)


def is_deterministic(loader: Any) -> bool:
    """Whether the data set gives the same targets each time: it does not augment."""
    data: Any = getattr(loader, "dataset", None)
    count = length(data)
    try:
        indices = {0, count // 2, count - 1}
        return count > 0 and all(_same(_target(data[i]), _target(data[i])) for i in indices)
    except Exception:  # a data set that is not read by index
        return False


def _target(sample: Any) -> Any:
    if isinstance(sample, Mapping):
        return {name: value for name, value in sample.items() if name not in IMAGES}
    return sample[1:]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if hasattr(one, "shape"):
        return bool(one.shape == other.shape and (one == other).all())
    return bool(one == other)


def train_fingerprint(names: Iterable[str], images: int, content: str) -> str:
    """Twelve hex digits of the images that are trained on, and of which of them are evaluated.

    Args:
        names: of all images.
        images: how many of them are evaluated.
        content: the evaluated images' own fingerprint, or ``""``.
    """
    text = "\n".join([*sorted(names), str(images), content])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
