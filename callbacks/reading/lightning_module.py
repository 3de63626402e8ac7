"""A LightningModule in a training: what its steps return, and its own forward of a batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from numbers import Real
from typing import Any

import torch

from boxscore import Run
from boxscore.callbacks.huggingface import ignored_label, is_transformers
from boxscore.callbacks.huggingface.forwards import Forwards, losses_of_batch
from boxscore.callbacks.huggingface.forwards import criterion_of as criterion_inside
from boxscore.callbacks.options import Options
from boxscore.identity.wrappers import lightning_network, without_ddp
from boxscore.losses import is_torchvision_detector, test_losses
from boxscore.warn import Warnings

from .batches import BatchReader
from .facts import Facts
from .model_info import size_of
from .predict import (
    ADVICE,
    NO_CRITERION,
    Criterion,
    Found,
    Predict,
    framed,
    ignored_by,
    pair,
    predictor,
    segmented,
)

AUTOLOG = ("_step_metrics", "_epoch_metrics")
"""Of MLflow's autolog: names that it leaves out of its points of an epoch, and of a step."""


def returned(outputs: Any) -> Found | None:
    """What a step returned, where it holds predictions and targets."""
    names = ("predictions", "targets")
    if not isinstance(outputs, Mapping) or any(outputs.get(name) is None for name in names):
        return None
    return losses_of(outputs), outputs["predictions"], outputs["targets"]


def losses_of(outputs: Any, scale: int = 1) -> dict[str, Any]:
    """The losses that a step returned: its ``losses``, or scalars whose names hold "loss".

    Args:
        outputs: of the step, a mapping or a scalar.
        scale: by which Lightning has divided the objective, ``loss``.
    """
    outputs = outputs if isinstance(outputs, Mapping) else {"loss": outputs}
    losses = outputs.get("losses")
    if not isinstance(losses, Mapping):
        named = {n: v for n, v in outputs.items() if "loss" in str(n).lower() and n != "loss"}
        losses = {name: value for name, value in named.items() if _is_scalar(value)}
    total = {"loss": outputs["loss"] * scale} if _is_scalar(outputs.get("loss")) else {}
    return {**total, **losses}


def named_loaders(loaders: Any) -> dict[str, Any]:
    """Loaders by name: one or the first of a list is ``test``, the others are numbered."""
    if loaders is None:
        return {}
    if isinstance(loaders, list | tuple):
        return {f"{number}" if number else "test": loader for number, loader in enumerate(loaders)}
    return dict(loaders) if isinstance(loaders, Mapping) else {"test": loaders}


def loaders_of(trainer: Any) -> dict[str, Any]:
    """The loaders that Lightning validates or tests with, by name; none before it has read them."""
    if not trainer.testing:
        return named_loaders(trainer.val_dataloaders)
    named = named_loaders(trainer.test_dataloaders)
    return {f"held_out_{n}".removesuffix("_test"): loader for n, loader in named.items()}


def validation_loaders(trainer: Any) -> dict[str, Any]:
    """The loaders of a training's validations, which Lightning may never read, by name."""
    source = trainer.fit_loop.epoch_loop.val_loop._data_source
    return named_loaders(source.dataloader()) if source.is_defined() else {}


def criterion_of(module: Any) -> Callable[[Any, Any], Any] | None:
    """The criterion of a usual name."""
    named = (getattr(module, name, None) for name in ("criterion", "loss_fn"))
    return next(filter(callable, named), None)


def facts_of(trainer: Any, images: Any, criterion: Any, given: Collection[str]) -> Facts:
    """What ``trainer`` states, once its training has begun.

    Args:
        trainer: Lightning's.
        images: of the first batch, or None.
        criterion: of a semantic training, or None.
        given: the options that the user gave.
    """
    follows = "evaluate_every" not in given
    network = lightning_network(trainer.lightning_module)
    train_loader, limit = trainer.train_dataloader, trainer.limit_val_batches
    return Facts(
        size=size_of(images),
        ignore_index=ignored_by(criterion) if criterion else ignored_label(network, None),
        loaders=loaders_of(trainer) or ({} if follows else validation_loaders(trainer)),
        train_loader=train_loader if hasattr(train_loader, "dataset") else None,
        settings={
            "accumulate": trainer.accumulate_grad_batches,
            "precision": trainer.precision,
            "epochs": trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None,
            "steps": trainer.max_steps if trainer.max_steps > 0 else None,
        },
        evaluates=True,
        # what is left out of Lightning's validation would make another set of it
        evaluates_at_end=not follows or (isinstance(limit, float) and limit == 1.0),
    )


