"""From a model and a batch to losses, predictions and targets, where boxscore knows how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from boxscore import Run
from boxscore.identity.wrappers import unwrapped
from boxscore.losses import is_torchvision_detector, test_losses
from boxscore.losses.parts import MEASURED
from boxscore.losses.semantic import count_valid, semantic_losses
from boxscore.warn import Warnings

from .batches import BatchReader

Found = tuple[Mapping[str, Any], Any, Any]
"""Losses by native name, predictions, targets: of one batch."""

Predict = Callable[[Any, Any], Found]
"""``predict(model, batch) -> (losses, predictions, targets)``."""

ADVICE = "pass predict=, a function of (model, batch) that returns losses, predictions, targets"

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
    losses, detections = test_losses(model, images, [_moved(target, device) for target in targets])
    return losses, *framed(detections, targets, images, labels)


def framed(
    detections: Sequence[Any], targets: Sequence[Any], images: Any, labels: Sequence[int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Detections of the ``labels``, and targets, of N images in the original images' frames."""
    pairs = [
        original_frame(detection, target, image.shape[-2:])
        for detection, target, image in zip(detections, targets, images, strict=True)
    ]
    return [_of_labels(detection, labels) for detection, _ in pairs], [t for _, t in pairs]


def original_frame(
    detection: Mapping[str, Any], target: Mapping[str, Any], size: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Undo a resize: one image's detections and targets as they are in the original image.

    Args:
        detection: ``boxes`` (N, 4) xyxy in pixels of the resized image, ``masks`` where there are.
        target: the same, with ``orig_size`` (height, width) where the image was resized.
        size: (height, width) of the image that the model saw.
    """
    if "orig_size" not in target:
        return dict(detection), dict(target)
    height, width = (int(side) for side in target["orig_size"])
    down, across = height / size[0], width / size[1]
    if down == across == 1:
        return dict(detection), dict(target)
    scale = torch.tensor([across, down, across, down], dtype=torch.float64)
    scaled = []
    for objects in (detection, target):
        boxes = torch.as_tensor(objects["boxes"]).cpu().double() * scale
        changed: dict[str, Any] = {"boxes": boxes.float().to(objects["labels"].device)}
        if "area" in objects:
            changed["area"] = torch.as_tensor(objects["area"]).cpu().double() * down * across
        if isinstance(objects.get("masks"), Tensor):
            changed["masks"] = _resized(objects["masks"], (height, width))
        scaled.append({**objects, **changed})
    return scaled[0], scaled[1]


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
                return of_criterion(self._function(outputs, targets))
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
        losses = of_criterion(self._function(main_output(outputs, targets), targets))
        if isinstance(outputs, Mapping) and "aux" in outputs:
            auxiliary = self._function(main_output(outputs["aux"], targets), targets)
            losses["auxiliary"] = AUXILIARY_WEIGHT * sum(of_criterion(auxiliary).values())
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
    with torch.no_grad():
        return segmented(model(images.to(device)), targets.to(device), criterion)


def segmented(outputs: Any, targets: Tensor, criterion: Criterion | None) -> Found:
    """Losses, logits and targets, of what a semantic model gave for a batch."""
    losses = criterion(outputs, targets) if criterion else {}
    return losses, main_output(outputs, targets), targets


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
    if not count_valid(targets, ignore_index):
        return {}
    logits = main_output(outputs, targets).detach()
    return semantic_losses(logits, targets, ignore_index=ignore_index)


def of_criterion(losses: Any) -> dict[str, Any]:
    """What a semantic criterion gave, a scalar or a dict, under names that are parts.

    ``focal``, ``cross_entropy`` and ``dice`` by these very names are measured from logits whatever
    the criterion is; a criterion's own terms are its parts.
    """
    if not isinstance(losses, Mapping):
        return {"classification": losses}
    return {f"{name}_loss" if name in MEASURED else name: v for name, v in losses.items()}


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


def _moved(target: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in target.items()}


def _of_labels(detection: Mapping[str, Tensor], labels: Sequence[int]) -> dict[str, Tensor]:
    named = torch.isin(detection["labels"], torch.tensor(labels, device=detection["labels"].device))
    return {k: v[named] if v.shape[:1] == named.shape else v for k, v in detection.items()}


def _resized(masks: Tensor, size: tuple[int, int]) -> Tensor:
    shape = (len(masks), 1, *masks.shape[-2:])
    resized = nn.functional.interpolate(masks.reshape(shape).float(), size=size, mode="nearest")
    return resized[:, 0] if masks.is_floating_point() else resized[:, 0].to(masks.dtype)
