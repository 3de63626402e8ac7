"""The forwards of a Transformers model between two hooks of the Trainer, and what they gave."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from boxscore import Run
from boxscore.callbacks.reading.frames import moved
from boxscore.callbacks.reading.predict import Found, Predict
from boxscore.identity.wrappers import unwrapped

from . import read
from .losses import losses_of, mean_losses


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward, of a batch or of a replica's slice of it.

    Attributes:
        pixels: its images (N, 3, H, W).
        place: their device, storage and address.
        inputs: its keywords.
        outputs: of the model; None where the losses are enough.
        losses: by native name.
        is_training: whether the model was in train mode.
    """

    pixels: Tensor
    place: tuple[str, int, int]
    inputs: Mapping[str, Any]
    outputs: Any
    losses: Mapping[str, Tensor]
    is_training: bool


class Forwards:
    """Keeps forwards from any thread: DataParallel runs one for each replica.

    Args:
        predict: the user's; without it, forwards without a loss are left out.

    Attributes:
        reason: why the last forward was left out.
    """

    def __init__(self, predict: Predict | None) -> None:
        self.reason = "no forward of the model took pixel_values="
        self._predict = predict
        self._kept: list[Forward] = []
        self._criterion: dict[int, list[Mapping[str, Tensor]]] = {}  # by thread

    def begin(self, model: Any, run: Run, processor: Any, ignore_index: int | None) -> None:
        """Take the facts by which outputs are read."""
        self._model, self._read = model, partial(
            read, task=run.task, labels=list(run.names), processor=processor,
            ignore_index=ignore_index,
        )  # fmt: skip

    def see(
        self, model: Any, args: Any, inputs: Any, outputs: Any, *, keeps_outputs: bool | None
    ) -> None:
        """Keep a forward of images, with its outputs on request; None keeps nothing."""
        seen = self._criterion.pop(threading.get_ident(), None)
        inputs = {**dict(zip(("pixel_values",), args, strict=False)), **inputs}
        pixels = inputs.get("pixel_values")
        if keeps_outputs is None or not isinstance(pixels, Tensor):
            return
        losses: Mapping[str, Tensor] = {}
        place = "", 0, 0
        try:
            place = str(pixels.device), pixels.untyped_storage().data_ptr(), pixels.data_ptr()
            losses = losses_of(model, outputs, seen)
        except Exception as error:  # which must not end the training
            self.reason = f"{type(error).__name__}: {error}"
        if losses or self._predict:
            outputs = outputs if keeps_outputs else None
            self._kept.append(Forward(pixels, place, inputs, outputs, losses, model.training))

    def see_criterion(self, _: Any, __: Any, ___: Any, losses: Any) -> None:
        """Keep the losses that a criterion inside the model computed for the forward under way."""
        if isinstance(losses, Mapping):
            self._criterion.setdefault(threading.get_ident(), []).append(losses)

    def take(self, *, is_training: bool) -> list[Forward]:
        """The forwards of one batch since the last call: in training the first, else the newest.

        The slices of one tensor are one batch, and so is one tensor on each device. Forwards of the
        same images again, as in SAM, or of other views of them, are left out.
        """
        kept = [forward for forward in self._kept if forward.is_training == is_training]
        self._kept = []
        batch: dict[tuple[str, int, int], Forward] = {}
        storages: dict[str, int] = {}
        for forward in kept if is_training else reversed(kept):
            device, storage, _ = forward.place
            if storages.setdefault(device, storage) == storage:
                batch.setdefault(forward.place, forward)
        return [batch[place] for place in sorted(batch)]

    @torch.no_grad()
    def read(self, batch: Sequence[Forward]) -> tuple[Any, Any]:
        """Predictions and targets of the forwards of a batch."""
        pairs = [self._read(self._model, one.inputs, one.outputs) for one in batch]
        return joined([found for found, _ in pairs]), joined([targets for _, targets in pairs])

    @torch.no_grad()
    def found(self, batch: Sequence[Forward], _: Any = None) -> Found:
        """Losses, predictions and targets of a batch of an evaluation; sampled losses anew.

        Raises:
            ValueError: if there is no forward, or one gave what is not understood.
        """
        if not batch:
            raise ValueError(self.reason)
        predict = self._predict or (self.forwarded if is_sampled(self._model) else None)
        if predict is None:
            return losses_of_batch(batch), *self.read(batch)
        device = next(self._model.parameters()).device
        found = [predict(self._model, moved(one.inputs, device)) for one in batch]
        rows = [(part[0], len(one.pixels)) for part, one in zip(found, batch, strict=True)]
        return mean_losses(rows), joined([part[1] for part in found]), joined([p[2] for p in found])

    def forwarded(self, model: Any, batch: Any) -> Found:
        """What a forward by boxscore gives of a batch, from the same random numbers each time.

        Args:
            model: on any device.
            batch: its keywords, or a pair of images and labels.
        """
        if not isinstance(batch, Mapping):
            batch = dict(zip(("pixel_values", "labels"), batch, strict=False))
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
        return losses_of(model, outputs, seen or None), *self._read(model, inputs, outputs)


def losses_of_batch(batch: Sequence[Forward]) -> Mapping[str, Tensor]:
    """The losses of a batch, weighted by images."""
    return mean_losses([(forward.losses, len(forward.pixels)) for forward in batch])


def joined(parts: Sequence[Any]) -> Any:
    """Lists as one, or tensors on the device of the first."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat([part.to(parts[0].device) for part in parts])
    return [item for part in parts for item in part]


def criterion_of(model: Any) -> nn.Module | None:
    """The module that computes the losses of Mask2Former's family, None without one."""
    criterion = getattr(unwrapped(model), "criterion", None)
    return criterion if isinstance(criterion, nn.Module) else None


def is_sampled(model: Any) -> bool:
    """Whether losses are of points that each forward draws anew, as Mask2Former's."""
    return criterion_of(model) is not None and hasattr(unwrapped(model).config, "train_num_points")
