"""For Ultralytics' trainers.

.. code-block:: python

    model = YOLO("yolo11n.yaml")
    score = BoxscoreCallback().attach(model)
    model.train(data="bccd.yaml", epochs=100)

Task, classes, data set and input size are those of the training. The losses are the trainer's, with
its gains. The test set is the trainer's validation set, measured with the predictions of its
validator, of the averaged weights that it saves, in the frame of the original images.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Self

from boxscore import distributed
from boxscore.exit_status import ended, sigterm_raises
from boxscore.keys import progress
from boxscore.logger import Status
from boxscore.records import Point

from .base import CallbackBase
from .requires import require

require("ultralytics", "ultralytics>=8.4")

from boxscore.callbacks.reading.ultralytics_validation import (  # noqa: E402
    DIFFERENCE,
    Reader,
    Validation,
    facts_of,
    other_trackers,
    own_metrics,
    plain_loader,
    remarks,
    train_losses,
    two_classes,
)

EVENTS = (
    "on_pretrain_routine_end",
    "on_train_epoch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_val_start",
    "on_val_end",
    "teardown",
)

STATE = "boxscore"
"""The entry of a checkpoint, in the first parameter group of its optimizer."""


class BoxscoreCallback(CallbackBase):
    """Logs the losses and metrics of an Ultralytics training, over optimizer steps.

    The test set is measured whenever the trainer validates, or with ``evaluate_every=`` every so
    many optimizer steps and at the end. Ultralytics' own metrics are logged beside whenever it
    validates, as ``progress/ultralytics_…``.

    Checkpoints hold the run's state: ``model.train(resume=True)`` with a callback of the same
    options continues the run. Ultralytics trains on several GPUs in processes that it starts with
    copies of the callback: `latest` and `best` of the script's own callback stay empty then.

    The trainer has no event for optimizer steps, checkpoints and predictions: methods of the
    trainer and of its validator are wrapped until the training ends.
    """

    status_if_not_closed: Status = "FAILED"
    reader = Reader()

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        super().restart()
        self._trainer: Any = None
        self._validation: Any = None
        self._error_before: BaseException | None = None  # that was handled as the training began
        self._made = 0  # optimizer steps
        self._batches = 0  # of the epoch
        self._batch: Any = None  # the last one
        self._outputs: Any = None  # of a semantic model for it, where a point is due
        self._plain_loaders: dict[str, Any] = {}  # by Ultralytics' split
        self._is_told = False

    def attach(self, model: Any) -> Self:
        """Measure the trainings of ``model``, a `YOLO` or `RTDETR`, or of one trainer.

        Returns:
            the callback.
        """
        for event in EVENTS:
            if (see := getattr(self, event)) not in model.callbacks[event]:
                model.add_callback(event, see)
        return self

    # the beginning and the end

    def on_pretrain_routine_end(self, trainer: Any) -> None:
        """Open the run, or continue that of the checkpoint."""
        self.stop("FAILED")
        self.restart()
        self._trainer, self._error_before = trainer, sys.exception()
        if state := trainer.optimizer.param_groups[0].pop(STATE, None):
            self.load_state_dict(state)
        elif trainer.resume:
            text = "the checkpoint has no state of boxscore: a new run begins, its steps from 0"
            self.warnings.warn_once("resume", text)
        self._stack.enter_context(sigterm_raises())
        self.start(trainer.model, trainer.optimizer, facts_of(trainer, self._test_set()))
        self._made = self._steps
        self._validation = Validation(trainer, self._open[0], self.options.predict)
        self._open[1].predict = self._validation.predict
        self._wrap(trainer, "preprocess_batch", self._see_batch)
        self._wrap(trainer, "optimizer_step", self._count_step)
        self._wrap(trainer, "save_model", self._save_state)
        self._wrap(trainer, "final_eval", self._evaluate_last)
        if self._follows:
            validator = trainer.validator
            self._wrap(validator, "postprocess", partial(self._validation.see, validator))
            self._wrap(validator, "update_metrics", self._see_predictions)
            self._wrap(validator, "gather_stats", self._finish)
        if self._validation.is_semantic:
            head = self._validation.network.model[-1]
            self.watch(head, self._see_outputs, is_compiled=bool(trainer.args.compile))
        for text in remarks(self._validation.network) if distributed.rank() == 0 else ():
            print(f"boxscore: {text}", file=sys.stderr)
        for text in other_trackers(trainer, self.options):
            self.warnings.warn_once(text, text)

    def teardown(self, trainer: Any) -> None:
        """End the run as the training ended."""
        if trainer is self._trainer:
            error = sys.exception()
            self.stop(ended(None if error is self._error_before else error))

    def _wrap(self, owner: Any, name: str, call: Callable[..., Any]) -> None:
        """Until the training ends call ``call(method, …)`` in place of a method of ``owner``."""
        setattr(owner, name, partial(call, getattr(owner, name)))
        self._stack.callback(vars(owner).pop, name, None)

    def _save_state(self, save: Callable[[], Any]) -> Any:
        """Have the checkpoint hold the state of the run."""
        group = self._trainer.optimizer.param_groups[0]
        with self.warnings.catch("the state of the run"):
            group[STATE] = self.state_dict()
        try:
            return save()
        finally:
            group.pop(STATE, None)

    # the train split

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Take the loaders, which are others after an epoch in which memory was short."""
        self._batches = 0
        if self._open[1].train_loader is not trainer.train_loader:
            self._plain_loaders.clear()
            with self.warnings.catch("the loaders after memory was short"):
                self._open[1].train_loader = trainer.train_loader
                self.take_loaders(self._test_set())

    def on_train_batch_end(self, trainer: Any) -> None:
        """Record the losses of a batch; several may make an optimizer step."""
        self._batches += 1
        self.saw(self._batch)
        losses: dict[str, Any] = {}
        with self.warnings.catch("reading the losses of a step"):
            losses = train_losses(trainer, self.reader.count(self._batch))
        semantic = partial(self._logits, self._batch, self._outputs) if self._outputs else None
        self.record(losses, self._made, semantic=semantic)
        self._batch = self._outputs = None
        self.evaluate_what_is_due(self._made)

    def on_train_epoch_end(self, trainer: Any) -> None:
        """Evaluate what is due after an epoch."""
        self.evaluate_what_is_due(self._made, trainer.epoch + 1)

    def epochs(self) -> float | None:
        """How many epochs have passed."""
        if self._trainer is None:
            return None
        return float(self._trainer.epoch + self._batches / len(self._trainer.train_loader))

    def _see_batch(self, preprocess: Callable[[Any], Any], batch: Any) -> Any:
        self._batch = preprocess(batch)
        return self._batch

    def _see_outputs(self, module: Any, args: Any, inputs: Any, outputs: Any) -> None:
        """Keep what a semantic model gave for a batch for which a point is due."""
        if module.training and self._open[0].due(self._made + 1):
            self._outputs = outputs if isinstance(outputs, tuple) else (outputs,)

    def _logits(self, batch: Any, outputs: Any) -> tuple[Any, Any]:
        return two_classes(outputs[0]), batch["semantic_mask"]

    def _count_step(self, make_step: Callable[[], None]) -> None:
        make_step()
        self._made += 1

    # evaluations by the trainer

    def on_val_start(self, validator: Any) -> None:
        """Begin to evaluate the test set, but not with the best weights after the training."""
        trainer = self._trainer
        if trainer and self._follows and validator is trainer.validator and validator.training:
            self._open[1].start("test", trainer.test_loader)

    def _see_predictions(self, update: Callable[..., None], predictions: Any, batch: Any) -> None:
        update(predictions, batch)
        evaluator = self._open[1]
        if evaluator.is_open("test"):
            evaluator.batch("test", batch, partial(self._validation.found, predictions))

    def _finish(self, gather: Callable[[], None]) -> None:
        """Record the results, in every process."""
        gather()
        if self._open[1].is_open("test"):
            self._open[1].finish("test")

    def on_val_end(self, validator: Any) -> None:
        """Log Ultralytics' own metrics beside, and say once why they differ."""
        trainer = self._trainer
        if not (trainer and validator is trainer.validator and validator.training):
            return
        run = self._open[0]
        with self.warnings.catch("Ultralytics' own metrics"):
            own = own_metrics(validator).items()
            run.log([Point(progress(f"ultralytics_{n}"), v, run.step, "test") for n, v in own])
            if not (self._validation.is_semantic or self._is_told):
                self._is_told = True
                text = DIFFERENCE.format(conf=validator.args.conf, max_det=validator.args.max_det)
                print(f"boxscore: {text}", file=sys.stderr)

    # evaluations by boxscore

    def evaluate_now(self, split: str | None = None) -> None:
        """Go through the test set, or one ``split``, and record the results."""
        if self._open[1].loaders:
            with self._validation.own_pass(self._measured_model):
                super().evaluate_now(split)

    def evaluate_train(self) -> None:
        """Measure a stable subset of the train set, without augmentation."""
        evaluator, trainer = self._open[1], self._trainer
        if count := evaluator.train_count(self._count):
            loader = self._plain("train", trainer.train_loader)
            model = self._measured_model
            with self._validation.own_pass(model):
                evaluator.run("train", loader, model, count)

    def _evaluate_last(self, evaluate: Callable[[], None]) -> None:
        """Measure the last weights while the loaders are open, before the trainer its best."""
        run, evaluator = self._open
        with self.warnings.catch("the last evaluation"):
            if evaluator.evaluated_at < run.step:
                self.evaluate_now()
        evaluate()

    @property
    def _follows(self) -> bool:
        """Whether the trainer decides when the test set is evaluated."""
        return "evaluate_every" not in self._given

    @property
    def _measured_model(self) -> Any:
        """The average of the weights, unless the user gave a model."""
        if self.options.evaluate_model is None or self._follows:
            return self._trainer.ema.ema
        return super()._measured_model

    def _test_set(self) -> Any:
        """The trainer's loader of the test set; where some images are taken, one of any order."""
        loader, split = self._trainer.test_loader, self._trainer.args.split
        if self._follows or not self.options.evaluate_images:
            return loader
        return self._plain(split, loader)

    def _plain(self, split: str, loader: Any) -> Any:
        if split not in self._plain_loaders:
            path = self._trainer.data[split]
            self._plain_loaders[split] = plain_loader(self._trainer, path, loader)
        return self._plain_loaders[split]
