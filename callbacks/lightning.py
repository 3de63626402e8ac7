"""For Lightning's Trainer, of ``lightning`` or ``pytorch_lightning``.

.. code-block:: python

    score = BoxscoreCallback(dataset="bccd", classes={1: "RBC", 2: "WBC"})
    Trainer(callbacks=[score, ModelCheckpoint(monitor="box_AP", mode="max")]).fit(module, …)

The losses are those that ``training_step`` returns, ``{"loss": …, "losses": {…}}``, or those of the
torchvision detector in the module. The test set is Lightning's validation set, measured with what
``validation_step`` returns, ``{"losses": {…}, "predictions": …, "targets": …}``, or else with the
module's own forward in it. The train split and ``evaluate_every=`` call the module's forward, or
its network's; one that gives neither logits nor torchvision's detections needs ``predict=``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, Unpack

from .requires import require

is_other = "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules
if not is_other and find_spec("lightning"):
    from lightning.pytorch import Callback
else:
    require("pytorch_lightning", "boxscore[lightning]")
    from pytorch_lightning import Callback  # type: ignore[assignment]

from boxscore.callbacks.reading.facts import Facts
from boxscore.callbacks.reading.lightning_module import (
    Watched,
    criterion_of,
    facts_of,
    loaders_of,
    offer,
)
from boxscore.callbacks.reading.model_info import has_fixed_input_size
from boxscore.exit_status import ended
from boxscore.keys import splits

from .base import CallbackBase
from .options import Keywords


class BoxscoreCallback(CallbackBase, Callback):
    """Logs the losses and metrics of a Lightning training, over optimizer steps.

    The test set is measured whenever Lightning validates, or with ``evaluate_every=`` every so many
    optimizer steps. Other callbacks may monitor it, ``EarlyStopping("box_AP", mode="max")``, and a
    second loader as ``"box_AP.test-1"``. What `validate` and `test` give after `fit` is logged in
    its run at the step of the weights, the latter as the set ``test-held_out``.
    """

    status_if_not_closed = "FAILED"
    watched = Watched  # how the module is read

    def __init__(
        self, *, criterion: Callable[[Any, Any], Any] | None = None, **options: Unpack[Keywords]
    ) -> None:
        """Take ``criterion(outputs, targets)`` of semantic models, and `options.Options`.

        The criterion gives the test losses; by default the module's ``criterion`` or ``loss_fn``.
        """
        self._criterion = criterion
        self._is_fit = True
        self._loaded_step: int | None = None
        super().__init__(**options)

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        super().restart()
        self._watched: Any = None
        self._offered: dict[str, dict[str, Any]] = {}
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
        if self.run and (self.run.due(step) or self._watched.needs_forwards):
            self._watched.begin(batch)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Record the losses of a batch; several may make an optimizer step."""
        if (watched := self._watched) is None:
            return
        self.saw(batch)
        losses, semantic = watched.training_losses(outputs), watched.semantic(outputs, batch)
        watched.begin(None)
        self._open[1].predict = watched.own_pass
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
        killed = type(exception).__name__ == "SIGTERMException"
        self.stop(None if not self._is_fit else "KILLED" if killed else ended(exception))

    def epochs(self) -> float | None:
        """How many of Lightning's epochs have passed, None where their length is not known."""
        batches = self._watched.trainer.num_training_batches if self._watched else 0
        return self.progress.batches / batches if 0 < batches < float("inf") else None

    def _begin(self, trainer: Any, module: Any, batch: Any) -> None:
        if trainer.fast_dev_run:  # of which Lightning logs nothing either
            return
        facts = self._facts_of(trainer, module, batch)
        if len(trainer.optimizers) > 1:
            text = "of several optimizers the first gives regularization and learning rate"
            self.warnings.warn_once("optimizers", text)
        self.start(trainer.strategy.model, next(iter(trainer.optimizers), None), facts)
        self._watch(trainer, module)

    def _facts_of(self, trainer: Any, module: Any, batch: Any) -> Facts:
        is_rfdetrs = any(kind.__module__.startswith("rfdetr.") for kind in type(module).__mro__)
        if is_rfdetrs and self.options.predict is None:
            text = "from boxscore.callbacks.rfdetr import BoxscoreCallback"
            raise ValueError(f"RF-DETR's module has a callback of its own: {text}")
        images = None if batch is None else self.reader.images(batch)
        return facts_of(trainer, images, self._criterion or criterion_of(module), self._given)

    def _watch(self, trainer: Any, module: Any) -> None:
        fixed = self._open[0], self.reader, self.options, self.ignore_index
        self._watched = self.watched(
            trainer, module, self._criterion or criterion_of(module), *fixed
        )
        for hooked, see in self._watched.hooks.items():
            self.watch(hooked, see, is_compiled=module._compiler_ctx is not None)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to evaluate the loaders, as Lightning has just read them; no sanity check."""
        is_other = self._is_fit and not (self.run and self._follows)
        if trainer.sanity_checking or trainer.fast_dev_run or is_other:
            return
        named, step = loaders_of(trainer), None if self._is_fit else self._loaded_step
        if self._is_fit:
            self._open[0].reach(trainer.global_step)
            self.take_loaders(named)
        elif self.reopen():
            self._watch(trainer, pl_module)
        else:
            text = "validate() and test() before fit() are not logged: there is no run yet"
            return self.warnings.warn_once("before", text)
        self._splits = list(splits(named))
        for split, loader in splits(named).items():
            self._open[1].start(split, loader, step)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        """Keep the module's own forward of the batch."""
        if self._splits:
            self._watched.begin(batch)

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *numbers: Any
    ) -> None:
        """Measure a batch; ``numbers`` are those of the batch and, of several, of the loader."""
        if (loader := max(numbers[1:], default=0)) < len(self._splits):
            self._open[1].batch(self._splits[loader], batch, partial(self._watched.found, outputs))
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
        if evaluated and self._is_fit:
            self._open[1].predict = self._watched.own_pass
        elif evaluated:
            self.stop(None)

    on_test_start = on_validation_start
    on_test_batch_start = on_validation_batch_start  # type: ignore[assignment]
    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]
    on_test_epoch_end = on_validation_epoch_end

    def _offer(self, split: str, values: dict[str, float]) -> None:
        ending = "" if self._open[0].values.is_main(split) else f".{split}"
        named = {f"{name}{ending}": value for name, value in values.items()}
        given = self._watched.trainer, self._offered.get(split, {}), named, self.warnings
        self._offered[split] = offer(*given)
