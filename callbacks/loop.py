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
from boxscore.logger import Status

from .base import CallbackBase
from .batches import length
from .facts import Facts
from .model_info import has_fixed_input_size, size_of
from .options import Keywords
from .predict import Predict, ignored_by, predictor


class LoopCallback(CallbackBase):
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
        """Name what is measured.

        Args:
            model: a torchvision detector or segmentation model, a plain module that gives logits,
                or anything else with ``predict=``.
            optimizer: gives the regularization loss and the learning rate.
            test_loader: batches ``(images, targets)``; a mapping names several test sets.
            train_loader: the loader of the loop, for epochs and for metrics on the train split.
            criterion: ``criterion(outputs, targets)`` of semantic models, for the test losses; it
                gets what the model gave, or the logits where it takes no dict.
            **options: see `boxscore.callbacks.options.Options`.
        """
        super().__init__(**options)
        self._watched, self._criterion = model, criterion
        self._optimizer, self._loaders = optimizer, (test_loader, train_loader)
        self._signals = ExitStack()

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        super().restart()
        self._forwards: list[
            tuple[Any, Any, int]
        ] = []  # images, targets, count since the last step
        self._epoch = 0
        self._size: Any = None
        self._is_watching = False

    def step(
        self, losses: Any, outputs: Any = None, targets: Any = None, images: Any = None
    ) -> None:
        """Count an optimizer step. With gradient accumulation, call it once per optimizer step.

        Args:
            losses: the loss dict of the batch, or one scalar; tensors are read only when due.
            outputs: semantic models: the logits (N, C, H, W), or a dict with ``out``.
            targets: semantic models: the integer targets (N, H, W).
            images: how many images the step took (a number or a batch); by default those of the
                different batches that went through the model in train mode.
        """
        if self.run is None:
            self._size = self._size or size_of(images)
            self._watch() or self._begin()
        self._count_step(images, targets)
        step = self._steps + 1
        semantic = None if outputs is None or targets is None else lambda: (outputs, targets)
        epoch = self.epochs()
        self.record(losses, step, epoch=epoch, semantic=semantic)
        before, self._epoch = self._epoch, int(epoch or 0)
        self.evaluate_what_is_due(step, self._epoch if self._epoch > before else None)

    def close(self, status: Status = "FINISHED") -> None:
        """End the run; the ``with`` block does it by itself."""
        self.stop(status)

    def predictor(self, model: Any, run: Run) -> Predict | None:
        """Of torchvision's detectors, and of networks that give logits."""
        if self._facts.loaders is None:
            return None
        return predictor(model, run, self._criterion, self.reader)

    def __enter__(self) -> Self:
        if self.run is not None and not self.run.is_open:  # used again: another training
            self.restart()
        self._signals.enter_context(sigterm_raises())
        try:
            self._watch()
        except BaseException:
            self._signals.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop(ended(error))
        finally:
            self._signals.__exit__(kind, error, trace)

    def _watch(self) -> Run | None:
        """Watch the model, and open the run unless its first batch is needed."""
        if not self._is_watching:
            self._is_watching = True
            self.watch(self._watched, self._see, before=True)
        known = self.options.identity is not None or has_fixed_input_size(self._watched)
        return self._begin() if known else None

    def _begin(self) -> Run:
        test_loader, train_loader = self._loaders
        facts = Facts(
            size=self._size,
            loaders=test_loader,
            train_loader=train_loader,
            ignore_index=ignored_by(self._criterion),
        )
        run = self.start(self._watched, self._optimizer, facts)
        self._epoch = int(self.epochs() or 0)
        return run

    def _see(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the batches of train mode: a forward of the same images or targets is no other."""
        if not model.training or not (args or kwargs) or self._is_evaluating:
            return
        batch = args if len(args) > 1 else (*args, *kwargs.values())
        batch = batch[0] if len(batch) == 1 else batch
        images, targets = self.reader.images(batch), self.reader.targets(batch)
        self._size = self._size or size_of(images)
        if not any(_is_same(images, i) or _is_same(targets, t) for i, t, _ in self._forwards):
            self._forwards.append((images, targets, length(images)))
            self.saw(batch)

    def _count_step(self, images: Any, targets: Any) -> None:
        """Count what the step took, by the caller's word before the number of forwards."""
        seen = [count for _, _, count in self._forwards]
        self._forwards.clear()
        if images is not None or not seen:
            taken = images if isinstance(images, int) else length(images) or length(targets)
            self.progress.count(taken - sum(seen), batches=1 - len(seen))
        elif len(seen) > 1:
            self.warnings.warn_once(
                "accumulation",
                f"{len(seen)} different batches went through the model in one optimizer step: they "
                "count as gradient accumulation; where they are views of one batch, pass "
                "images=len(batch) to step()",
            )

    @property
    def _is_evaluating(self) -> bool:
        return self.evaluator is not None and self.evaluator.is_evaluating


def _is_same(one: Any, other: Any) -> bool:
    """Whether both are one object, or tensors that share their values."""
    if one is other:
        return one is not None
    pointers = (getattr(value, "data_ptr", None) for value in (one, other))
    return all(pointers) and one.data_ptr() == other.data_ptr() and one.shape == other.shape
