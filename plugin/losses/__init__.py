"""Losses that frameworks do not report: regularization, the test set's, the semantic criteria.

Importing this imports no torch: each function's module is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .regularization import regularization_kind, regularization_loss
    from .semantic import cross_entropy_loss, dice_loss, focal_loss
    from .torchvision import is_torchvision_detector, modes_kept, test_losses

__all__ = [
    "cross_entropy_loss",
    "dice_loss",
    "focal_loss",
    "is_torchvision_detector",
    "modes_kept",
    "regularization_kind",
    "regularization_loss",
    "test_losses",
]

_MODULES = {
    "regularization_kind": "regularization",
    "regularization_loss": "regularization",
    "cross_entropy_loss": "semantic",
    "dice_loss": "semantic",
    "focal_loss": "semantic",
    "is_torchvision_detector": "torchvision",
    "modes_kept": "torchvision",
    "test_losses": "torchvision",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
