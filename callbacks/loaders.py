"""Reading a loader for an evaluation without the training noticing it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from boxscore.fingerprint import identifier


@contextmanager
def random_numbers_kept(*loaders: Any) -> Iterator[None]:
    """Leave Python's, NumPy's and torch's global random numbers, and the loaders' own, as found.

    Making a loader's iterator draws a seed, and data sets augment with random numbers.
    """
    generators = [g for loader in loaders for g in _generators(loader)]
    states = [generator.get_state() for generator in generators]
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _generators(loader: Any) -> list[torch.Generator]:
    owners = (loader, getattr(loader, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def stable_subset(loader: Any, count: int | None) -> tuple[Any, list[str] | None]:
    """The ``count`` images of ``loader`` whose ids hash lowest, in batches of the same size.

    Runs that ask for the same number of images of one data set get the same images, in whatever
    order its loader gives them. An image's id is the data set's ``ids[index]`` where it has ``ids``
    (as torchvision's COCO data sets have), or its index.

    Returns:
        a loader without shuffling, and the ids in its order (None where only the targets know
        them); the loader itself where ``count`` is None.
    """
    data: Any = getattr(loader, "dataset", None)
    if count is None:
        return loader, None
    if not isinstance(loader, torch.utils.data.DataLoader) or not length(data):
        return _Subset(loader, count), None
    ids = [identifier(i) for i in getattr(data, "ids", range(len(data)))]
    chosen = lowest(ids, count)
    subset: Any = torch.utils.data.Subset(data, chosen)
    again: Any = torch.utils.data.DataLoader(
        subset,
        batch_size=loader.batch_size or 1,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
    )
    return again, [ids[index] for index in chosen]


def images_of(loader: Any) -> int:
    """How many images ``loader`` gives."""
    return length(getattr(loader, "dataset", ())) or sum(len(batch[1]) for batch in loader)


def length(items: Any) -> int:
    """How many ``items`` there are, 0 where that is not known."""
    try:
        return len(items)
    except TypeError:
        return 0


def lowest(ids: Sequence[str], count: int) -> list[int]:
    """The indices of the ``count`` ids with the lowest digests, ascending."""
    order = sorted(range(len(ids)), key=lambda n: hashlib.sha256(ids[n].encode()).digest())
    return sorted(order[:count])


class _Subset:
    """The chosen images of batches that have no data set to choose from by index."""

    def __init__(self, loader: Iterable[Any], count: int) -> None:
        self._loader = loader
        ids = [image_id for _, targets, *_ in loader for image_id in _ids(targets)]
        names = [str(n) if i is None else identifier(i) for n, i in enumerate(ids)]
        self._chosen = set(lowest(names, count))

    def __iter__(self) -> Iterator[Any]:
        start = 0
        for images, targets, *rest in self._loader:
            rows = [n for n in range(len(targets)) if start + n in self._chosen]
            start += len(targets)
            if rows:
                yield _rows(images, rows), _rows(targets, rows), *rest


def _ids(targets: Any) -> list[Any]:
    return [target.get("image_id") if isinstance(target, dict) else None for target in targets]


def _rows(batch: Any, rows: list[int]) -> Any:
    return batch[rows] if hasattr(batch, "shape") else [batch[n] for n in rows]
