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

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, Unpack

from boxscore import Run
from boxscore.exit_status import ended, sigterm_raises
from boxscore.identity.models import Reading
from boxscore.logger import Status

from .base import Scorekeeper
from .model_info import has_fixed_input_size, size_of
from .options import Keywords
from .sharding import ids_of


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
        self._forwarded = 0
        self._epochs = 0
        self._hook: Any = None
        self._size: Reading | None = None
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
        if self.run is None:
            self._watch() or self._open()
        if images is not None:
            self._progress.images += _count(images) - self._forwarded
        self._forwarded = 0
        step = self._steps + 1
        self.record(losses, step, outputs=outputs, targets=targets)
        with self._warnings.catch("what follows a step"):
            self.evaluate_what_is_due(step, self._epoch_that_ended())

    def __enter__(self) -> Self:
        if self.run is not None and not self.run.is_open:  # used again: another training
            self.restart()
            self._forwarded = self._epochs = 0
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
        self.finish(status)
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _watch(self) -> Run | None:
        """Look at the model from now on, and open the run unless its first batch is needed."""
        model = self._watched[0]
        if self._hook is None:
            self._hook = model.register_forward_pre_hook(self._see, with_kwargs=True)
        known = self.options.identity is not None or has_fixed_input_size(model)
        return self._open() if known else None

    def _open(self) -> Run:
        model, optimizer, test_loader, train_loader = self._watched
        run = self.begin(model, optimizer, test_loader, train_loader, size=self._size)
        self._epochs = int(self._epoch() or 0)
        return run

    def _see(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count what goes through the model in train mode, and which images these are."""
        if self._evaluating or not model.training or not (args or kwargs):
            return
        batch = args[0] if args else next(iter(kwargs.values()))
        self._forwarded += _count(batch)
        if self.run is None and self._size is None:
            self._size = size_of(batch)
        targets = args[1] if len(args) > 1 else kwargs.get("targets")
        self._progress.saw(_count(batch), ids_of(targets) if isinstance(targets, list) else ())

    def _epoch_that_ended(self) -> int | None:
        before, self._epochs = self._epochs, int(self._epoch() or 0)
        return self._epochs if self._epochs > before else None


def _count(images: Any) -> int:
    if isinstance(images, int):
        return images
    return len(images) if hasattr(images, "__len__") else 1
