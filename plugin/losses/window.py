"""The losses of the training steps since the last point, on their device until a point is due."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

FULL = 1024
"""Rows after which the window is summed up on the device, so that it never grows without bound."""


@dataclass(slots=True)
class WeightedSums:
    """Weighted sums by name: of a window, a process, or an evaluated set.

    Attributes:
        totals: the sum of value × weight.
        weights: the sum of the weights.
        first_nan: the name and step of the first NaN value, if any.
        epsilon: the relative rounding of the least precise value, such as 2**-7 for bfloat16.
    """

    totals: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    first_nan: tuple[str, int] | None = None
    epsilon: float = 0.0

    def add(self, name: str, total: float, weight: float) -> None:
        """Add ``total``, a sum of values of the weights ``weight``."""
        self.totals[name] = self.totals.get(name, 0.0) + total
        self.weights[name] = self.weights.get(name, 0.0) + weight

    @classmethod
    def of(cls, shares: Iterable[Self]) -> Self:
        """All ``shares`` together."""
        whole = cls()
        for share in shares:
            for name, total in share.totals.items():
                whole.add(name, total, share.weights[name])
            found = (share.first_nan, whole.first_nan)
            whole.first_nan = min((n for n in found if n), key=lambda n: n[1], default=None)
            whole.epsilon = max(whole.epsilon, share.epsilon)
        return whole

    def means(self) -> dict[str, float]:
        """The mean of every name."""
        return {name: total / self.weights[name] for name, total in self.totals.items()}


class Window:
    """Values by name over several steps, and their sums.

    Tensors are detached and left on their device: adding does not wait for it, and taking the sums
    waits once per device, for any number of names and steps.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[int, Mapping[str, Any]]] = []
        self._sums: dict[str, tuple[Any, int, Any]] = {}  # total, count, step of the first NaN
        self._epsilon = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, values: Mapping[str, Any], step: int) -> None:
        """Add the ``values`` of ``step``: floats, or tensors, of which the mean counts."""
        self._rows.append((
            step,
            {n: v.detach() if hasattr(v, "detach") else v for n, v in values.items()},
        ))  # fmt: skip
        if len(self._rows) >= FULL:
            self._sum_up()

    def take(self) -> WeightedSums:
        """The sums of every name over the rows that have it; then start anew, also on an error."""
        try:
            return self.sums()
        finally:
            self._sums, self._epsilon = {}, 0.0

    def sums(self) -> WeightedSums:
        """The sums so far."""
        self._sum_up()
        numbers = _floats([v for total, _, step in self._sums.values() for v in (total, step)])
        totals = dict(zip(self._sums, numbers[::2], strict=True))
        nans = dict(zip(self._sums, numbers[1::2], strict=True))
        first = min(nans, key=nans.__getitem__, default="")
        found = (first, int(nans[first])) if nans and nans[first] < math.inf else None
        weights = {name: float(count) for name, (_, count, _) in self._sums.items()}
        return WeightedSums(totals, weights, found, self._epsilon)

    def restore(self, sums: WeightedSums) -> None:
        """Continue from ``sums`` of an earlier process."""
        name, step = sums.first_nan or ("", math.inf)
        self._rows, self._epsilon = [], sums.epsilon
        self._sums = {
            n: (total, int(sums.weights[n]), float(step) if n == name else math.inf)
            for n, total in sums.totals.items()
        }

    def _sum_up(self) -> None:
        rows, self._rows = self._rows, []  # a value that cannot be summed costs one window at most
        columns: dict[str, tuple[list[int], list[Any]]] = {}
        for step, values in rows:
            for name, value in values.items():
                steps, column = columns.setdefault(name, ([], []))
                steps.append(step)
                column.append(value)
        for name, (steps, column) in columns.items():
            total, count, first = self._sums.get(name, (0.0, 0, math.inf))
            more, nan, epsilon = _summed(steps, column)
            nan = nan.clamp(max=first) if hasattr(nan, "clamp") else min(nan, float(first))
            self._sums[name] = (total + more, count + len(column), nan)
            self._epsilon = max(self._epsilon, epsilon)


def _summed(steps: list[int], column: list[Any]) -> tuple[Any, Any, float]:
    """The sum in float64, the step of the first NaN (infinity: none), and the dtype's rounding.

    Of tensors the first two are tensors, on the device of the values.
    """
    if len([value for value in column if hasattr(value, "detach")]) < len(column):
        values = [float(_scalar(value)) for value in column]
        nans = (step for step, value in zip(steps, values, strict=True) if math.isnan(value))
        return sum(values), min(nans, default=math.inf), 0.0
    import torch

    forms = {(value.dtype, value.shape) for value in column}
    if len({shape for _, shape in forms}) > 1 or any(shape.numel() > 1 for _, shape in forms):
        column = [_scalar(value) for value in column]
    stacked = torch.stack(column).double().flatten()
    at = torch.tensor(steps, dtype=torch.float64, device=stacked.device)
    nan = torch.where(stacked.isnan(), at, math.inf).amin()
    roundings = [torch.finfo(kind).eps for kind, _ in forms if kind.is_floating_point]
    return stacked.sum(), nan, max(roundings, default=0.0)


def _scalar(value: Any) -> Any:
    """The mean of a tensor, which holds one value for each replica under DataParallel."""
    return value.double().mean() if hasattr(value, "detach") else value


def _floats(values: list[Any]) -> list[float]:
    """All values as floats, with one synchronisation per device."""
    if values and all(hasattr(value, "detach") for value in values):
        import torch

        return [float(v) for v in torch.stack([v.to(values[0].device) for v in values]).tolist()]
    return [float(value) for value in values]
