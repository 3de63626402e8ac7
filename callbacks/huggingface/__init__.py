"""From a forward of a Transformers model to named losses, predictions and targets.

Nothing here imports Transformers: models, outputs and processors are known by their attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boxscore.callbacks.reading.predict import ADVICE, main_output
from boxscore.identity.wrappers import unwrapped

from .detr import read_boxes
from .losses import described, losses_of
from .mask2former import read_instances, read_label_maps

__all__ = ["ignored_label", "is_transformers", "losses_of", "read"]

IGNORED = ("semantic_loss_ignore_index", "loss_ignore_index")
"""Entries of the config for the label that a semantic criterion ignores."""


def is_transformers(model: Any) -> bool:
    """Whether ``model``, wrapped or not, is one of Transformers'."""
    roots = {kind.__module__.partition(".")[0] for kind in type(unwrapped(model)).__mro__}
    return not roots.isdisjoint(("transformers", "transformers_modules"))


@torch.no_grad()
def read(
    model: Any,
    inputs: Mapping[str, Any],
    outputs: Any,
    *,
    task: str,
    labels: Sequence[int],
    processor: Any = None,
    ignore_index: int | None = 255,
) -> tuple[Any, Any]:
    """Predictions and targets of one batch as the metrics take them.

    Boxes, areas and the masks of box models are in the original image's frame where the labels
    hold its size (``orig_size``); instances of the Mask2Former family in that of ``mask_labels``;
    semantic logits in the size of the label map.

    Args:
        model: wrapped or not.
        inputs: keywords of its forward: ``pixel_values`` (N, 3, H, W), ``labels`` or
            ``mask_labels`` and ``class_labels``, perhaps ``pixel_mask`` (N, H, W).
        outputs: of that forward.
        task: ``"detection"``, ``"instance-segmentation"`` or ``"semantic-segmentation"``.
        labels: of the classes; detections of others are dropped.
        processor: an image processor, or one with an ``image_processor``, which scores boxes.
        ignore_index: of semantic targets.

    Returns:
        two lists of N dicts; of semantic models logits (N, classes, H, W) and integers (N, H, W).

    Raises:
        ValueError: for an unknown form of outputs or labels, with its description and advice.
    """
    model = unwrapped(model)
    if "input_ids" in inputs:  # as of Grounding DINO: logits are of words
        raise ValueError(f"{type(model).__name__} detects words of a text, no classes; {ADVICE}")
    queries = isinstance(getattr(outputs, "masks_queries_logits", None), Tensor)
    if task == "semantic-segmentation":
        if queries:
            return read_label_maps(inputs, outputs, ignore_index)
        return _read_logits(model, inputs, outputs)
    if queries and task == "instance-segmentation":
        return read_instances(inputs, outputs, labels)
    if not isinstance(getattr(outputs, "pred_boxes", None), Tensor):
        raise ValueError(f"{described(model, outputs)} without boxes for task={task!r}; {ADVICE}")
    _check_labels(inputs)
    masks = task == "instance-segmentation"
    return read_boxes(model, inputs, outputs, labels, processor=processor, masks=masks)


def ignored_label(model: Any, processor: Any) -> int | None:
    """The label that a model on label maps ignores, by its config or else its image processor.

    A processor that reduces labels makes 255 of the background.
    """
    config = getattr(unwrapped(model), "config", None)
    for entry in IGNORED:
        if isinstance(label := getattr(config, entry, None), int):
            return label
    processor = getattr(processor, "image_processor", processor)
    return 255 if getattr(processor, "do_reduce_labels", False) else None


def _read_logits(model: Any, inputs: Mapping[str, Any], outputs: Any) -> tuple[Tensor, Tensor]:
    """Logits at the size of the label maps, and these."""
    logits, targets = getattr(outputs, "logits", None), inputs.get("labels")
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        raise ValueError(f"{described(model, outputs)} without logits (N, C, H, W); {ADVICE}")
    if not isinstance(targets, Tensor) or targets.ndim != 3:
        raise ValueError(f"labels are not label maps (N, H, W) but {_shape(targets)}; {ADVICE}")
    return main_output(logits.detach().float(), targets), targets.to(logits.device)


def _check_labels(inputs: Mapping[str, Any]) -> None:
    labels = inputs.get("labels")
    needed = {"boxes", "class_labels"}
    if not isinstance(labels, Sequence) or not all(needed <= set(label) for label in labels):
        raise ValueError(
            f"labels are not dicts with boxes and class_labels but {_shape(labels)}; {ADVICE}"
        )


def _shape(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