def offer(
    trainer: Any, before: dict[str, Any], values: Mapping[str, float], warnings: Warnings
) -> dict[str, Any]:
    """Give ``values`` to callbacks that monitor them, as if the module had logged them.

    Args:
        trainer: Lightning's.
        before: what an earlier call returned; what is not measured any more is withdrawn.
        values: by name; those that the module logs itself stay the module's.
        warnings: of the run.
    """
    offered, device = trainer.callback_metrics, trainer.strategy.root_device
    for name in [name for name, value in before.items() if offered.get(name) is value]:
        del offered[name]
    new = {n: torch.tensor(v, device=device) for n, v in values.items() if n not in offered}
    if taken := ", ".join(sorted(values.keys() & offered.keys())):
        text = f"{taken}: the module logs values of these names, which its callbacks monitor"
        warnings.warn_once("taken", f"{text}; boxscore's own are in score.latest and the trackers")
    offered.update(new)
    for callback in trainer.callbacks:
        for names in (getattr(callback, name, None) for name in AUTOLOG):
            if isinstance(names, set):
                names.update(new)
    return new


class Watched:
    """A module, its forward of the batch at hand, and what a batch gives for the metrics.

    Of several forwards the last one of the batch's images counts, or else of their sizes.

    Attributes:
        network: its child of a usual name, or the only one that has parameters, or itself.
        outputs: logits (N, C, H, W), a mapping that holds them, N detections, or None.
        losses: those of a detector in train mode.
        transformers: takes the forwards of a network of Transformers'; None for any other.
    """

    def __init__(  # noqa: PLR0917  # what a training has
        self, trainer: Any, module: Any, criterion: Any, run: Run, reader: BatchReader,
        options: Options, ignore_index: int | None,
    ) -> None:  # fmt: skip
        self.trainer, self.module, self._run = trainer, module, run
        self._reader, self._predict, self._options = reader, options.predict, options
        self._given, self._criterion = criterion, criterion and Criterion(criterion, run.warnings)
        self.network = lightning_network(module)
        trained = [child for child in module.children() if any(True for _ in child.parameters())]
        if self.network is module and len(trained) == 1:
            self.network = trained[0]
        inside = None if self.network is module else self.network
        own = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
        has_forward = own.__name__ != "LightningModule"
        self._callable: Any = module if has_forward else inside
        self._is_prepared: dict[bool, bool] = {}  # in training and not; whether images are changed
        self.transformers = None
        if is_transformers(self.network) and not options.predict:
            self.transformers = Forwards(None)
            self.transformers.begin(self.network, run, None, ignore_index)
        self.begin(None)

    @property
    def hooks(self) -> dict[Any, Callable[..., None]]:
        """The modules to watch, and what takes their forwards."""
        watched: dict[Any, Callable[..., None]] = {self.module: self.see, self.network: self.see}
        if self.transformers and (criterion := criterion_inside(self.network)):
            watched[criterion] = self.transformers.see_criterion
        return watched

    @property
    def needs_forwards(self) -> bool:
        """Whether every forward in training is of use, not only those of batches that are due."""
        is_known = self.transformers or is_torchvision_detector(self.network)
        return bool(is_known) or True not in self._is_prepared

    @property
    def own_pass(self) -> Predict | None:
        """How boxscore measures a batch by itself, None where it would not do as the steps do."""
        if (model := self._options.evaluate_model) is not None and not self._predict:
            model = model if hasattr(model, "eval") else model()
            return predictor(model, self._run, self._given, self._reader)
        is_semantic = self._run.task == "semantic-segmentation"
        has_forward = is_semantic and self._callable is not None
        known = has_forward or (not is_semantic and is_torchvision_detector(self.network))
        is_own = self._predict or self.transformers or (known and self._is_called_as_it_is)
        return self.measure if is_own else None

    @property
    def _is_called_as_it_is(self) -> bool:
        """Whether the steps, first validation's, call the forward with the batch's own images."""
        in_training = self._is_prepared.get(True, self._callable is not self.module)
        return not self._is_prepared.get(False, in_training)

    # the hook of the module and of its network

    def begin(self, batch: Any) -> None:
        """Keep the forwards of ``batch`` from now on, or with None nothing."""
        self._batch, self._rank, self._alike = batch, (False, False), 0
        self._images: Any = None if batch is None else self._reader.images(batch)
        self.outputs: Any = None
        self.losses: dict[str, Any] = {}
        self._inputs: Any = None
        self._is_resized = False
        if self.transformers:
            self.transformers.take(is_training=True)

    def see(self, module: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        """Keep a forward, if it counts more than those before."""
        if self._images is None:
            return
        if self.transformers and module is self.network:
            self.transformers.see(module, args, kwargs, outputs, keeps_outputs=True)
            return
        given: Any = next(iter((*args, *kwargs.values())), None)
        if given is self._batch:
            given = self._images
        elif isinstance(given, Mapping):
            given = BatchReader().images(given)
        fits, is_own = _sizes(given) == _sizes(self._images), _is_same(given, self._images)
        if module is self._callable:
            in_training = module.training
            is_first = self._is_prepared.get(in_training) is None
            if is_own or (fits and is_first and all(map(torch.equal, given, self._images))):
                self._is_prepared[in_training] = False
            self._is_prepared.setdefault(in_training, True)
        if module is self.network:
            self._inputs, self._is_resized = (given if fits else None), not fits
            if isinstance(outputs, Mapping) and all(map(_is_scalar, outputs.values())):
                self.losses = dict(outputs)
        rank = (is_own, module is self.module)
        if fits and rank >= self._rank and _is_prediction(outputs):
            self._alike = 1 if rank > self._rank else self._alike + 1
            self.outputs, self._rank = outputs, rank

    def training_losses(self, outputs: Any) -> dict[str, Any]:
        """The objective and the parts that a training step returned, else a detector's own."""
        if self.transformers and (seen := self.transformers.take(is_training=True)):
            self.losses = dict(losses_of_batch(seen))
            if self._run.task == "semantic-segmentation":
                self.outputs = seen[0].outputs.get("logits")
        is_divided = self.module.automatic_optimization
        losses = losses_of(outputs, self.trainer.accumulate_grad_batches if is_divided else 1)
        return losses if losses.keys() - {"loss"} else {**self.losses, **losses}

    def semantic(self, outputs: Any, batch: Any) -> Callable[[], tuple[Any, Any]] | None:
        """The logits and targets of a semantic training step that gives them."""
        is_semantic, found = self._run.task == "semantic-segmentation", returned(outputs)
        given = is_semantic and self._reader.targets(batch)
        _, logits, targets = found or ({}, self.outputs, given)
        if not is_semantic or not hasattr(targets, "ndim"):
            return None
        if found is None and self._batch is not None:
            advice = "return {'loss': …, 'predictions': …, 'targets': …} from it"
            what = "focal, cross_entropy and dice of the train split"
            if logits is None:
                text = f"no forward in training_step gives logits: {what} are not measured"
                self._run.warnings.warn_once("logits", f"{text}; {advice}")
            elif self._is_prepared.get(True):
                text = f"training_step changes the images before the forward: {what} are measured "
                text += f"with the targets of the batch; if it changes these too, {advice}"
                self._run.warnings.warn_once("changed", text)
        return None if logits is None else lambda: (logits, targets)

    # losses, predictions and targets of a batch

    def measure(self, _: Any, batch: Any) -> Found:
        """Those of boxscore's own evaluations, whose batches are prepared like validation's."""
        trainer, precision = self.trainer, self.trainer.precision_plugin
        stage, trainer.validating = trainer.state.stage, True
        try:
            batch = self.module._on_before_batch_transfer(precision.convert_input(batch))
            batch = trainer.strategy.batch_to_device(batch)
            self.begin(batch)
            return self.found(None, batch)
        finally:
            trainer.state.stage = stage
            self.begin(None)

    def found(self, outputs: Any, batch: Any) -> Found:
        """Those that a step returned, or ``predict=`` or the module's own forward gives."""
        if (found := returned(outputs)) is not None:
            return found
        prepared = dict(self._is_prepared)
        try:
            with self.trainer.precision_plugin.val_step_context():
                if self._predict is not None:
                    return self._inside(partial(self._predict, self.module), batch)
                if self.transformers:
                    if seen := self.transformers.take(is_training=False):
                        return self.transformers.found(seen)
                    return self._inside(partial(self.transformers.forwarded, self.network), batch)
                losses, predictions, targets = self._inside(self._of_forward, batch)
        finally:
            self._is_prepared = prepared  # the steps decide, not boxscore's own forwards
        losses = losses or losses_of(outputs)
        if not losses and self._criterion is None:
            text = "no losses of the test set are known: return 'losses' from validation_step"
            text = NO_CRITERION if self._run.task == "semantic-segmentation" else text
            self._run.warnings.warn_once("criterion", text)
        return losses, predictions, targets

    def _inside(self, step: Callable[[Any], Found], batch: Any) -> Found:
        """``step(batch)`` in the forward of FSDP's wrapper, which gathers the weights.

        DistributedDataParallel's would wait for processes that have fewer batches.
        """
        strategy, attributes, name = self.trainer.strategy, vars(self.module), "validation_step"
        if without_ddp(strategy.model) is self.module:
            return step(batch)
        own = {name: attributes[name]} if name in attributes else {}
        attributes[name] = step
        try:
            return strategy.validation_step(batch)  # type: ignore[no-any-return]
        finally:
            del attributes[name]
            attributes.update(own)

    def _of_forward(self, batch: Any) -> Found:
        """From the forward that was seen, or one more.

        Raises:
            ValueError: no forward gives logits or detections, with what to pass.
        """
        images, targets = pair(batch, self._reader)
        is_semantic = self._run.task == "semantic-segmentation"
        is_detector = not is_semantic and is_torchvision_detector(self.network)
        was_seen = self.outputs is not None or self._inputs is not None
        is_own = not was_seen and self._is_called_as_it_is
        if is_own and self._callable is not (self.network if is_detector else None):
            self.outputs = self._callable(images)
        if self._alike > 1 and not self._rank[0]:
            text = "the last of several forwards, of other images than the batch's, is measured"
            self._run.warnings.warn_once("forwards", f"{text}; return predictions from the step")
        outputs, count = self.outputs, len(targets)
        if is_semantic and outputs is not None:
            return segmented(_first(outputs, count), targets, self._criterion)
        losses: Any = {}
        if is_detector and (was_seen or is_own) and not self._is_resized:
            inputs = images if self._inputs is None else self._inputs
            losses, detections = test_losses(self.network, inputs[:count], targets)
            outputs = outputs or detections
        if outputs is None or not _is_prediction(outputs):
            raise ValueError(
                f"a step of {type(self.module).__name__} returns no 'predictions' and 'targets', "
                "and no forward in it gives logits or detections; return {'losses': …, "
                f"'predictions': …, 'targets': …}}, or {ADVICE}"
            )
        return losses, *framed(outputs[:count], targets, images, list(self._run.names))


def _first(outputs: Any, count: int) -> Any:
    if isinstance(outputs, Mapping):
        return {name: _first(value, count) for name, value in outputs.items()}
    return outputs[:count] if getattr(outputs, "ndim", 0) else outputs


def _is_prediction(outputs: Any) -> bool:
    if isinstance(outputs, Mapping):
        outputs = outputs.get("out", outputs.get("logits"))
    if isinstance(outputs, list):
        return bool(outputs) and all(isinstance(o, Mapping) and "scores" in o for o in outputs)
    return getattr(outputs, "ndim", 0) == 4


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Real) or (hasattr(value, "detach") and value.numel() == 1)


def _is_same(one: Any, other: Any) -> bool:
    lists = isinstance(one, list | tuple) and isinstance(other, list | tuple)
    return one is other or (lists and len(one) == len(other) and all(map(_is_same, one, other)))


def _sizes(images: Any) -> list[Any]:
    """The sizes of N images (C, H, W), in one tensor or a list."""
    if getattr(images, "ndim", 0):
        return [tuple(images.shape[1:])] * len(images)
    listed = isinstance(images, list | tuple)
    return [tuple(getattr(image, "shape", ())) for image in images] if listed else []
