"""What every framework's callback shares: its options, its run, and when and how it evaluates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Unpack

import torch

from boxscore import Every, Run, distributed
from boxscore.evaluation import Evaluation
from boxscore.exit_status import ended
from boxscore.identity.models import Found, network
from boxscore.identity.wrappers import unwrapped
from boxscore.logger import Status
from boxscore.losses import criterion_parts, is_torchvision_detector, modes_kept
from boxscore.names import originals
from boxscore.warn import Warnings

from .model_info import buffers_of_the_first, dataset_of, inferred, local, splits
from .options import NEW, Keywords, Options, classes_of, task_of
from .predict import Predict, measured_on, predictor
from .progress import Progress
from .sharding import images_of, length, random_numbers_kept, share

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
    left_open: Status = "FINISHED"  # how a run ended that nobody closed before the process exits

    def __init__(self, **options: Unpack[Keywords]) -> None:
        self.options = Options(**options)
        self._evaluate_every = Every.of(self.options.evaluate_every)
        self._evaluate_train_every = Every.of(self.options.evaluate_train_every)
        self._criterion: Callable[[Any, Any], Any] | None = None
        self._earlier: Mapping[str, Any] = {}
        self.restart()

    def restart(self) -> None:
        """Know nothing of any training but what a checkpoint told."""
        self.run = None
        self.latest: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self._warnings = Warnings(self.options.on_error)
        self._images = self.options.evaluate_images
        self._loaders: dict[str, Any] = {}
        self._train_loader: Any = None
        self._model: Any = None
        self._predict: Predict | None = None
        self._progress = Progress()
        self._test_ids: frozenset[str] = frozenset()
        self._steps = 0
        self._evaluated_at = -1
        self._evaluates_at_end = True
        self._is_ending = False
        self._evaluating = False
        self._evaluation_seconds = 0.0
        self._began = time.perf_counter()

    def begin(
        self,
        model: Any,
        optimizer: Any,
        loaders: Any,
        train_loader: Any = None,
        *,
        size: Found | None = None,
    ) -> Run:
        """Learn what is trained on what, and open the run, or go on with that of a checkpoint.

        Args:
            model: wrapped or not.
            optimizer: gives regularization and learning rate.
            loaders: of the test set, or several by name.
            train_loader: of the train set, for metrics on it.
            size: the input size and where it was read, for models that do not say theirs.

        Raises:
            ValueError: for what cannot be inferred, with what to pass; or for a checkpoint of
                something else.
        """
        options = self.options
        if not distributed.all_here():
            self._warnings.warn_once(
                "alone",
                "not every process of this training has made the callback, so that it sees only "
                "what this one does; make it on every process: the first alone will log",
            )
        self._loaders = splits(loaders)
        first = next(iter(self._loaders.values()), None)
        task = task_of(model, options.task)
        inner = unwrapped(network(unwrapped(model)))
        self._model, self._train_loader = model, train_loader
        run = Run(
            options.identity or inferred(model, size),
            task=task,
            dataset=options.dataset or dataset_of(train_loader if first is None else first),
            classes=classes_of(
                first,
                options.classes,
                model=inner,
                background=options.predict is None and is_torchvision_detector(inner),
            ),
            loggers=options.destinations(),
            log_every=options.log_every,
            optimizer=optimizer,
            experiment=options.experiment,
            fingerprint=options.fingerprint,
            ignore_index=options.ignore_index,
            on_error=options.on_error,
        )
        run.latest, run.best, run.left_open = self.latest, self.best, self.left_open
        self._go_on(run)
        self._predict = options.predict or self._predictor(model, run)
        run.main = next(iter(self._loaders), "test")
        for split in self._loaders:
            run.metric(split)  # classes that cannot be measured are told before training
        run.open()
        for tag, name in originals(loaders if isinstance(loaders, Mapping) else ()).items():
            run.tag(tag.removeprefix("boxscore."), name)
        self._began = time.perf_counter()
        self.run = run
        return run

    def _predictor(self, model: Any, run: Run) -> Predict | None:
        """How to measure ``model``, where the user does not say."""
        if not self._loaders:
            return None
        if run.task == "semantic-segmentation" and self._criterion is None:
            self._warnings.warn_once(
                "criterion", "without criterion= the test set has no total loss"
            )
        return predictor(model, run.task, list(run.names), self._criterion)

    # checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for `load_state_dict`, in plain JSON types.

        With several processes, call it where checkpoints are saved; one process's state will do.
        """
        if self.run is None:
            return dict(self._earlier)
        return {
            "run": self.run.state_dict(),
            "steps": self._steps,
            "evaluated_at": self._evaluated_at,
            "progress": self._progress.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the run of a checkpoint; what was recorded after it is not recorded again.

        ``run="new"`` begins a new run from the checkpoint instead.

        Raises:
            RuntimeError: if this training has begun. (That the checkpoint is of something else is
                told when it begins, as only then it is known what is trained.)
        """
        if self.run is not None and self.run.is_open:
            raise RuntimeError("load_state_dict comes before the training begins; its run is open")
        self._earlier = dict(state)

    def _go_on(self, run: Run) -> None:
        earlier, self._earlier = self._earlier, {}
        if not earlier:
            return
        self._steps, self._evaluated_at = earlier["steps"], earlier["evaluated_at"]
        self._progress.restore(earlier["progress"])
        if self.options.run == NEW:
            run.start_at(self._steps)
        else:
            run.load_state_dict(earlier["run"])

    # the train split

    def record(self, losses: Any, step: int, *, outputs: Any = None, targets: Any = None) -> None:
        """Take in the losses of one batch of ``step``; log what is due.

        Args:
            losses: by native name, or one scalar.
            step: optimizer steps so far.
            outputs: of semantic models: logits, or a dict with ``out``.
            targets: of semantic models: integers (N, H, W).
        """
        run = self._known_run
        due = run.due(step)
        values: dict[str, Any] = {}
        with self._warnings.catch("reading the losses of a step"):
            values = self._named(losses)
            if due and outputs is not None and targets is not None:
                values |= measured_on(outputs, targets, self.options.ignore_index)
        with self._warnings.catch("recording a step"):
            run.record(values, step=step)
        if due:  # whatever came of that: the other processes are asked for their images now
            with self._warnings.catch("recording how far the training is"):
                epoch = self._epoch()
                said = self._progress.values(step, self._evaluation_seconds)
                run.progress(said if epoch is None else {**said, "epoch": epoch}, step=step)

    def _epoch(self) -> float | None:
        """How many epochs have passed, None where that is not known."""
        batches = length(self._train_loader)
        return self._progress.batches / batches if batches else None

    def _named(self, losses: Any) -> dict[str, Any]:
        """``losses`` by name."""
        if self._known_run.task == "semantic-segmentation":
            losses = criterion_parts(losses)
        return self._numbers(losses)

    def _numbers(self, losses: Mapping[str, Any]) -> dict[str, Any]:
        """``losses`` less what is no number, which is told once."""
        losses = losses if isinstance(losses, Mapping) else {"loss": losses}
        named = {n: v for n, v in losses.items() if hasattr(v, "detach") or isinstance(v, Real)}
        if len(named) < len(losses):
            strange = {n: type(v).__name__ for n, v in losses.items() if n not in named}
            self._warnings.warn_once(
                "strange losses",
                f"the losses hold what is no number ({strange}); give them as a dict of scalars",
            )
        return named

    @property
    def _known_run(self) -> Run:
        if self.run is None:
            raise RuntimeError("the training has not begun: there is no run yet")
        return self.run

    def evaluate_what_is_due(self, step: int, epoch: int | None = None) -> None:
        """Evaluate what is due after ``step``, and after whole epoch ``epoch`` if one has ended."""
        before, self._steps = self._steps, step
        if epoch is not None:
            self._progress.epoch_ended(step)
            self._know_train_ids()
        test, train = self._evaluate_every, self._evaluate_train_every
        if test.due(step, since=before) or (epoch is not None and test.due_epoch(epoch)):
            self.evaluate()
        if train.due(step, since=before) or (epoch is not None and train.due_epoch(epoch)):
            self.evaluate_train()

    # evaluations

    def evaluate(self, split: str | None = None) -> None:
        """Measure the test set or sets now, or one ``split``, at the step of the last record."""
        for name, loader in self._loaders.items():
            if split in (None, name):
                self._evaluate(name, loader, self._images)
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
        run = self.run
        try:
            if status == "FINISHED":
                status = self._last_words(run)
            self._warnings.report()
        except BaseException as error:  # such as SIGTERM, as torchrun sends where another failed
            status = status if status == "FAILED" else ended(error)
            raise
        finally:
            run.close(status)

    def _last_words(self, run: Run) -> Status:
        """What is left to say at the end of a training that went well for this process."""
        try:
            reached = distributed.until_all("the end", (run.step, self._evaluated_at))
        except RuntimeError as error:  # torch's, where another process is gone
            self._warnings.count_error("another process has not come to the end", error)
            return "FAILED"
        self._is_ending = True
        run.step = max(step for step, _ in reached)
        if self._evaluates_at_end and min(at for _, at in reached) < run.step:
            self.evaluate()
        self._progress.epoch_ended(run.step)
        self._know_train_ids()
        return "FINISHED"

    def _evaluate(self, split: str, loader: Any, count: int | None) -> Evaluation | None:
        if self._predict is None:
            return None
        start = time.perf_counter()
        evaluation = self._known_run.evaluation(split)
        self._evaluating = True
        try:
            with (
                self._warnings.catch(f"evaluation of the {split} split"),
                random_numbers_kept(loader),
                modes_kept(self._model),
                torch.no_grad(),
                evaluation,
            ):
                if (
                    len(distributed.meet(f"evaluation of {split}", None, evaluation.step))
                    < distributed.size()
                ):
                    raise RuntimeError("other processes are at another step than this one")
                self._model.eval()
                with buffers_of_the_first(self._model):
                    for batch, ids, keep in share(loader, count):
                        found = self._predict(local(self._model), batch)
                        self.measure(evaluation, *found, ids=ids, keep=keep)
        finally:
            self._evaluating = False
        self.remark_on(evaluation, time.perf_counter() - start)
        return evaluation

    def measure(
        self,
        evaluation: Evaluation,
        losses: Mapping[str, Any],
        predictions: Any,
        targets: Any,
        *,
        ids: Sequence[str] | None = None,
        keep: int | None = None,
    ) -> None:
        """Take one batch into ``evaluation``; what has no figures is told and costs no more.

        Args:
            evaluation: that is under way.
            losses: the batch's, by native name.
            predictions: as `Evaluation.update` takes them.
            targets: likewise.
            ids: of the images, where the targets bear none.
            keep: how many of the batch's images count; the others are repeats.
        """
        if keep is not None and keep < len(targets):
            if not keep:
                return
            predictions, targets = predictions[:keep], targets[:keep]
            ids = None if ids is None else ids[:keep]
        ids = ids if evaluation.split == "train" else None
        losses = self._numbers(losses)
        try:
            evaluation.update(predictions, targets, losses, image_ids=ids)
        except ValueError as error:
            if self.options.on_error == "raise":
                raise
            self._warnings.count_error(
                f"a batch of the {evaluation.split} split has no figures", error
            )
            evaluation.skip(predictions, targets, losses)

    def remark_on(self, evaluation: Evaluation, seconds: float) -> None:
        """Say what stands out: images that were trained on, or how long it took."""
        self._evaluation_seconds += seconds
        if evaluation.results and evaluation.split == self._known_run.main:
            self._test_ids = evaluation.results.ids
            self._remark_on_leak()
        total = time.perf_counter() - self._began
        share_of_time = self._evaluation_seconds / total
        if share_of_time > COSTLY and total > LONG_ENOUGH:
            self._warnings.warn_once(
                "cost",
                f"evaluation takes {share_of_time:.0%} of the time; a larger evaluate_every= or a "
                "smaller evaluate_images= takes less",
            )

    def _know_train_ids(self) -> None:
        """Say which images are trained on, once that is known."""
        ids = self._progress.train_ids
        if self.run is not None and ids.ids:
            self.run.tag("fingerprint.train", ids.digest())
            self._remark_on_leak()

    def _remark_on_leak(self) -> None:
        both = self._progress.train_ids.ids & self._test_ids
        if both and self.run is not None:
            example = ", ".join(sorted(both)[:3])
            self.run.tag("leak", f"{len(both)} images")
            self._warnings.warn_once(
                "leak",
                f"{len(both)} images are in both the train and test set, such as {example}",
            )
