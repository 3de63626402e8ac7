"""The protocol of a metric: state that batches update, that merges, and that gives values."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from .catalogue import Task

if TYPE_CHECKING:
    from .fingerprint import Fingerprint

Classes = Mapping[int, str] | Sequence[str]
"""Names by label: a mapping, or a sequence whose index is the label."""

EXAMPLE = "pass names by label, such as classes={1: 'cat', 2: 'dog'}"
BACKGROUND = ("background", "bg")

NO_CLASS = ("__background__", "N/A")
"""Entries of a detection model's class list that no object bears (torchvision's convention)."""


class Metric(Protocol):
    """Values of one evaluated set: its state takes batches, merges, and gives the values.

    ``a.merge(b)`` leaves in ``a`` the state of one object that had measured both their images, to
    the last bit, whatever the partition and the order. A call that raises leaves the state as it
    was. Metrics pickle, to be gathered between processes.
    """

    def update(self, predictions: Any, targets: Any) -> None:
        """Measure one batch of N images, as `boxscore.evaluation.Evaluation.update` takes it.

        Raises:
            ValueError: naming image, field and value.
        """

    def merge(self, other: Self) -> None:
        """Add all that ``other`` has measured."""

    def compute(self) -> dict[str, float]:
        """The values by catalogue name; what is undefined is absent."""

    def per_class(self) -> dict[str, dict[str, float]]:
        """The values by class name, then by catalogue name; what is undefined is absent."""

    def reset(self) -> None:
        """Forget every image."""


class TaskMetric(Metric, Protocol):
    """The documented metrics of a task, which tell the evaluated set apart from others."""

    @property
    def protocol(self) -> str:
        """What differs from the default protocol, ``""`` for nothing; part of the fingerprint."""

    @property
    def evaluated(self) -> Fingerprint:
        """Which images and ground truth were measured."""

    def update(self, predictions: Any, targets: Any, image_ids: Any = None) -> None:
        """Measure one batch; ``image_ids`` of the N images, where the targets have none."""

    def counts(self) -> dict[str, int]:
        """How many objects, or pixels, of ground truth each class has, by class name."""

    def save(self, path: Path) -> None:
        """Write the state as ``.npz``, readable with ``allow_pickle=False``."""


MetricFactory = Callable[[Mapping[int, str], int | None], Metric]
"""From the classes by label and ``ignore_index`` to a metric without an image."""


def _boxes(names: Mapping[int, str], _: int | None) -> TaskMetric:
    from .detection import DetectionMetrics

    return DetectionMetrics(names)


def _boxes_and_masks(names: Mapping[int, str], _: int | None) -> TaskMetric:
    from .detection import DetectionMetrics

    return DetectionMetrics(names, masks=True)


def _pixels(names: Mapping[int, str], ignore_index: int | None) -> TaskMetric:
    from .segmentation import SegmentationMetrics

    return SegmentationMetrics(names, ignore_index=ignore_index)


METRICS: dict[Task, tuple[MetricFactory, ...]] = {  # a task's first is its `TaskMetric`
    "detection": (_boxes,),
    "instance-segmentation": (_boxes_and_masks,),
    "semantic-segmentation": (_pixels,),
}
"""What measures each task. The first entry gives the fingerprint; a further one is measured beside
it on each split, logged and summarised under its catalogue names."""


def class_names(classes: Classes, *, without: Iterable[str] = ()) -> dict[int, str]:
    """Names by label, ascending, less the entries that are no classes.

    Args:
        classes: a mapping or pandas Series by label, or names whose index is the label. Labels are
            integers of any kind, or their digits as text, as JSON has them.
        without: names of entries that are no classes; then neither is a background at label 0,
            in any of its spellings.

    >>> class_names(["__background__", "RBC", "WBC"], without=NO_CLASS)
    {1: 'RBC', 2: 'WBC'}

    Raises:
        ValueError: there is no class, a label is no integer of 0 or more, two labels share one
            name, one label has two names, or the names have no order.
    """
    if isinstance(classes, str | bytes | Set | Iterator) or not isinstance(classes, Iterable):
        raise ValueError(f"classes: {classes!r} gives no names by label; {EXAMPLE}")
    pairs: Any = classes.items() if hasattr(classes, "items") else enumerate(classes)
    named: dict[int, str] = {}
    for key, value in pairs:
        label, name = _label(key), str(value)
        if label in named:
            raise ValueError(f"classes: label {label} has two names, {named[label]!r} and {name!r}")
        named[label] = name
    if without := tuple(without):
        named = {label: name for label, name in named.items() if name not in without}
        if named.get(0, "").strip("_").lower() in BACKGROUND:
            del named[0]
    if not named:
        raise ValueError(f"classes: no class is left; {EXAMPLE}")
    names = list(named.values())
    if duplicates := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"classes: {duplicates[0]!r} names more than one label")
    return {label: named[label] for label in sorted(named)}


def _label(key: Any) -> int:
    with suppress(TypeError):
        label = int(key) if isinstance(key, str) and key.isdecimal() else operator.index(key)
        if label >= 0:
            return label
    raise ValueError(f"classes: label {key!r} is not an integer of 0 or more; {EXAMPLE}")
