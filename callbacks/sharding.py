"""Reading a loader for an evaluation without the training noticing it, each process its share."""

from __future__ import annotations

import hashlib
import math
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from boxscore import distributed
from boxscore.callbacks.reading.batches import BatchReader, length
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
        with ExitStack() as stack:
            if torch := sys.modules.get("torch"):
                devices = range(torch.cuda.device_count())
                stack.enter_context(torch.random.fork_rng(devices=devices))
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _generators(loader: Any) -> list[Any]:
    owners = (loader, getattr(loader, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    own = [generator for generator in found if hasattr(generator, "get_state")]
    return [*own, *_of_transforms(getattr(loader, "dataset", None))]


def _of_transforms(data: Any) -> list[np.random.RandomState]:
    """The generators of MONAI's transforms, in a data set or one around it."""
    found: dict[int, np.random.RandomState] = {}
    seen: set[int] = set()
    pending = [] if isinstance(data, list | tuple) else [data]
    while pending:
        value = pending.pop()
        if value is None or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, list | tuple):
            pending += value
            continue
        if isinstance(state := getattr(value, "R", None), np.random.RandomState):
            found[id(state)] = state
            pending += vars(value).values()
        names = ("dataset", "datasets", "transform", "transforms")
        pending += (getattr(value, name, None) for name in names)
    return list(found.values())


Share = Iterator[tuple[Any, list[str] | None, int | None]]
"""Batches, the ids of their images where these are known, and how many of a batch's images count
(the others are repeats; None is all of them)."""


def share(loader: Any, count: int | None, reader: BatchReader) -> Share:
    """This process's share of an evaluation, batch by batch.

    With ``count``, only that many images are taken, those whose ids hash lowest: runs that ask for
    the same number of images of one data set get the same images, in whatever order its loader
    gives them. An image's id is the data set's ``ids[index]`` where it has ``ids`` (as COCO data
    sets of torchvision have), or its index.

    A loader whose sampler shares out the images is read as it is. Of another DataLoader over a data
    set that is read by index, the processes take rank 0's batches in turn, each as many, one
    repeated where they do not divide: models that are spread over the processes compute each batch
    together. Anything else is read as it is, since each process may hold other batches.
    """
    import torch

    data: Any = getattr(loader, "dataset", None)
    by_index = (
        isinstance(loader, torch.utils.data.DataLoader)
        and loader.batch_sampler is not None
        and not isinstance(data, torch.utils.data.IterableDataset)
        and length(data) > 0
    )
    if count is not None and not by_index:
        return _chosen(loader, count, reader)
    if count is None and (not by_index or distributed.size() == 1 or _is_shared(loader)):
        return _whole(loader, reader)
    ids = None
    if count is not None:
        ids = [identifier(i) for i in getattr(data, "ids", range(len(data)))]
        chosen, batch_size = lowest(ids, count), _batch_size(loader)
        groups = [chosen[n : n + batch_size] for n in range(0, len(chosen), batch_size)]
    else:
        groups = distributed.broadcast_from_rank0(
            lambda: [list(group) for group in loader.batch_sampler]
        )
    return _in_turn(loader, groups, ids, reader)


def batches_in_share(loader: Any, count: int | None) -> int | None:
    """How many batches `share` yields, about; None where the loader does not tell."""
    batches = length(loader)
    if count is not None:
        if not hasattr(loader, "batch_size"):  # a list of batches: of how many images is not known
            return None
        batches = min(batches, math.ceil(count / _batch_size(loader)))
    return batches if _is_shared(loader) else math.ceil(batches / distributed.size()) or None


def _whole(loader: Any, reader: BatchReader) -> Share:
    """All batches of the loader, less the images that its sampler repeats to make ranks even."""
    left = own_images(loader)
    for batch in loader:
        count = reader.count(batch)
        if left is None or left >= count:
            yield batch, None, None
        else:  # where nothing is left the ranks may still have to compute the batch together
            yield reader.part(batch, range(left)) if left else batch, None, left
        left = None if left is None else max(0, left - count)


def _chosen(loader: Iterable[Any], count: int, reader: BatchReader) -> Share:
    """The chosen images of batches whose data set is not read by index."""
    ids = [image_id for batch in loader for image_id in _ids(batch, reader)]
    names = [str(n) if i is None else identifier(i) for n, i in enumerate(ids)]
    chosen, start = set(lowest(names, count)), 0
    for batch in loader:
        images = reader.count(batch)
        if picked := [n for n in range(images) if start + n in chosen]:
            yield reader.part(batch, picked), [names[start + n] for n in picked], None
        start += images


def _ids(batch: Any, reader: BatchReader) -> list[Any]:
    return reader.ids(batch) or [None] * reader.count(batch)


def _in_turn(
    loader: Any, groups: Sequence[list[int]], ids: Sequence[str] | None, reader: BatchReader
) -> Share:
    """Every so many of the ``groups`` of indices, read by a loader without shuffling."""
    import torch

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
        if named is not None and (crops := reader.count(batch) // len(group)) > 1:
            named = [f"{image_id}-{n}" for image_id in named for n in range(crops)]
        yield batch, named, None if turn < len(groups) else 0


def _batch_size(loader: Any) -> int:
    return loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 1


def _is_shared(loader: Any) -> bool:
    """Whether the loader gives each process other images."""
    samplers = (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    names = ("num_replicas", "num_processes", "world_size")
    return any(hasattr(sampler, name) for sampler in samplers for name in names)


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
    if getattr(sampler, "round_up", False):  # MMEngine's DefaultSampler
        images = length(sampler.dataset)
        return len(range(sampler.rank, images, sampler.world_size)) or (0 if images else None)
    if hasattr(batches, "num_processes") and batches.batch_size:  # Accelerate's BatchSamplerShard
        images = length(getattr(batches.batch_sampler, "sampler", None))
        batch_size, rank = batches.batch_size, batches.process_index
        if batches.split_batches:
            whole = batch_size
            batch_size = whole // batches.num_processes
            starts: Iterable[int] = range(rank * batch_size, images, whole)
        else:
            starts = range(rank * batch_size, images, batches.num_processes * batch_size)
        return sum(min(batch_size, images - start) for start in starts) if images else None
    return None


def images_of(loader: Any, reader: BatchReader) -> int:
    """How many images ``loader`` gives."""
    return length(getattr(loader, "dataset", ())) or sum(map(reader.count, loader))


def lowest(ids: Sequence[str], count: int) -> list[int]:
    """The indices of the ``count`` ids with the lowest digests, ascending."""
    order = sorted(range(len(ids)), key=lambda n: hashlib.sha256(ids[n].encode()).digest())
    return sorted(order[:count])
