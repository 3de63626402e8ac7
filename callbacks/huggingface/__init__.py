"""From a forward of a Transformers model to named losses, predictions and targets.

Nothing here imports Transformers: models, outputs and processors are known by what they hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boxscore.callbacks.predict import ADVICE, main_output
from boxscore.identity.wrappers import unwrapped

from .detr import read_boxes
from .mask2former import read_instances, read_label_maps

COEFFICIENTS = {
    "loss_bbox": "bbox_loss_coefficient",
    "loss_giou": "giou_loss_coefficient",
    "loss_mask": "mask_loss_coefficient",
    "loss_dice": "dice_loss_coefficient",
    "loss_mask_ce": "mask_class_loss_coefficient",
    "loss_mask_dice": "mask_dice_loss_coefficient",
}
"""Loss names and the entries of the config by which the DETR family's objective weights them.

Source: ``weight_dict`` in Transformers' ``loss/loss_for_object_detection.py``,
``loss_deformable_detr.py``, ``loss_lw_detr.py``, ``loss_rf_detr.py``, ``loss_grounding_dino.py``.
"""

SUFFIX = re.compile(r"_(\d+|enc)$")
"""Of an earlier decoder layer's losses, or the encoder's."""


def losses_of(
    model: Any,
    outputs: Any,
    criterion: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """The batch's loss parts by native name, weighted as in the objective, and ``"loss"`` itself.

    The parts add up to the objective wherever the model gives parts at all; a semantic model with
    one scalar gives that alone. Values are detached scalars on the model's device.

    Args:
        model: which gave ``outputs``.
        outputs: of a forward with labels, with ``loss`` and perhaps ``loss_dict``.
        criterion: what a forward hook on ``model.criterion`` saw, for models whose output holds no
            ``loss_dict``: they weight its tensors in place afterwards, so that it is to be read
            after the model's forward. All that it saw where it is called once per layer (EoMT);
            the last call is the main one.

    Raises:
        ValueError: if the outputs hold no loss.
    """
    model = unwrapped(model)
    objective = getattr(outputs, "loss", None)
    if not isinstance(objective, Tensor):
        raise ValueError(f"{_named(model, outputs)} without a loss: the batch has no labels")
    stated = getattr(outputs, "loss_dict", None)
    parts = _of_layers(criterion or {}) if stated is None else _weighted(model, stated)
    losses = {name: _scalar(value) for name, value in parts.items()}
    # a copy: with several processes the Trainer multiplies it in place by their number
    return losses | {"loss": _scalar(objective).clone()}


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

    Boxes, areas and the masks of box models are in the original image's frame, as far as the
    labels tell its size (``orig_size``); instances of Mask2Former and its kin in that of
    ``mask_labels``; semantic logits in the size of the label map.

    Args:
        model: which gave ``outputs`` in eval mode.
        inputs: the keywords of the forward: ``pixel_values`` (N, 3, H, W), ``labels`` or
            ``mask_labels`` and ``class_labels``, perhaps ``pixel_mask`` (N, H, W).
        outputs: of that forward.
        task: ``"detection"``, ``"instance-segmentation"`` or ``"semantic-segmentation"``.
        labels: of the classes; detections of others are dropped.
        processor: an image processor, or what holds one; it tells how boxes are scored.
        ignore_index: of semantic targets.

    Returns:
        for the two tasks of objects, two lists of N dicts; else logits (N, classes, H, W) and
        integers (N, H, W).

    Raises:
        ValueError: for what is not understood, with what was found and what to pass.
    """
    model = unwrapped(model)
    if "input_ids" in inputs:  # Grounding DINO and kin: logits are of words
        raise ValueError(f"{type(model).__name__} finds what a text names, no classes; {ADVICE}")
    queries = isinstance(getattr(outputs, "masks_queries_logits", None), Tensor)
    if task == "semantic-segmentation":
        if queries:
            return read_label_maps(inputs, outputs, ignore_index)
        return _read_logits(model, inputs, outputs)
    if queries and task == "instance-segmentation":
        return read_instances(inputs, outputs, labels)
    if not isinstance(getattr(outputs, "pred_boxes", None), Tensor):
        raise ValueError(f"{_named(model, outputs)} without boxes for task={task!r}; {ADVICE}")
    _check_labels(inputs)
    masks = task == "instance-segmentation"
    return read_boxes(model, inputs, outputs, labels, processor=processor, masks=masks)


def _weighted(model: Any, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``loss_dict`` weighted as in the objective, without what is not in it.

    RT-DETR, D-FINE and DEIM weight it themselves, by other entries of the config
    (``RTDetrLoss.forward``: ``l_dict[k] * self.weight_dict[k]``). The others leave it as it is.
    """
    config = model.config
    if not hasattr(config, "bbox_loss_coefficient"):
        return dict(parts)
    kind = str(getattr(model, "loss_type", ""))
    # cls_loss_coefficient of Conditional and DAB-DETR weights nothing
    classes = 2.0 if "GroundingDino" in kind else getattr(config, "class_loss_coefficient", 1.0)
    weights = {"loss_ce": classes} | {
        name: getattr(config, entry)
        for name, entry in COEFFICIENTS.items()
        if hasattr(config, entry)
    }
    earlier = {str(layer) for layer in range(getattr(config, "decoder_layers", 1) - 1)}
    if kind != "RfDetrForInstanceSegmentation" or config.auxiliary_loss:
        earlier.add("enc")
    result = {}
    for name, value in parts.items():
        suffix = SUFFIX.search(name)
        bare = name[: suffix.start()] if suffix else name
        if bare in weights and (suffix is None or suffix[1] in earlier):
            result[name] = value.detach() * weights[bare]
    return result


def _of_layers(
    criterion: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """The parts of one call or of several, the earlier layers' numbered as in a ``loss_dict``."""
    if isinstance(criterion, Mapping):
        return dict(criterion)
    last = len(criterion) - 1
    return {
        name if layer == last else f"{name}_{layer}": value
        for layer, parts in enumerate(criterion)
        for name, value in parts.items()
    }


def _scalar(value: Tensor) -> Tensor:
    """A detached scalar; of one loss per device their mean, of none at all zero."""
    value = value.detach().float()
    return value.mean() if value.numel() else value.new_zeros(())


def _read_logits(model: Any, inputs: Mapping[str, Any], outputs: Any) -> tuple[Tensor, Tensor]:
    """Logits at the size of the label maps, and these."""
    logits, targets = getattr(outputs, "logits", None), inputs.get("labels")
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        raise ValueError(f"{_named(model, outputs)} without logits (N, C, H, W); {ADVICE}")
    if not isinstance(targets, Tensor) or targets.ndim != 3:
        raise ValueError(f"labels are no label maps (N, H, W) but {_shape(targets)}; {ADVICE}")
    return main_output(logits.float(), targets), targets.to(logits.device)


def _check_labels(inputs: Mapping[str, Any]) -> None:
    labels = inputs.get("labels")
    needed = {"boxes", "class_labels"}
    if not isinstance(labels, Sequence) or not all(needed <= set(label) for label in labels):
        raise ValueError(
            f"labels are no dicts with boxes and class_labels but {_shape(labels)}; {ADVICE}"
        )


def _named(model: Any, outputs: Any) -> str:
    """What a model gave, for an error: its fields where it has such."""
    fields = f" of {', '.join(outputs)}" if isinstance(outputs, Mapping) else ""
    return f"{type(model).__name__} gave a {type(outputs).__name__}{fields}"


def _shape(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
