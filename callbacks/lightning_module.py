"""What a LightningModule returns, and how to ask it outside of Lightning's own loops."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from boxscore.losses import known

from .predict import Found

KEYS = ("predictions", "targets")
"""What a step returns beside its losses, for its figures."""


def returned(outputs: Any) -> Found | None:
    """What a step returned, where it holds all that is needed."""
    if not isinstance(outputs, Mapping) or any(outputs.get(key) is None for key in KEYS):
        return None
    losses = outputs.get("losses")
    if not isinstance(losses, Mapping):
        losses = {} if outputs.get("loss") is None else {"loss": outputs["loss"]}
    return losses, outputs["predictions"], outputs["targets"]


def returned_losses(outputs: Any) -> dict[str, Any]:
    """The parts that ``training_step`` returned: its ``losses``, or scalars that are called so."""
    outputs = outputs if isinstance(outputs, Mapping) else {}
    losses = outputs.get("losses")
    if isinstance(losses, Mapping):
        return dict(losses)
    return {
        name: value
        for name, value in outputs.items()
        if name not in ("loss", *KEYS) and "loss" in name and known(name)
        if getattr(value, "ndim", 0) == 0
    }


def step_arguments(module: Any, batch: Any, loader: int) -> tuple[Any, ...]:
    """What ``validation_step`` takes of (batch, batch_idx, dataloader_idx)."""
    taken = inspect.signature(module.validation_step).parameters
    given = [batch]
    given += [0] if "batch_idx" in taken or len(taken) > 1 else []
    return (*given, loader) if "dataloader_idx" in taken or len(taken) > 2 else tuple(given)


@contextmanager
def unnoticed(module: Any) -> Iterator[None]:
    """Ask ``module`` without its logging anything, or its torchmetrics noticing."""
    metrics = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if any(kind.__module__.startswith("torchmetrics.") for kind in type(child).__mro__)
    ]
    for parent, name, child in metrics:
        parent._modules[name] = copy.deepcopy(child)
    module.log = module.log_dict = lambda *_, **__: None
    try:
        yield
    finally:
        del module.log, module.log_dict
        for parent, name, child in metrics:
            parent._modules[name] = child


def named_loaders(loaders: Any) -> dict[str, Any]:
    """Validation loaders by name: one or the first of a list is ``test``, the others numbered."""
    if loaders is None:
        return {}
    if isinstance(loaders, list | tuple):
        return {f"{number}" if number else "test": loader for number, loader in enumerate(loaders)}
    return dict(loaders) if isinstance(loaders, Mapping) else {"test": loaders}


def targets_of(batch: Any) -> Any:
    """The second part of a batch, None where there is none."""
    return batch[1] if isinstance(batch, list | tuple) and len(batch) > 1 else None
