"""Reading a loader for an evaluation without the training noticing it, each process its share."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from boxscore import distributed
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


Share = Iterator[tuple[Any, list[str] | None, int | None]]
"""Batches, the ids of their images where these are known, and how many of a batch's images count
(the others are repeats; None is all of them)."""


def share(loader: Any, count: int | None) -> Share:
    """This process's share of an evaluation, batch by batch.

    With ``count``, only that many images are taken, those whose ids hash lowest: runs that ask for
    the same number of images of one data set get the same images, in whatever order its loader
    gives them. An image's id is the data set's ``ids[index]`` where it has ``ids`` (as COCO data
    sets of torchvision have), or its index.

    Several processes take the first one's batches in turn, unless the loader shares them out
    itself, or is no DataLoader and gives each process batches of its own. Each goes through as many
    batches, one repeated where they do not divide: models that are spread over the processes
    compute each batch together.
    """
    data: Any = getattr(loader, "dataset", None)
    known = isinstance(loader, torch.utils.data.DataLoader) and length(data)
    if count is not None and not known:
        return _by_turns(_Subset(loader, count))
    if count is None and (distributed.size() == 1 or _is_shared(loader)):
        return _whole(loader)
    if count is None and (not known or loader.batch_sampler is None):
        return _by_turns(loader)
    ids = None
    if count is not None:
        ids = [identifier(i) for i in getattr(data, "ids", range(len(data)))]
        chosen, few = lowest(ids, count), _batch_size(loader)
        groups = [chosen[start : start + few] for start in range(0, len(chosen), few)]
    else:
        groups = distributed.from_first(lambda: [list(group) for group in loader.batch_sampler])
    return _in_turn(loader, groups, ids)


def _whole(loader: Any) -> Share:
    """All that the loader gives, less what its sampler repeats to make processes even."""
    left = own_images(loader)
    for batch in loader:
        count = images_in(batch)
        if left is None or left >= count:
            yield batch, None, None
        else:
            yield own_part(batch, left), None, left
        left = None if left is None else max(0, left - count)


def _in_turn(loader: Any, groups: Sequence[list[int]], ids: Sequence[str] | None) -> Share:
    """Every so many of the ``groups`` of indices, read by a loader without shuffling."""
    rounds = math.ceil(len(groups) / distributed.size())
    turns = [turn * distributed.size() + distributed.rank() for turn in range(rounds)]
    mine = [groups[turn if turn < len(groups) else 0] for turn in turns]
    again: Any = torch.utils.data.DataLoader(
        loader.dataset,
        batch_sampler=mine,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )
    for turn, group, batch in zip(turns, mine, again, strict=True):
        named = None if ids is None else [ids[index] for index in group]
        yield batch, named, None if turn < len(groups) else 0


def _by_turns(batches: Iterable[Any]) -> Share:
    """Every so many of batches that can only be gone through, if all processes have the same."""
    size = distributed.size() if _is_everywhere(batches) else 1
    mine, last, spare = distributed.rank() % size, 0, None
    for number, batch in enumerate(batches):
        last = number % size
        spare = spare if last else batch
        if last == mine:
            yield batch, None, None
    if last < mine and spare is not None:
        yield spare, None, 0


def _is_everywhere(batches: Iterable[Any]) -> bool:
    """Whether all processes have the same first batch; several that share out a set do not."""
    if distributed.size() == 1:
        return True
    first = hashlib.sha256()
    for content in _contents(next(iter(batches), None)):
        first.update(content)
    return len(set(distributed.gathered(first.digest()))) == 1


def _contents(batch: Any) -> Iterator[bytes]:
    if isinstance(batch, torch.Tensor):
        yield batch.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(batch, Mapping):
        for name, value in batch.items():
            yield str(name).encode()
            yield from _contents(value)
    elif isinstance(batch, list | tuple):
        for item in batch:
            yield from _contents(item)
    else:
        yield repr(batch).encode()


def _batch_size(loader: Any) -> int:
    return loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 1


def _is_shared(loader: Any) -> bool:
    """Whether the loader gives each process other images."""
    samplers = (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    return any(hasattr(s, "num_replicas") or hasattr(s, "num_processes") for s in samplers)


def own_images(loader: Any) -> int | None:
    """How many images of this process's share are its own: samplers repeat some at the end.

    Returns:
        their number; None where nothing is repeated, or this is not known.
    """
    sampler: Any = getattr(loader, "sampler", None)
    batches: Any = getattr(loader, "batch_sampler", None)
    if hasattr(sampler, "num_replicas"):  # torch's DistributedSampler
        images = length(getattr(sampler, "dataset", None))
        return len(range(sampler.rank, images, sampler.num_replicas)) or (0 if images else None)
    if hasattr(batches, "num_processes") and batches.batch_size:  # Accelerate's BatchSamplerShard
        images = length(getattr(batches.batch_sampler, "sampler", None))
        few, at = batches.batch_size, batches.process_index
        if batches.split_batches:
            whole = few
            few = whole // batches.num_processes
            starts: Iterable[int] = range(at * few, images, whole)
        else:
            starts = range(at * few, images, batches.num_processes * few)
        return sum(min(few, images - start) for start in starts) if images else None
    return None


def images_of(loader: Any) -> int:
    """How many images ``loader`` gives."""
    return length(getattr(loader, "dataset", ())) or sum(len(batch[1]) for batch in loader)


def lowest(ids: Sequence[str], count: int) -> list[int]:
    """The indices of the ``count`` ids with the lowest digests, ascending."""
    order = sorted(range(len(ids)), key=lambda n: hashlib.sha256(ids[n].encode()).digest())
    return sorted(order[:count])


class _Subset:
    """The chosen images of batches that have no data set to choose from by index."""

    def __init__(self, loader: Iterable[Any], count: int) -> None:
        self._loader = loader
        ids = [image_id for _, targets, *_ in loader for image_id in ids_of(targets)]
        names = [str(n) if i is None else identifier(i) for n, i in enumerate(ids)]
        self._chosen = set(lowest(names, count))

    def __iter__(self) -> Iterator[Any]:
        start = 0
        for images, targets, *rest in self._loader:
            picked = [n for n in range(len(targets)) if start + n in self._chosen]
            start += len(targets)
            if picked:
                yield rows(images, picked), rows(targets, picked), *rest
