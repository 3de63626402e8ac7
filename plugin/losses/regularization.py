"""The regularization loss of an optimizer's weight decay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from boxscore import distributed

_DECOUPLED = {"AdamW", "SGDW", "Lion", "Lamb", "LAMB", "Adafactor", "Muon", "AdamW8bit", "NAdamW"}
"""Optimizers by class name that decay the weights beside the gradient, flag or no flag."""


def regularization_kind(optimizer: torch.optim.Optimizer) -> Literal["l2", "decoupled", "none"]:
    """How ``optimizer`` decays weights: in the objective, beside it, or not at all."""
    groups = [group for group in optimizer.param_groups if group.get("weight_decay", 0)]
    if not groups:
        return "none"
    names = {kind.__name__ for kind in type(optimizer).__mro__}
    flagged = any(group.get("decoupled_weight_decay") for group in groups)
    return "decoupled" if flagged or names & _DECOUPLED else "l2"


@torch.no_grad()
def regularization_loss(optimizer: torch.optim.Optimizer) -> Tensor:
    """½ Σ weight_decay·‖w‖² over the optimizer's parameter groups, each with its own decay.

    Its gradient is exactly what SGD's ``weight_decay`` adds. 0 where nothing decays. Where the
    weights are spread over several processes (FSDP) all of them must call it, for the sum of all.

    Returns:
        a scalar on the parameters' device, so that reading it is the caller's choice of time.
    """
    total = torch.zeros((), dtype=torch.float64)
    parts, is_spread = total, False
    for group in optimizer.param_groups:
        decay = group.get("weight_decay", 0)
        whole: list[Any] = []
        spread: list[Any] = []  # of which this process holds a part: FSDP's mark, or a DTensor
        for w in group["params"]:
            if w.requires_grad:
                is_part = hasattr(w, "_fsdp_flattened") or hasattr(w, "to_local")
                (spread if is_part else whole).append(w)
        is_spread |= bool(spread)
        if decay:
            parts = parts + 0.5 * decay * sum(_squares([_local(w)]) / _copies(w) for w in spread)
            squares = _squares(whole)
            total = total.to(squares.device) + 0.5 * decay * squares
    if is_spread:
        total = total + sum(distributed.gathered(float(parts)))
    return total


def _squares(weights: Sequence[Any]) -> Tensor:
    """The sum of the squares of ``weights``, on their device."""
    weights = [w for w in weights if w.numel()]
    if not weights:
        return torch.zeros((), dtype=torch.float64)
    norms = torch._foreach_norm(weights)
    return torch.stack([n.to(weights[0].device) for n in norms]).double().square().sum()


def _local(weight: Any) -> Any:
    return weight.to_local() if hasattr(weight, "to_local") else weight


def _copies(weight: Any) -> int:
    """How many processes hold this very part of ``weight``."""
    placements = getattr(weight, "placements", ())
    sizes = (weight.device_mesh.size(n) for n, p in enumerate(placements) if p.is_replicate())
    return math.prod(sizes)
