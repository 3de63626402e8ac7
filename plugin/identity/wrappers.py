"""The networks inside wrappers of frameworks and users."""

from __future__ import annotations

from typing import Any

from .models import Readings, read, read_class

SHARDED = "FullyShardedDataParallel"
"""The wrapper whose own forward brings together the weights of what is inside."""

WRAPPERS = {"DistributedDataParallel", "DataParallel", "AveragedModel", SHARDED}

LIGHTNING = {"lightning", "pytorch_lightning"}
CHILDREN = ("model", "net", "network", "module", "detector", "segmentor")
"""Usual names of the network in a Lightning module, beside losses, metrics and teachers."""


def unwrapped(model: Any) -> Any:
    """``model`` without wrappers that leave its forward as it is.

    These are DataParallel, DistributedDataParallel, FSDP, ``torch.compile`` and AveragedModel.
    """
    while True:
        wraps = not WRAPPERS.isdisjoint(kind.__name__ for kind in type(model).__mro__)
        inner = getattr(model, "_orig_mod", model.module if wraps else None)
        if inner is None:
            return model
        model = inner


def without_ddp(model: Any) -> Any:
    """``model`` as it is evaluated: without DistributedDataParallel around it.

    Its forward exchanges buffers and would wait for processes that have fewer batches.
    """
    wrapper = getattr(model, "_orig_mod", model)
    kinds = {kind.__name__ for kind in type(wrapper).__mro__}  # MMEngine's is a kind of torch's
    return wrapper.module if "DistributedDataParallel" in kinds else model


def lightning_network(module: Any) -> Any:
    """The child of a Lightning module that has a usual name (`CHILDREN`); else ``module``."""
    return next(iter(_usual_children(module).values()), module)


def network(model: Any) -> Any:
    """The one network that ``model`` consists of, through every wrapper.

    To measure, call ``model``: a wrapper's own forward may prepare the input.

    Returns:
        the network of a known framework or name; else, or of several, ``model`` unwrapped.
    """
    found = list(networks(model).values())
    return found[0] if len(found) == 1 else unwrapped(lightning_network(unwrapped(model)))


def networks(model: Any, path: str = "model") -> dict[str, Any]:
    """The networks that ``model`` consists of, by their path (``"model.module.net"``).

    All children with parameters must hold known networks, or else there is none. Of a Lightning
    module the children of usual names count, or all if it has none of these.
    """
    if read(model, path):
        return {path: model}
    children = _usual_children(model) or dict(getattr(model, "named_children", dict)())
    found: dict[str, Any] = {}
    for name, child in children.items():
        if next(child.parameters(), None) is not None:
            inside = networks(child, f"{path}.{name}")
            if not inside:
                found = {}
                break
            found |= inside
    return found or ({path: model} if read_class(model, path) else {})


def infer(model: Any) -> Readings:
    """Every field of the identity that the model states, with its source.

    What is missing is unknown or ambiguous; nothing is guessed. Several networks, as a teacher and
    its student, state what they agree on.

    Args:
        model: a model, a module around one or more, or an MMEngine configuration (of the whole
            training or of its model alone).

    Returns:
        ``algorithm``, ``input_size`` and ``backbone``, those that are stated, in this order. A size
        is one that the model makes or insists on; the setting of a framework is none.
    """
    stated = [read(net, at) or read_class(net, at) for at, net in networks(model).items()]
    return {
        name: stated[0][name]
        for name in ("algorithm", "input_size", "backbone")
        if stated and all(name in one for one in stated)
        if len({one[name].value for one in stated}) == 1
    }


def _usual_children(model: Any) -> dict[str, Any]:
    """Of a Lightning module; none of any other model."""
    roots = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    children = {} if LIGHTNING.isdisjoint(roots) else dict(model.named_children())
    return {name: children[name] for name in CHILDREN if name in children}
