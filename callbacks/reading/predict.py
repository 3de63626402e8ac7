"""From a model and a batch to losses, predictions and targets, where boxscore knows how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from boxscore import Run
from boxscore.identity.wrappers import unwrapped
from boxscore.losses import (
    count_valid,
    criterion_parts,
    is_torchvision_detector,
    semantic_losses,
    test_losses,
)
from boxscore.warn import Warnings

from .batches import BatchReader
from .found import ADVICE as ADVICE  # noqa: PLC0414
from .found import Found as Found  # noqa: PLC0414
from .found import Predict as Predict  # noqa: PLC0414
from .frames import moved, of_labels, original_frame

NO_CRITERION = "without criterion= the test set has no total loss"

AUXILIARY_WEIGHT = 0.5
"""Of torchvision's auxiliary segmentation head in the objective of its reference training."""


def detect(model: nn.Module, images: Any, targets: Any, labels: Sequence[int]) -> Found:
    """Losses, detections and targets of a torchvision detector, in the original image's frame.

    Args:
        model: on any device.
        images: N tensors (3, H, W).
        targets: N dicts, as for training; ``orig_size`` (height, width) means that the data set
            resized the image.
        labels: of the classes. Detections of others are left out: RetinaNet and FCOS score label 0,
            the background, like any other, and COCO's models score labels without a class.
    """
    device = next(model.parameters()).device
    images = [image.to(device) for image in images]
    losses, detections = test_losses(model, images, moved(list(targets), device))
    return losses, *framed(detections, targets, images, labels)


