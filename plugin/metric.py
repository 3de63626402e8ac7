"""The protocol of a metric: state that batches update, that merges, and from which figures come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

Classes = Mapping[int, str] | Sequence[str]
"""Names by label: a mapping, or a sequence whose index is the label."""

NO_CLASS = ("__background__", "N/A")
"""Entries of a detection model's class list that no object bears (torchvision's convention)."""


class Metric(Protocol):
    """Figures of one task over one evaluated set.

    ``a.merge(b)`` leaves in ``a`` what one state would hold that had seen both their images, to the
    last bit, whatever the partition and the order. A call that raises leaves the state as it was.
    Metrics pickle, for gathering between processes.
    """

    @property
    def protocol(self) -> str:
        """What differs from the default protocol, ``""`` for nothing; part of the fingerprint."""

    def update(self, predictions: Any, targets: Any) -> None:
        """Take in one batch. Raises `ValueError` naming image, field and value."""

    def merge(self, other: Self) -> None:
        """Take in all that ``other`` has seen."""

    def compute(self) -> dict[str, float]:
        """The figures by catalogue name; what is undefined is absent."""

    def per_class(self) -> dict[str, dict[str, float]]:
        """The figures by class name, then by catalogue name; what is undefined is absent."""

    def reset(self) -> None:
        """Forget every image."""

    def save(self, path: Path) -> None:
        """Write the state as ``.npz``, readable with ``allow_pickle=False``."""


def class_names(classes: Classes, *, without: Iterable[str] = ()) -> dict[int, str]:
    """Names by label, ascending, less the entries that are no classes.

    >>> class_names(["__background__", "RBC", "WBC"], without=NO_CLASS)
    {1: 'RBC', 2: 'WBC'}

    Raises:
        ValueError: if there is no class, a label is no integer of 0 or more, or two labels share
            one name.
    """
    pairs = classes.items() if isinstance(classes, Mapping) else enumerate(classes)
    named = {label: str(name) for label, name in pairs if name not in without}
    wrong = [label for label in named if not isinstance(label, int) or label < 0]
    if wrong:
        raise ValueError(f"classes: label {wrong[0]!r} is not an integer of 0 or more")
    if not named:
        raise ValueError("classes: no class is left; pass names by label, such as {1: 'cat'}")
    names = list(named.values())
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"classes: {twice[0]!r} names more than one label")
    return {label: named[label] for label in sorted(named)}
