"""How far a training and an evaluation are."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from boxscore import distributed
from boxscore.fingerprint import identifier
from boxscore.warn import Warnings

AT_ONCE = 1024
"""How many images' targets are kept until they are read together."""

KEPT = ("image_id", "boxes", "labels", "iscrowd", "area")
"""What is kept of a target; masks would fill the memory."""

SHOWN_AFTER = 3.0
"""Seconds from which on an evaluation shows a bar."""

Batch = TypeVar("Batch")


class Progress:
    """What went through the model in training.

    Attributes:
        images: so far, of this process.
        batches: so far, of this process; with gradient accumulation several make a step.
        contents: digests of the ground truth by image id, of the first whole epoch that was seen;
            ``""`` where only the id is known.
        is_whole: whether that epoch is over.
    """

    def __init__(self) -> None:
        self.images = 0
        self.batches = 0
        self.contents: dict[str, str] = {}
        self.is_whole = False
        self._skip_epoch = False
        self._unread: list[Mapping[str, Any]] = []

    def saw(self, images: int, targets: Iterable[Any] = ()) -> None:
        """Count one batch, and keep its targets until they are read."""
        self.batches += 1
        self.images += images
        if not (self.is_whole or self._skip_epoch):
            self._unread += [
                {field: target[field] for field in KEPT if field in target}
                for target in targets
                if isinstance(target, Mapping) and target.get("image_id") is not None
            ]

    def count(self, images: int, *, batches: int = 0) -> None:
        """Count ``images`` and ``batches`` more, or less."""
        self.images += images
        self.batches += batches

    def read(self, names: Mapping[int, str], *, at_least: int = 1) -> None:
        """Read the targets that were kept, if they are ``at_least`` so many.

        Args:
            names: the classes by label.
            at_least: to save synchronisations with the GPU.
        """
        if len(self._unread) < at_least:
            return
        from boxscore.detection import DetectionMetrics

        unread, self._unread = self._unread, []
        self.contents |= dict.fromkeys(_identifiers([t["image_id"] for t in unread]), "")
        metric = DetectionMetrics(names)
        metric.warnings = _Silent()
        nothing: dict[str, Any] = {"boxes": [], "scores": [], "labels": []}
        with suppress(ValueError, KeyError):  # the evaluation says what is wrong with targets
            metric.update([nothing] * len(unread), unread)
            self.contents |= metric.evaluated.contents

    def epoch_ended(self, step: int, names: Mapping[int, str]) -> None:
        """The first whole epoch tells which images are trained on, in all processes together."""
        if self._skip_epoch:
            self._skip_epoch = False
        elif not self.is_whole:
            self.read(names)
            for share in distributed.gather_at("images of the train set", self.contents, step):
                self.contents = self.contents | share
            self.is_whole = True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in plain JSON types."""
        return {"images": self.images, "batches": self.batches, "is_whole": self.is_whole}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`; an epoch that was begun before is no whole one."""
        self.images, self.batches = state["images"], state["batches"]
        self.is_whole = state["is_whole"]
        self._skip_epoch = self.batches > 0


class _Silent(Warnings):
    """The evaluations warn of what is wrong with targets."""

    def warn_once(self, kind: str, text: str) -> None:
        """Log nothing."""


def _identifiers(ids: list[Any]) -> list[str]:
    """Image ids as text, with one synchronisation where all are tensors."""
    if all(hasattr(i, "detach") and i.numel() == 1 for i in ids):
        import torch

        ids = torch.stack([i.detach().reshape(()) for i in ids]).tolist()
    return [identifier(i) for i in ids]


def with_bar(batches: Iterable[Batch], total: int | None, text: str) -> Iterator[Batch]:
    """Yield ``batches``; from the fourth second on, a bar on the terminal shows how many are done.

    There is none in the other processes of a training, nor where tqdm draws bars.

    Args:
        batches: of an evaluation.
        total: how many these are; None where that is not known.
        text: stands before the bar, on a terminal only.
    """
    if distributed.rank() or not sys.stdout.isatty():
        yield from batches
        return
    from rich import get_console
    from rich.errors import LiveError
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # on its own console rich stacks a bar below another one
    bar = Bar("{task.description}", *columns, console=get_console(), transient=True)
    task = bar.add_task(text, total=total)
    shown_at = time.monotonic() + SHOWN_AFTER
    try:
        for done, batch in enumerate(batches):
            bar.update(task, completed=done)
            if time.monotonic() > shown_at and not _tqdm_draws():
                shown_at = math.inf
                with suppress(LiveError):  # older versions of rich stack none
                    bar.start()
            yield batch
    finally:
        bar.stop()


def _tqdm_draws() -> bool:
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return bool(getattr(tqdm, "_instances", ()))
