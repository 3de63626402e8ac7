"""For Ignite's engines, and MONAI's.

.. code-block:: python

    score = BoxscoreHandler(model, optimizer, criterion=loss, dataset="cells", classes=names)
    score.attach(trainer, evaluator)
    trainer.run(loader, max_epochs=5)

The train losses are the scalars in the trainer's output, or those of the torchvision detector that
it trains. The test set is the evaluator's, measured whenever it runs: a semantic model by its own
forward there, a torchvision detector by a forward that gives the losses, too, anything else by
``predict=``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from typing import Any, Unpack

from .requires import require

require("ignite", "boxscore[ignite]")

from ignite.engine import Events

from boxscore import Run
from boxscore.callbacks.reading.batches import length
from boxscore.callbacks.reading.facts import Facts
from boxscore.callbacks.reading.frames import moved
from boxscore.callbacks.reading.model_info import has_fixed_input_size, size_of
from boxscore.callbacks.reading.predict import (
    ADVICE,
    Criterion,
    Found,
    Predict,
    ignored_by,
    pair,
    predictor,
    segmented,
)
from boxscore.keys import splits
from boxscore.logger import Status

from .base import CallbackBase
from .hooks import telling_its_end
from .options import Keywords


class BoxscoreHandler(CallbackBase):
    """Logs the losses and metrics of a training by Ignite, over optimizer steps.

    `attach` wraps the trainer's ``run``: a handler of ``EXCEPTION_RAISED`` would suppress errors,
    or come after another that raises them. What the evaluator gives after the training is logged in
    its run, at the last step. Its runs over the train set are not: ``evaluate_train_every=``
    measures that split.

    In a checkpoint it is an object like the others, ``Checkpoint({…, "boxscore": score}, …)``.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        test_loader: Any = None,
        *,
        criterion: Callable[[Any, Any], Any] | None = None,
        output_transform: Callable[[Any], Any] | None = None,
        **options: Unpack[Keywords],
    ) -> None:
        """Name what is measured.

        Args:
            model: that the trainer trains.
            optimizer: its steps are counted; gives regularization and learning rate.
            test_loader: for ``evaluate_every=``; by default what the evaluator went through last.
            criterion: ``criterion(outputs, targets)`` of semantic models, for the test losses; by
                default the ``loss_function`` of MONAI's trainer.
            output_transform: from the trainer's output to the losses, a mapping or a scalar.
            **options: see `boxscore.callbacks.options.Options`.
        """
        self._watched, self._optimizer, self._test_loader = model, optimizer, test_loader
        self._criterion, self._transform = criterion, output_transform
        super().__init__(**options)

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        super().restart()
        self._trainer: Any = None
        self._batches: dict[bool, Any] = {}  # of the trainer (True) and the evaluator (False)
        self._outputs: dict[bool, list[Any]] = {True: [], False: []}  # of their forwards
        self._done = 0  # optimizer steps
        self._split = ""  # under way
        self._evaluates = self._is_train_due = self._is_after = self._is_interrupted = False

    def attach(self, trainer: Any, evaluator: Any = None) -> None:
        """Measure the trainings of ``trainer``.

        Args:
            trainer: an engine.
            evaluator: the engine of the test set, or several by name.
        """
        evaluators = evaluator if isinstance(evaluator, Mapping) else {"test": evaluator}
        engines = {name: engine for name, engine in evaluators.items() if engine is not None}

        trainer.run = telling_its_end(trainer.run, self.stop)
        trainer.add_event_handler(Events.STARTED, self._started, evaluates=bool(engines))
        trainer.add_event_handler(Events.ITERATION_STARTED, self._batch_started)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._record)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)
        trainer.add_event_handler(Events.INTERRUPT, self._interrupted)
        for split, engine in splits(engines).items():
            engine.add_event_handler(Events.STARTED, self._evaluation_started, split)
            engine.add_event_handler(Events.ITERATION_STARTED, self._keep_batch, training=False)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._measure)
            engine.add_event_handler(Events.COMPLETED, self._evaluation_completed)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, the iteration that has just been completed included."""
        self._record(self._trainer)
        return super().state_dict()

    def stop(self, status: Status | None) -> None:
        """End the run and remove the hooks, unless the trainer was interrupted to go on later."""
        is_interrupted, self._is_interrupted = self._is_interrupted, False
        if not (is_interrupted and status == "FINISHED"):
            super().stop(status)

    def predictor(self, model: Any, run: Run) -> Predict | None:
        """Of torchvision's detectors, and of networks that give logits."""
        if not (self._facts.evaluates or self._facts.loaders):
            return None
        return predictor(model, run, self._criterion, self.reader)

    def epochs(self) -> float | None:
        """How many of the trainer's epochs have passed, None where their length is not known."""
        batches = self._trainer.state.epoch_length if self._trainer else None
        return self.progress.batches / batches if batches else None

    def evaluate_train(self) -> None:
        """Measure a stable subset of the train set, as soon as the test set's size is known."""
        self._is_train_due = self.evaluator is not None and not self.evaluator.loaders
        if not self._is_train_due:
            super().evaluate_train()

    # the trainer's events

    def _started(self, trainer: Any, *, evaluates: bool) -> None:
        self.restart()
        self._trainer, self._evaluates = trainer, evaluates
        self._criterion = self._criterion or getattr(trainer, "loss_function", None)
        if self.options.identity is not None or has_fixed_input_size(self._watched):
            self._begin(None)

    def _begin(self, batch: Any) -> None:
        state, criterion = self._trainer.state, self._criterion
        facts = Facts(
            size=None if batch is None else size_of(self.reader.images(batch)),
            ignore_index=ignored_by(criterion) if criterion else None,
            loaders=self._test_loader,
            train_loader=state.dataloader,
            settings={"epochs": state.max_epochs},
            evaluates=self._evaluates,
        )
        self.start(self._watched, self._optimizer, facts)
        self._open[1].shows_bar = True
        self._done = self._steps
        self._stack.callback(self._optimizer.register_step_post_hook(self._stepped).remove)
        self.watch(self._watched, self._see)
        if hasattr(self.options.evaluate_model, "eval"):
            self.watch(self.options.evaluate_model, self._see)

    def _batch_started(self, trainer: Any) -> None:
        if self.run is None:
            self._begin(trainer.state.batch)
        self._keep_batch(trainer, training=True)

    def _keep_batch(self, engine: Any, *, training: bool) -> None:
        """Keep a batch as the loader gave it: MONAI's engines take it apart."""
        self._batches[training], self._outputs[training] = engine.state.batch, []

    def _stepped(self, *_: Any) -> None:
        self._done += 1

    def _see(self, model: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        """Keep what the model gave, where it is of use."""
        run, evaluator = self._open
        is_due = not model.training or isinstance(outputs, Mapping) or run.due(self._done + 1)
        if is_due and not evaluator.runs_model:
            self._outputs[model.training].append(outputs)

    def _record(self, trainer: Any) -> None:
        """Record the iteration that has been completed, before other handlers evaluate or save."""
        if True not in self._batches or trainer.last_event_name != Events.ITERATION_COMPLETED:
            return
        batch, outputs = self._batches.pop(True), self._outputs[True]
        self.saw(batch)
        losses: Any = {}
        with self.warnings.catch("reading the losses of a step"):
            losses = self._losses(trainer.state.output)
        semantic = None
        if self._open[0].task == "semantic-segmentation" and len(outputs) == 1:
            semantic = partial(self._semantic, outputs.pop(), batch)
        self.record(losses, self._done, semantic=semantic)
        if self._done == 1 and self.progress.batches > 1:
            text = f"{self.progress.batches} batches make one optimizer step"
            advice = "pass params={'batch_size': …}, by which runs are compared"
            self.warnings.warn_once("accumulation", f"{text}; {advice}")
        self.evaluate_what_is_due(self._done)

    def _semantic(self, outputs: Any, batch: Any) -> tuple[Any, Any]:
        return outputs, self.reader.targets(batch)

    def _losses(self, output: Any) -> Any:
        if self._transform is not None:
            return self._transform(output)
        output = output[0] if isinstance(output, list) and output else output  # MONAI's, decollated
        given = output if isinstance(output, Mapping) else {"loss": output}
        parts = next((o for o in self._outputs[True] if isinstance(o, Mapping)), {})
        losses = {n: v for n, v in {**parts, **given}.items() if _is_scalar(v)}
        if not losses:
            text = f"the trainer's output, a {type(output).__name__}, holds no scalar"
            self.warnings.warn_once("losses", f"{text}; pass output_transform=, which gives losses")
        return losses

    def _epoch_completed(self, trainer: Any) -> None:
        self.evaluate_what_is_due(self._done, trainer.state.epoch)

    def _interrupted(self, trainer: Any) -> None:
        self._is_interrupted = True

    # the evaluator's

    def _evaluation_started(self, engine: Any, split: str) -> None:
        self._record(self._trainer)
        self._split, loader = "", engine.state.dataloader
        if self.run is None:
            text = "evaluations before the training are not logged: there is no run yet"
            self.warnings.warn_once("before", text)
        elif self._follows and _data(loader) is not _data(self._facts.train_loader):
            if self.run.is_open:
                self.run.reach(self._done)
            else:
                self._is_after = self.reopen()
                self.watch(self._watched, self._see)
            self._open[1].loaders[split] = loader
            self._facts.evaluates_at_end &= length(loader) == engine.state.epoch_length
            self._open[1].start(split, loader)
            self._split = split

    def _measure(self, engine: Any) -> None:
        if self._split:
            self._open[1].batch(self._split, self._batches.pop(False), self._found)

    def _found(self, batch: Any) -> Found:
        outputs, predict = self._outputs[False], self._open[1].predict
        if self.options.predict or self._open[0].task != "semantic-segmentation":
            assert predict is not None
            return predict(self._measured_model, batch)
        if len(outputs) != 1:
            text = f"{len(outputs)} forwards of the model in one iteration of the evaluator"
            raise ValueError(f"{text}: which gives the batch's logits is not known; {ADVICE}")
        targets = pair(batch, self.reader)[1]
        logits = _first(outputs.pop(), len(targets))
        criterion = self._criterion and Criterion(self._criterion, self.warnings)
        return segmented(logits, moved(targets, next(self._watched.parameters()).device), criterion)

    def _evaluation_completed(self, engine: Any) -> None:
        if self._split:
            self._open[1].finish(self._split)
            if self._is_train_due:
                self.evaluate_train()
        if self._is_after:
            self.stop(None)


def _data(loader: Any) -> Any:
    return getattr(loader, "dataset", loader)


def _first(outputs: Any, count: int) -> Any:
    """What belongs to the first ``count`` images of a batch."""
    if isinstance(outputs, Mapping):
        return {name: _first(value, count) for name, value in outputs.items()}
    return outputs[:count]


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Real) or (hasattr(value, "detach") and value.numel() == 1)
