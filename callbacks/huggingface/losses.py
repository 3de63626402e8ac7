"""Losses of a Transformers model by name, from the output of a forward."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boxscore.identity.wrappers import unwrapped

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
    model: Any, outputs: Any, criterion: Sequence[Mapping[str, Tensor]] | None = None
) -> dict[str, Tensor]:
    """The batch's loss parts by native name, weighted as in the objective, and ``"loss"`` itself.

    Where the model returns parts, they add up to the objective; a semantic model with one scalar
    returns that alone. Values are detached scalars on the model's device.

    Args:
        model: wrapped or not.
        outputs: of a forward with labels, with ``loss`` and perhaps ``loss_dict``.
        criterion: the outputs of ``model.criterion``, for models without a ``loss_dict``, which
            weight these tensors in place later in their forward. Of several calls, one per layer
            as in EoMT, the last is the main one.

    Raises:
        ValueError: if the outputs hold no loss.
    """
    model = unwrapped(model)
    objective = getattr(outputs, "loss", None)
    if not isinstance(objective, Tensor):
        raise ValueError(f"{described(model, outputs)} without a loss: the batch has no labels")
    stated = getattr(outputs, "loss_dict", None)
    parts = _of_layers(criterion or []) if stated is None else _weighted(model, stated)
    losses = {name: _scalar(value) for name, value in parts.items()}
    # a copy: with several processes the Trainer multiplies it in place by their number
    return losses | {"loss": _scalar(objective).clone()}


def mean_losses(rows: Sequence[tuple[Mapping[str, Any], int]]) -> Mapping[str, Any]:
    """The mean of each name over ``rows`` of losses and weights, on the device of the first."""
    if len(rows) == 1:
        return rows[0][0]
    means = {}
    for name in dict.fromkeys(name for losses, _ in rows for name in losses):
        found = [(torch.as_tensor(row[name]), weight) for row, weight in rows if name in row]
        total = sum(value.to(found[0][0].device) * weight for value, weight in found)
        means[name] = total / sum(weight for _, weight in found)
    return means


def _weighted(model: Any, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``loss_dict`` weighted as in the objective, without entries that the objective lacks.

    RT-DETR, D-FINE and DEIM return it weighted, by other entries of the config
    (``RTDetrLoss.forward``: ``l_dict[k] * self.weight_dict[k]``); the others unweighted.
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


def _of_layers(calls: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The parts of each call; those of all but the last are numbered as in a ``loss_dict``."""
    last = len(calls) - 1
    return {
        name if layer == last else f"{name}_{layer}": value
        for layer, parts in enumerate(calls)
        for name, value in parts.items()
    }


def _scalar(value: Tensor) -> Tensor:
    """A detached scalar: the mean of several elements, zero of none."""
    value = value.detach().float()
    return value.mean() if value.numel() else value.new_zeros(())


def described(model: Any, outputs: Any) -> str:
    """A model's outputs, for an error: their type, and their fields where they have some."""
    fields = f" of {', '.join(outputs)}" if isinstance(outputs, Mapping) else ""
    return f"{type(model).__name__} returned a {type(outputs).__name__}{fields}"
