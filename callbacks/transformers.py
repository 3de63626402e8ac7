"""For Transformers' Trainer.

.. code-block:: python

    score = BoxscoreCallback(dataset="bccd", classes={0: "RBC", 1: "WBC"})
    Trainer(model, args, …, processing_class=processor, callbacks=[score]).train()

Losses and predictions are read from the model's own forwards, in training and in evaluation. The
metrics join the Trainer's: ``metric_for_best_model="box_AP"``.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import partial
from math import nan
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from transformers import TrainerCallback

from boxscore import CATALOGUE, Run
from boxscore.exit_status import ended, sigterm_raises
from boxscore.identity.configs import processed
from boxscore.identity.models import Reading
from boxscore.keys import further_split
from boxscore.logger import Status

from .base import CallbackBase, Facts
from .frames import moved
from .huggingface import forwards, ignored_label, read
from .huggingface.losses import mean_losses
from .model_info import has_fixed_input_size, size_of
from .predict import Found, Predict
from .sharding import random_numbers_kept

STATE = "boxscore"
"""The entry of a checkpoint's ``trainer_state.json``, among the states of callbacks."""

WATCHED: MutableMapping[Any, BoxscoreCallback] = WeakKeyDictionary()
"""The callback that watches a model: an interrupted training may have left one."""


