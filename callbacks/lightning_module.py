"""A LightningModule in a training: what its steps return, and its own forward of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from numbers import Real
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from boxscore import Run
from boxscore.identity.wrappers import lightning_network, without_ddp
from boxscore.losses import is_torchvision_detector, test_losses

from .base import Facts
from .batches import BatchReader
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
    segmented,
)


def returned(outputs: Any) -> Found | None:
    """What a step returned, where it holds predictions and targets."""
    names = ("predictions", "targets")
    if not isinstance(outputs, Mapping) or any(outputs.get(name) is None for name in names):
        return None
    return objective(outputs), outputs["predictions"], outputs["targets"]


def objective(outputs: Any) -> dict[str, Any]:
    """The losses that ``validation_step`` returned: its ``losses``, or its only loss."""
    losses = outputs.get("losses") if isinstance(outputs, Mapping) else None
    if isinstance(losses, Mapping):
        return dict(losses)
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    return {"loss": loss} if _is_scalar(loss) else {}


def parts(outputs: Any) -> dict[str, Any]:
    """The ``losses`` that ``training_step`` returned, or scalars whose names hold "loss"."""
    outputs = outputs if isinstance(outputs, Mapping) else {}
    if isinstance(outputs.get("losses"), Mapping):
        return dict(outputs["losses"])
    named = {n: v for n, v in outputs.items() if n != "loss" and "loss" in str(n).lower()}
    return {name: value for name, value in named.items() if _is_scalar(value)}


def named_loaders(loaders: Any, first: str = "test") -> dict[str, Any]:
    """Loaders by name: one or the first of a list is ``first``, the others are numbered."""
    if loaders is None:
        return {}
    if not isinstance(loaders, list | tuple | Mapping):
        return {first: loaders}
    named = loaders if isinstance(loaders, Mapping) else dict(enumerate(loaders))
    start = "" if first == "test" else f"{first}_"
    return {first if n == 0 else f"{start}{n}": loader for n, loader in named.items()}


def facts_of(trainer: Any, images: Any, criterion: Any, *, evaluates: bool) -> Facts:
    """What ``trainer`` states, once its training has begun.

    Args:
        trainer: Lightning's.
        images: of the first batch, or None.
        criterion: of a semantic training, or None.
        evaluates: whether Lightning's validation is measured, so that its loaders are read by then.
    """
    loaders, source = trainer.val_dataloaders, trainer.fit_loop.epoch_loop.val_loop._data_source
    if loaders is None and not evaluates and source.is_defined():
        loaders = source.dataloader()
    train_loader, limit = trainer.train_dataloader, trainer.limit_val_batches
    return Facts(
        size=size_of(images),
        ignore_index=ignored_by(criterion),
        loaders=named_loaders(loaders),
        train_loader=train_loader if hasattr(train_loader, "dataset") else None,
        evaluates=True,
        # what is left out of Lightning's validation would make another set of it
        evaluates_at_end=not evaluates or (isinstance(limit, float) and limit == 1.0),
    )


class Watched:
    """A module, its forward of the batch at hand, and what a batch gives for the metrics.

    Of several forwards the last one of the batch's own images counts, or else of images of their
    sizes; the module's before its network's.

    Attributes:
        trainer: Lightning's.
        module: the user's.
        network: its child of a usual name, or the only one that has parameters, or itself.
        outputs: logits (N, C, H, W), a mapping that holds them, or N detections; None where no
            forward gave any.
        losses: of a torchvision detector in train mode.
    """

    def __init__(
        self,
        trainer: Any,
        module: Any,
        run: Run,
        criterion: Criterion | None,
        predict: Predict | None,
        reader: BatchReader,
    ) -> None:
        self.trainer, self.module, self._run = trainer, module, run
        self._criterion, self._predict, self._reader = criterion, predict, reader
        self.network = lightning_network(module)
        trained = [child for child in module.children() if any(True for _ in child.parameters())]
        if self.network is module and len(trained) == 1:
            self.network = trained[0]
        inside = None if self.network is module else self.network
        has_forward = is_overridden("forward", module, LightningModule)
        self._callable: Any = module if has_forward else inside
        self.begin(None)

    def is_measurable(self, task: str) -> bool:
        """Whether boxscore may measure a batch by itself."""
        is_semantic = task == "semantic-segmentation"
        return self._callable is not None if is_semantic else is_torchvision_detector(self.network)

    # the hook of the module and of its network

    def begin(self, batch: Any) -> None:
        """Keep the forwards of ``batch`` from now on, or with None nothing."""
        self._batch, self._rank, self._alike = batch, (False, False), 0
        self._images = None if batch is None else self._reader.images(batch)
        self.outputs: Any = None
        self.losses: dict[str, Any] = {}
        self._inputs: Any = None
        self._is_resized = False

    def see(self, module: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        """Keep a forward, if it counts more than those before."""
        if self._images is None:
            return
        given = next(iter((*args, *kwargs.values())), None)
        if given is self._batch or isinstance(given, Mapping):
            given = self._reader.images(given)
        fits = _sizes(given) == _sizes(self._images)
        if module is self.network:
            self._inputs, self._is_resized = (given if fits else None), not fits
            if isinstance(outputs, Mapping) and all(map(_is_scalar, outputs.values())):
                self.losses = dict(outputs)
        rank = (_is_same(given, self._images), module is self.module)
        if fits and rank >= self._rank and _is_prediction(outputs):
            self._alike = 1 if rank > self._rank else self._alike + 1
            self.outputs, self._rank = outputs, rank

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
        with self.trainer.precision_plugin.val_step_context():
            if self._predict is not None:
                return self._inside(partial(self._predict, self.module), batch)
            losses, predictions, targets = self._inside(self._of_forward, batch)
        losses = losses or objective(outputs)
        if not losses and self._criterion is None:
            self._run.warnings.warn_once("criterion", NO_CRITERION)
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
        if self.outputs is None and self._callable is not (self.network if is_detector else None):
            self.outputs = self._callable(images)
        if self._alike > 1 and not self._rank[0]:
            text = "several forwards of a batch, of other images than its own: the last one counts"
            self._run.warnings.warn_once("forwards", f"{text}; return predictions from the step")
        outputs, count = self.outputs, len(targets)
        if is_semantic and outputs is not None:
            return segmented(_first(outputs, count), targets, self._criterion)
        losses: Any = {}
        if is_detector and not self._is_resized:
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
