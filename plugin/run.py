"""One training run: the only object that a callback needs. It names, times and hands on."""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isnan
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .catalogue import CATALOGUE, TASKS, Task
from .guard import Guard, OnError
from .identity import Identity
from .items import Item, Opening, Point, Tag
from .logger import Logger, Status
from .metric import NO_CLASS, Classes, Metric, class_names
from .names import folder, legal, originals
from .native import known
from .parts import Losses, fold
from .schedule import Every
from .signals import Terminated
from .window import Window

if TYPE_CHECKING:
    import torch

    from .evaluation import Evaluation

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
        self.names = class_names(classes, without=() if _semantic(task) else NO_CLASS)
        self.log_every = Every.of(log_every)
        if self.log_every.epochs is not None:
            raise ValueError("log_every: train losses are logged in steps, not epochs")
        self.id = uuid.uuid4().hex
        self.step = 0
        self.latest: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.is_open = False
        self.main = "test"
        self._is_over = False
        self.guard = Guard(on_error)
        self._loggers = tuple(loggers)
        self._optimizer = optimizer
        self._experiment = experiment or dataset
        self._fingerprint = fingerprint
        self._metrics = {} if metric is None else {"test": metric}
        self._ignore_index = ignore_index
        self._window = Window()
        self._tags: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._decay = "none"

    # what a callback calls

    def due(self, step: int) -> bool:
        """Whether a train point is due after ``step``: ask before a value costs anything."""
        return self.log_every.due(step)

    def record(self, values: Mapping[str, Any], *, step: int, split: str = "train") -> None:
        """Take in the losses of one optimizer step, or of a whole split that was evaluated.

        Args:
            values: numbers or tensors of one element, by native or catalogue name.
            step: optimizer steps so far.
            split: of ``"train"``, the mean since the last point is logged when a point is due; of
                any other the values are logged at once.
        """
        self.step = max(self.step, step)
        if split != "train":
            self._log_losses({n: float(v) for n, v in values.items()}, split, step)
            return
        self._window.add(values, step)
        if self.due(step):
            means, news = self._window.means()
            self._log_losses(means, split, step, news)

    def evaluation(self, split: str = "test", *, step: int | None = None) -> Evaluation:
        """Begin to evaluate ``split``; figures are logged when the ``with`` block ends well."""
        from .evaluation import Evaluation

        return Evaluation(
            self.metric(split),
            self.names,
            task=self.task,
            split=split,
            step=self.step if step is None else step,
            done=self._log_evaluation,
        )

    def progress(self, values: Mapping[str, float], *, step: int) -> None:
        """Log how far the training is: ``epoch``, ``images_seen``, ``images_per_second``."""
        self.log([Point(f"progress/{name}", float(v), step) for name, v in values.items()])

    def tag(self, name: str, value: str) -> None:
        """Log a fact that is known late, once per value."""
        if self._tags.get(name) != value:
            self._tags[name] = value
            self.log([Tag(f"boxscore.{name}", value)])

    def log(self, items: Sequence[Item]) -> None:
        """Hand ``items`` on as they are: points, tags, pictures, reports, states."""
        if self._is_over:
            self.guard.remark("over", "the run is closed; what comes now is not logged")
            return
        self.open()
        for logger in self._loggers:
            with self.guard(f"{type(logger).__name__}"):
                logger.log(items)

    def open(self) -> None:
        """Open every logger; does nothing where that is done."""
        if self.is_open:
            return
        self._decay = self._regularization_kind()
        self.is_open = True
        usable = []
        for logger in self._loggers:
            with self.guard(f"{type(logger).__name__} is left out"):
                logger.open(self._opening())
                usable.append(logger)
        self._loggers = tuple(usable)

    def close(self, status: Status = "FINISHED") -> None:
        """Close every logger; does nothing where none is open."""
        if self.is_open:
            self.is_open, self._is_over = False, True
            for logger in self._loggers:
                with self.guard(f"closing {type(logger).__name__}"):
                    logger.close(status)
            self.guard.report()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to continue this run, in plain JSON types."""
        return {
            "version": STATE_VERSION,
            "id": self.id,
            "identity": asdict(self.identity),
            "task": self.task,
            "dataset": self.dataset,
            "step": self.step,
            "latest": dict(self.latest),
            "best": dict(self.best),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the run of ``state``, before anything is logged.

        Raises:
            ValueError: if something else was trained, or on other data: curves would not compare.
            RuntimeError: if this run is open already.
        """
        if self.is_open:
            raise RuntimeError("load_state_dict comes before the first step: this run is open")
        mine = {"identity": asdict(self.identity), "task": self.task, "dataset": self.dataset}
        for name, value in mine.items():
            if state[name] != value:
                raise ValueError(
                    f"cannot resume run {state['id'][:8]}: its {name} is {state[name]!r}, here it "
                    f"is {value!r}; leave out load_state_dict to begin a new run"
                )
        self.id, self.step = state["id"], state["step"]
        self.latest, self.best = dict(state["latest"]), dict(state["best"])

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

    def _opening(self) -> Opening:
        facts = {
            "group": self.identity.group,
            "algorithm": self.identity.algorithm,
            "input_size": self.identity.input_size,
            "backbone": self.identity.backbone,
            "task": self.task,
        }
        more = {"dataset": self.dataset, "run": self.id, "regularization": self._decay}
        return Opening(
            id=self.id,
            name=str(self.identity),
            experiment=legal(self._experiment),
            folder=folder(self.dataset, self.identity, self.id),
            tags={f"boxscore.{name}": value for name, value in (facts | more).items()}
            | originals([self.dataset, *self.names.values()]),
            params=facts,
        )

    # how values become points

    def _log_losses(
        self,
        values: dict[str, float],
        split: str,
        step: int,
        news: tuple[str, int] | None = None,
    ) -> None:
        self._warn_of_unknown(values)
        if self._optimizer is not None:
            values = {**values, "regularization": self._regularization()}
        losses = fold(values, task=self.task, decoupled=self._decay == "decoupled")
        if news is None and any(map(isnan, losses.measures.values())):
            news = (next(n for n, v in losses.measures.items() if isnan(v)), step)
        if news is not None and "first_nan" not in self._tags:
            self.tag("first_nan", f"{news[0]}.{split} at step {news[1]}")
        self.log(self._loss_points(losses, split, step))
        if split == self.main:
            self._remember(losses.measures)

    def _loss_points(self, losses: Losses, split: str, step: int) -> list[Point]:
        now = time.time()
        points = [
            Point(name, value, step, split, now, f"loss {self.identity.group}")
            for name, value in losses.measures.items()
        ]
        points += [
            Point(legal(name), value, step, split, now, f"native {self.identity.group}")
            for name, value in losses.natives.items()
        ]
        if split == "train" and self._optimizer is not None:
            rate = float(self._optimizer.param_groups[0]["lr"])
            points.append(Point("progress/learning_rate", rate, step, split, now))
        return points

    def _log_evaluation(self, evaluation: Evaluation) -> None:
        split, step = evaluation.split, evaluation.step
        if not evaluation.images:
            raise ValueError(f"evaluation of {split!r}: no image was seen; is its loader empty?")
        if losses := evaluation.losses():
            self._log_losses(losses, split, step)
        if not evaluation.complete:
            return
        digest = evaluation.fingerprint.digest(evaluation.metric.protocol)
        if split == self.main and self._fingerprint:
            digest = self._fingerprint
        if split != "train":
            self.tag(f"fingerprint.{split}", digest)
            self.tag("evaluation_batch_size", str(evaluation.batch_size))
        figures = evaluation.metric.compute()
        scope = f"{legal(self.dataset)}-{split} {legal(digest[:6])}"
        now = time.time()
        points = [
            Point(name, value, step, split, now, f"metric {scope}")
            for name, value in figures.items()
        ]
        points += [
            Point(f"{name} {legal(of)}", value, step, split, now, f"class {scope}")
            for of, values in evaluation.metric.per_class().items()
            for name, value in values.items()
        ]
        if split == self.main:
            points += self._summary(figures, step, now)
            points.append(
                Point("progress/evaluation_seconds", evaluation.seconds, step, "test", now)
            )
        self.log(points)

    def _summary(self, figures: Mapping[str, float], step: int, now: float) -> list[Point]:
        points = [Point(f"summary/{name}", v, step, "", now) for name, v in figures.items()]
        for name in self._remember(figures):
            points.append(Point(f"summary/best_{name}", figures[name], step, "", now))
            points.append(Point(f"summary/best_{name}_step", step, step, "", now))
        return points

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
            self._metrics[split] = self._new_metric()
        return self._metrics[split]

    def _new_metric(self) -> Metric:
        if _semantic(self.task):
            from .segmentation import SegmentationMetrics

            return SegmentationMetrics(self.names, ignore_index=self._ignore_index)
        from .detection import DetectionMetrics

        return DetectionMetrics(self.names, masks=self.task == "instance-segmentation")

    def _regularization(self) -> float:
        from .losses import regularization_loss

        assert self._optimizer is not None
        return float(regularization_loss(self._optimizer))

    def _regularization_kind(self) -> str:
        if self._optimizer is None:
            return "none"
        from .losses import regularization_kind

        return regularization_kind(self._optimizer)

    def _warn_of_unknown(self, values: Mapping[str, float]) -> None:
        strange = {name for name in values if not known(name, self.task)} - self._unknown
        if strange:
            self._unknown |= strange
            warnings.warn(
                f"boxscore: loss {', '.join(map(repr, sorted(strange)))} is not known and counts "
                "as the part 'other'; name it after a measure of boxscore.CATALOGUE",
                stacklevel=4,
            )


def ended(error: BaseException | None) -> Status:
    """How a run ended that ``error`` ended, or nothing did."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt | Terminated) else "FAILED"


def _semantic(task: str) -> bool:
    return task == "semantic-segmentation"
