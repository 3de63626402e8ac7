"""What the training steps since the last point gave, kept where it is until a point is due."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

FULL = 1024
"""Steps after which the window is summed up where it lies, so that it never grows without bound."""


@dataclass(slots=True)
class Sums:
    """Weighted sums by name: of a window, a process, or an evaluated set.

    Attributes:
        totals: the sum of value × weight.
        weights: the sum of the weights.
        first_nan: the name and step of the first value that was not a number, if any.
    """

    totals: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    first_nan: tuple[str, int] | None = None

    def add(self, name: str, total: float, weight: float) -> None:
        """Take in ``total``, which bears ``weight``."""
        self.totals[name] = self.totals.get(name, 0.0) + total
        self.weights[name] = self.weights.get(name, 0.0) + weight

    @classmethod
    def of(cls, shares: Iterable[Self]) -> Self:
        """All ``shares`` together."""
        whole = cls()
        for share in shares:
            for name, total in share.totals.items():
                whole.add(name, total, share.weights[name])
            news = (share.first_nan, whole.first_nan)
            whole.first_nan = min((n for n in news if n), key=lambda n: n[1], default=None)
        return whole

    def means(self) -> dict[str, float]:
        """The mean of every name."""
        return {name: total / self.weights[name] for name, total in self.totals.items()}


class Window:
    """Values by name over several steps, and their sums.

    Tensors are detached and left on their device: adding costs no synchronisation, and taking the
    sums costs one, whatever the number of names and steps.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, Mapping[str, Any]]] = []
        self._sums: dict[str, tuple[Any, int]] = {}
        self._first_nan: tuple[str, int] | None = None

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

    def take(self) -> Sums:
        """The sums of every name over the steps that had it; then start anew."""
        sums = self.sums()
        self._sums, self._first_nan = {}, None
        return sums

    def sums(self) -> Sums:
        """The sums so far."""
        rows = self._rows.copy()
        self._sum_up()
        totals = _floats([total for total, _ in self._sums.values()])
        weights = {name: float(count) for name, (_, count) in self._sums.items()}
        if self._first_nan is None and any(map(math.isnan, totals)):
            found = ((n, step) for step, row in rows for n, v in row.items() if math.isnan(v))
            self._first_nan = next(found, None)
        return Sums(dict(zip(self._sums, totals, strict=True)), weights, self._first_nan)

    def restore(self, sums: Sums) -> None:
        """Go on from ``sums``, which an earlier process had."""
        self._rows = []
        self._first_nan = sums.first_nan and (str(sums.first_nan[0]), int(sums.first_nan[1]))
        self._sums = {n: (total, int(sums.weights[n])) for n, total in sums.totals.items()}

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

        if any(value.numel() > 1 for value in column) or len({v.shape for v in column}) > 1:
            # of several elements, as DataParallel gives one for each replica, the mean
            column = [value.double().mean() for value in column]
        return torch.stack(column).double().sum()
    return sum(float(value) for value in column)


def _floats(values: list[Any]) -> list[float]:
    """All values as floats, with one synchronisation per device."""
    if values and all(hasattr(value, "detach") for value in values):
        import torch

        device = values[0].device
        return [float(v) for v in torch.stack([v.to(device) for v in values]).tolist()]
    return [float(value) for value in values]
