"""What is watched: the model, what it is called, and the data that it is measured on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from boxscore import Identity, distributed
from boxscore.identity.models import Found, infer, sources


def local(model: Any) -> Any:
    """``model`` as it is evaluated: without DistributedDataParallel around it.

    That exchanges buffers at each forward, for which processes with fewer batches would be missing.
    """
    wrapper = getattr(model, "_orig_mod", model)
    return wrapper.module if type(wrapper).__name__ == "DistributedDataParallel" else model


@contextmanager
def buffers_of_the_first(model: Any) -> Iterator[None]:
    """Measure with the first process's buffers, such as batch norm's averages, in all processes.

    Each process has its own until DistributedDataParallel hands out the first one's at the next
    forward in training; and the first one's are those that checkpoints hold.
    """
    inner = local(model)
    if distributed.size() == 1 or inner is model or not getattr(model, "broadcast_buffers", True):
        yield
        return
    buffers = list(inner.buffers())
    own = [buffer.clone() for buffer in buffers]
    distributed.copy_of_first(buffers)
    try:
        yield
    finally:
        for buffer, value in zip(buffers, own, strict=True):
            buffer.copy_(value)


def says_its_size(model: Any) -> bool:
    """Whether the input size can be known before the first batch."""
    return "input_size" in infer(model)


def inferred(model: Any, size: Found | None) -> Identity:
    """What ``model`` says of itself, told in one line with where it says it.

    Args:
        model: wrapped or not.
        size: the input size and where it was read, for models that do not say theirs.

    Raises:
        ValueError: for what is unknown or ambiguous, with what to pass.
    """
    found = infer(model)
    if size is not None:
        found.setdefault("input_size", size)
    identity = Identity.of(model, **{field: value for field, (value, _) in found.items()})
    if distributed.rank() == 0:
        print(f"boxscore: {identity} ({sources(found)})", file=sys.stderr)
    return identity


def size_of(images: Any) -> Found | None:
    """The size of the first batch's ``images`` (N, C, H, W), where they share one."""
    if getattr(images, "ndim", 0) != 4:
        return None
    height, width = images.shape[-2:]
    return Found(f"{height}x{width}", "the first batch")


def dataset_of(loader: Any) -> str:
    """The data's name where the user gives none: that of its class."""
    data = getattr(loader, "dataset", None)
    return "dataset" if data is None else type(data).__name__
