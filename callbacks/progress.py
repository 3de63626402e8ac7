"""How far a training is: images, epochs, and which images it was trained on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from boxscore import distributed
from boxscore.fingerprint import Fingerprint

AT_ONCE = 1024
"""How many ids are read at a time."""


class Progress:
    """What went through the model in training.

    Attributes:
        images: so far, of this process.
        batches: so far, of this process; with gradient accumulation several make a step.
        train_ids: the ids of the images of the first whole epoch that was seen.
        ids_known: whether that epoch is over.
    """

    def __init__(self) -> None:
        self.images = 0
        self.batches = 0
        self.train_ids = Fingerprint()
        self.ids_known = False
        self._skip_epoch = False
        self._unread: list[Any] = []

    def saw(self, images: int, ids: Iterable[Any] = ()) -> None:
        """Count one batch; ids that are tensors are read when that costs nothing."""
        self.batches += 1
        self.images += images
        if not (self.ids_known or self._skip_epoch):
            self._unread += [image_id for image_id in ids if image_id is not None]
            if len(self._unread) >= AT_ONCE:
                self.read_ids()

    def count(self, images: int, *, batches: int = 0) -> None:
        """Count ``images`` and ``batches`` more, or less."""
        self.images += images
        self.batches += batches

    def read_ids(self) -> None:
        """Take the ids that were seen, with one synchronisation for all that are tensors."""
        unread, self._unread = self._unread, []
        if unread and all(hasattr(i, "detach") and i.numel() == 1 for i in unread):
            import torch

            unread = torch.stack([i.detach().reshape(()) for i in unread]).tolist()
        for image_id in unread:
            self.train_ids.add(image_id)

    def epoch_ended(self, step: int) -> None:
        """The first whole epoch tells which images are trained on, in all processes together."""
        if self._skip_epoch:
            self._skip_epoch = False
        elif not self.ids_known:
            self.read_ids()
            shares = distributed.meet("ids of the train set", self.train_ids, step)
            self.train_ids = Fingerprint()
            for share in shares:
                self.train_ids.merge(share)
            self.ids_known = True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in plain JSON types."""
        return {"images": self.images, "batches": self.batches, "ids_known": self.ids_known}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`; an epoch that was begun before is no whole one."""
        self.images, self.batches = state["images"], state["batches"]
        self.ids_known = state["ids_known"]
        self._skip_epoch = self.batches > 0