def framed(
    detections: Sequence[Any], targets: Sequence[Any], images: Any, labels: Sequence[int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Detections of the ``labels``, and targets, of N images in the original images' frames."""
    pairs = [
        original_frame(detection, target, image.shape[-2:])
        for detection, target, image in zip(detections, targets, images, strict=True)
    ]
    return [of_labels(detection, labels) for detection, _ in pairs], [t for _, t in pairs]


class Criterion:
    """The criterion of a semantic training, called as the training calls it.

    Args:
        function: ``criterion(outputs, targets)``, a scalar or a dict of scalars; it gets what the
            model gave, or the logits where it takes no dict.
        warnings: where an error of it is counted; it costs the losses that come from it.
    """

    def __init__(self, function: Callable[[Any, Any], Any], warnings: Warnings) -> None:
        self._function, self._warnings = function, warnings

    def __call__(self, outputs: Any, targets: Tensor) -> dict[str, Any]:
        """The losses of a batch by name, empty where the criterion raises."""
        if isinstance(outputs, Mapping):
            with suppress(Exception):  # it takes no dict
                return criterion_parts(self._function(outputs, targets))
        try:
            return self._of_logits(outputs, targets)
        except Exception as error:
            given = f"{_form(main_output(outputs, targets))}, {_form(targets)}"
            name = getattr(self._function, "__name__", type(self._function).__name__)
            self._warnings.count_error(
                "criterion=", f"{name}({given}) raised {type(error).__name__}: {error}"
            )
            return {}

    def _of_logits(self, outputs: Any, targets: Tensor) -> dict[str, Any]:
        """Of each output, weighted as in torchvision's reference training."""
        losses = criterion_parts(self._function(main_output(outputs, targets), targets))
        if isinstance(outputs, Mapping) and "aux" in outputs:
            auxiliary = self._function(main_output(outputs["aux"], targets), targets)
            losses["auxiliary"] = AUXILIARY_WEIGHT * sum(criterion_parts(auxiliary).values())
        return losses


def _form(value: Any) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def ignored_by(criterion: Any) -> int | None:
    """The label, 0 or more, that ``criterion`` or a part of it ignores; None without one.

    Parts are the modules inside, and the keywords of a `functools.partial`.
    """
    parts = list(criterion.modules()) if isinstance(criterion, nn.Module) else [criterion]
    keywords = getattr(criterion, "keywords", {})
    labels = {getattr(part, "ignore_index", None) for part in parts} | {
        keywords.get("ignore_index")
    }
    named = {label for label in labels if isinstance(label, int) and label >= 0}
    return named.pop() if len(named) == 1 else None


def segment(model: Any, images: Any, targets: Any, criterion: Criterion | None) -> Found:
    """Losses, logits and targets of a semantic model in eval mode.

    Args:
        model: gives logits (N, C, H, W), or a dict with ``out`` and perhaps ``aux``.
        images: (N, 3, H, W).
        targets: integers (N, H, W).
        criterion: for the losses.
    """
    device = next(model.parameters()).device
    if images.ndim == 5:
        raise ValueError(
            f"images are {_form(images)}, several crops or slices of each; pass batch=lambda b: "
            "(b[0].flatten(0, 1), b[1].flatten(0, 1))"
        )
    try:
        with torch.no_grad():
            outputs = model(images.to(device))
    except RuntimeError as error:
        if images.dtype != torch.uint8:
            raise
        raise ValueError(
            f"the model takes no images of {_form(images)} ({error}); pass batch=lambda b: "
            "(b[0].float() / 255, b[1]), or as the training converts them"
        ) from None
    return segmented(outputs, targets.to(device), criterion)


def segmented(outputs: Any, targets: Tensor, criterion: Criterion | None) -> Found:
    """Losses, logits and targets, of what a semantic model gave for a batch.

    The criterion gets ``targets`` as the loader gives them.
    """
    losses = criterion(outputs, targets) if criterion else {}
    labels = label_map(targets)
    return losses, main_output(outputs, labels), labels


def label_map(targets: Tensor) -> Tensor:
    """Integers (N, H, W), of masks that have one channel or hold whole numbers as floats.

    Raises:
        ValueError: for masks of several channels, or of other numbers.
    """
    labels = targets.squeeze(1) if targets.ndim == 4 and targets.shape[1] == 1 else targets
    whole = labels.long() if labels.is_floating_point() or labels.dtype == torch.bool else labels
    if labels.ndim != 3 or not bool((whole == labels).all()):
        raise ValueError(
            f"masks are {_form(targets)}, not whole numbers (N, H, W) or (N, 1, H, W); pass "
            "batch=lambda b: (images, label_maps)"
        )
    return whole


def main_output(outputs: Any, targets: Tensor) -> Tensor:
    """The logits (N, C, H, W) in what a semantic model returned, at the size of ``targets``."""
    if isinstance(outputs, Mapping):
        outputs = outputs.get("out", outputs.get("logits"))
    if not isinstance(outputs, Tensor) or outputs.ndim != 4:
        what = f"a tensor {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs)
        raise ValueError(
            f"the model's output is {what}, not logits (N, C, H, W) nor a dict with 'out'; {ADVICE}"
        )
    size = targets.shape[-2:]
    if outputs.shape[-2:] == size:
        return outputs
    return nn.functional.interpolate(outputs, size=size, mode="bilinear", align_corners=False)


def measured_on(outputs: Any, targets: Any, ignore_index: int | None) -> dict[str, Any]:
    """Focal, cross-entropy and Dice loss of a batch in training; none where no pixel is valid."""
    targets = label_map(targets)
    if not count_valid(targets, ignore_index):
        return {}
    logits = main_output(outputs, targets).detach()
    return semantic_losses(logits, targets, ignore_index=ignore_index)


def predictor(
    model: Any, run: Run, criterion: Callable[[Any, Any], Any] | None, reader: BatchReader
) -> Predict:
    """How boxscore measures a batch of ``model`` by itself.

    Raises:
        ValueError: where it cannot, with what to pass.
    """
    labels = list(run.names)
    if run.task == "semantic-segmentation":
        if criterion is None:
            run.warnings.warn_once("criterion", NO_CRITERION)
        measure = criterion and Criterion(criterion, run.warnings)
        return lambda model, batch: segment(model, *pair(batch, reader), measure)
    if is_torchvision_detector(model):
        return lambda model, batch: detect(model, *pair(batch, reader), labels)
    raise ValueError(
        f"boxscore has no way to get test losses and detections from "
        f"{type(unwrapped(model)).__name__}; {ADVICE}"
    )


def pair(batch: Any, reader: BatchReader) -> tuple[Any, Any]:
    """The images and the targets of a batch.

    Raises:
        ValueError: if it holds no two such things.
    """
    images, targets = reader.images(batch), reader.targets(batch)
    if images is None or targets is None:
        raise ValueError(
            f"a batch of the loader is a {type(batch).__name__}, not (images, targets); {ADVICE}"
        )
    return images, targets
