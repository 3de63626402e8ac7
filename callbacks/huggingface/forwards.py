"""The forwards of a Transformers model between two hooks of the Trainer, and what they gave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from boxscore.callbacks.frames import moved
from boxscore.callbacks.predict import Found
from boxscore.identity.wrappers import unwrapped

from .losses import losses_of, mean_losses

Read = Callable[[Any, Any, Any], tuple[Any, Any]]
"""From model, inputs and outputs to predictions and targets."""


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward, of a batch or of a replica's slice of it.

    Attributes:
        pixels: its images (N, 3, H, W).
        inputs: its keywords.
        outputs: of the model; None where the losses are enough.
        losses: by native name.
    """

    pixels: Tensor
    inputs: Mapping[str, Any]
    outputs: Any
    losses: Mapping[str, Tensor]


class Forwards:
    """Keeps forwards from any thread: DataParallel runs one for each replica.

    Args:
        needs_loss: whether to leave out those without a loss, as a batch without labels gives.

    Attributes:
        reason: why the last forward was not kept.
    """

    def __init__(self, *, needs_loss: bool) -> None:
        self._needs_loss = needs_loss
        self.reason = "no forward of the model took pixel_values="
        self._kept: list[Forward] = []
        self._criterion: dict[int, list[Mapping[str, Tensor]]] = {}  # by thread

    def see(self, model: Any, args: Any, inputs: Any, outputs: Any, *, keeps_outputs: bool) -> None:
        """Keep a forward of images."""
        seen = self._criterion.pop(threading.get_ident(), None)
        inputs = {**dict(zip(("pixel_values",), args, strict=False)), **inputs}
        if isinstance(pixels := inputs.get("pixel_values"), Tensor):
            losses: Mapping[str, Tensor] = {}
            try:
                losses = losses_of(model, outputs, seen)
            except ValueError as error:
                self.reason = str(error)
            if losses or not self._needs_loss:
                outputs = outputs if keeps_outputs else None
                self._kept.append(Forward(pixels, inputs, outputs, losses))

    def see_criterion(self, _: Any, __: Any, ___: Any, losses: Any) -> None:
        """Keep the losses that a criterion inside the model computed for the forward under way."""
        if isinstance(losses, Mapping):
            self._criterion.setdefault(threading.get_ident(), []).append(losses)

    def take(self, *, newest: bool = False) -> list[Forward]:
        """The forwards of the first batch since the last call, or of the newest one, in order.

        The slices of one tensor are one batch, and so is one tensor on each device. Forwards of the
        same images again, as in SAM, or of other views of them, are left out.
        """
        kept, self._kept = self._kept, []
        batch: dict[tuple[str, int], Forward] = {}
        storages: dict[str, int] = {}
        for forward in reversed(kept) if newest else kept:
            device, storage = str(forward.pixels.device), forward.pixels.untyped_storage()
            if storages.setdefault(device, storage.data_ptr()) == storage.data_ptr():
                batch.setdefault((device, forward.pixels.data_ptr()), forward)
        return [batch[place] for place in sorted(batch)]


def losses_of_batch(batch: Sequence[Forward]) -> Mapping[str, Tensor]:
    """The losses of a batch, weighted by images."""
    return mean_losses([(forward.losses, len(forward.pixels)) for forward in batch])


def logits_of_batch(model: Any, batch: Sequence[Forward], read: Read) -> tuple[Tensor, Tensor]:
    """The logits and label maps of a batch, on the first replica's device."""
    device = batch[0].pixels.device
    pairs = [read(model, forward.inputs, forward.outputs) for forward in batch]
    logits, maps = [torch.cat([pair[n].to(device) for pair in pairs]) for n in (0, 1)]
    return logits, maps


def criterion_of(model: Any) -> nn.Module | None:
    """The module that computes the losses of Mask2Former's family, None without one."""
    criterion = getattr(unwrapped(model), "criterion", None)
    return criterion if isinstance(criterion, nn.Module) else None


def is_sampled(model: Any) -> bool:
    """Whether losses are of points that each forward draws anew, as Mask2Former's."""
    return criterion_of(model) is not None and hasattr(unwrapped(model).config, "train_num_points")


def forwarded(model: Any, batch: Any, read: Read) -> Found:
    """What a forward by boxscore gives, from the same random numbers each time.

    Args:
        model: in eval mode.
        batch: the keywords of the forward, on any device.
        read: from the outputs to predictions and targets.
    """
    inputs = moved(batch, next(model.parameters()).device)
    seen: list[Mapping[str, Tensor]] = []
    criterion = criterion_of(model)
    hook = criterion and criterion.register_forward_hook(lambda *given: seen.append(given[-1]))
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(0)
            outputs = model(**inputs)
    finally:
        if hook:
            hook.remove()
    return losses_of(model, outputs, seen or None), *read(model, inputs, outputs)
