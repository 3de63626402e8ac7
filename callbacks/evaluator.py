"""The evaluations of a training: one state, whether the framework runs them or boxscore does."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from numbers import Real
from typing import Any

from boxscore import Run, distributed
from boxscore.callbacks.reading.batches import BatchReader
from boxscore.callbacks.reading.data_info import (
    image_names,
    in_both,
    is_deterministic,
    train_fingerprint,
)
from boxscore.callbacks.reading.found import ADVICE, Found, Predict, check_found
from boxscore.evaluation import Evaluation, Results
from boxscore.identity.wrappers import unwrapped
from boxscore.keys import further_split

from .artifacts import Artifacts
from .progress import Progress, with_bar

COSTLY, LONG_ENOUGH = 0.2, 60.0
"""Share of the time, and seconds, from which on the cost of evaluating is worth a warning."""


class Evaluator:
    """Measures splits and records the results.

    Attributes:
        loaders: of the test sets, by split.
        train_loader: of the train set, None where it is not known.
        predict: from a model and a batch to `Found`, None where it is not known.
        is_evaluating: whether an evaluation is under way.
        runs_model: whether boxscore itself calls the model now.
        shows_bar: whether long evaluations show a bar; not beside a framework's own.
        evaluated_at: the step of the last evaluation of a test set, -1 before.
    """

    def __init__(
        self, run: Run, reader: BatchReader, progress: Progress, artifacts: Artifacts
    ) -> None:
        self._run, self._reader, self._progress = run, reader, progress
        self._artifacts = artifacts
        self.loaders: dict[str, Any] = {}
        self.train_loader: Any = None
        self.predict: Predict | None = None
        self.is_evaluating = self.runs_model = self.shows_bar = False
        self.evaluated_at = -1
        self._open: dict[str, Evaluation] = {}
        self._together = 1
        self._left: dict[str, int | None] = {}
        self._sources: dict[str, Any] = {}
        self._failures: dict[str, str] = {}
        self._contents: dict[str, Mapping[str, str]] = {}
        self._images: dict[str, int] = {}
        self._sets: dict[str, tuple[Any, str]] = {}
        self._compared: tuple[Any, Any] = (None, None)
        self._in_both: list[str] = []
        self._box_sums: list[Any] = []
        self._seconds = 0.0
        self._began = time.perf_counter()

    # where the framework goes through the set

    def start(self, split: str, loader: Any, step: int | None = None) -> None:
        """Begin to evaluate ``split``, whose batches come from ``loader``.

        Args:
            split: others may be under way.
            loader: tells how many images are repeats.
            step: of the weights, by default that of the last record.
        """
        from .sharding import own_images

        self.is_evaluating = True
        self._failures.pop(split, None)
        self._open[split] = self._run.new_evaluation(split, step=step)
        self._artifacts.begin(self._open[split])
        self._together = len(self._open)
        self._left[split] = own_images(loader)
        self._sources[split] = loader

    def is_open(self, split: str) -> bool:
        """Whether an evaluation of ``split`` is under way."""
        return split in self._open

    def batch(self, split: str, batch: Any, find: Callable[[Any], Found]) -> None:
        """Measure one batch with what ``find`` returns of it; an error costs the set its metrics.

        Args:
            split: under way.
            batch: as the framework gives it; repeats at its end are cut off.
            find: from the batch to losses, predictions and targets.
        """
        count, left = 0, self._left[split]
        self.runs_model = True
        try:
            count = self._reader.count(batch)
            if left is not None:
                self._left[split] = max(0, left - count)
                if 0 < left < count:  # of none left, the processes may have to compute it together
                    batch = self._reader.part(batch, range(left))
            found = find(batch)
            self._measure(split, batch, found, left)
        except Exception as error:
            self._open[split].drop(count)
            self._fail(split, error)
        finally:
            self.runs_model = False

    def finish(self, split: str, *, record_as: str | None = None) -> dict[str, float]:
        """End the evaluation of ``split`` and record it, as that of another split on request.

        Returns:
            the losses and metrics that were logged, by catalogue name.
        """
        evaluation = self._open.pop(split)
        evaluation.split = record_as or split
        self.is_evaluating = bool(self._open)
        values: dict[str, float] = {}
        with self._run.warnings.catch(f"evaluation of the {evaluation.split} split"):
            if results := evaluation.finish(
                failed=split in self._failures and not evaluation.share.images
            ):
                results = replace(results, seconds=results.seconds / self._together)
                values = self._record(results, evaluation, self._sources[split])
        self._report_failure(split, evaluation.split)
        return values

    def drop(self) -> None:
        """Forget the evaluations under way."""
        self._open.clear()
        self.is_evaluating = self.runs_model = False

    # where boxscore goes through the set

    def run(
        self, split: str, loader: Any, model: Any, count: int | None = None
    ) -> dict[str, float]:
        """Evaluate ``split`` with `predict`, each process its share.

        Args:
            split: ``"train"``, ``"test"`` or ``"test-<name>"``.
            loader: of the set.
            model: wrapped or not; its modes, buffers and the random numbers are left as found.
            count: how many images, a stable subset; None for all.

        Returns:
            the losses and metrics that were logged, by catalogue name.
        """
        if self.predict is None:
            self._run.warnings.warn_once(
                "predict",
                f"the {split} split is not measured at step {self._run.step}: boxscore has no way "
                f"to get the predictions of {type(unwrapped(model)).__name__}; {ADVICE}",
            )
            return {}
        evaluation = self._open[split] = self._run.new_evaluation(split)
        self._artifacts.begin(evaluation)
        self._box_sums = []
        values: dict[str, float] = {}
        self._failures.pop(split, None)
        self.is_evaluating = self.runs_model = True
        try:
            self._go_through(evaluation, loader, model, count)
        except Exception as error:
            self._fail(split, error)
            evaluation.finish(failed=True)
        else:
            with self._run.warnings.catch(f"evaluation of the {split} split"):
                if results := evaluation.finish():
                    values = self._record(results, evaluation, loader)
        finally:
            self.drop()
        self._report_failure(split, split)
        return values

    def _go_through(
        self, evaluation: Evaluation, loader: Any, model: Any, count: int | None
    ) -> None:
        import torch

        from boxscore.callbacks.reading.model_info import buffers_of_the_first
        from boxscore.identity.wrappers import without_ddp
        from boxscore.losses import modes_kept

        from .sharding import batches_in_share, random_numbers_kept, share

        assert self.predict is not None
        split = evaluation.split
        with ExitStack() as stack:
            stack.enter_context(random_numbers_kept(loader))
            stack.enter_context(modes_kept(model))
            stack.enter_context(torch.no_grad())
            ready = distributed.gather_at(f"evaluation of {split}", None, evaluation.step)
            if len(ready) < distributed.size():
                raise RuntimeError("the processes are at different steps")
            model.eval()
            stack.enter_context(buffers_of_the_first(model))
            batches = share(loader, count, self._reader)
            if self.shows_bar:
                batches = with_bar(batches, batches_in_share(loader, count), f"evaluating {split}")
            for batch, ids, keep in batches:
                found = check_found(self.predict(without_ddp(model), batch), self._run.task)
                self._measure(split, batch, found, keep, ids if split == "train" else None)

    def train_count(self, count: int | None) -> int:
        """How many images of the train set are evaluated: ``count``, or as many as in the test set.

        0 where there is no test set.
        """
        from .sharding import images_of, random_numbers_kept

        for split, loader in self.loaders.items():
            if split not in self._images:
                with random_numbers_kept(loader):
                    self._images[split] = images_of(loader, self._reader)
            return count or self._images[split]
        return 0

    # what both share

    def _measure(
        self,
        split: str,
        batch: Any,
        found: Found,
        keep: int | None,
        ids: list[str] | None = None,
    ) -> None:
        """Take one batch, the first ``keep`` images of it; metrics that refuse it are dropped."""
        losses, predictions, targets = found
        if keep is not None and keep < len(targets):
            if not keep:
                return
            predictions, targets = predictions[:keep], targets[:keep]
            ids = None if ids is None else ids[:keep]
        evaluation, losses = self._open[split], self.scalars(losses)
        if split == "train" and self._run.task != "semantic-segmentation":
            self._box_sums += [t["boxes"].sum() for t in targets if hasattr(t.get("boxes"), "sum")]
        try:
            evaluation.update(predictions, targets, losses, image_ids=ids)
        except ValueError as error:
            self._fail(split, error)
            evaluation.skip(predictions, targets, losses)
        else:
            self._artifacts.take(evaluation, batch, predictions, targets)

    def scalars(self, losses: Any) -> dict[str, Any]:
        """``losses`` by name, less what is no number, which is warned of."""
        losses = losses if isinstance(losses, Mapping) else {"loss": losses}
        named = {n: v for n, v in losses.items() if hasattr(v, "detach") or isinstance(v, Real)}
        if len(named) < len(losses):
            odd = {n: type(v).__name__ for n, v in losses.items() if n not in named}
            self._run.warnings.warn_once(
                "odd losses", f"these losses are no numbers: {odd}; pass a dict of scalars"
            )
        return named

    def _fail(self, split: str, error: Exception) -> None:
        if self._run.warnings.on_error == "raise":
            raise error
        self._failures.setdefault(split, f"{type(error).__name__}: {error}")
        advice = "" if "predict=" in str(error) else f"; if the batch is read wrongly, {ADVICE}"
        self._run.warnings.count_error(f"evaluation of the {split} split", f"{error}{advice}")

    def _report_failure(self, split: str, recorded_as: str) -> None:
        if reason := self._failures.get(split):
            self._run.record_failure(recorded_as, reason)

    def _record(self, results: Results, evaluation: Evaluation, loader: Any) -> dict[str, float]:
        split = evaluation.split = self._split_of(evaluation.split, loader, results.fingerprint)
        self._contents[split], self._images[split] = results.contents, results.images
        if split == "train":
            self.tag_train_set(results, loader)
        else:
            self.evaluated_at = evaluation.step
        if distributed.size() > 1 and not results.contents:
            self._run.warnings.warn_once(
                "no ids",
                "the images have no ids: those that several processes measure count several times; "
                "put image_id into the targets",
            )
        values = self._run.record_results(results, split, step=evaluation.step)
        self._artifacts.finish(results, evaluation)
        self._warn_of_leak()
        self._warn_of_cost(results.seconds)
        return values

    def _split_of(self, split: str, loader: Any, fingerprint: str) -> str:
        """``split``; where other data was evaluated under its name before, a split of its own."""
        data, name, count = getattr(loader, "dataset", loader), split, 1
        while split != "train":
            known, earlier = self._sets.setdefault(name, (data, fingerprint))
            if known is data or earlier == fingerprint or not (earlier and fingerprint):
                break
            count += 1
            name = further_split(f"{split.removeprefix('test').removeprefix('-')} {count}".strip())
        if name != split:
            self._run.warnings.warn_once(
                name,
                f"the data evaluated as {split!r} is other than before, and logged as {name!r}; "
                "evaluate it under a name of its own",
            )
        return name

    def tag_train_set(self, results: Results | None = None, loader: Any = None) -> None:
        """Log which images are trained on, once: at the first evaluation of them, or epoch.

        Their ground truth counts only where the data set reads an image alike each time.
        """
        if self._run.tagged("fingerprint.train"):
            self._warn_of_leak()
            return
        data = getattr(self.train_loader, "dataset", None)
        names = image_names(data) or sorted(self._progress.contents)
        content = ""
        if results is not None and (not names or _reads_alike(loader)):
            # to four digits, which a resize and back leaves as they are, of whatever boxes
            sums = distributed.gathered(sum(map(float, self._box_sums)))
            content = f"{results.fingerprint} {sum(sums):.4g}"
        if names or content:
            images = 0 if results is None else results.images
            self._run.tag("fingerprint.train", train_fingerprint(names, images, content))
        self._warn_of_leak()

    def _warn_of_leak(self) -> None:
        main = self._run.values.split or ""
        test = self._contents.get(main, {})
        train = {**self._progress.contents, **self._contents.get("train", {})}
        both = sorted(i for i, content in test.items() if content and train.get(i) == content)
        if not both and self.train_loader is not None and main in self.loaders:
            loaders = self.train_loader, self.loaders[main]
            data = tuple(getattr(loader, "dataset", loader) for loader in loaders)
            if not all(map(operator.is_, data, self._compared)):  # of these, once
                self._compared, self._in_both = data, in_both(*data)
            both = self._in_both
        if both:
            self._run.tag("leak", f"{len(both)} images")
            self._run.warnings.warn_once(
                "leak",
                f"{len(both)} images are in both the train and test set, such as "
                f"{', '.join(both[:3])}; the test metrics are too good",
            )

    def _warn_of_cost(self, seconds: float) -> None:
        self._seconds += seconds
        total = time.perf_counter() - self._began
        if self._seconds > COSTLY * total and total > LONG_ENOUGH:
            self._run.warnings.warn_once(
                "cost",
                f"evaluation takes {self._seconds / total:.0%} of the time; evaluate less often, "
                "or fewer images",
            )


def _reads_alike(loader: Any) -> bool:
    from .sharding import random_numbers_kept

    with random_numbers_kept(loader):
        return is_deterministic(loader)