class BoxscoreCallback(CallbackBase, TrainerCallback):
    """Logs the losses and metrics of a Transformers training, over optimizer steps.

    The test set is the Trainer's ``eval_dataset``, measured whenever the Trainer evaluates it; with
    ``evaluate_every=`` the Trainer, which then needs one, evaluates every so many optimizer steps
    and at the end. An evaluation with another ``metric_key_prefix=``, or `Trainer.predict` with
    labels, measures a further test set. Outside of a training, boxscore goes through the set once
    more. Callbacks that monitor a metric, such as ``EarlyStoppingCallback``, come after this one.

    The Trainer does not report exceptions to its callbacks: the run then ends when the process
    exits, or another training begins, or, in a notebook, by ``with BoxscoreCallback(…) as score:``.
    """

    status_if_not_closed: Status = "FAILED"
    _count = None  # the Trainer evaluates all images

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        super().restart()
        self._forwards = forwards.Forwards(needs_loss=self.options.predict is None)
        self._batches: list[list[forwards.Forward]] = []  # since the last optimizer step
        self._trainer: dict[str, Any] = {}  # what the Trainer gives its callbacks
        self._loader: Any = None  # of the evaluation under way
        self._is_evaluation_due = self._is_train_due = False

    # the Trainer's hooks

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin, unless the first batch is needed for the input size."""
        model = kwargs["model"]
        for callback in (self, WATCHED.get(model, self)):
            callback.stop("FAILED")  # an exception ended that training
        self.restart()
        if earlier := state.stateful_callbacks.get(STATE):
            self.load_state_dict(earlier)
        self._trainer = {"args": args, "state": state, **kwargs}
        WATCHED[model] = self
        self._stack.callback(WATCHED.pop, model, None)
        self._stack.enter_context(sigterm_raises())
        self.watch(model, self._see, is_compiled=args.torch_compile)
        if criterion := forwards.criterion_of(model):
            self.watch(criterion, self._see_criterion, is_compiled=args.torch_compile)
        if args.eval_strategy == "no" and "evaluate_every" not in self._given:
            text = "nothing is evaluated: pass eval_strategy= to the Trainer, or evaluate_every="
            self.warnings.warn_once("never", text)
        if self.options.evaluate_images is not None:
            text = "evaluate_images= has no effect on the Trainer's evaluations"
            self.warnings.warn_once("evaluate_images", f"{text}; give it a smaller eval_dataset")
        if self._is_size_known:
            self._begin()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take a batch whose gradients are accumulated."""
        if batch := self._forwards.take():
            if self.run is None:
                self._begin(batch[0].pixels)
            ids = [image_id for one in batch for image_id in self.reader.ids(one.inputs)]
            self.saw(sum(len(forward.pixels) for forward in batch), ids)
            self._batches.append(batch)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the batches of an optimizer step, and request what is due."""
        self.on_substep_end(args, state, control)
        batches, self._batches = self._batches, []
        if batches:
            losses = mean_losses([(forwards.losses_of_batch(batch), 1) for batch in batches])
            last, semantic = batches[-1], None
            if self._open[0].task == "semantic-segmentation" and last[0].outputs is not None:
                semantic = partial(forwards.logits_of_batch, self._model, last, self._read)
            self.record(losses, state.global_step, epoch=state.epoch, semantic=semantic)
        else:
            self.warnings.warn_once("forward", f"a step is not logged: {self._forwards.reason}")
        if self.run is not None:
            self.evaluate_what_is_due(state.global_step)
            if "evaluate_every" in self._given and state.global_step >= state.max_steps:
                self.evaluate()
            self._request(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Request what is due after an epoch, unless it was not finished."""
        if self.run is not None and state.epoch == round(state.epoch or 0):
            self.evaluate_what_is_due(state.global_step, round(state.epoch))
            self._request(state, control)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure one batch of an evaluation."""
        batch, loader = self._forwards.take(newest=True), kwargs.get("eval_dataloader")
        if self.evaluator is None or not self._is_training:
            return
        if batch and not (self.evaluator.is_open("test") and loader is self._loader):
            self._loader = loader
            self.evaluator.start("test", loader)
        for forward in batch:
            self.evaluator.batch("test", forward.inputs, partial(self._found, forward))
        if not batch and self.evaluator.is_open("test"):
            self.evaluator.batch("test", {}, self._missing)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the results of an evaluation, and add them to the Trainer's metrics."""
        split = self._finish({"args": args, **kwargs})
        if self.evaluator is not None and self._is_training:
            self.evaluator.loaders.setdefault(split, kwargs["eval_dataloader"])
            if self._is_train_due:
                self.evaluate_train()
            state.stateful_callbacks[STATE] = self.state_dict()

    def on_predict(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the results of a prediction with labels."""
        if any(name.endswith("_loss") for name in kwargs["metrics"]):
            self._finish({"args": args, **kwargs})
        elif self.evaluator is not None:
            self.evaluator.drop()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run."""
        self.stop("FINISHED")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.stop(ended(error))

    # what is due

    def evaluate(self, split: str | None = None) -> None:
        """Have the Trainer evaluate after this step."""
        self._is_evaluation_due = True

    def evaluate_train(self) -> None:
        """Measure a stable subset of the train set, as soon as the test set's size is known."""
        self._is_train_due = self.evaluator is not None and not self.evaluator.loaders
        if not self._is_train_due:
            super().evaluate_train()

    def _request(self, state: Any, control: Any) -> None:
        control.should_evaluate |= self._is_evaluation_due
        self._is_evaluation_due = False
        if control.should_save or control.should_evaluate:
            state.stateful_callbacks[STATE] = self.state_dict()

    # the run and its evaluations

    @property
    def _is_training(self) -> bool:
        return self.run is not None and self.run.is_open

    @property
    def _is_size_known(self) -> bool:
        processor, model = self._trainer.get("processing_class"), self._trainer["model"]
        return bool(self.options.identity or processed(processor) or has_fixed_input_size(model))

    def _begin(self, images: Any = None, *, is_logged: bool = True) -> None:
        given, made = self._trainer, processed(self._trainer.get("processing_class"))
        optimizer = given.get("optimizer") if is_logged else None
        facts = Facts(
            size=Reading(made, "the image processor") if made else size_of(images),
            ignore_index=ignored_label(given["model"], given.get("processing_class")),
            train_loader=given.get("train_dataloader"),
            evaluates=True,
            # with the best model loaded at the end, the weights are of another step
            evaluates_at_end=not given["args"].load_best_model_at_end,
        )
        try:
            optimizer = getattr(optimizer, "optimizer", optimizer)
            self.start(given["model"], optimizer, facts, is_logged=is_logged)
        except BaseException:  # the hooks must not stay on the model
            self.stop("FAILED")
            raise

    def predictor(self, model: Any, run: Run) -> Predict:
        """By a forward of the model."""
        return lambda model, batch: forwards.forwarded(model, batch, self._read)

    def _finish(self, given: dict[str, Any]) -> str:
        """End an evaluation, and add its results to the Trainer's ``metrics``; gives the split."""
        metrics, values = given["metrics"], {}
        prefix = next(
            (k.removesuffix("_runtime") for k in metrics if k.endswith("_runtime")), "eval"
        )
        name = prefix.removeprefix("eval").strip("_")
        split = further_split(name) if name else "test"
        if self.evaluator is not None and self.evaluator.is_open("test"):
            values = self.evaluator.finish("test", record_as=split)
        elif self._is_training:
            text = f"the {split} split is not measured: {self._forwards.reason}"
            self.warnings.warn_once("no forward", text)
        else:
            with self.warnings.catch("evaluation outside of the training"):
                values = self._measure_again(split, given)
        named = {f"{prefix}_{measure}": value for measure, value in values.items()}
        if taken := sorted(named.keys() & metrics.keys()):
            text = f"{', '.join(taken)}: the values of compute_metrics stay"
            self.warnings.warn_once("taken", text)
        metrics.update({**named, **metrics})
        wanted = (given["args"].metric_for_best_model or "").removeprefix("eval_")
        if wanted in CATALOGUE:  # the Trainer needs it, also where it is undefined
            metrics.setdefault(f"{prefix}_{wanted}", nan)
        return split

    def _measure_again(self, split: str, given: dict[str, Any]) -> dict[str, float]:
        """The metrics of an evaluation outside of a training, by a second pass over its set."""
        loader = given["eval_dataloader"]
        if self.run is None or given["model"] is not self._model:
            self.restart()
            self._trainer = given
            text = "metrics before train() are returned, but not logged; they are from train() on"
            self.warnings.warn_once("before", text)
            with random_numbers_kept(loader):
                self._begin(None if self._is_size_known else next(iter(loader)), is_logged=False)
        self.reopen()
        try:
            return self._open[1].run(split, loader, given["model"])
        finally:
            self.stop(None)

    # the model's forwards

    def _see(self, *given: Any) -> None:
        """Keep a forward of the Trainer's, with its outputs where they are needed."""
        model, run = given[0], self.run
        if self.evaluator is None or not self.evaluator.runs_model:
            step = self._trainer["state"].global_step + 1
            is_due = run is None or (run.task == "semantic-segmentation" and run.due(step))
            self._forwards.see(*given, keeps_outputs=is_due or not model.training)

    def _see_criterion(self, *given: Any) -> None:
        if self.evaluator is None or not self.evaluator.runs_model:
            self._forwards.see_criterion(*given)

    def _read(self, model: Any, inputs: Any, outputs: Any) -> tuple[Any, Any]:
        run, processor = self._open[0], self._trainer.get("processing_class")
        told = {"task": run.task, "labels": list(run.names), "ignore_index": self.ignore_index}
        return read(model, inputs, outputs, processor=processor, **told)

    @torch.no_grad()
    def _found(self, forward: forwards.Forward, _: Any) -> Found:
        """What a forward of the Trainer's evaluation gave; sampled losses are computed anew."""
        predict = self._open[1].predict
        if predict is not None and (self.options.predict or forwards.is_sampled(self._model)):
            device = next(self._model.parameters()).device
            return predict(self._model, moved(forward.inputs, device))
        return forward.losses, *self._read(self._model, forward.inputs, forward.outputs)

    def _missing(self, _: Any) -> Found:
        raise ValueError(self._forwards.reason)
