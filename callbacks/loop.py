"""For loops written by hand in PyTorch.

.. code-block:: python

    score = LoopCallback(model, optimizer, test_loader, train_loader=loader, dataset="bccd",
                         classes={1: "RBC", 2: "WBC"})
    for images, targets in loader:
        losses = model(images, targets)
        ...  # backward, optimizer.step()
        score.step(losses)
    score.close()
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

from boxscore import Run, distributed
from boxscore.callbacks.reading.batches import BatchReader, Pair, length
from boxscore.callbacks.reading.facts import Facts
from boxscore.callbacks.reading.model_info import has_fixed_input_size, size_of
from boxscore.callbacks.reading.predict import Predict, ignored_by, predictor
from boxscore.exit_status import ended, exits_noted, last_error, sigterm_raises
from boxscore.identity.wrappers import network
from boxscore.logger import Status

from .base import CallbackBase
from .huggingface import ignored_label, is_transformers
from .huggingface.forwards import Forwards, criterion_of, losses_of_batch
from .options import Keywords


class LoopCallback(CallbackBase):
    """Logs the losses and metrics of a training loop.

    The run opens at the model's first forward in train mode, or where a ``with`` block begins and
    the model states its input size; what cannot be inferred raises `ValueError` there, with what to
    pass.

    `close` evaluates the test set once more and ends the run, FINISHED; so does a ``with`` block
    around the loop, or a script that ends well. Where an exception, ``sys.exit`` with an error,
    Ctrl-C or SIGTERM ends the loop the run is FAILED or KILLED, with or without the block.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        test_loader: Any = None,
        *,
        train_loader: Any = None,
        criterion: Callable[[Any, Any], Any] | None = None,
        accumulate: int = 1,
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
            accumulate: how many calls of `step` make one optimizer step, where it is called for
                each batch.
            **options: see `boxscore.callbacks.options.Options`.
        """
        if accumulate < 1:
            raise ValueError(f"accumulate: {accumulate} is less than one batch")
        self._watched, self._criterion, self._accumulate = model, criterion, accumulate
        self._optimizer, self._loaders = optimizer, (test_loader, train_loader)
        self._signals = ExitStack()
        super().__init__(**options)

    def __reduce__(self) -> tuple[object, ...]:
        """A copy in another process has begun nothing, and watches its own copy of the model."""
        test_loader, train_loader = self._loaders
        given = {name: getattr(self.options, name) for name in self._given}
        make = partial(
            LoopCallback,
            train_loader=train_loader,
            criterion=self._criterion,
            accumulate=self._accumulate,
            **given,
        )
        return make, (self._watched, self._optimizer, test_loader), {"_earlier": self._earlier}

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        super().restart()
        self._forwards: list[
            tuple[Any, Any, int]
        ] = []  # images, targets, count since the last step
        self._epoch = 0
        self._calls = 0  # of `step` since the last optimizer step
        self._size: Any = None
        inner = network(self._watched)
        self._transformers = Forwards(self.options.predict) if is_transformers(inner) else None
        self._watch()

    def _watch(self) -> None:
        """Watch the model, in place of callbacks that were made for it and never began."""
        hooks = list(self._watched._forward_pre_hooks.values())
        owners = {id(owner): owner for hook in hooks if (owner := getattr(hook, "owner", None))}
        if id(self) in owners:
            return
        for owner in owners.values():
            if isinstance(owner, LoopCallback) and owner.run is None:
                owner.stop(None)
        self.watch(self._watched, self._see, before=True)
        if self._transformers:
            inner = network(self._watched)
            self.watch(inner, self._see_outputs)
            if criterion := criterion_of(inner):
                self.watch(criterion, self._transformers.see_criterion)

    def step(
        self, losses: Any, outputs: Any = None, targets: Any = None, images: Any = None
    ) -> None:
        """Count an optimizer step, or with ``accumulate=`` one batch of it.

        Args:
            losses: the loss dict of the batch, or one scalar, as before any division by the number
                of accumulated batches; tensors are read only when due.
            outputs: semantic models: the logits (N, C, H, W), or a dict with ``out``.
            targets: semantic models: the integer targets (N, H, W).
            images: how many images the step took (a number or a batch); by default those of the
                different batches that went through the model in train mode.
        """
        if self.run is None:
            self._size = self._size or size_of(images)
            self._begin()
        self._count_step(images, targets)
        self._calls = (self._calls + 1) % self._accumulate
        step = self._steps + (not self._calls)  # the batches before are of no step yet
        semantic = None if outputs is None or targets is None else lambda: (outputs, targets)
        if self._transformers and (seen := self._transformers.take(is_training=True)):
            losses = losses_of_batch(seen)
            if self._open[0].task == "semantic-segmentation":
                semantic = semantic or partial(self._transformers.read, seen)
        if semantic is None and self._open[0].task == "semantic-segmentation":
            what = "focal, cross_entropy and dice of the train split are not measured"
            self.warnings.warn_once("logits", f"{what}; pass outputs= and targets= to step()")
        epoch = self.epochs()
        self.record(losses, step, epoch=epoch, semantic=semantic)
        if not self._calls:
            before, self._epoch = self._epoch, int(epoch or 0)
            self.evaluate_what_is_due(step, self._epoch if self._epoch > before else None)

    def close(self, status: Status | None = None) -> None:
        """End the run; the ``with`` block does it by itself.

        Args:
            status: by default FINISHED, or that of the exception that is being handled.
        """
        with self._signals:
            self.stop(status or ended(sys.exception()))

    def predictor(self, model: Any, run: Run) -> Predict | None:
        """Of torchvision's detectors, and of networks that give logits."""
        if self._facts.loaders is None:
            return None
        if self._transformers:
            return self._transformers.forwarded
        return predictor(model, run, self._criterion, self.reader)

    def __enter__(self) -> Self:
        if self.run is not None and not self.run.is_open:  # used again: another training
            self.restart()
        if self.run is not None:
            return self
        self._watch()  # another callback may have been made since
        if self.options.identity is not None or has_fixed_input_size(self._watched):
            self._begin()
        else:  # the first batch states the input size
            self._raise_on_sigterm()
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

    def _end_with_process(self) -> None:
        """Close as the script ends well; otherwise the run ends with the process's error."""
        is_well = ended(last_error()) == "FINISHED"
        if os.getpid() == self._process and is_well and distributed.size() == 1:
            self.close("FINISHED")

    def stop(self, status: Status | None) -> None:
        """End the run, and remove the hooks."""
        atexit.unregister(self._end_with_process)
        super().stop(status)

    def _raise_on_sigterm(self) -> None:
        self._signals.close()
        self._signals.enter_context(sigterm_raises())
        self._signals.enter_context(exits_noted())

    def _begin(self) -> None:
        test_loader, train_loader = self._loaders
        label = ignored_label(network(self._watched), None)
        facts = Facts(
            size=self._size,
            loaders=test_loader,
            train_loader=train_loader,
            ignore_index=ignored_by(self._criterion) if self._criterion else label,
            settings={"accumulate": self._accumulate},
        )
        self._raise_on_sigterm()
        try:
            self.start(self._watched, self._optimizer, facts)
        except BaseException:
            self._signals.close()
            raise
        self._open[1].shows_bar = True
        if distributed.size() == 1:  # or other processes may be gone by then
            self._process = os.getpid()
            atexit.register(self._end_with_process)
        if self._transformers:
            self._transformers.begin(network(self._watched), self._open[0], None, self.ignore_index)
        self._epoch = int(self.epochs() or 0)

    def _see(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the batches of train mode: a forward of the same images or targets is no other."""
        if not model.training or not (args or kwargs) or self._is_evaluating:
            return
        batch = args if len(args) > 1 else (*args, *kwargs.values())
        batch = batch[0] if len(batch) == 1 else batch
        images, targets = self._read(batch)
        self._size = self._size or size_of(images)
        if self.run is None:  # so that what cannot be inferred is raised before the first step
            self._begin()
        if not any(_is_same(images, i) or _is_same(targets, t) for i, t, _ in self._forwards):
            self._forwards.append((images, targets, length(images)))
            self.saw(Pair(images, targets))

    def _read(self, batch: Any) -> tuple[Any, Any]:
        """The images and targets that a forward takes: a batch of the loader, or a part of it."""
        for reader in (self.reader, BatchReader()):
            with suppress(Exception):  # `batch=` is made for the loader's
                return reader.images(batch), reader.targets(batch)
        return None, None

    def _see_outputs(self, model: Any, args: Any, inputs: Any, outputs: Any) -> None:
        """Keep what a Transformers model gave for a batch in training."""
        if self._transformers and model.training and not self._is_evaluating:
            self._transformers.see(model, args, inputs, outputs, keeps_outputs=True)

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
