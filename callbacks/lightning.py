"""For Lightning's Trainer.

.. code-block:: python

    score = BoxscoreCallback(dataset="bccd", classes={1: "RBC", 2: "WBC"})
    Trainer(callbacks=[score, ModelCheckpoint(monitor="box_AP", mode="max")]).fit(module, …)

The losses are those that ``training_step`` returns, ``{"loss": …, "losses": {…}}``, or those of the
torchvision detector inside the module. The test set is Lightning's validation set; it is measured
with what ``validation_step`` returns, ``{"losses": {…}, "predictions": …, "targets": …}``, with
``predict=``, or by boxscore itself for torchvision's detectors and for networks that give logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, Unpack

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from boxscore import Every, Run
from boxscore.evaluation import Evaluation
from boxscore.exit_status import ended
from boxscore.identity.wrappers import lightning_network as network
from boxscore.identity.wrappers import without_ddp
from boxscore.logger import Status
from boxscore.losses import is_torchvision_detector

from .base import Scorekeeper
from .lightning_module import (
    named_loaders,
    returned,
    returned_losses,
    step_arguments,
    targets_of,
    unnoticed,
)
from .model_info import has_fixed_input_size, size_of, splits
from .options import Keywords
from .predict import Found, Predict, predictor
from .sharding import ids_of, images_in, own_images, own_part

T = TypeVar("T")


class BoxscoreCallback(Scorekeeper, Callback):
    """Logs the losses and metrics of a Lightning training, over optimizer steps.

    The test set is measured whenever Lightning validates; with ``evaluate_every=`` every so many
    optimizer steps instead, by boxscore itself. Either way the figures are offered to other
    callbacks under the catalogue's names, ``EarlyStopping(monitor="box_AP", mode="max")``; those of
    a further validation loader as ``"box_AP.test-1"``.
    """

    left_open = "FAILED"

    def __init__(
        self,
        *,
        criterion: Callable[[Any, Any], Any] | None = None,
        **options: Unpack[Keywords],
    ) -> None:
        """Say what is wanted.

        Args:
            criterion: ``criterion(logits, targets)`` of semantic models, for the test losses; by
                default the module's ``criterion`` or ``loss_fn``.
            **options: see `boxscore.callbacks.options.Options`.
        """
        super().__init__(**options)
        self._own_criterion = criterion
        self._fitting = True
        self._follows = "evaluate_every" not in options
        if self._follows:
            self._evaluate_every = Every()
        self._forget()

    def _forget(self) -> None:
        self._trainer: Any = None
        self._module: Any = None
        self._seen: Any = None  # what the network gave in training, while it is of use
        self._hook: Any = None
        self._following: dict[str, Evaluation] = {}
        self._left: dict[str, int | None] = {}
        self._offered: dict[str, dict[str, torch.Tensor]] = {}
        self._split = "test"

    # Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checkpoints are also read to validate, test and predict: no training goes on then."""
        self._fitting = stage == "fit"

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the run of a checkpoint, in a training."""
        if self._fitting:
            super().load_state_dict(state)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, unless the first batch is needed to know the input size."""
        self.restart()
        self._forget()
        if self.options.identity is not None or has_fixed_input_size(pl_module):
            self._open(trainer, pl_module, None)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin, where the first batch was needed."""
        if self.run is None:
            self._open(trainer, pl_module, batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the losses of a batch; an optimizer step may take several."""
        if self.run is None:
            return
        targets = targets_of(batch)
        self._progress.saw(
            images_in(batch), ids_of(targets) if isinstance(targets, list | tuple) else ()
        )
        losses, logits = self._losses(outputs), None
        if self.run.task == "semantic-segmentation":
            logits, targets = self._logits(outputs, targets)
        self._seen = None
        self.record(losses, trainer.global_step, outputs=logits, targets=targets)
        with self._warnings.catch("what follows a step"):
            self.evaluate_what_is_due(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what is due after an epoch."""
        if self.run is not None:
            with self._warnings.catch("what follows an epoch"):
                self.evaluate_what_is_due(trainer.global_step, trainer.current_epoch + 1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure each validation set; Lightning's sanity check is none."""
        if self._is_followed(trainer) and self.run is not None:
            if not self._loaders:
                self._loaders = splits(named_loaders(trainer.val_dataloaders))
                self.run.main = next(iter(self._loaders), "test")
            self.run.step = max(self.run.step, trainer.global_step)
            self._evaluating = True
            self._left = {name: own_images(loader) for name, loader in self._loaders.items()}
            self._following = {name: self.run.evaluation(name) for name in self._loaders}

    def _is_followed(self, trainer: Trainer) -> bool:
        """Whether what Lightning validates now is to be measured."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        return self._follows and fitting and self.run is not None and self.run.is_open

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure one validation batch, with what the module returned of it where that suffices."""
        if not self._following:
            return
        split = list(self._following)[dataloader_idx]
        evaluation, left = self._following[split], self._left[split]
        count = images_in(batch)
        try:
            found = returned(outputs)
            if found is None:
                with trainer.precision_plugin.forward_context():
                    found = self._found(own_part(batch, left))
            self.measure(evaluation, *found, keep=left)
        except Exception as error:
            evaluation.give_up(count)
            if self.options.on_error == "raise":
                raise
            self._warnings.count_error(f"measuring a batch of the {split} split", error)
        self._left[split] = None if left is None else max(0, left - count)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures, and offer them to callbacks that monitor them."""
        evaluations, self._following = self._following, {}
        self._evaluating = False
        for evaluation in evaluations.values():
            with self._warnings.catch(f"evaluation of the {evaluation.split} split"):
                evaluation.conclude()
            self.remark_on(evaluation, evaluation.seconds / len(evaluations))
            self._offer(evaluation)
        if evaluations:
            self._evaluated_at = trainer.global_step

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run."""
        self._end("FINISHED")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the run as the training did."""
        killed = isinstance(exception, SIGTERMException)
        self._end("KILLED" if killed else ended(exception))

    # what they share

    def _open(self, trainer: Trainer, module: LightningModule, batch: Any) -> None:
        if getattr(trainer, "fast_dev_run", 0):  # as Lightning's own loggers, nothing is kept of it
            return
        self._trainer, self._module = trainer, module
        named = (getattr(module, name, None) for name in ("criterion", "loss_fn"))
        self._criterion = self._own_criterion or next(filter(callable, named), None)
        optimizers = trainer.optimizers
        if len(optimizers) > 1:
            self._warnings.warn_once(
                "optimizers", "of several optimizers the first gives regularization and rate"
            )
        train_loader = trainer.train_dataloader
        self.begin(
            module,
            optimizers[0] if optimizers else None,
            self._known_loaders(trainer),
            train_loader if hasattr(train_loader, "dataset") else None,
            size=size_of(batch[0] if isinstance(batch, list | tuple) and batch else batch),
        )
        self._model = trainer.strategy.model  # wrapped, as several processes train it
        self._hook = network(module).register_forward_hook(self._see)
        # what is left out of Lightning's validation would make another set of it
        whole = isinstance(trainer.limit_val_batches, float) and trainer.limit_val_batches == 1.0
        self._evaluates_at_end = not self._follows or whole
        if self._follows and self._images is not None:
            self._images = None
            self._warnings.warn_once(
                "evaluate_images", "evaluate_images= has no effect on Lightning's validation; "
                "limit its loader, or pass evaluate_every= too",
            )  # fmt: skip

    def _known_loaders(self, trainer: Trainer) -> dict[str, Any]:
        """The validation loaders; those that Lightning has not read only where it never would."""
        source = trainer.fit_loop.epoch_loop.val_loop._data_source
        if trainer.val_dataloaders is None and not self._follows and source.is_defined():
            return named_loaders(source.dataloader())
        return named_loaders(trainer.val_dataloaders)

    def _end(self, status: Status) -> None:
        try:
            self.finish(status)
        finally:
            if self._hook is not None:
                self._hook.remove()
            self._forget()

    def _evaluate(self, split: str, loader: Any, count: int | None) -> Evaluation | None:
        """Measure ``split`` as Lightning would, so that a module knows that it is validated."""
        trainer, self._split = self._trainer, split
        stage, trainer.validating = trainer.state.stage, True
        try:
            with trainer.precision_plugin.forward_context():
                evaluation = super()._evaluate(split, loader, count)
        finally:
            trainer.state.stage = stage
        if evaluation is not None and split != "train":
            self._offer(evaluation)
        return evaluation

    def _offer(self, evaluation: Evaluation) -> None:
        """Give what was measured to callbacks that monitor it, as if the module had logged it."""
        split, offered = evaluation.split, self._trainer.callback_metrics
        ending = "" if split == self._known_run.main else f".{split}"
        values = {f"{name}{ending}": value for name, value in evaluation.measured.items()}
        for name, value in self._offered.pop(split, {}).items():
            if offered.get(name) is value:  # what is not measured any more is not there
                del offered[name]
        if taken := sorted(values.keys() & offered.keys()):
            names = ", ".join(taken)
            self._warnings.warn_once(
                "taken", f"{names}: the module logs these itself; its values stay"
            )
        self._offered[split] = {
            name: torch.tensor(value, device=self._module.device)
            for name, value in values.items()
            if name not in taken
        }
        offered.update(self._offered[split])

    # the train split

    def _see(self, net: Any, args: Any, output: Any) -> None:
        """Keep a detector's losses, and the logits of the batch for which a point is due."""
        if self.run is None or self._evaluating or not net.training:
            return
        due = self.run.due(self._trainer.global_step + max(1, len(self._trainer.optimizers)))
        if due or is_torchvision_detector(net):
            self._seen = output

    def _losses(self, outputs: Any) -> dict[str, Any]:
        """The parts and the objective of a batch, from what ``training_step`` returned."""
        losses = returned_losses(outputs)
        if not losses and is_torchvision_detector(network(self._module)):
            losses = dict(self._seen) if isinstance(self._seen, Mapping) else {}
        objective = outputs.get("loss") if isinstance(outputs, Mapping) else None
        if objective is None or "loss" in losses:
            return losses
        if self._module.automatic_optimization:  # Lightning has divided it
            objective = objective * self._trainer.accumulate_grad_batches
        return {**losses, "loss": objective}

    def _logits(self, outputs: Any, targets: Any) -> tuple[Any, Any]:
        """The logits and label maps of a batch, where they are known."""
        if found := returned(outputs):
            return found[1:]
        seen = self._seen
        gives_logits = isinstance(seen, Mapping) or getattr(seen, "ndim", 0) == 4
        return (seen, targets) if gives_logits and hasattr(targets, "ndim") else (None, None)

    # the test set

    def _predictor(self, model: Any, run: Run) -> Predict | None:
        """How to measure a batch in an evaluation that is not Lightning's."""
        return lambda _, batch: self._forwarded(batch)

    def _forwarded(self, batch: Any) -> Found:
        """A module is asked only where nothing else is known: its step may count what it sees."""
        strategy, net = self._trainer.strategy, network(self._module)
        batch = strategy.batch_to_device(strategy.precision_plugin.convert_input(batch))
        semantic = self._known_run.task == "semantic-segmentation"
        by_itself = is_torchvision_detector(net) or (semantic and net is not self._module)
        found = None if self.options.predict or by_itself else self._asked(batch)
        return found or self._found(batch)

    def _inside(self, step: Callable[..., T], *given: Any) -> T:
        """What ``step`` gives in the forward of FSDP's wrapper, which brings the weights together.

        DistributedDataParallel's would wait for processes that have fewer batches.
        """
        strategy, module = self._trainer.strategy, self._module
        if without_ddp(strategy.model) is module:
            return step(*given)
        own = vars(module).get("validation_step")
        module.validation_step = step
        try:
            return strategy.validation_step(*given)  # type: ignore[no-any-return]
        finally:
            del module.validation_step
            if own is not None:
                module.validation_step = own

    def _asked(self, batch: Any) -> Found | None:
        """What ``validation_step`` returns of ``batch``."""
        module = self._module
        if not is_overridden("validation_step", module, LightningModule):
            return None
        loader = list(self._loaders).index(self._split) if self._split in self._loaders else 0
        with unnoticed(module):
            given = step_arguments(module, batch, loader)
            return returned(self._inside(module.validation_step, *given))

    def _found(self, batch: Any) -> Found:
        """What ``predict=`` or boxscore itself finds in ``batch``.

        Raises:
            ValueError: where nothing is known to measure it with, with what to do.
        """
        run, net = self._known_run, network(self._module)
        if self.options.predict is not None:
            return self._inside(partial(self.options.predict, self._module), batch)
        if run.task != "semantic-segmentation" and not is_torchvision_detector(net):
            raise ValueError(
                f"validation_step of {type(self._module).__name__} returns no 'predictions' and "
                f"'targets', and how to get them from {type(net).__name__} is not known; return "
                "{'losses': …, 'predictions': …, 'targets': …}, or pass predict=, a function of "
                "(module, batch) that returns losses, predictions, targets"
            )
        measure = predictor(net, run.task, list(run.names), self._criterion)
        return self._inside(partial(measure, net), batch)
