"""Losses: their names and parts, and those that frameworks do not report.

Importing this imports no torch: a name's module is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .names import canonical as canonical
    from .parts import criterion_parts as criterion_parts
    from .parts import fold as fold
    from .regularization import regularization_kind as regularization_kind
    from .regularization import regularization_loss as regularization_loss
    from .semantic import count_valid as count_valid
    from .semantic import cross_entropy_loss as cross_entropy_loss
    from .semantic import dice_loss as dice_loss
    from .semantic import focal_loss as focal_loss
    from .semantic import semantic_losses as semantic_losses
    from .torchvision import is_torchvision_detector as is_torchvision_detector
    from .torchvision import modes_kept as modes_kept
    from .torchvision import test_losses as test_losses

_NAMES = {
    "names": "canonical",
    "parts": "criterion_parts fold",
    "regularization": "regularization_kind regularization_loss",
    "semantic": "count_valid cross_entropy_loss dice_loss focal_loss semantic_losses",
    "torchvision": "is_torchvision_detector modes_kept test_losses",
}


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names.split():
            found = globals()[name] = getattr(import_module(f".{module}", __name__), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
