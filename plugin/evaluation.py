"""One pass over an evaluated set: its figures, its losses, and which set it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .fingerprint import Fingerprint, detection_content, label_map_content
from .losses import WeightedSums as Sums
from .metric import Metric

if TYPE_CHECKING:
    from .catalogue import Task


@dataclass(slots=True)
class Share:
    """What one process saw of an evaluated set; shares merge into the whole.

    Attributes:
        metric: the figures' state.
        fingerprint: which images came.
        losses: their losses by native name, weighted by images, or by valid pixels.
        images: how many came.
        batch_size: the largest batch.
        complete: whether every batch could be measured.
    """

    metric: Metric
    fingerprint: Fingerprint
    losses: Sums
    images: int
    batch_size: int
    complete: bool

    def merge(self, other: Share) -> None:
        """Take in what another process saw."""
        self.metric.merge(other.metric)
        self.fingerprint.merge(other.fingerprint)
        self.losses = Sums.of([self.losses, other.losses])
        self.images += other.images
        self.batch_size = max(self.batch_size, other.batch_size)
        self.complete &= other.complete


@dataclass(frozen=True, slots=True)
class Results:
    """What an evaluated set gave, as every process is told it.

    Attributes:
        images: how many came.
        losses: by native name.
        figures: by catalogue name, empty where the set is not complete.
        per_class: by class name, then by catalogue name.
        digest: the set's fingerprint.
        ids: of the images, empty where they have none.
        batch_size: the largest batch.
    """

    images: int
    losses: dict[str, float]
    figures: dict[str, float]
    per_class: dict[str, dict[str, float]]
    digest: str
    ids: frozenset[str]
    batch_size: int

    @classmethod
    def of(cls, shares: Sequence[Share]) -> Self:
        """Merge ``shares`` into the first of them and work out what they give together."""
        whole = shares[0]
        for share in shares[1:]:
            whole.merge(share)
        metric = whole.metric
        measured = whole.complete and whole.images
        return cls(
            whole.images,
            whole.losses.means(),
            metric.compute() if measured else {},
            metric.per_class() if measured else {},
            whole.fingerprint.digest(metric.protocol) if measured else "",
            whole.fingerprint.ids,
            whole.batch_size,
        )


class Evaluation:
    """Takes batches, and on leaving the ``with`` block hands its results on.

    What raises inside the block is raised on, and nothing is recorded: half an evaluated set has no
    figures. Where several processes train together, each opens an evaluation and updates it with
    its own share of the set, however small; the first one records the whole.

    Attributes:
        split: ``"train"``, ``"test"`` or ``"test-<name>"``.
        step: optimizer steps so far.
        metric: the figures' state.
        fingerprint: the images so far.
        images: how many came.
        complete: whether every batch could be measured; if not, only losses are recorded.
        share: what this process saw, None before the end or where an error ended it.
        results: what all processes together found, None before the end.
        measured: the losses and figures that were logged, by catalogue name.
    """

    def __init__(
        self,
        metric: Metric,
        names: Mapping[int, str],
        *,
        task: Task,
        split: str,
        step: int,
        done: Callable[[Evaluation], None],
    ) -> None:
        self.metric, self.split, self.step = metric, split, step
        self.fingerprint = Fingerprint()
        self.complete = True
        self.share: Share | None = None
        self.results: Results | None = None
        self.measured: dict[str, float] = {}
        self.images = 0
        self.batch_size = 0
        self.seconds = 0.0
        self._names, self._done = names, done
        self._semantic = task == "semantic-segmentation"
        self._losses: list[tuple[Mapping[str, Any], Any]] = []
        self._start = time.perf_counter()
        metric.reset()

    def update(
        self,
        predictions: Any,
        targets: Any,
        losses: Mapping[str, Any] | None = None,
        *,
        image_ids: Sequence[object] | None = None,
    ) -> None:
        """Take in one batch.

        Args:
            predictions: detection: N dicts ``boxes`` (xyxy, pixels), ``scores``, ``labels`` and for
                instances ``masks``; semantic: logits (N, C, H, W).
            targets: detection: N dicts ``boxes``, ``labels`` and where there are ``masks``,
                ``iscrowd``, ``area``, ``image_id``; semantic: integers (N, H, W).
            losses: the batch's losses by native name, floats or tensors; their mean is weighted by
                images, or by valid pixels for semantic models.
            image_ids: of the N images, where the targets bear none.

        Raises:
            ValueError: naming image, field and value; nothing of the batch is then kept.
        """
        if image_ids is not None and len(image_ids) != len(targets):
            raise ValueError(f"{len(image_ids)} image ids for {len(targets)} targets")
        self.metric.update(predictions, targets)
        self.images += len(targets)
        self.batch_size = max(self.batch_size, len(targets))
        for target, image_id in zip(targets, image_ids or [None] * len(targets), strict=True):
            own = None if self._semantic else target.get("image_id")
            known = image_id if own is None else own
            ids_suffice = self.split == "train" and known is not None
            describe = label_map_content if self._semantic else detection_content
            content = b"" if ids_suffice else describe(target, self._names)
            self.fingerprint.add(known, content)
        self._add_losses(predictions, targets, losses)

    def skip(self, predictions: Any, targets: Any, losses: Mapping[str, Any] | None = None) -> None:
        """Take in a batch's losses only, and give up the figures: the set is not complete."""
        self.give_up(len(targets))
        with suppress(ValueError, RuntimeError):  # what cannot be measured was told already
            self._add_losses(predictions, targets, losses)

    def give_up(self, images: int) -> None:
        """Count ``images`` that cannot be measured: the set then has no figures."""
        self.complete = False
        self.images += images

    def _add_losses(self, predictions: Any, targets: Any, losses: Mapping[str, Any] | None) -> None:
        if self.split == "train":  # its losses come from the training steps
            return
        if self._semantic:
            from .losses import count_valid, semantic_losses

            ignore_index: int | None = self.metric.ignore_index  # type: ignore[attr-defined]
            measured = semantic_losses(predictions, targets, ignore_index=ignore_index)
            self._losses.append(
                ({**(losses or {}), **measured}, count_valid(targets, ignore_index))
            )
        elif losses:
            self._losses.append((losses, len(targets)))

    def _share(self) -> Share:
        """What this process saw."""
        sums = Sums()
        for values, weight in self._losses:
            heavy = float(weight)
            for name, value in values.items():
                share = min(heavy, 1.0) if name == "dice" else heavy
                if share:
                    sums.add(name, _number(value) * share, share)
        seen = self.fingerprint, sums, self.images, self.batch_size, self.complete
        return Share(self.metric, *seen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, Exception):  # else the process is about to end
            self.conclude(failed=error is not None)

    def conclude(self, *, failed: bool = False) -> None:
        """Hand the results on; leaving the ``with`` block does it by itself.

        Args:
            failed: whether something went wrong, so that nothing may be recorded.
        """
        self.seconds = time.perf_counter() - self._start
        error = None
        try:
            self.share = None if failed else self._share()
        except Exception as trouble:  # told once the other processes know that this one has none
            error = trouble
        self._done(self)
        if error is not None:
            raise error


def _number(value: Any) -> float:
    """A loss as a number; of several elements, as DataParallel gives one for each, the mean."""
    several = hasattr(value, "detach") and value.numel() > 1
    return float(value.detach().float().mean() if several else value)


def new_metric(task: Task, names: Mapping[int, str], ignore_index: int | None) -> Metric:
    """What measures ``task``, with no image yet."""
    if task == "semantic-segmentation":
        from .segmentation import SegmentationMetrics

        return SegmentationMetrics(names, ignore_index=ignore_index)
    from .detection import DetectionMetrics

    return DetectionMetrics(names, masks=task == "instance-segmentation")
