"""What the training steps since the last point gave, kept where it is until a point is due."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FULL = 1024
"""Steps after which the window is summed up where it lies, so that it never grows without bound."""


class Window:
    """Values by name over several steps, and their means.

    Tensors are detached and left on their device: adding costs no synchronisation, and taking the
    means costs one, whatever the number of names and steps.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, Mapping[str, Any]]] = []
        self._sums: dict[str, tuple[Any, int]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, values: Mapping[str, Any], step: int) -> None:
        """Keep the ``values`` of ``step``: floats, or tensors, of which the mean counts."""
        self._rows.append((
            step,
            {n: v.detach() if hasattr(v, "detach") else v for n, v in values.items()},
        ))  # fmt: skip
        if len(self._rows) >= FULL:
            self._sum_up()

    def means(self) -> tuple[dict[str, float], tuple[str, int] | None]:
        """The mean of every name over the steps that had it, and the first NaN; then start anew.

        Returns:
            the means, and the name and step of the first value that was not a number, if any.
        """
        rows = self._rows.copy()
        self._sum_up()
        sums, self._sums = self._sums, {}
        totals = _floats([total for total, _ in sums.values()])
        means = {
            name: total / count
            for (name, (_, count)), total in zip(sums.items(), totals, strict=True)
        }
        news = next(
            (
                (name, step)
                for step, values in (rows if any(map(math.isnan, means.values())) else ())
                for name, value in values.items()
                if math.isnan(value)
            ),
            None,
        )
        return means, news

    def _sum_up(self) -> None:
        rows, self._rows = self._rows, []  # a value that cannot be summed costs one window at most
        columns: dict[str, list[Any]] = {}
        for _, values in rows:
            for name, value in values.items():
                columns.setdefault(name, []).append(value)
        for name, column in columns.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + _sum(column), count + len(column))


def _sum(column: list[Any]) -> Any:
    """The sum in float64, on the device where the values are."""
    if all(hasattr(value, "detach") for value in column):
        import torch

        # of several elements, as DataParallel gives one for each replica, the mean
        return torch.stack([value.double().mean() for value in column]).sum()
    return sum(float(value) for value in column)


def _floats(values: list[Any]) -> list[float]:
    """All values as floats, with one synchronisation per device."""
    if values and all(hasattr(value, "detach") for value in values):
        import torch

        device = values[0].device
        return [float(v) for v in torch.stack([v.to(device) for v in values]).tolist()]
    return [float(value) for value in values]
