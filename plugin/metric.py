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
    from .evaluation import Evaluation
    from .fingerprint import Fingerprint
    from .warn import Warnings

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

    def curve_table(self) -> dict[str, Any]:
        """Precision over recall and the confusion matrix, in JSON's types.

        ``note``: how they were measured; ``classes``: ``name``, ``recall`` and ``precision`` of
        each class with ground truth, of all together under ``""``; ``names`` and ``confusion``:
        counts by true class, in rows, and predicted class; ``counts``: a ``note``, and of the
        ``classes`` ``name``, ``tp`` and ``fp`` at evenly spaced confidences from 0 to 1, inclusive,
        ``truths``, and of pixels ``others``, which are of no truth.
        """

    def save(self, path: Path) -> None:
        """Write the state as ``.npz``, readable with ``allow_pickle=False``."""


MetricFactory = Callable[[Mapping[int, str], int | None], Metric]
"""From the classes by label and ``ignore_index`` to a metric without an image."""


def _boxes(names: Mapping[int, str], _: int | None) -> TaskMetric:
    from .detection import DetectionMetrics

    return DetectionMetrics(names, confusion=True)


def _boxes_and_masks(names: Mapping[int, str], _: int | None) -> TaskMetric:
    from .detection import DetectionMetrics

    return DetectionMetrics(names, masks=True, confusion=True)


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


class Measures:
    """The metrics of each split, made when they are first needed.

    Args:
        task: of the run.
        names: the classes by label.
        ignore_index: of semantic targets.
        warnings: of the run; the task's metrics warn through it, once for all splits.
        metric: of the test set, instead of the task's own.
    """

    def __init__(
        self,
        task: Task,
        names: Mapping[int, str],
        ignore_index: int | None,
        warnings: Warnings,
        metric: TaskMetric | None = None,
    ) -> None:
        self._warnings = warnings
        self._task, self._names, self._ignore_index = task, names, ignore_index
        self._own: dict[str, TaskMetric] = {} if metric is None else {"test": metric}
        self._further: dict[str, list[Metric]] = {}

    def metric(self, split: str) -> TaskMetric:
        """The task's metrics on ``split``."""
        if split not in self._own:
            made: Any = METRICS[self._task][0](self._names, self._ignore_index)
            made.warnings = self._warnings
            self._own[split] = made
        return self._own[split]

    def keep(self, split: str, metric: TaskMetric) -> None:
        """Let ``metric`` be that of ``split``, and of no other."""
        others = {name: kept for name, kept in self._own.items() if kept is not metric}
        self._own = {**others, split: metric}

    def evaluation(self, split: str, step: int) -> Evaluation:
        """A new evaluation of ``split`` at ``step``."""
        from .evaluation import Evaluation

        if split not in self._further:
            factories = METRICS[self._task][1:]
            self._further[split] = [make(self._names, self._ignore_index) for make in factories]
        return Evaluation(
            self.metric(split),
            self._further[split],
            task=self._task,
            split=split,
            step=step,
            ignore_index=self._ignore_index,
        )


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
