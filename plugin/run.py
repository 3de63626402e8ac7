"""One training run: the only object that a callback needs. It names, times and hands on."""

from __future__ import annotations

import atexit
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from math import isnan
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from . import distributed, keys, points
from .catalogue import CATALOGUE, TASKS, Task
from .exit_status import ended, last_error
from .identity import Identity
from .keys import folder, legal, originals
from .log_thread import LogThread
from .logger import Logger, Status
from .losses.names import unknown
from .losses.parts import fold
from .losses.window import Sums, Window
from .metric import NO_CLASS, Classes, Metric, class_names
from .records import Item, Point, RunStart, Tag
from .schedule import Every
from .warn import OnError, Warnings

if TYPE_CHECKING:
    import torch

    from .evaluation import Evaluation, Results

STATE_VERSION = 1


class Run:
    """Name, time and hand on what a training observes.

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
        latest: the test set's last value by catalogue name.
        best: the test set's best value by catalogue name.
        main: the split whose figures `latest`, `best` and the summary tell.
        left_open: how a run ended whose process exits well without closing it.
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
        metric: Metric | None = None,
        ignore_index: int | None = 255,
        on_error: OnError = "warn",
    ) -> None:
        """Prepare a run; it opens its loggers when it is entered or first has something to say.

        Args:
            identity: what is trained; decides with which runs losses share a chart.
            task: ``"detection"``, ``"instance-segmentation"`` or ``"semantic-segmentation"``.
            dataset: the user's name for the data.
            classes: names by label.
            loggers: where items go.
            log_every: when a train point is due.
            optimizer: gives the regularization loss and the learning rate.
            experiment: the shelf in MLflow, by default ``dataset``.
            fingerprint: of the test set, instead of the gathered one.
            metric: what evaluations measure with, instead of the task's own.
            ignore_index: of semantic targets.
            on_error: whether a logger's trouble is a warning, or raised.

        Raises:
            ValueError: for an unknown task, or classes that are none.
        """
        if task not in TASKS:
            raise ValueError(f"task: {task!r} is none of {', '.join(TASKS)}")
        self.identity, self.task, self.dataset = identity, task, dataset
        without = () if task == "semantic-segmentation" else NO_CLASS
        self.names = class_names(classes, without=without)
        self.log_every = Every.of(log_every)
        if self.log_every.epochs is not None:
            raise ValueError("log_every: train losses are logged in steps, not epochs")
        self.id = uuid.uuid4().hex
        self.step = 0
        self.latest: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.is_open = False
        self.main = "test"
        self.left_open: Status = "FINISHED"
        self._is_over = False
        self._is_resumed = False
        self._process = 0
        self.warnings = Warnings(on_error)
        self._thread = LogThread(loggers, self.warnings)
        self._optimizer = optimizer
        self._experiment = experiment or dataset
        self._fingerprint = fingerprint and keys.word(fingerprint)
        self._metrics = {} if metric is None else {"test": metric}
        self._ignore_index = ignore_index
        self._trained = 0
        self._window = Window()
        self._tags: dict[str, str] = {}
        self._decay = "none"

    def due(self, step: int) -> bool:
        """Whether a train point is due after ``step``: ask before a value costs anything."""
        return self.log_every.due(step, since=self._trained)

    def record(self, values: Mapping[str, Any], *, step: int, split: str = "train") -> None:
        """Take in the losses of one optimizer step, or of a whole split that was evaluated.

        Args:
            values: numbers or tensors of one element, by native or catalogue name.
            step: optimizer steps so far; with gradient accumulation batches may share one.
            split: of ``"train"``, the mean since the last point, over all processes that train
                together, is logged when a point is due; of any other the values are logged at once.
        """
        self.step = max(self.step, step)
        if split != "train":
            self._log_losses({n: float(v) for n, v in values.items()}, split, step)
            return
        due = self.due(step)
        self._trained = max(self._trained, step)
        self._window.add(values, step)
        if due:
            sums = Sums()  # the other processes wait for these, also where there is trouble
            with self.warnings.catch("reading the losses of a window"):
                sums = self._window.take()
            sums = Sums.of(distributed.meet("train", sums, step))
            self._log_losses(sums.means(), split, step, sums.first_nan)

    def evaluation(self, split: str = "test", *, step: int | None = None) -> Evaluation:
        """Begin to evaluate ``split``; figures are logged when the ``with`` block ends well."""
        from .evaluation import Evaluation

        return Evaluation(
            self.metric(split),
            self.names,
            task=self.task,
            split=split,
            step=self.step if step is None else step,
            done=self._conclude,
        )

    def progress(self, values: Mapping[str, float], *, step: int, split: str = "train") -> None:
        """Log how far the training is: ``epoch``, ``images_seen``, ``images_per_second``."""
        self.log([Point(f"progress/{name}", float(v), step, split) for name, v in values.items()])

    def tag(self, name: str, value: str) -> None:
        """Log a fact that is known late, once per value."""
        if self._tags.get(name) != value:
            self._tags[name] = value
            self.log([Tag(f"boxscore.{name}", value)])

    def log(self, items: Sequence[Item]) -> None:
        """Hand ``items`` on as they are: points, tags, pictures, reports, states."""
        if self._is_over:
            self.warnings.warn_once("over", "the run is closed; what comes now is not logged")
            return
        self.open()
        self._thread.log(items)

    def open(self) -> None:
        """Open every logger; does nothing where that is done. Only the first process has any."""
        if self.is_open:
            return
        if self._optimizer is not None:
            from .losses import regularization_kind

            self._decay = regularization_kind(self._optimizer)
        self.is_open = True
        if distributed.rank() == 0:
            self._thread.open(self._start())
        self._process = os.getpid()
        atexit.register(self._end_with_process)

    def close(self, status: Status = "FINISHED") -> None:
        """Close every logger; does nothing where none is open."""
        if self.is_open:
            self.is_open, self._is_over = False, True
            atexit.unregister(self._end_with_process)
            self._thread.close(status)
            self.warnings.report()

    def _end_with_process(self) -> None:
        """The process exits, and nobody has closed the run."""
        if os.getpid() == self._process:  # and not a fork of it
            error = last_error()
            self.close(self.left_open if error is None else ended(error))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to continue this run, in plain JSON types."""
        sums = self._window.sums()
        return {
            "version": STATE_VERSION,
            "id": self.id,
            **self._subject(),
            "step": self.step,
            "trained": self._trained,
            "latest": dict(self.latest),
            "best": dict(self.best),
            "tags": dict(self._tags),
            "window": asdict(sums),
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
        for name, value in self._subject().items():
            if state[name] != value:
                raise ValueError(
                    f"cannot resume run {state['id'][:8]}: its {name} is {state[name]!r}, here it "
                    f"is {value!r}; to begin a new run from this checkpoint leave out "
                    "load_state_dict, or pass run='new' to the callback"
                )
        self.id, self.step, self._trained = state["id"], state["step"], state["trained"]
        self.latest.update(state["latest"])
        self.best.update(state["best"])
        self._tags.update(state["tags"])
        if distributed.rank() == 0:  # whose state this is
            self._window.restore(Sums(**state["window"]))
        self._is_resumed = True

    def start_at(self, step: int) -> None:
        """Begin at ``step``: the run is a new one, its training is not."""
        self.step = self._trained = step

    def _subject(self) -> dict[str, Any]:
        """What must agree for two trainings to be one run."""
        return {
            "identity": asdict(self.identity),
            "task": self.task,
            "dataset": self.dataset,
            "classes": {str(label): name for label, name in self.names.items()},
        }

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

    def _start(self) -> RunStart:
        facts = {
            "group": self.identity.group,
            "algorithm": self.identity.algorithm,
            "input_size": self.identity.input_size,
            "backbone": self.identity.backbone,
            "task": self.task,
        }
        more = {"dataset": self.dataset, "run": self.id, "regularization": self._decay}
        return RunStart(
            id=self.id,
            name=str(self.identity),
            experiment=legal(self._experiment),
            folder=folder(
                self.dataset,
                self.identity.algorithm,
                self.identity.input_size,
                self.identity.backbone,
                self.id,
            ),
            tags={f"boxscore.{name}": value for name, value in (facts | more).items()}
            | originals([self.dataset, *self.names.values()]),
            params=facts,
            resumed=self._is_resumed,
        )

    def _log_losses(
        self,
        values: dict[str, float],
        split: str,
        step: int,
        news: tuple[str, int] | None = None,
    ) -> dict[str, float]:
        for name in unknown(values, self.task):
            about = f"loss {name!r} is not known and counts as the part 'other'"
            self.warnings.warn_once(
                about, f"{about}; name it after a measure of boxscore.CATALOGUE"
            )
        if self._optimizer is not None:
            from .losses import regularization_loss

            values = {**values, "regularization": float(regularization_loss(self._optimizer))}
        losses = fold(values, task=self.task, decoupled=self._decay == "decoupled")
        if news is None and any(map(isnan, losses.measures.values())):
            news = (next(n for n, v in losses.measures.items() if isnan(v)), step)
        if news is not None and "first_nan" not in self._tags:
            self.tag("first_nan", f"{news[0]}.{split} at step {news[1]}")
        items = points.of_losses(losses, self.identity.group, split, step)
        if split == "train" and self._optimizer is not None:
            rate = float(self._optimizer.param_groups[0]["lr"])
            items.append(Point("progress/learning_rate", rate, step, split))
        self.log(items)
        if split == self.main:
            self._remember(losses.measures)
        return losses.measures

    def _conclude(self, evaluation: Evaluation) -> None:
        """Put together what every process saw of an evaluated set, and log what it gives."""
        from .evaluation import Results

        split, step, share = evaluation.split, evaluation.step, evaluation.share
        ends = distributed.meet(f"end of {split}", share is None, step)
        if share is None:
            return
        if any(ends) or len(ends) < distributed.size():
            raise RuntimeError(f"evaluation of {split!r}: another process could not measure it")
        shares = distributed.to_first(share)
        results = distributed.from_first(lambda: Results.of(shares))
        evaluation.results = results
        # a framework may tell which split it was only at the end
        others = {s: m for s, m in self._metrics.items() if m is not evaluation.metric}
        self._metrics = {**others, split: evaluation.metric}
        if not results.images:
            raise ValueError(f"evaluation of {split!r}: no image was seen; is its loader empty?")
        if results.losses:
            evaluation.measured |= self._log_losses(results.losses, split, step)
        evaluation.measured |= results.figures
        if results.figures:
            self._log_figures(results, split, step)
        if split == self.main:
            self.progress({"evaluation_seconds": evaluation.seconds}, step=step, split="test")

    def _log_figures(self, results: Results, split: str, step: int) -> None:
        if split == self.main and self._fingerprint:
            results = replace(results, digest=self._fingerprint)
        if split != "train":
            self.tag(f"fingerprint.{split}", results.digest)
            self.tag("evaluation_batch_size", str(results.batch_size))
        items = points.of_figures(results, self.dataset, split, step)
        if split == self.main:
            better = self._remember(results.figures)
            items += points.of_summary(results.figures, better, step)
        self.log(items)

    def _remember(self, values: Mapping[str, float]) -> list[str]:
        """Keep ``values`` as the latest; return the names of those that are the best so far."""
        self.latest.update(values)
        better = []
        for name, value in values.items():
            lower = name in CATALOGUE and CATALOGUE[name].better == "lower"
            best = self.best.get(name)
            if not isnan(value) and (best is None or (value < best if lower else value > best)):
                self.best[name] = value
                better.append(name)
        return better

    def metric(self, split: str = "test") -> Metric:
        """What measures ``split``, with the state of its last evaluation."""
        if split not in self._metrics:
            from .evaluation import new_metric

            self._metrics[split] = new_metric(self.task, self.names, self._ignore_index)
        return self._metrics[split]
