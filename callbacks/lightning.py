"""For Lightning's Trainer.

.. code-block:: python

    score = BoxscoreCallback(dataset="bccd", classes={1: "RBC", 2: "WBC"})
    Trainer(callbacks=[score, ModelCheckpoint(monitor="box_AP", mode="max")]).fit(module, …)

The losses are those that ``training_step`` returns, ``{"loss": …, "losses": {…}}``, or those of the
torchvision detector in the module. The test set is Lightning's validation set, measured with what
``validation_step`` returns, ``{"losses": {…}, "predictions": …, "targets": …}``, or else with the
logits or detections of the module's own forward in it. Outside of Lightning's validation (the train
split, ``evaluate_every=``) boxscore calls the module, or its network where the module has no
forward; where that gives no logits and no detections of torchvision's, pass ``predict=``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from boxscore.exit_status import ended
from boxscore.keys import splits
from boxscore.losses import is_torchvision_detector

from .base import CallbackBase
from .lightning_module import Watched, facts_of, named_loaders, parts, returned
from .model_info import has_fixed_input_size
from .options import Keywords
from .predict import Criterion

AUTOLOG = ("_step_metrics", "_epoch_metrics")
"""Of MLflow's autolog: names that it leaves out of the points of an epoch, and of a step."""


class BoxscoreCallback(CallbackBase, Callback):
    """Logs the losses and metrics of a Lightning training, over optimizer steps.

    The test set is measured whenever Lightning validates; with ``evaluate_every=`` every so many
    optimizer steps instead, by boxscore itself. Either way the values are offered to other
    callbacks by catalogue name, ``EarlyStopping(monitor="box_AP", mode="max")``; those of a further
    validation loader as ``"box_AP.test-1"``. After ``fit()``, ``validate()`` and ``test()`` are
    logged in the same run, at the step of the weights; the latter as the set ``test-held_out``.
    """

    status_if_not_closed = "FAILED"

    def __init__(
        self, *, criterion: Callable[[Any, Any], Any] | None = None, **options: Unpack[Keywords]
    ) -> None:
        """Set the options.

        Args:
            criterion: ``criterion(outputs, targets)`` of semantic models, for the test losses; by
                default the module's ``criterion`` or ``loss_fn``.
            **options: see `boxscore.callbacks.options.Options`.
        """
        self._function = criterion
        self._is_fit, self._loaded_step = True, None
        super().__init__(**options)

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        super().restart()
        self._watched: Any = None
        self._criterion: Criterion | None = None
        self._offered: dict[str, dict[str, torch.Tensor]] = {}
        self._splits: list[str] = []  # under way, by the number of the loader

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Keep the stage: checkpoints are also read to validate and test."""
        self._is_fit, self._loaded_step = stage == "fit", None

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        """Keep the step of the weights."""
        self._loaded_step = checkpoint.get("global_step")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the run of a checkpoint, in a training."""
        if self._is_fit:
            super().load_state_dict(state)

    # the training

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the run, unless the first batch is needed to infer the input size."""
        self.restart()
        if self.options.identity is not None or has_fixed_input_size(pl_module):
            self._begin(trainer, pl_module, None)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        """Keep the module's own forward of a batch for which a point is due."""
        if self.run is None:
            self._begin(trainer, pl_module, batch)
        step = trainer.global_step + max(1, len(trainer.optimizers))
        if self.run and (self.run.due(step) or is_torchvision_detector(self._watched.network)):
            self._watched.begin(batch)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Record the losses of a batch; several may make an optimizer step."""
        if self.run is None:
            return
        self.saw(self.reader.count(batch), self.reader.ids(batch))
        losses = parts(outputs) or self._watched.losses
        if isinstance(outputs, Mapping) and "loss" in outputs and "loss" not in losses:
            # Lightning has divided the objective
            count = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            losses = {**losses, "loss": outputs["loss"] * count}
        given = returned(outputs) or ({}, self._watched.outputs, self.reader.targets(batch))
        self._watched.begin(None)
        semantic = None
        if self.run.task == "semantic-segmentation" and hasattr(given[2], "ndim"):
            semantic = None if given[1] is None else lambda: given[1:]
        self.record(losses, trainer.global_step, semantic=semantic)
        self.evaluate_what_is_due(trainer.global_step)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Evaluate what is due after an epoch."""
        if self.run is not None:
            self.evaluate_what_is_due(trainer.global_step, trainer.current_epoch + 1)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """End the run."""
        self.stop("FINISHED")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the run as the training did, which no later validation changes."""
        killed = isinstance(exception, SIGTERMException)
        self.stop(None if not self._is_fit else "KILLED" if killed else ended(exception))

    def epochs(self) -> float | None:
        """How many of Lightning's epochs have passed, None where their length is not known."""
        batches = self._watched.trainer.num_training_batches
        return self.progress.batches / batches if 0 < batches < math.inf else None

    def _begin(self, trainer: Any, module: Any, batch: Any) -> None:
        """Open the run, save in a fast development run, of which Lightning logs nothing either."""
        if trainer.fast_dev_run:
            return
        named = (getattr(module, name, None) for name in ("criterion", "loss_fn"))
        function = self._function or next(filter(callable, named), None)
        self._criterion = function and Criterion(function, self.warnings)
        optimizers, evaluates = trainer.optimizers, "evaluate_every" not in self._given
        if len(optimizers) > 1:
            text = "of several optimizers the first gives regularization and learning rate"
            self.warnings.warn_once("optimizers", text)
        facts = facts_of(trainer, self.reader.images(batch), function, evaluates=evaluates)
        run = self.start(trainer.strategy.model, optimizers[0] if optimizers else None, facts)
        self._watch(trainer, module)
        if self.options.predict or self._watched.is_measurable(run.task):
            self._open[1].predict = self._watched.measure

    def _watch(self, trainer: Any, module: Any) -> None:
        run, predict = self._open[0], self.options.predict
        self._watched = Watched(trainer, module, run, self._criterion, predict, self.reader)
        for hooked in {module, self._watched.network}:
            self.watch(hooked, self._watched.see)

    # Lightning's evaluations

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to evaluate the loaders, as Lightning has just read them; no sanity check."""
        ignored = trainer.sanity_checking or trainer.fast_dev_run
        if ignored or (self._is_fit and not (self.run and self._follows)):
            return
        step, named = None, named_loaders(trainer.val_dataloaders)
        if self._is_fit:
            self._open[0].reach(trainer.global_step)
            self.take_loaders(named)
        elif self.reopen():
            step = self._loaded_step
            self._watch(trainer, pl_module)
        else:
            text = "validate() and test() before fit() are not logged: there is no run yet"
            self.warnings.warn_once("before", text)
            return
        if trainer.testing:
            named = named_loaders(trainer.test_dataloaders, "held_out")
        self._splits = list(splits(named))
        for split, loader in splits(named).items():
            self._open[1].start(split, loader, step)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        """Keep the module's own forward of the batch."""
        if self._splits:
            self._watched.begin(batch)

    def on_validation_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        loader: int = 0,
    ) -> None:
        """Measure a batch."""
        if loader < len(self._splits):
            find = partial(self._watched.found, outputs)
            self._open[1].batch(self._splits[loader], batch, find)
            self._watched.begin(None)
        elif self._splits:
            text = f"validation loader {loader} is not measured; pass the loaders as one flat list"
            self.warnings.warn_once("loaders", text)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the results, and offer them to callbacks that monitor them."""
        evaluated, self._splits = self._splits, []
        for split in evaluated:
            values = self._open[1].finish(split)
            if not trainer.testing:
                self._offer(split, values)
        if evaluated and not self._is_fit:
            self.stop(None)

    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start  # type: ignore[assignment]
    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]
    on_test_epoch_end = on_validation_epoch_end

    def _offer(self, split: str, values: dict[str, float]) -> None:
        """Give ``values`` to callbacks that monitor them, as if the module had logged them."""
        trainer, module = self._watched.trainer, self._watched.module
        offered, before = trainer.callback_metrics, self._offered.pop(split, {})
        for name in [name for name, value in before.items() if offered.get(name) is value]:
            del offered[name]  # it may not be measured any more
        ending = "" if self._open[0].values.is_main(split) else f".{split}"
        new = {f"{n}{ending}": torch.tensor(v, device=module.device) for n, v in values.items()}
        if taken := sorted(new.keys() & offered.keys()):
            text = f"{', '.join(taken)}: the module logs these itself; its values stay"
            self.warnings.warn_once("taken", text)
        self._offered[split] = {name: value for name, value in new.items() if name not in taken}
        offered.update(self._offered[split])
        for callback in trainer.callbacks:
            for left_out in (getattr(callback, name, None) for name in AUTOLOG):
                if isinstance(left_out, set):
                    left_out.update(self._offered[split])
