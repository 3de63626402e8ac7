"""For Transformers' Trainer.

.. code-block:: python

    score = BoxscoreCallback(dataset="bccd", classes={0: "RBC", 1: "WBC"})
    Trainer(model, args, …, processing_class=processor, callbacks=[score]).train()

Losses and predictions are read off the model's own forwards, in training and in evaluation. The
figures join the Trainer's: ``metric_for_best_model="box_AP"``.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import ExitStack
from math import nan
from types import TracebackType
from typing import Any, Self, Unpack
from weakref import WeakKeyDictionary

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from boxscore import CATALOGUE, Every, Run
from boxscore.evaluation import Evaluation
from boxscore.exit_status import ended, sigterm_raises
from boxscore.identity.configs import processed
from boxscore.identity.models import Reading
from boxscore.identity.wrappers import unwrapped
from boxscore.keys import legal
from boxscore.logger import Status

from .base import Scorekeeper
from .huggingface import losses_of, read
from .model_info import has_fixed_input_size, size_of
from .options import Keywords
from .predict import Found, Predict
from .sharding import ids_of, own_images

STATE = "boxscore"
"""Where a checkpoint's ``trainer_state.json`` keeps ours, among the states of callbacks."""


WATCHED: MutableMapping[Any, Any] = WeakKeyDictionary()
"""Which callback watches a model: an interrupted training may have left one."""


