"""What a framework, a model, an optimizer and loaders state of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from boxscore import Identity, distributed
from boxscore.catalogue import Task
from boxscore.identity.wrappers import network, unwrapped
from boxscore.metric import Classes

from .batches import length


@dataclass
class Facts:
    """What a framework knows of a training; the user's options come first.

    Attributes:
        identity: what is trained, where the framework states more than the model.
        task: that the model is made for.
        classes: names by label.
        dataset: the name of the data.
        size: the input size and its source, for models that take any size.
        ignore_index: the label that the training's criterion ignores.
        loaders: of the test set, or several by name.
        train_loader: of the train set.
        settings: by which runs are compared, see `training_params`.
        evaluates: whether the framework itself goes through the test sets.
    """

    identity: Identity | None = None
    task: Task | None = None
    classes: Classes | None = None
    dataset: str | None = None
    size: Any = None
    ignore_index: int | None = None
    loaders: Any = None
    train_loader: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluates: bool = False
    evaluates_at_end: bool = field(default=True)


def opening_lines(model: Any, optimizer: Any) -> list[str]:
    """What a person would otherwise miss: a total beyond the training's own, a lacking metric."""
    lines = []
    if optimizer is not None:
        from boxscore.losses.regularization import regularization_kind, regularization_loss

        if regularization_kind(optimizer) == "l2":
            value = float(regularization_loss(optimizer))
            text = f"regularization, ½ Σ weight_decay·‖w‖² = {value:.4g} now, which the loss of"
            lines.append(f"total holds the optimizer's {text} the training lacks")
    heads = getattr(network(model), "roi_heads", None)
    settings = getattr(unwrapped(model), "model_config", None)  # RF-DETR's
    is_rfdetrs = getattr(settings, "use_grouppose_keypoints", False)
    if is_rfdetrs or getattr(heads, "keypoint_head", None) is not None:
        lines.append("keypoints: their loss is logged; their AP is not measured")
    return lines


def training_params(
    model: Any,
    optimizer: Any,
    train_loader: Any,
    test_loader: Any,
    known: Mapping[str, Any],
) -> dict[str, str]:
    """What the model, the optimizer and the loaders state; what they do not state is left out.

    Args:
        model: wrapped or not; its parameters are counted, frozen ones too.
        optimizer: gives its name, and the learning rate and the weight decay of its groups.
        train_loader: gives the batch size and the number of images.
        test_loader: gives the number of images.
        known: what the framework states, such as ``precision`` and ``epochs``; of these
            ``accumulate``, the batches of one optimizer step in each process, counts in
            ``batch_size``, the images of one step in all processes.
    """
    facts: dict[str, Any] = dict(known)
    accumulate = facts.pop("accumulate", 1)
    found: dict[str, Callable[[], object]] = {
        "optimizer": lambda: type(optimizer).__name__ if optimizer is not None else None,
        "learning_rate": lambda: _of_groups(optimizer, "initial_lr", "lr"),
        "weight_decay": lambda: _of_groups(optimizer, "weight_decay"),
        "batch_size": lambda: _batch_size(train_loader) * accumulate * distributed.size() or None,
        "train_images": lambda: length(getattr(train_loader, "dataset", None)) or None,
        "test_images": lambda: length(getattr(test_loader, "dataset", None)) or None,
        "model_parameters": lambda: sum(p.numel() for p in unwrapped(model).parameters()) or None,
    }
    for name, read in found.items():
        with suppress(Exception):  # a framework's object may state it otherwise, or not at all
            facts.setdefault(name, read())
    return {name: str(value) for name, value in facts.items() if value is not None}


def _of_groups(optimizer: Any, *names: str) -> str | None:
    """The values of the parameter groups; one where they agree."""
    values = [_first(group, names) for group in optimizer.param_groups]
    return ", ".join(dict.fromkeys(f"{float(v):g}" for v in values if v is not None)) or None


def _first(group: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first of ``names``: schedulers keep the peak in ``initial_lr``, and warm ``lr`` up."""
    return next((group[name] for name in names if name in group), None)


def _batch_size(loader: Any) -> int:
    size = getattr(loader, "batch_size", None)
    return size or getattr(getattr(loader, "batch_sampler", None), "batch_size", None) or 0
