"""One pass over an evaluated set: batches in, `Results` out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from . import distributed, keys
from .catalogue import CATALOGUE
from .losses.window import WeightedSums
from .metric import Metric, TaskMetric
from .records import File, Point

if TYPE_CHECKING:
    from .catalogue import Task
    from .pictures import Samples

PerClass = int | Literal["all"]
"""How many classes get points of their own."""


@dataclass(slots=True)
class Share:
    """What one process measured of an evaluated set; shares merge into the whole.

    Attributes:
        task_metric: the documented metrics' state, which gives the fingerprint.
        further: the states of metrics that are measured beside it.
        losses: by framework name, weighted by images, or by valid pixels.
        images: how many were read.
        batch_size: of the largest batch.
        complete: whether every batch was measured.
        samples: the images to draw, None where none are.
    """

    task_metric: TaskMetric
    further: Sequence[Metric] = ()
    losses: WeightedSums = field(default_factory=WeightedSums)
    images: int = 0
    batch_size: int = 0
    complete: bool = True
    samples: Samples | None = None

    def merge(self, other: Share) -> None:
        """Add what another process measured."""
        self.task_metric.merge(other.task_metric)
        for mine, theirs in zip(self.further, other.further, strict=True):
            mine.merge(theirs)
        self.losses = WeightedSums.of([self.losses, other.losses])
        self.images += other.images
        self.batch_size = max(self.batch_size, other.batch_size)
        self.complete &= other.complete
        if self.samples is not None and other.samples is not None:
            self.samples.merge(other.samples)


@dataclass(frozen=True, slots=True)
class Results:
    """What an evaluated set gave, the same on every process.

    Attributes:
        images: how many were read.
        losses: by framework name; their sums.
        metrics: by catalogue name, empty where a batch could not be measured.
        per_class: by class name, then by catalogue name.
        counts: objects or pixels of ground truth by class name.
        best_f1: the confidence of the best F1 of boxes, or else masks, at IoU 0.5, and this F1,
            precision and recall, by class name; of all classes together under ``""``.
        curves: as `TaskMetric.curve_table`, empty where a batch could not be measured.
        fingerprint: twelve hex digits, ``""`` where a batch could not be measured.
        contents: content digests by image id, empty where images have no ids.
        batch_size: of the largest batch.
        seconds: from the first batch to the last, on this process.
        metric: the task metric's state, merged on the first process.
    """

    images: int
    losses: WeightedSums
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    counts: dict[str, int]
    best_f1: dict[str, dict[str, float]]
    curves: dict[str, Any]
    fingerprint: str
    contents: Mapping[str, str]
    batch_size: int
    seconds: float
    metric: TaskMetric

    @classmethod
    def of(cls, shares: Sequence[Share], seconds: float) -> Self:
        """Merge ``shares`` into the first of them and compute its metrics."""
        whole = shares[0]
        for share in shares[1:]:
            whole.merge(share)
        first, is_measured = whole.task_metric, whole.complete and whole.images
        measured = (first, *whole.further) if is_measured else ()
        per_class: dict[str, dict[str, float]] = {}
        for metric in measured:
            for name, values in metric.per_class().items():
                per_class.setdefault(name, {}).update(values)
        return cls(
            images=whole.images,
            losses=whole.losses,
            metrics={name: v for metric in measured for name, v in metric.compute().items()},
            per_class=per_class,
            counts=first.counts() if is_measured else {},
            best_f1=_best_f1(first) if is_measured else {},
            curves=_curves(first) if is_measured else {},
            fingerprint=first.evaluated.digest(first.protocol) if is_measured else "",
            contents=first.evaluated.contents,
            batch_size=whole.batch_size,
            seconds=seconds,
            metric=first,
        )

    def points(
        self, dataset: str, split: str, fingerprint: str, step: int, *, per_class: PerClass
    ) -> list[Point]:
        """The metrics of the set, and those of its most frequent classes that trackers show."""
        now = time.time()
        scope = keys.metric_scope(dataset, split, fingerprint)
        points = [Point(n, value, step, split, now, scope) for n, value in self.metrics.items()]
        scope = keys.metric_scope(dataset, split, fingerprint, per_class=True)
        for name in self._frequent(per_class):
            points += [
                Point(keys.class_measure(measure, name), value, step, split, now, scope)
                for measure, value in self.per_class[name].items()
                if measure in CATALOGUE and CATALOGUE[measure].per_class
            ]
        return points

    def _frequent(self, count: PerClass) -> list[str]:
        """The classes with most ground truth."""
        ordered = sorted(self.per_class, key=lambda name: -self.counts.get(name, 0))
        return ordered[: None if count == "all" else count]

    def tags(self, split: str) -> dict[str, str]:
        """What a reader of a test set's figures may need."""
        found = {"evaluation_batch_size": str(self.batch_size)}
        if best := self.best_f1.get(""):
            text = "{F1:.4f} at confidence {confidence:.4f}"
            found[f"best_F1.{split}"] = text.format_map(best)
        return found

    def write_tables(
        self,
        folder: Path,
        dataset: str,
        split: str,
        fingerprint: str,
        step: int,
        *,
        per_class: PerClass,
    ) -> list[File]:
        """Write every class with every metric, as JSON columns and rows, and the curves.

        The curves name their evaluated ``set``; ``counts`` are those of the most frequent classes.
        """
        tables = {"per_class": self._class_table()}
        if self.curves:
            counts, shown = self.curves["counts"], {"", *self._frequent(per_class)}
            kept = [one for one in counts["classes"] if one["name"] in shown]
            named = {"set": keys.evaluated_set(dataset, split, fingerprint)}
            tables["curves"] = named | self.curves | {"counts": counts | {"classes": kept}}
        written = []
        for name, table in tables.items():
            path = folder / f"{name}-{split}-{step}.json"
            path.write_text(json.dumps(table), encoding="utf-8")
            written.append(File(keys.table_name(name, split), str(path), step, split))
        return written

    def _class_table(self) -> dict[str, Any]:
        every = {
            name: row | {_column(n): v for n, v in self.best_f1.get(name, {}).items()}
            for name, row in self.per_class.items()
        }
        names = list(dict.fromkeys(name for row in every.values() for name in row))
        rows = [
            [name, self.counts.get(name), *(row.get(column) for column in names)]
            for name, row in every.items()
        ]
        return {"columns": ["class", "ground_truth", *names], "data": rows}


