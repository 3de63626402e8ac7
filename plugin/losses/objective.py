"""The losses of a training under the catalogue's names, with its optimizer's regularization."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import TYPE_CHECKING, Literal

from boxscore.warn import Warnings

from .names import unknown
from .parts import Losses, fold

if TYPE_CHECKING:
    import torch


class Objective:
    """Names, folds and sums losses.

    Attributes:
        decay: how the optimizer decays weights; ``"none"`` before `open` and without optimizer.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer | None, task: str, warnings: Warnings
    ) -> None:
        self._optimizer, self._task, self._warnings = optimizer, task, warnings
        self.decay: Literal["l2", "decoupled", "none"] = "none"

    def open(self) -> None:
        """Read how the optimizer decays weights."""
        if self._optimizer is not None:
            from .regularization import regularization_kind

            self.decay = regularization_kind(self._optimizer)

    @property
    def learning_rate(self) -> float | None:
        """Of the optimizer's first parameter group."""
        return None if self._optimizer is None else float(self._optimizer.param_groups[0]["lr"])

    def losses(self, values: Mapping[str, float], epsilon: float = 0.0) -> Losses:
        """``values`` by framework name as the catalogue's, with `total` and regularization.

        Args:
            values: floats.
            epsilon: the relative rounding of their dtype in training.
        """
        for name in unknown(values, self._task):
            text = f"the loss {name!r} is not known and counts as the part 'other'"
            self._warnings.warn_once(text, f"{text}; name it after an entry of boxscore.CATALOGUE")
        if self._optimizer is not None:
            from .regularization import regularization_loss

            values = {**values, "regularization": float(regularization_loss(self._optimizer))}
        decoupled = self.decay == "decoupled"
        return fold(values, task=self._task, decoupled=decoupled, epsilon=epsilon)


def first_nan(losses: Losses, step: int) -> tuple[str, int] | None:
    """The name of a loss that is NaN, and ``step``."""
    return next(((n, step) for n, value in losses.measures.items() if isnan(value)), None)
