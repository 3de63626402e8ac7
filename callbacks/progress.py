"""How far a training is: images, epochs, and which images it was trained on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from boxscore import distributed
from boxscore.fingerprint import Fingerprint


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
        self._last = (time.perf_counter(), 0)

    def saw(self, images: int, ids: Iterable[Any] = ()) -> None:
        """Count one batch; ids that are tensors are read when that costs nothing."""
        self.batches += 1
        self.images += images
        if not (self.ids_known or self._skip_epoch):
            self._unread += [image_id for image_id in ids if image_id is not None]

    def read_ids(self) -> None:
        """Take in the ids that were seen."""
        for image_id in self._unread:
            self.train_ids.add(image_id)
        self._unread.clear()

    def epoch_ended(self, step: int) -> None:
        """The first whole epoch tells which images are trained on, in all processes together."""
        if self._skip_epoch:
            self._skip_epoch = False
        elif not self.ids_known:
            self.read_ids()
            for other in distributed.meet("ids of the train set", self.train_ids, step):
                self.train_ids.merge(other)
            self.ids_known = True

    def values(self, step: int, paused: float) -> dict[str, float]:
        """``images_seen`` and ``images_per_second``, of all processes, at ``step``.

        Args:
            step: optimizer steps so far.
            paused: seconds that went to evaluations since the beginning.
        """
        now, images = (
            time.perf_counter() - paused,
            sum(distributed.meet("images", self.images, step)),
        )
        before, seen = self._last
        self._last = (now, images)
        self.read_ids()
        return {
            "images_seen": float(images),
            "images_per_second": (images - seen) / max(now - before, 1e-9),
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in plain JSON types."""
        return {"images": self.images, "batches": self.batches, "ids_known": self.ids_known}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`; an epoch that was begun before is no whole one."""
        self.images, self.batches = state["images"], state["batches"]
        self.ids_known = state["ids_known"]
        self._skip_epoch = self.batches > 0
        self._last = (time.perf_counter(), self.images * distributed.size())
