"""The keywords that every callback takes, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from boxscore import Every, Identity
from boxscore.callbacks.reading.found import Predict
from boxscore.catalogue import Task
from boxscore.evaluation import PerClass
from boxscore.logger import Logger
from boxscore.loggers import standard
from boxscore.metric import Classes
from boxscore.pictures import counts_of

EACH_EPOCH = Every(epochs=1)

NEW = "new"
"""As ``run=``: begin a new run, also where a checkpoint would continue one."""


class Keywords(TypedDict, total=False):
    """The keywords of every callback, for type checkers; `Options` documents them."""

    task: Task | None
    dataset: str | None
    classes: Classes | None
    identity: Identity | None
    log_dir: str
    tracking_uri: str | Literal[False] | None
    experiment: str | None
    run: str | None
    loggers: Sequence[Logger] | None
    log_every: Every | int
    evaluate_every: Every | int | None
    evaluate_train_every: Every | int | None
    evaluate_images: int | None
    fingerprint: str | None
    predict: Predict | None
    batch: Callable[[Any], tuple[Any, Any]] | None
    evaluate_model: Any
    ignore_index: int | None
    params: Mapping[str, object] | None
    pictures: bool | int | tuple[int, int]
    per_class: PerClass
    on_error: Literal["warn", "raise"]


@dataclass(frozen=True)
class Options:
    """What the user asks for.

    Attributes:
        task: ``"detection"``, ``"instance-segmentation"`` or ``"semantic-segmentation"``; by
            default what the model is made for.
        dataset: the user's name for the data; by default the class of the test data set.
        classes: names by label; by default the test data set's own.
        identity: what is trained; by default what the model says.
        log_dir: TensorBoard's folder.
        tracking_uri: MLflow's; None is its own default, False turns MLflow off.
        experiment: in MLflow; by default ``dataset``.
        run: ``"active"`` or an id joins an MLflow run that is not ours to end; ``"new"`` begins a
            new run where a checkpoint would continue one.
        loggers: instead of TensorBoard and MLflow; excludes the four options above.
        log_every: train losses, in optimizer steps.
        evaluate_every: test losses and metrics, in optimizer steps; also at the end.
        evaluate_train_every: metrics on the train split; None is never.
        evaluate_images: how many images an evaluation takes, the same ones each time and in each
            run; None is all.
        fingerprint: of the test set, instead of the gathered one.
        predict: ``predict(model, batch) -> (losses, predictions, targets)`` adapts any model.
        batch: ``batch(b) -> (images, targets)`` adapts batches of another form.
        evaluate_model: is evaluated instead of the trained model, such as an average of its
            weights; a module, or a function without arguments that returns one.
        ignore_index: of semantic targets; such pixels count nowhere. By default the criterion's, or
            255.
        params: further settings by which runs are compared; they replace those of the same name
            that are read from model, optimizer and loaders.
        pictures: of each evaluation of a test set: True is 8 images, the same ones each time and in
            each run, and the 4 worst; a pair ``(8, 4)`` sets both, False draws none.
        per_class: of how many classes, the most frequent first, trackers get points; ``"all"``.
        on_error: ``"warn"`` or ``"raise"``, when measuring fails.
    """

    task: Task | None = None
    dataset: str | None = None
    classes: Classes | None = None
    identity: Identity | None = None
    log_dir: str = "runs"
    tracking_uri: str | Literal[False] | None = None
    experiment: str | None = None
    run: str | None = None
    loggers: Sequence[Logger] | None = None
    log_every: Every | int = 50
    evaluate_every: Every | int | None = 500
    evaluate_train_every: Every | int | None = EACH_EPOCH
    evaluate_images: int | None = None
    fingerprint: str | None = None
    predict: Predict | None = None
    batch: Callable[[Any], tuple[Any, Any]] | None = None
    evaluate_model: Any = None
    ignore_index: int | None = 255
    params: Mapping[str, object] | None = None
    pictures: bool | int | tuple[int, int] = True
    per_class: PerClass = 20
    on_error: Literal["warn", "raise"] = "warn"

    def __post_init__(self) -> None:
        for name in ("log_every", "evaluate_every", "evaluate_train_every"):
            Every.of(getattr(self, name))
        counts_of(self.pictures)
        joins = self.run is not None and self.run != NEW
        if self.loggers is not None and (self.tracking_uri or joins):
            raise ValueError("loggers= excludes tracking_uri= and run=: give one or the other")
        if self.evaluate_images is not None and self.evaluate_images < 1:
            raise ValueError(f"evaluate_images: {self.evaluate_images} is less than one image")

    def destinations(self) -> Sequence[Logger]:
        """The loggers that the user gave, or TensorBoard and MLflow."""
        if self.loggers is not None:
            return self.loggers
        run = None if self.run == NEW else self.run
        return standard(self.log_dir, self.tracking_uri, self.experiment, run=run)
