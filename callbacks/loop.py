"""For loops written by hand in PyTorch.

.. code-block:: python

    with LoopCallback(model, optimizer, test_loader, train_loader=loader, dataset="bccd",
                      classes={1: "RBC", 2: "WBC"}) as score:
        for images, targets in loader:
            losses = model(images, targets)
            ...  # backward, optimizer.step()
            score.step(losses)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, Unpack

from boxscore import Run
from boxscore.evaluation import semantic_losses, valid_pixels
from boxscore.logger import Status
from boxscore.run import ended
from boxscore.signals import sigterm_raises

from .base import Scorekeeper, says_its_size
from .loaders import length
from .options import Keywords
from .predict import main_output, of_criterion


class LoopCallback(Scorekeeper):
    """Logs the losses and metrics of a training loop; use it as a context manager.

    On leaving the ``with`` block the run is FINISHED, FAILED where an exception left it, or KILLED
    by Ctrl-C or SIGTERM.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        test_loader: Any = None,
        *,
        train_loader: Any = None,
        criterion: Callable[[Any, Any], Any] | None = None,
        **options: Unpack[Keywords],
    ) -> None:
        """Say what is watched.

        Args:
            model: a torchvision detector or segmentation model, a plain module that gives logits,
                or anything else with ``predict=``.
            optimizer: gives the regularization loss and the learning rate.
            test_loader: batches ``(images, targets)``; a mapping names several test sets.
            train_loader: the loader of the loop, for epochs and for metrics on the train split.
            criterion: ``criterion(logits, targets)`` of semantic models, for the test losses.
            **options: see `boxscore.callbacks.options.Options`.
        """
        super().__init__(**options)
        self._watched = (model, optimizer, test_loader, train_loader)
        self._criterion = criterion
        self._steps = 0
        self._batches = 0
        self._images = 0
        self._forwarded = 0
        self._epochs = 0
        self._unread: list[Any] = []
        self._reading_ids = True
        self._last = (0.0, 0)
        self._hook: Any = None
        self._image_size: tuple[int, int] | None = None
        self._stack = ExitStack()

    def step(
        self, losses: Any, outputs: Any = None, targets: Any = None, images: Any = None
    ) -> None:
        """Say that the optimizer made a step. With gradient accumulation, once per optimizer step.

        Args:
            losses: the loss dict of the batch, or one scalar; tensors are read only when due.
            outputs: semantic models: the logits (N, C, H, W), or a dict with ``out``.
            targets: semantic models: the integer targets (N, H, W).
            images: how many images the step took (a number or a batch); by default what went
                through the model in train mode.
        """
        run = self.run or self._watch() or self._open()
        self._steps += 1
        self._images += self._forwarded if images is None else _count(images)
        self._forwarded = 0
        due = run.due(self._steps)
        with self._guard("recording a step"):
            values = self._named(losses)
            if due and outputs is not None and targets is not None:
                values |= self._measured(outputs, targets)
            run.record(values, step=self._steps)
        with self._guard("what follows a step"):
            if due:
                self._say_progress(run)
            self._evaluate_what_is_due()

    def __enter__(self) -> Self:
        self._stack.enter_context(sigterm_raises())
        try:
            self._watch()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close(ended(error))
        finally:
            self._stack.__exit__(kind, error, trace)

    def close(self, status: Status = "FINISHED") -> None:
        """End the run; the ``with`` block does it by itself."""
        self._read_ids()
        self.finish(status)
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _watch(self) -> Run | None:
        """Look at the model from now on, and open the run unless its first batch is needed."""
        model = self._watched[0]
        if self._hook is None:
            self._hook = model.register_forward_pre_hook(self._see, with_kwargs=True)
        known = self.options.identity is not None or says_its_size(model)
        return self._open() if known else None

    def _open(self) -> Run:
        model, optimizer, test_loader, train_loader = self._watched
        run = self.begin(model, optimizer, test_loader, train_loader, image_size=self._image_size)
        self._last = (time.perf_counter(), 0)
        return run

    def _see(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count what goes through the model in train mode, and which images these are."""
        if self._evaluating or not model.training or not (args or kwargs):
            return
        self._batches += 1
        batch = args[0] if args else next(iter(kwargs.values()))
        self._forwarded += _count(batch)
        if self._image_size is None and getattr(batch, "ndim", 0) == 4:
            self._image_size = tuple(batch.shape[-2:])
        targets = args[1] if len(args) > 1 else kwargs.get("targets")
        if self._reading_ids and isinstance(targets, list | tuple):
            self._unread += [
                t["image_id"] for t in targets if isinstance(t, Mapping) and "image_id" in t
            ]

    def _named(self, losses: Any) -> dict[str, Any]:
        if self.run is not None and self.run.task == "semantic-segmentation":
            return of_criterion(losses)
        return dict(losses) if isinstance(losses, Mapping) else {"loss": losses}

    def _measured(self, outputs: Any, targets: Any) -> dict[str, Any]:
        """Focal, cross-entropy and Dice loss of the batch for which a point is due."""
        ignored = self.options.ignore_index
        with self._guard("measuring the losses of a batch"):
            if valid_pixels(targets, ignored):
                logits = main_output(outputs, targets).detach()
                return semantic_losses(logits, targets, ignore_index=ignored)
        return {}

    def _say_progress(self, run: Run) -> None:
        now, images = time.perf_counter() - self._evaluation_seconds, self._images
        before, seen = self._last
        values = {
            "images_seen": float(images),
            "images_per_second": (images - seen) / (now - before),
        }
        if length := self._epoch_length():
            values["epoch"] = self._batches / length
        run.progress(values, step=self._steps)
        self._last = (now, images)
        self._read_ids()

    def _epoch_length(self) -> int:
        return length(self._watched[3])

    def _evaluate_what_is_due(self) -> None:
        length = self._epoch_length()
        epochs = self._batches // length if length else 0
        new_epoch, self._epochs = epochs > self._epochs, epochs
        if new_epoch and self._reading_ids:
            self._read_ids()
            self._reading_ids = False
            self._know_train_ids()
        test, train = self._evaluate_every, self._evaluate_train_every
        if test.due(self._steps) or (new_epoch and test.due_epoch(epochs)):
            self.evaluate()
        if train.due(self._steps) or (new_epoch and train.due_epoch(epochs)):
            self.evaluate_train()

    def _read_ids(self) -> None:
        for image_id in self._unread:
            self._train_ids.add(image_id)
        self._unread.clear()


def _count(images: Any) -> int:
    if isinstance(images, int):
        return images
    return len(images) if hasattr(images, "__len__") else 1
