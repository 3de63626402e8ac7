"""The model inside what frameworks wrap around it."""

from __future__ import annotations

from typing import Any

SHARDED = "FullyShardedDataParallel"
"""The wrapper whose own forward brings together the weights of what is inside."""


def unwrapped(model: Any) -> Any:
    """The model inside DistributedDataParallel, FSDP, ``torch.compile`` and averaging wrappers."""
    while inner := getattr(model, "_orig_mod", None) or _inside(model):
        model = inner
    return model


def _inside(model: Any) -> Any:
    wrappers = {"DistributedDataParallel", "DataParallel", "AveragedModel", SHARDED}
    wrapped = {kind.__name__ for kind in type(model).__mro__} & wrappers
    return model.module if wrapped else None
