"""What every framework's callback shares: its options, its run, and when and how it evaluates."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from boxscore import Every, Identity, Run
from boxscore.evaluation import Evaluation
from boxscore.fingerprint import Fingerprint
from boxscore.guard import Guard
from boxscore.logger import Status
from boxscore.losses import modes_kept
from boxscore.models import Found, infer, sources
from boxscore.names import legal, originals
from boxscore.run import ended

from .loaders import images_of, random_numbers_kept, stable_subset
from .options import Keywords, Options, classes_of, task_of
from .predict import Predict, predictor

COSTLY, LONG_ENOUGH = 0.2, 60.0
"""Share of the time, and seconds, from which on the cost of evaluating is worth a remark."""


class Scorekeeper:
    """A callback less its framework: subclasses translate hooks and call these verbs.

    Attributes:
        run: the open run; None before the training begins.
        latest: the test set's last value by catalogue name.
        best: the test set's best value by catalogue name.
    """

    run: Run | None = None

    def __init__(self, **options: Unpack[Keywords]) -> None:
        self.options = Options(**options)
        self.latest: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self._evaluate_every = Every.of(self.options.evaluate_every)
        self._evaluate_train_every = Every.of(self.options.evaluate_train_every)
        self._guard = Guard(self.options.on_error)
        self._loaders: dict[str, Any] = {}
        self._train_loader: Any = None
        self._train_ids = Fingerprint()
        self._test_ids: frozenset[str] = frozenset()
        self._evaluated_at = -1
        self._evaluating = False
        self._evaluation_seconds = 0.0
        self._criterion: Callable[[Any, Any], Any] | None = None

    def begin(
        self,
        model: Any,
        optimizer: Any,
        loaders: Any,
        train_loader: Any = None,
        *,
        image_size: tuple[int, int] | None = None,
    ) -> Run:
        """Learn what is trained on what, and open the run.

        Args:
            model: wrapped or not.
            optimizer: gives regularization and learning rate.
            loaders: of the test set, or several by name.
            train_loader: of the train set, for metrics on it.
            image_size: (height, width) of the first batch, for models that do not say theirs.

        Raises:
            ValueError: for what cannot be inferred, with what to pass.
        """
        options = self.options
        self._loaders = splits(loaders)
        first = next(iter(self._loaders.values()), None)
        task = task_of(model, options.task)
        detector = task != "semantic-segmentation"
        self._model, self._train_loader = model, train_loader
        run = Run(
            options.identity or inferred(model, image_size),
            task=task,
            dataset=options.dataset or _dataset_of(first),
            classes=classes_of(
                first, options.classes, background=detector and options.predict is None
            ),
            loggers=options.destinations(),
            log_every=options.log_every,
            optimizer=optimizer,
            experiment=options.experiment,
            fingerprint=options.fingerprint,
            ignore_index=options.ignore_index,
            on_error=options.on_error,
        )
        self._predict: Predict | None = options.predict
        if self._predict is None and self._loaders:
            self._predict = predictor(model, task, list(run.names), self._criterion)
            if not detector and self._criterion is None:
                self._guard.remark("criterion", "without criterion= the test set has no total loss")
        run.latest, run.best = self.latest, self.best
        run.main = next(iter(self._loaders), "test")
        for split in self._loaders:
            run.metric(split)  # classes that cannot be measured are told before training
        run.open()
        for tag, name in originals(loaders if isinstance(loaders, Mapping) else ()).items():
            run.tag(tag.removeprefix("boxscore."), name)
        self._began = time.perf_counter()
        self.run = run
        return run

    def evaluate(self, split: str | None = None) -> None:
        """Measure the test set or sets now, or one ``split``, at the step of the last record."""
        for name, loader in self._loaders.items():
            if split in (None, name):
                self._evaluate(name, loader, self.options.evaluate_images)
        if self.run is not None:
            self._evaluated_at = self.run.step

    def evaluate_train(self) -> None:
        """Measure a stable subset of the train set, no larger than the test set."""
        if self._train_loader is None or not self._loaders:
            return
        test = next(iter(self._loaders.values()))
        with random_numbers_kept(test):
            count = self.options.evaluate_images or images_of(test)
        if count:
            self._evaluate("train", self._train_loader, count)

    def finish(self, status: Status) -> None:
        """Evaluate what was trained since, if the training ended well, and close the run."""
        if self.run is None:
            return
        try:
            if status == "FINISHED" and self._evaluated_at < self.run.step:
                self.evaluate()
            self._know_train_ids()
            self._guard.report()
        except BaseException as error:
            status = ended(error)
            raise
        finally:
            self.run.close(status)

    def _evaluate(self, split: str, loader: Any, count: int | None) -> None:
        assert self.run is not None
        start = time.perf_counter()
        evaluation = self.run.evaluation(split)
        self._evaluating = True
        try:
            with (
                self._guard(f"evaluation of the {split} split"),
                random_numbers_kept(loader),
                modes_kept(self._model),
                evaluation,
            ):
                self._model.eval()
                chosen, ids = stable_subset(loader, count)
                for batch in chosen:
                    self._measure(evaluation, batch, ids if split == "train" else None)
        finally:
            self._evaluating = False
        if split == next(iter(self._loaders), None):
            self._test_ids = evaluation.fingerprint.ids
            self._remark_on_leak()
        self._remark_on_cost(time.perf_counter() - start)

    def _measure(self, evaluation: Evaluation, batch: Any, ids: Sequence[str] | None) -> None:
        assert self._predict is not None
        losses, predictions, targets = self._predict(self._model, batch)
        start = len(evaluation.fingerprint)
        image_ids = ids[start : start + len(targets)] if ids is not None else None
        try:
            evaluation.update(predictions, targets, losses, image_ids=image_ids)
        except ValueError as error:
            if self.options.on_error == "raise":
                raise
            self._guard.tell(f"a batch of the {evaluation.split} split has no figures", error)
            evaluation.skip(predictions, targets, losses)

    def _remark_on_cost(self, seconds: float) -> None:
        self._evaluation_seconds += seconds
        total = time.perf_counter() - self._began
        share = self._evaluation_seconds / total
        if share > COSTLY and total > LONG_ENOUGH:
            self._guard.remark(
                "cost",
                f"evaluation takes {share:.0%} of the time; a larger evaluate_every= or a smaller "
                "evaluate_images= takes less",
            )

    def _know_train_ids(self) -> None:
        """The first epoch is over: say which images were trained on."""
        if self.run is not None and self._train_ids.ids:
            self.run.tag("fingerprint.train", self._train_ids.digest())
            self._remark_on_leak()

    def _remark_on_leak(self) -> None:
        both = self._train_ids.ids & self._test_ids
        if both and self.run is not None:
            example = ", ".join(sorted(both)[:3])
            self.run.tag("leak", f"{len(both)} images")
            self._guard.remark(
                "leak",
                f"{len(both)} images are in both the train and test set, such as {example}",
            )


def says_its_size(model: Any) -> bool:
    """Whether the input size can be known before the first batch."""
    return "input_size" in infer(model)


def inferred(model: Any, image_size: tuple[int, int] | None) -> Identity:
    """What ``model`` says of itself, told in one line with where it says it.

    Raises:
        ValueError: for what is unknown or ambiguous, with what to pass.
    """
    found = infer(model)
    if image_size is not None and "input_size" not in found:
        found["input_size"] = Found("x".join(map(str, image_size)), "the first batch")
    identity = Identity.of(model, **{field: value for field, (value, _) in found.items()})
    print(f"boxscore: {identity} ({sources(found)})", file=sys.stderr)
    return identity


def splits(loaders: Any) -> dict[str, Any]:
    """Loaders by split: one is ``test``; of several, all but ``test`` are ``test-<name>``.

    The first one is the main one.

    >>> splits({"test": [], "night": []})
    {'test': [], 'test-night': []}
    """
    if loaders is None:
        return {}
    if not isinstance(loaders, Mapping):
        return {"test": loaders}
    return {
        "test" if name == "test" else f"test-{legal(name)}": loader
        for name, loader in loaders.items()
    }


def _dataset_of(loader: Any) -> str:
    data = getattr(loader, "dataset", None)
    return "dataset" if data is None else type(data).__name__
