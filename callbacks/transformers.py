"""For Transformers' Trainer.

.. code-block:: python

    score = BoxscoreCallback(dataset="bccd", classes={0: "RBC", 1: "WBC"})
    Trainer(model, args, …, processing_class=processor, callbacks=[score]).train()

Losses and predictions are read from the model's own forwards, in training and in evaluation. The
metrics join the Trainer's: ``metric_for_best_model="box_AP"``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Self

from transformers import TrainerCallback

from boxscore.callbacks.reading.facts import Facts
from boxscore.callbacks.reading.model_info import has_fixed_input_size, size_of
from boxscore.exit_status import ended, sigterm_raises
from boxscore.identity.configs import processed
from boxscore.identity.models import Reading
from boxscore.logger import Status

from .base import CallbackBase
from .evaluator import Evaluator
from .huggingface import ignored_label, trainer_metrics
from .huggingface.forwards import Forward, Forwards, criterion_of, losses_of_batch
from .huggingface.losses import mean_losses
from .sharding import random_numbers_kept

STATE = "boxscore"
"""The entry of a checkpoint's ``trainer_state.json``, among the states of callbacks."""


class BoxscoreCallback(CallbackBase, TrainerCallback):
    """Logs the losses and metrics of a Transformers training, over optimizer steps.

    The test set is the Trainer's ``eval_dataset``, measured whenever the Trainer evaluates it, with
    ``evaluate_every=`` also every so many optimizer steps and at the end. Another
    ``metric_key_prefix=``, or `Trainer.predict` with labels, makes a further test set. Outside of a
    training, boxscore goes through the set once more. Callbacks that monitor a metric, such as
    ``EarlyStoppingCallback``, come after this one.

    The Trainer does not report exceptions to its callbacks: the run then ends when the process
    exits, or another training begins, or, in a notebook, by ``with BoxscoreCallback(…) as score:``.
    """

    status_if_not_closed: Status = "FAILED"
    always_evaluates = True
    _count = None  # the Trainer evaluates all images

    def restart(self) -> None:
        """Forget every training, but not a loaded checkpoint."""
        super().restart()
        self._forwards = Forwards(self.options.predict)
        self._batches: list[list[Forward]] = []  # since the last optimizer step
        self._trainer: dict[str, Any] = {}  # what the Trainer gives its callbacks
        self._loader: Any = None  # of the evaluation under way
        self._is_evaluation_due = self._is_train_due = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin, unless the first batch is needed for the input size."""
        model = kwargs["model"]
        for owner in (self, *(getattr(hook, "owner", 0) for hook in model._forward_hooks.values())):
            if isinstance(owner, BoxscoreCallback):
                owner.stop("FAILED")  # an exception ended its training
        self.restart()
        if earlier := state.stateful_callbacks.get(STATE):
            self.load_state_dict(earlier)
        self._trainer = {"args": args, "state": state, **kwargs}
        self._stack.enter_context(sigterm_raises())
        watched = {model: self._see, criterion_of(model): self._forwards.see_criterion}
        for module in watched.keys() - {None}:
            self.watch(module, watched[module], is_compiled=args.torch_compile)
        if args.eval_strategy == "no" and "evaluate_every" not in self._given:
            text = "nothing is evaluated: pass eval_strategy= to the Trainer, or evaluate_every="
            self.warnings.warn_once("never", text)
        self._begin()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget forwards that are not the Trainer's."""
        self._forwards.take(is_training=True)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take a batch whose gradients are accumulated."""
        if batch := self._forwards.take(is_training=True):
            if self.run is None:
                self._begin(batch[0].pixels)
            self.saw(*(one.inputs for one in batch))
            self._batches.append(batch)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the batches of an optimizer step, and request what is due."""
        self.on_substep_end(args, state, control)
        batches, self._batches = self._batches, []
        if batches:
            losses, last = mean_losses([(losses_of_batch(b), 1) for b in batches]), batches[-1]
            is_semantic = self._open[0].task == "semantic-segmentation" and last[0].outputs
            semantic = partial(self._forwards.read, last) if is_semantic else None
            self.record(losses, state.global_step, epoch=state.epoch, semantic=semantic)
        else:
            self.warnings.warn_once("forward", f"a step is not logged: {self._forwards.reason}")
        self._request(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request what is due after an epoch, unless it was not finished."""
        if state.epoch == round(state.epoch or 0):
            self._request(state, control, epoch=round(state.epoch))

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure one batch of an evaluation; the first one of a prediction may have no labels."""
        batch, loader = self._forwards.take(is_training=False), kwargs["eval_dataloader"]
        if (evaluator := self._active) and batch and loader is not self._loader:
            self._loader = loader
            evaluator.start("test", loader)
        if evaluator and evaluator.is_open("test"):
            images = {"pixel_values": [image for one in batch for image in one.pixels]}
            evaluator.batch("test", images, partial(self._forwards.found, batch))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the results of an evaluation, and add them to the Trainer's metrics."""
        split = self._finish({"args": args, **kwargs})
        if self._active is not None:
            self._active.loaders.setdefault(split, kwargs["eval_dataloader"])
            if self._is_train_due:
                self.evaluate_train()
            state.stateful_callbacks[STATE] = self.state_dict()

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        """Log the results of a prediction with labels."""
        if any(name.endswith("_loss") for name in metrics):
            self._finish({"args": args, "metrics": metrics, **kwargs})
        elif self._active:
            self._active.drop()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run."""
        self.stop("FINISHED")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.stop(ended(error))

    def evaluate(self, split: str | None = None) -> None:
        """Have the Trainer evaluate after this step."""
        self._is_evaluation_due = True

    def evaluate_train(self) -> None:
        """Measure a stable subset of the train set, as soon as the test set's size is known."""
        self._is_train_due = self.evaluator is not None and not self.evaluator.loaders
        if not self._is_train_due:
            super().evaluate_train()

    def _request(self, state: Any, control: Any, epoch: int | None = None) -> None:
        if self.run is None:
            return
        self.evaluate_what_is_due(state.global_step, epoch)
        if "evaluate_every" in self._given and state.global_step >= state.max_steps and not epoch:
            self.evaluate()
        control.should_evaluate |= self._is_evaluation_due
        self._is_evaluation_due = False
        if control.should_save or control.should_evaluate:
            state.stateful_callbacks[STATE] = self.state_dict()

    @property
    def _active(self) -> Evaluator | None:
        """The evaluator of a training, None outside of one."""
        return self.evaluator if self.run is not None and self.run.is_open else None

    def _begin(self, images: Any = None, *, is_logged: bool = True) -> None:
        """Open the run, where the input size is known without ``images`` or from them."""
        given, processor = self._trainer, self._trainer.get("processing_class")
        model, made = given["model"], processed(processor)
        if images is None and not (made or self.options.identity or has_fixed_input_size(model)):
            return
        facts = Facts(
            size=Reading(made, "the image processor") if made else size_of(images),
            ignore_index=ignored_label(model, processor),
            train_loader=given.get("train_dataloader"),
            settings=trainer_metrics.settings_of(given["args"], given.get("state")),
            evaluates=True,
            evaluates_at_end=not given["args"].load_best_model_at_end,  # else with its weights
        )
        optimizer = getattr(given["optimizer"], "optimizer", given["optimizer"])
        try:
            run = self.start(model, optimizer, facts, is_logged=is_logged)
        except BaseException:  # the hooks must not stay on the model
            self.stop("FAILED")
            raise
        self._forwards.begin(model, run, processor, self.ignore_index)
        self._open[1].predict = self.options.predict or self._forwards.forwarded

    def _finish(self, given: dict[str, Any]) -> str:
        """End an evaluation, and add its results to the Trainer's metrics; gives the split."""
        metrics, split, values = given["metrics"], trainer_metrics.split_of(given["metrics"]), {}
        if (evaluator := self._active) and evaluator.is_open("test"):
            values, self._loader = evaluator.finish("test", record_as=split), None
        elif evaluator:
            self.warnings.warn_once(split, f"{split} is not measured: {self._forwards.reason}")
        else:
            with self.warnings.catch("evaluation outside of the training"):
                values = self._measure_again(split, given)
        trainer_metrics.add(values, metrics, given["args"].metric_for_best_model, self.warnings)
        return split

    def _measure_again(self, split: str, given: dict[str, Any]) -> dict[str, float]:
        """The metrics of an evaluation outside of a training, by a second pass over its set."""
        model, loader = given["model"], given["eval_dataloader"]
        if self.run is None or model is not self._model:
            self.restart()
            self._trainer = given
            self.warnings.warn_once("before", "metrics before train() are returned, not logged")
            with random_numbers_kept(loader):
                self._begin(next(iter(loader)), is_logged=False)
        self.reopen()
        try:
            return self._open[1].run(split, loader, model)
        finally:
            self.stop(None)

    def _see(self, model: Any, args: Any, inputs: Any, outputs: Any) -> None:
        """Keep a forward of the Trainer's, with its outputs where they are needed."""
        is_due = self.run is None or self.run.due(self._trainer["state"].global_step + 1)
        is_own = self.evaluator is not None and self.evaluator.runs_model
        keeps = None if is_own else is_due or not model.training
        self._forwards.see(model, args, inputs, outputs, keeps_outputs=keeps)