class BoxscoreCallback(Scorekeeper, TrainerCallback):
    """Logs the losses and metrics of a Transformers training, over optimizer steps.

    The test set is the Trainer's ``eval_dataset``, measured whenever the Trainer evaluates it; with
    ``evaluate_every=`` the Trainer, which then needs one, is asked to every so many optimizer steps
    and at the end.
    Callbacks that watch a figure, such as ``EarlyStoppingCallback``, come after this one.

    The Trainer does not tell its callbacks of an exception: the run is then ended when the process
    exits, or another training begins, or, in a notebook, by ``with BoxscoreCallback(…) as score:``.
    """

    left_open = "FAILED"

    def __init__(self, **options: Unpack[Keywords]) -> None:
        """Say what is wanted.

        Args:
            **options: see `boxscore.callbacks.options.Options`.
        """
        super().__init__(**options)
        self._asks = "evaluate_every" in options
        if not self._asks:
            self._evaluate_every = Every()
        self._stack = ExitStack()
        self._forget()

    def _forget(self) -> None:
        self._watched: tuple[Any, Any, Any, Any] = (None, None, None, None)
        self._state: Any = None
        self._criterion_saw: list[Mapping[str, Any]] = []
        self._batches: list[tuple[dict[str, Any], Any, Any]] = []
        self._forward: tuple[Mapping[str, Any], Any, Any] | None = None
        self._evaluation: Evaluation | None = None
        self._left: int | None = None
        self._wanted = self._train_wanted = False

    # the Trainer's hooks

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin, unless the first batch is needed to know the input size."""
        self._end("FAILED")  # what an exception left
        self.restart()
        if earlier := _states(state).get(STATE):
            self.load_state_dict(earlier)
        model = unwrapped(kwargs["model"])
        if model in WATCHED:  # by another callback, which an exception in a notebook left
            WATCHED[model]._end("FAILED")
        WATCHED[model] = self
        self._stack.callback(WATCHED.pop, model, None)
        optimizer = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        processor = kwargs.get("processing_class")
        self._watched = model, optimizer, processor, kwargs.get("train_dataloader")
        self._state = state
        self._stack.enter_context(sigterm_raises())
        for hook in (
            model.register_forward_hook(self._see, with_kwargs=True),
            *(c.register_forward_hook(self._see_criterion) for c in _criteria(model)),
        ):
            self._stack.callback(hook.remove)
        size = processed(processor) if processor is not None else ""
        if size:
            self._open(Reading(size, "the image processor"))
        elif self.options.identity is not None or has_fixed_input_size(model):
            self._open(None)
        self._evaluates_at_end = not args.load_best_model_at_end  # else it has other weights then
        if not self._asks and args.eval_strategy == IntervalStrategy.NO:
            self._warnings.warn_once(
                "never",
                "nothing is evaluated: pass eval_strategy= to the Trainer, or evaluate_every=",
            )
        if self._images is not None:
            self._images = None
            self._warnings.warn_once(
                "evaluate_images", "evaluate_images= has no effect on the Trainer's evaluations; "
                "give it a smaller eval_dataset",
            )  # fmt: skip

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take in a batch that the optimizer has not stepped for yet."""
        self._record(state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take in the batch that an optimizer step ends with; ask for what is due."""
        if self.run is None:
            self._warnings.warn_once(
                "forward", "no forward of the model took pixel_values=, so that nothing is logged"
            )
            return
        self._state = state
        self._record(state.global_step)
        with self._warnings.catch("what follows a step"):
            self.evaluate_what_is_due(state.global_step)
        if self._asks and state.global_step >= state.max_steps:
            self._wanted = True  # at the end too
        self._ask(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Ask for what is due after an epoch."""
        if self.run is None:
            return
        epochs = state.epoch or 0.0
        with self._warnings.catch("what follows an epoch"):
            if epochs == round(epochs):  # else it was broken off
                self.evaluate_what_is_due(state.global_step, round(epochs))
        self._ask(state, control)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure one batch of an evaluation."""
        forward, self._forward = self._forward, None
        if self.run is None or forward is None:
            return
        inputs, outputs, loss = forward
        loader = kwargs.get("eval_dataloader")
        evaluation = self._begun(loader)
        images = len(inputs["pixel_values"])
        self._evaluating = True
        try:
            with torch.no_grad():
                found = self._found(inputs, outputs, loss)
            self.measure(evaluation, *found, keep=self._left)
        except Exception as error:
            evaluation.give_up(images)
            if self.options.on_error == "raise":
                raise
            self._warnings.count_error("measuring a batch of the test split", error)
        finally:
            self._evaluating = False
        self._left = None if self._left is None else max(0, self._left - images)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log what an evaluation gave, and add it to the Trainer's metrics."""
        if self.run is None or not self.run.is_open or metrics is None:
            return
        prefix = next((k[: -len("_runtime")] for k in metrics if k.endswith("_runtime")), "eval")
        name = prefix.removeprefix("eval").strip("_")
        split = f"test-{legal(name)}" if name else "test"
        loader = kwargs.get("eval_dataloader")
        evaluation, self._evaluation = self._begun(loader), None
        if not self._loaders:
            self.run.main = split
        self._loaders[split] = loader
        evaluation.split = split
        with self._warnings.catch(f"evaluation of the {split} split"):
            evaluation.conclude()
        self.remark_on(evaluation, evaluation.seconds)
        self._evaluated_at = self.run.step
        self._join(metrics, prefix, evaluation.measured, args.metric_for_best_model)
        if self._train_wanted:
            self.evaluate_train()
        _states(state)[STATE] = self.state_dict()

    def _join(
        self, metrics: dict[str, float], prefix: str, found: dict[str, float], best: str | None
    ) -> None:
        """Add what was ``found`` to the Trainer's metrics, whose own values stay."""
        named = {f"{prefix}_{name}": value for name, value in found.items()}
        if taken := sorted(named.keys() & metrics.keys()):
            self._warnings.warn_once(
                "taken", f"{', '.join(taken)}: the values of compute_metrics stay"
            )
        metrics.update({name: value for name, value in named.items() if name not in metrics})
        wanted = (best or "").removeprefix("eval_")
        if wanted in CATALOGUE:  # which the Trainer cannot do without, where it is undefined too
            metrics.setdefault(f"{prefix}_{wanted}", nan)

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Forget what `Trainer.predict` went through: it is no evaluation."""
        self._evaluation = None

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run."""
        self._end("FINISHED")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(ended(error))

    # what they share

    def _open(self, size: Reading | None) -> Run:
        model, optimizer, _, train_loader = self._watched
        try:
            return self.begin(model, optimizer, None, train_loader, size=size)
        except BaseException:  # the model must not go on being watched
            self._end("FAILED")
            raise

    def _end(self, status: Status) -> None:
        try:
            if self.run is not None and self.run.is_open:
                self._evaluation = None
                self.finish(status)
        finally:
            self._stack.close()
            self._forget()

    def _see(self, model: Any, args: Any, inputs: dict[str, Any], outputs: Any) -> None:
        """Keep what a forward gave: in training its losses, in an evaluation all of it."""
        if self._evaluating or "pixel_values" not in inputs:
            return
        if self.run is None:
            self._open(size_of(inputs["pixel_values"]))
        seen, self._criterion_saw = self._criterion_saw, []
        if not model.training:
            loss = getattr(outputs, "loss", None)  # the Trainer multiplies it in place
            self._forward = inputs, outputs, None if loss is None else loss.clone()
            return
        labels = inputs.get("labels")
        ids = ids_of(labels) if isinstance(labels, list) else ()
        self._progress.saw(len(inputs["pixel_values"]), ids)
        with self._warnings.catch("reading the losses of a step"):
            losses = losses_of(model, outputs, seen or None)
            logits = None
            due = self._known_run.due(self._state.global_step + 1)
            if due and self._known_run.task == "semantic-segmentation":
                logits, labels = self._read(inputs, outputs)
            self._batches.append((losses, logits, labels))

    def _see_criterion(self, criterion: Any, args: Any, losses: Any) -> None:
        if isinstance(losses, Mapping):
            self._criterion_saw.append(losses)

    def _record(self, step: int) -> None:
        batches, self._batches = self._batches, []
        for losses, logits, labels in batches:
            self.record(losses, step, outputs=logits, targets=labels)

    def _epoch(self) -> float | None:
        return None if self._state is None else self._state.epoch

    def evaluate(self, split: str | None = None) -> None:
        """Have the Trainer evaluate after this step; once it has ended, do it here."""
        if self._is_ending:
            super().evaluate(split)
        else:
            self._wanted = True

    def evaluate_train(self) -> None:
        """Measure a stable subset of the train set, as soon as the test set's size is known."""
        self._train_wanted = not self._loaders or self._evaluation is not None
        if not self._train_wanted:
            super().evaluate_train()

    def _ask(self, state: TrainerState, control: TrainerControl) -> None:
        control.should_evaluate |= self._wanted
        self._wanted = False
        if control.should_save or control.should_evaluate:
            _states(state)[STATE] = self.state_dict()

    def _begun(self, loader: Any) -> Evaluation:
        """The evaluation that is under way; which split it is of is known at its end."""
        if self._evaluation is None:
            self._evaluation = self._known_run.evaluation("test")
            self._left = own_images(loader)
        return self._evaluation

    def _read(self, inputs: Mapping[str, Any], outputs: Any) -> tuple[Any, Any]:
        model, _, processor, _ = self._watched
        return read(
            model,
            inputs,
            outputs,
            task=self._known_run.task,
            labels=list(self._known_run.names),
            processor=processor,
            ignore_index=self.options.ignore_index,
        )

    def _found(self, inputs: Mapping[str, Any], outputs: Any, loss: Any) -> Found:
        """What one batch of the Trainer's evaluation holds."""
        model = self._watched[0]
        assert self._predict is not None
        if self.options.predict is not None or _is_sampled(model):
            return self._predict(model, inputs)
        return {**losses_of(model, outputs), "loss": loss}, *self._read(inputs, outputs)

    def _predictor(self, model: Any, run: Run) -> Predict:
        """How to measure a batch in an evaluation that is not the Trainer's."""
        return self._forwarded

    def _forwarded(self, model: Any, batch: Any) -> Found:
        """What a forward of our own gives, from the same random numbers each time."""
        inputs = _moved(batch, next(model.parameters()).device)
        self._criterion_saw = []
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(0)
            outputs = model(**inputs)
        seen, self._criterion_saw = self._criterion_saw, []
        return losses_of(model, outputs, seen or None), *self._read(inputs, outputs)


def _states(state: Any) -> dict[str, Any]:
    """What a checkpoint keeps of the callbacks, by name."""
    return state.stateful_callbacks  # type: ignore[no-any-return]


def _criteria(model: Any) -> list[torch.nn.Module]:
    """The module that computes the losses of Mask2Former and its kin, if there is one."""
    criterion = getattr(model, "criterion", None)
    return [criterion] if isinstance(criterion, torch.nn.Module) else []


def _is_sampled(model: Any) -> bool:
    """Whether losses are of points that are drawn anew in each forward, as Mask2Former's."""
    return bool(_criteria(model)) and hasattr(model.config, "train_num_points")


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    return [_moved(item, device) for item in value] if isinstance(value, list) else value
