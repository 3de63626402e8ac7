"""One training run: it names and times values, and logs them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from . import distributed, keys
from .catalogue import TASKS, Task, documented
from .exit_status import ended, last_error
from .identity import Identity
from .latest import Latest
from .log_thread import LogThread
from .logger import Logger, Status
from .losses.objective import Objective, first_nan
from .losses.train_window import TrainWindow
from .losses.window import WeightedSums, Window
from .metric import NO_CLASS, Classes, Measures, TaskMetric, class_names
from .records import Item, Point, Tag
from .schedule import Every
from .subject import Subject
from .warn import OnError, Warnings

if TYPE_CHECKING:
    import torch

    from .evaluation import Evaluation, PerClass, Results

STATE_VERSION = 2


class Run:
    """Name, time and log what a training observes.

    >>> from boxscore.loggers import MemoryLogger
    >>> memory = MemoryLogger()
    >>> identity = Identity("RetinaNet", "640x640", "ResNet-50")
    >>> with Run(
    ...     identity, task="detection", dataset="bccd", classes={1: "RBC"}, loggers=[memory],
    ...     log_every=2,
    ... ) as run:
    ...     for step in (1, 2):
    ...         run.record({"classification": 1.0, "bbox_regression": 0.5}, step=step)
    >>> [(point.key, point.value) for point in memory.points]
    [('loss RetinaNet 640x640/classification.train', 1.0), \
('loss RetinaNet 640x640/localization.train', 0.5), ('loss RetinaNet 640x640/total.train', 1.5)]

    Attributes:
        identity: what is trained.
        values: the latest and the best of the main test set.
        step: optimizer steps so far.
        warnings: the run's.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        task: Task,
        dataset: str,
        classes: Classes,
        loggers: Sequence[Logger],
        log_every: Every | int = 50,
        optimizer: torch.optim.Optimizer | None = None,
        experiment: str | None = None,
        fingerprint: str | None = None,
        metric: TaskMetric | None = None,
        ignore_index: int | None = 255,
        per_class: PerClass = 20,
        params: Mapping[str, str] | None = None,
        on_error: OnError = "warn",
        warnings: Warnings | None = None,
        status_if_not_closed: Status = "FINISHED",
    ) -> None:
        """Prepare a run; it opens its loggers when it is entered, or at the first item.

        Args:
            identity: what is trained; decides with which runs losses share a chart.
            task: ``"detection"``, ``"instance-segmentation"`` or ``"semantic-segmentation"``.
            dataset: the user's name for the data.
            classes: names by label.
            loggers: destinations.
            log_every: when a train point is due.
            optimizer: gives the regularization loss and the learning rate.
            experiment: in MLflow, by default ``dataset``.
            fingerprint: of the main test set, instead of the gathered one.
            metric: measures the test set instead of the task's own.
            ignore_index: of semantic targets.
            per_class: how many classes, the most frequent first, get points; or ``"all"``.
            params: settings of the training, beside the identity's, by which runs are compared.
            on_error: whether a logger's error is a warning, or raised.
            warnings: the callback's, instead of new ones with ``on_error``.
            status_if_not_closed: of a run whose process exits well without closing it.

        Raises:
            ValueError: for an unknown task, or invalid classes.
        """
        if task not in TASKS:
            raise ValueError(f"task: {task!r} is none of {', '.join(TASKS)}")
        self.identity, self.task, self.dataset = identity, task, dataset
        no_class = () if task == "semantic-segmentation" else NO_CLASS
        self.names = class_names(classes, without=no_class)
        if (every := Every.of(log_every)).epochs is not None:
            raise ValueError("log_every: train losses are logged in steps, not epochs")
        self._subject = Subject(identity, task, dataset, self.names)
        self.id = uuid.uuid4().hex
        self.step = 0
        self.values = Latest()
        self.is_open = False
        self.warnings = warnings or Warnings(on_error)
        self._group = identity.group
        self._status_if_not_closed: Status = status_if_not_closed
        self._is_over = False
        self._status: Status = "FINISHED"
        self._is_resumed = False
        self._process = 0
        self._thread: LogThread
        self._loggers = tuple(loggers)
        self._objective = Objective(optimizer, task, self.warnings)
        self._experiment = experiment or dataset
        self._fingerprint = fingerprint and keys.word(fingerprint)
        self._per_class, self._params = per_class, params or {}
        self._measures = Measures(task, self.names, ignore_index, self.warnings, metric)
        self._window = TrainWindow(every, self.warnings)
        self._tags: dict[str, str] = {}
        self._files = ""  # folder of this process; a fork of it removes nothing

    @property
    def latest(self) -> dict[str, float]:
        """The main test set's last values by catalogue name; NaN where they were not measured."""
        return self.values.latest

    @property
    def best(self) -> dict[str, float]:
        """The main test set's best values by catalogue name."""
        return self.values.best

    # train losses

    def due(self, step: int) -> bool:
        """Whether a train point is due after ``step``: ask before a value costs anything."""
        return self._window.due(step)

    def record(
        self,
        values: Mapping[str, Any],
        *,
        step: int,
        split: str = "train",
        images: int | None = None,
        epoch: float | None = None,
        batch: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """Take the losses of one optimizer step, or of a whole split that was evaluated.

        Args:
            values: numbers or tensors of one element, by framework or catalogue name.
            step: optimizer steps so far; with gradient accumulation batches may share one.
            split: of ``"train"``, the mean since the last point, over all processes that train
                together, is logged when a point is due; of any other the values are logged at once.
            images: how many this process has trained on, for ``progress/images_seen``.
            epoch: how many epochs have passed, for ``progress/epoch``.
            batch: called when a point is due, for losses that are measured on that batch alone.
        """
        self.step = max(self.step, step)
        if split != "train":
            window = Window()
            window.add(values, step)
            losses, items = self._losses(window.take(), split, step)
            if self.values.is_main(split):
                items += self.values.update(losses, step)
            self.open().log(items)
            return
        if not self._window.add(values, step, images):
            return
        sums, progress = self._window.take(step, batch)
        _, items = self._losses(sums, "train", step)
        if epoch is not None:
            progress["epoch"] = epoch
        if (rate := self._objective.learning_rate) is not None:
            progress["learning_rate"] = rate
        items += [Point(keys.progress(name), value, step) for name, value in progress.items()]
        self.open().log(items)

    def _losses(
        self, sums: WeightedSums, split: str, step: int
    ) -> tuple[dict[str, float], list[Item]]:
        """The losses of one point by catalogue name, and the items that log them."""
        losses = self._objective.losses(sums.means(), sums.epsilon)
        items: list[Item] = [*losses.points(self._group, split, step)]
        nan = sums.first_nan or first_nan(losses, step)
        if nan is not None and "first_nan" not in self._tags:
            items += self._new_tags(first_nan=f"{nan[0]}.{split} at step {nan[1]}")
        return losses.measures, items

    # evaluations

    def new_evaluation(self, split: str = "test", *, step: int | None = None) -> Evaluation:
        """Begin to evaluate ``split``; `record_results` takes what its `finish` returns."""
        return self._measures.evaluation(split, self.step if step is None else step)

    @contextmanager
    def evaluation(self, split: str = "test", *, step: int | None = None) -> Iterator[Evaluation]:
        """Evaluate ``split`` in a ``with`` block, and record the results where it ends well."""
        evaluation = self.new_evaluation(split, step=step)
        try:
            yield evaluation
        except Exception:
            evaluation.finish(failed=True)
            raise
        if results := evaluation.finish():
            self.record_results(results, evaluation.split, step=evaluation.step)

    def metric(self, split: str = "test") -> TaskMetric:
        """What measures ``split``, with the state of its last evaluation."""
        return self._measures.metric(split)

    def record_results(
        self, results: Results, split: str = "test", *, step: int | None = None
    ) -> dict[str, float]:
        """Log what an evaluation gave.

        Args:
            results: as `Evaluation.finish` returned them, the same on every process.
            split: ``"train"``, ``"test"`` or ``"test-<name>"``.
            step: optimizer steps so far, by default `step`.

        Returns:
            the losses and metrics that were logged, by catalogue name.
        """
        step = self.step if step is None else step
        self._window.pause(results.seconds)
        self._measures.keep(split, results.metric)
        is_main = self.values.is_main(split)
        values: dict[str, float] = {}
        items: list[Item] = []
        if results.losses.totals:
            values, items = self._losses(results.losses, split, step)
        if results.metrics:
            values = values | results.metrics
            items += self._metric_items(results, split, step)
        if is_main:
            seconds = keys.progress("evaluation_seconds")
            items.append(Point(seconds, results.seconds, step, "test"))
            items += self.values.update(values, step)
        self.open().log(items)
        return values

    def record_failure(self, split: str, reason: str) -> None:
        """Log that ``split`` could not be measured; its latest metrics are NaN from now on."""
        self.log(self._new_tags(evaluation_failed=f"{split} at step {self.step}: {reason}"))
        if self.values.is_main(split):
            entries = documented(self.task)
            self.values.fail(entry.name for entry in entries if entry.kind == "metric")

    def _metric_items(self, results: Results, split: str, step: int) -> list[Item]:
        fingerprint = results.fingerprint
        if split == "train":
            fingerprint = self._tags.get("fingerprint.train", fingerprint)
        elif self._fingerprint and self.values.is_main(split):
            fingerprint = self._fingerprint
        tags = {f"fingerprint.{split}": fingerprint}
        if split != "train":
            tags |= results.tags(split)
        points = results.points(self.dataset, split, fingerprint, step, per_class=self._per_class)
        items = [*self._new_tags(**tags), *points]
        if distributed.rank() == 0 and not self._is_over:
            self._files = self._files or tempfile.mkdtemp(prefix="boxscore-")
            place = Path(self._files), self.dataset, split, fingerprint, step
            items += results.write_tables(*place, per_class=self._per_class)
        return items

    # items

    def tag(self, name: str, value: str) -> None:
        """Log a fact that is known late, once per value."""
        self.log(self._new_tags(**{name: value}))

    def tagged(self, name: str) -> str:
        """The value that `tag` logged last under ``name``, ``""`` before."""
        return self._tags.get(name, "")

    def _new_tags(self, **values: str) -> list[Item]:
        new = {name: value for name, value in values.items() if self._tags.get(name) != value}
        self._tags |= new
        return [Tag(keys.FACT + name, value) for name, value in new.items()]

    def log(self, items: Sequence[Item]) -> None:
        """Log ``items`` as they are: points, tags, pictures, reports, states."""
        if items:
            self.open().log(items)

    def open(self) -> LogThread:
        """Open every logger of the first process, unless that is done; returns their thread."""
        if self.is_open or self._is_over:
            return self._thread
        self._objective.open()
        self.is_open = True
        self._process = os.getpid()
        atexit.register(self._end_with_process)
        self._thread = LogThread(self._loggers if distributed.rank() == 0 else (), self.warnings)
        facts = self.id, self._experiment, self._objective.decay, self._params, self._is_resumed
        self._thread.open(self._subject.run_start(*facts))
        return self._thread

    def close(self, status: Status | None = None) -> None:
        """Close every logger; does nothing where none is open.

        Args:
            status: how the training ended; None is as at the last `close`, or FINISHED.
        """
        if self.is_open:
            self.is_open, self._is_over = False, True
            self._status = status or self._status
            atexit.unregister(self._end_with_process)
            try:
                self._thread.close(self._status)
            finally:
                if self._files and os.getpid() == self._process:
                    shutil.rmtree(self._files, ignore_errors=True)
                    self._files = ""
                self.warnings.report()

    def reopen(self) -> None:
        """Open a closed run again, for an evaluation after the training, of whatever step."""
        if self._is_over:
            self._is_over = self._is_resumed = False
            self.open()

    def _end_with_process(self) -> None:
        """Close a run that is still open when the process exits."""
        if os.getpid() == self._process:  # and not a fork of it
            error = last_error()
            self.close(self._status_if_not_closed if error is None else ended(error))

    # checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to continue this run, in plain JSON types."""
        return {
            "version": STATE_VERSION,
            "id": self.id,
            **self._subject.state(),
            "step": self.step,
            "main": self.values.split,
            "latest": dict(self.values.latest),
            "best": dict(self.values.best),
            "tags": dict(self._tags),
            **self._window.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the run of ``state``, before anything is logged.

        What an earlier process recorded at steps after the checkpoint is not recorded again.

        Raises:
            ValueError: if something else was trained, or on other data: curves would not compare.
            RuntimeError: if this run is open already.
        """
        if self.is_open:
            raise RuntimeError("load_state_dict comes before the first step: this run is open")
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"no state of a run that this version reads: {str(state)[:80]}")
        self._subject.check(state)
        self.id, self.step = state["id"], state["step"]
        self.values = Latest(state["main"], dict(state["latest"]), dict(state["best"]))
        self._tags.update(state["tags"])
        self._window.restore(state)
        self._is_resumed = True

    def reach(self, step: int) -> None:
        """Go on to ``step``, if the run is not there yet."""
        self.step = max(self.step, step)

    def start_at(self, step: int) -> None:
        """Begin at ``step``: the run is a new one, its training is not."""
        self.step = step
        self._window.start_at(step)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(ended(error))