class Evaluation:
    """Takes the batches of one evaluated set, however it is shared out over processes.

    Where several processes train together each makes an evaluation and updates it with its own
    share of the set, however small.

    Attributes:
        split: ``"train"``, ``"test"`` or ``"test-<name>"``.
        step: optimizer steps so far.
        ignore_index: the label of pixels that count nowhere.
        share: what this process measured so far.
    """

    def __init__(
        self,
        task_metric: TaskMetric,
        further: Sequence[Metric] = (),
        *,
        task: Task,
        split: str,
        step: int,
        ignore_index: int | None = 255,
    ) -> None:
        self.split, self.step = split, step
        self.share = Share(task_metric, further)
        self._semantic = task == "semantic-segmentation"
        self.ignore_index = ignore_index
        self._losses: list[tuple[Mapping[str, Any], Any]] = []
        self._start = time.perf_counter()
        for metric in (task_metric, *further):
            metric.reset()

    def update(
        self,
        predictions: Any,
        targets: Any,
        losses: Mapping[str, Any] | None = None,
        *,
        image_ids: Sequence[object] | None = None,
    ) -> None:
        """Measure one batch.

        Args:
            predictions: detection: N dicts ``boxes`` (xyxy, pixels), ``scores``, ``labels`` and for
                instances ``masks``; semantic: logits (N, C, H, W).
            targets: detection: N dicts ``boxes``, ``labels`` and where there are ``masks``,
                ``iscrowd``, ``area``, ``image_id``; semantic: integers (N, H, W).
            losses: the batch's losses by framework name, floats or tensors; their mean is weighted
                by images, or by valid pixels for semantic models.
            image_ids: of the N images, where the targets have none.

        Raises:
            ValueError: naming image, field and value; `skip` then takes the batch's losses.
        """
        if image_ids is not None and len(image_ids) != len(targets):
            raise ValueError(f"{len(image_ids)} image ids for {len(targets)} targets")
        self.share.task_metric.update(predictions, targets, image_ids)
        for metric in self.share.further:
            metric.update(predictions, targets)
        self._add_losses(predictions, targets, losses)
        self.share.images += len(targets)
        self.share.batch_size = max(self.share.batch_size, len(targets))

    def skip(self, predictions: Any, targets: Any, losses: Mapping[str, Any] | None = None) -> None:
        """Take a batch's losses only; the set then has no metrics."""
        self.drop(len(targets))
        with suppress(ValueError, RuntimeError):  # the error of the metric was reported already
            self._add_losses(predictions, targets, losses)

    def drop(self, images: int) -> None:
        """Count ``images`` that could not be measured; the set then has no metrics."""
        self.share.complete = False
        self.share.images += images

    def _add_losses(self, predictions: Any, targets: Any, losses: Mapping[str, Any] | None) -> None:
        if self.split == "train":  # its losses come from the training steps
            return
        if self._semantic:
            from .losses.semantic import count_valid, semantic_losses

            measured = semantic_losses(predictions, targets, ignore_index=self.ignore_index)
            weight = count_valid(targets, self.ignore_index)
            self._losses.append(({**(losses or {}), **measured}, weight))
        elif losses:
            self._losses.append((losses, len(targets)))

    def finish(self, *, failed: bool = False) -> Results | None:
        """Merge what every process measured; each of them must call it.

        Args:
            failed: whether this process could not measure its share.

        Returns:
            the results, or None where ``failed``.

        Raises:
            RuntimeError: another process could not measure its share.
            ValueError: no image was read.
        """
        seconds = time.perf_counter() - self._start
        error: Exception | None = None
        try:
            if not failed:
                self._sum_losses()
        except Exception as raised:  # raised again once the other processes have been told
            failed, error = True, raised
        ends = distributed.gather_at(f"end of {self.split}", failed, self.step)
        if error is not None:
            raise error
        if failed:
            return None
        if any(ends) or len(ends) < distributed.size():
            raise RuntimeError(f"another process could not evaluate its share of {self.split!r}")
        shares = distributed.gather_to_rank0(self.share)
        results = distributed.broadcast_from_rank0(lambda: Results.of(shares, seconds))
        if not results.images:
            raise ValueError(f"no image was read of {self.split!r}: its loader is empty")
        return replace(results, metric=self.share.task_metric)

    def _sum_losses(self) -> None:
        for values, weight in self._losses:
            pixels = float(weight)
            for name, value in values.items():
                weighs = min(pixels, 1.0) if name == "dice" else pixels
                if weighs:
                    self.share.losses.add(name, _number(value) * weighs, weighs)
        self._losses.clear()


def _column(name: str) -> str:
    return "best_F1" if name == "F1" else f"best_F1_{name}"


def _curves(metric: TaskMetric) -> dict[str, Any]:
    return metric.curve_table() if hasattr(metric, "curve_table") else {}


def _best_f1(metric: TaskMetric) -> dict[str, dict[str, float]]:
    """`Results.best_f1`, of a metric that has it."""
    if not hasattr(metric, "best_f1"):
        return {}
    found = metric.best_f1()
    named = found.per_class | ({"": found.overall} if found.overall else {})
    return {
        name: {"confidence": b.confidence, "F1": b.f1, "precision": b.precision, "recall": b.recall}
        for name, b in named.items()
    }


def _number(value: Any) -> float:
    """A loss as a number; of several elements, one for each replica of DataParallel, the mean."""
    several = hasattr(value, "detach") and value.numel() > 1
    return float(value.detach().float().mean() if several else value)
