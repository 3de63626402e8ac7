"""What measures each split of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .metric import METRICS, Metric, TaskMetric
from .warn import Warnings

if TYPE_CHECKING:
    from .catalogue import Task
    from .evaluation import Evaluation


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
