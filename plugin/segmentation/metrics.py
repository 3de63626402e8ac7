"""Semantic segmentation: five metrics from one pass over the predictions.

All come from three counts per class: the confusion matrix, and two histograms of the scores over
`THRESHOLDS`, one of the class's own pixels and one of all pixels. They are integers, so that
batches and processes add up exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boxscore.fingerprint import Fingerprint
from boxscore.metric import Classes, class_names
from boxscore.warn import Warnings

from .counts import content_hashes, count_pixels, counted_per_128
from .inputs import (
    are_probabilities,
    as_pixels,
    check_labels,
    label_range,
    value_range,
    waits,
)
from .readings import PIXELS, as_probabilities, tabulate, warn_of_ignored, warn_of_predictions
from .thresholds import PER_256, THRESHOLDS


class SegmentationMetrics:
    """AP, AR, IoU, pixel accuracy and F1 over a set of images.

    Pixels of ``ignore_index`` count nowhere. Where that is the label of a class, the class has no
    metrics either, and a pixel that is predicted as it is a miss.

    Predictions are logits. Probabilities are recognised and measured as such, with one warning:
    of several channels image by image, if all lie in [0, 1] with sum 1; of one channel, if every
    image of the set lies in [0, 1].

    The counts stay on the predictions' device, and `update` never waits for a GPU. An error in
    labels or logits there is raised by the next reading (`compute` and the like); its batch is left
    out of the counts all the same.

    Args:
        classes: names by label 0..C-1, at least two; the labels are the predictions' channels.
        ignore_index: the label of pixels that count nowhere; `None` for no such label.

    Raises:
        ValueError: if there are fewer than two classes, or their labels have a gap.
    """

    def __init__(self, classes: Classes, *, ignore_index: int | None = 255) -> None:
        self.classes = class_names(classes)
        self.ignore_index = ignore_index
        self.warnings = Warnings()
        self._check_classes()
        self.reset()

    def _check_classes(self) -> None:
        count = len(self.classes)
        if missing := set(range(count)) - set(self.classes):
            raise ValueError(
                f"classes: label {min(missing)} has no name; semantic classes are the logits' "
                f"channels, 0 to C-1 with the background, and these are {list(self.classes)}"
            )
        if count == 1:
            raise ValueError(
                f"classes: {self.classes[0]!r} alone cannot be segmented; one logit "
                "channel means two classes, such as {0: 'background', 1: 'nucleus'}"
            )
        if self.ignore_index == 255 and count > 255:
            raise ValueError(
                f"ignore_index 255 is the label of {self.classes[255]!r}; pass ignore_index=None, "
                "or the label that marks ignored pixels"
            )

    @property
    def thresholds(self) -> NDArray[np.float32]:
        """The score thresholds of `curves` and AP: ascending from 0 to 1, dense at both ends."""
        return THRESHOLDS.copy()

    @property
    def protocol(self) -> str:
        """What differs from the default protocol; part of the fingerprint."""
        return "" if self.ignore_index == 255 else f"ignore_index={self.ignore_index}"

    @property
    def evaluated(self) -> Fingerprint:
        """The label maps that `update` has read, by content and, where given, image id.

        It merges and pickles with the metric; `save` leaves it out.

        Raises:
            ValueError: as `compute`.
        """
        self._settle()
        return self._evaluated

    def counts(self) -> dict[str, int]:
        """The number of pixels by class name."""
        pixels = self._tables()[0].sum(1).tolist()
        return dict(zip(self.classes.values(), pixels, strict=True))

    def reset(self) -> None:
        """Forget every image."""
        classes = len(self.classes)
        self._counts = torch.zeros(classes, classes + 2 * len(THRESHOLDS), dtype=torch.int64)
        self._change = torch.zeros((), dtype=torch.int64)
        self._seen = torch.zeros(2, 6, dtype=torch.int64)
        self._evaluated = Fingerprint()
        self._unread: list[tuple[Tensor, Tensor, str, Sequence[object]]] = []

    @torch.no_grad()
    def update(
        self, predictions: Any, targets: Any, image_ids: Sequence[object] | None = None
    ) -> None:
        """Add one batch.

        Args:
            predictions: logits (N, C, H, W), floats before softmax, at the label maps' own size; C
                is the number of classes, or 1 for two classes through a sigmoid.
            targets: integers (N, H, W), each a class's label or ``ignore_index``.
            image_ids: N ids for `evaluated`; an image that is passed twice counts twice.

        Raises:
            ValueError: if shapes or types do not fit; if a label is outside the classes, or a logit
                NaN or infinite (on a GPU at the next reading). The batch then counts nowhere.
        """
        values, labels = as_pixels(predictions, targets)
        classes, channels = len(self.classes), values.shape[1]
        if max(2, channels) != classes:
            raise ValueError(
                f"logits are {tuple(np.shape(predictions))} for {classes} classes "
                f"({', '.join([*self.classes.values()][:5])}{', …' if classes > 5 else ''}); C is "
                "the number of classes, background included, or 1 for two"
            )
        ids = [None] * len(labels) if image_ids is None else list(image_ids)
        if len(ids) != len(labels):
            raise ValueError(f"{len(ids)} image ids for {len(labels)} targets")
        if not labels.numel():
            return
        labels_seen, values_seen = label_range(labels, self.ignore_index), value_range(values)
        ranges = torch.cat([labels_seen.float(), values_seen], dim=1)
        likely: Any = are_probabilities(values_seen)
        seen = tabulate(channels, labels[0].numel(), values_seen)
        if waits(values):
            finite = values_seen[:, :2].isfinite().all()
            sound = finite & (labels_seen[:, 0] >= 0).all() & (labels_seen[:, 1] < classes).all()
            counted, seen = labels.masked_fill(~sound, -1), seen * sound
        else:
            self._check(ranges, "the batch")
            counted, likely = labels, likely.tolist()
        self._counts, self._change, self._seen = (
            own.to(values.device) for own in (self._counts, self._change, self._seen)
        )
        change = count_pixels(self._counts, values, counted, likely, self.ignore_index)
        self._change, self._seen = self._change + change, self._seen + seen
        self._unread.append((ranges, content_hashes(labels), f"{tuple(labels.shape[1:])}", ids))

    def merge(self, other: Self) -> None:
        """Add all that ``other`` has seen.

        Raises:
            ValueError: if its classes or its ``ignore_index`` are others.
        """
        mine, theirs = (self.classes, self.ignore_index), (other.classes, other.ignore_index)
        if mine != theirs:
            raise ValueError(f"cannot merge: classes and ignore_index are {mine} and {theirs}")
        self._warn_of_repeats(len(self._evaluated.ids & other._evaluated.ids))
        self._counts = self._counts + other._counts.to(self._counts.device)
        self._change = self._change + other._change.to(self._counts.device)
        self._seen = self._seen + other._seen.to(self._seen.device)
        self._evaluated.merge(other._evaluated)
        self._unread = self._unread + other._unread

    def compute(self) -> dict[str, float]:
        """The five metrics in [0, 1] by catalogue name; those that are undefined are absent.

        AP: area under the pixel precision-recall curve, Σ(Rₙ-Rₙ₋₁)Pₙ over `thresholds`, one class
        against the rest. It is within 1e-4 of scikit-learn's `average_precision_score` from about
        1,000 pixels on, for logits with a standard deviation of 1 to 40 (1.4e-4 at 0.3, and for
        bfloat16 at 40); below that two pixels can fall between the same thresholds, at 64 pixels in
        1 of 15 sets, which moves it by up to one rank.
        AR: recall averaged over the thresholds k/256. Both are means over the classes with ground
        truth; IoU and F1 are over the classes in truth or prediction.

        Raises:
            ValueError: if a batch on a GPU had a wrong label or logit; the next call goes without.
        """
        confusion = self._tables()[0]
        metrics = self._by_class()
        metrics["pixel_accuracy"] = _ratio(confusion.trace(), confusion.sum())
        defined = {name: values[~np.isnan(values)] for name, values in metrics.items()}
        return {name: float(values.mean()) for name, values in defined.items() if values.size}

    def per_class(self) -> dict[str, dict[str, float]]:
        """The metrics by class name, then by catalogue name; those that are undefined are absent.

        A class's ``pixel_accuracy`` is the share of its own pixels that are predicted as it.
        """
        metrics = self._by_class()
        return {
            name: {
                metric: float(values[label])
                for metric, values in metrics.items()
                if not np.isnan(values[label])
            }
            for label, name in self.classes.items()
        }

    def curves(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Pixel precision and recall at `thresholds`, by name of the classes with ground truth.

        Precision is NaN above the highest score of a class.
        """
        precision, recall = self._curves()
        return {
            name: (precision[label], recall[label])
            for label, name in self.classes.items()
            if not np.isnan(recall[label, 0])
        }

    def curve_table(self) -> dict[str, Any]:
        """The pixel curves at about a hundred of the thresholds, and the confusion matrix."""
        classes, curves = [], self.curves()
        for name, (precision, recall) in curves.items():
            known = np.flatnonzero(~np.isnan(precision))
            kept = known[np.linspace(0, len(known) - 1, min(len(known), 101)).astype(int)]
            points = {"recall": recall[kept], "precision": precision[kept]}
            classes.append({"name": name} | {n: v.round(4).tolist() for n, v in points.items()})
        tables, note = self._tables(), "pixels, one class against the rest"
        drawn = {label: name for label, name in self.classes.items() if name in curves}
        return {
            "note": note,
            "classes": classes,
            "counts": {"note": f"{note}, counted", "classes": counted_per_128(*tables, drawn)},
            "names": list(self.classes.values()),
            "confusion": tables[0].tolist(),
        }

    def confusion_matrix(self, *, normalised: bool = True) -> NDArray[Any]:
        """Pixels (C, C) of the row's class that are predicted as the column's class.

        Args:
            normalised: as shares of the row, NaN where the class has no pixel; otherwise counts.
        """
        confusion = self._tables()[0]
        return _ratio(confusion, confusion.sum(1, keepdims=True)) if normalised else confusion

    def majority(self) -> tuple[str, float] | None:
        """The class with the most valid pixels and its share of them; `None` without any."""
        pixels = self._tables()[0].sum(1)
        label = int(pixels.argmax())
        return (self.classes[label], float(pixels[label] / pixels.sum())) if pixels.any() else None

    def _tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Confusion (C, C), and by threshold (C, T): the class's own pixels, and all pixels."""
        self._settle()
        seen = self._seen.cpu().numpy()
        counts = self._counts + self._change if as_probabilities(seen) else self._counts
        classes, steps = len(self.classes), len(THRESHOLDS)
        confusion, own, every = np.split(counts.cpu().numpy(), [classes, classes + steps], axis=1)
        warn_of_predictions(self.warnings, seen, self.classes)
        whole = seen[:, PIXELS].sum()
        ignored = 1 - confusion.sum() / whole if whole else 0.0
        left = confusion.sum(1).nonzero()[0]
        warn_of_ignored(self.warnings, ignored, left, self.classes, self.ignore_index)
        return confusion.copy(), own, every

    def _curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision and recall (C, T), NaN where undefined."""
        confusion, own, every = self._tables()
        hits, taken = (table[:, ::-1].cumsum(1)[:, ::-1] for table in (own, every))
        return _ratio(hits, taken), _ratio(hits, confusion.sum(1, keepdims=True))

    def _by_class(self) -> dict[str, NDArray[np.float64]]:
        """The metrics (C,) by name, NaN where undefined."""
        confusion, own, _ = self._tables()
        precision, recall = self._curves()
        right, true, taken = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        metrics = {
            "AP": _ratio((own * np.nan_to_num(precision)).sum(1), true),
            "AR": recall[:, PER_256].mean(1),
            "IoU": _ratio(right, true + taken - right),
            "pixel_accuracy": _ratio(right, true),
            "F1": _ratio(2 * right, true + taken),
        }
        if self.ignore_index in self.classes:
            for values in metrics.values():
                values[self.ignore_index] = np.nan
        return metrics

    def _settle(self) -> None:
        """Check the batches that a GPU held, and add the label maps of all to `evaluated`."""
        unread, self._unread = self._unread, []
        names, wrong = sorted(self.classes.items()), None
        known, named = len(self._evaluated.ids), 0
        for batch, (ranges, hashes, size, ids) in enumerate(unread):
            try:
                self._check(ranges, f"batch {batch} since the last reading")
            except ValueError as error:
                wrong = wrong or error
                continue
            for image_id, content in zip(ids, hashes.tolist(), strict=True):
                self._evaluated.add(image_id, f"{size}{names}{content}".encode())
                named += image_id is not None
        if not self._evaluated.anonymous:
            self._warn_of_repeats(known + named - len(self._evaluated.ids))
        if wrong:
            raise wrong

    def _check(self, ranges: Tensor, which: str) -> None:
        """Raise `ValueError` for a wrong label, or a NaN or infinite logit."""
        check_labels(ranges[:, :2], len(self.classes), self.ignore_index, which)
        for image, values in enumerate(ranges[:, 2:4].tolist()):
            if wrong := [value for value in values if not np.isfinite(value)]:
                raise ValueError(f"image {image} of {which}: logits hold {wrong[0]}")

    def _warn_of_repeats(self, count: int) -> None:
        if count > 0:
            self.warnings.warn_once(
                "repeated images",
                f"{count} images were passed again under the same image id, and their pixels count "
                "each time; evaluate each image once",
            )

    def save(self, path: Path) -> None:
        """Write the state as ``.npz``, readable with ``allow_pickle=False``."""
        self._settle()
        with open(path, "wb") as file:
            np.savez_compressed(
                file,
                counts=self._counts.cpu().numpy(),
                change=self._change.cpu().numpy(),
                seen=self._seen.cpu().numpy(),
                thresholds=THRESHOLDS,
                classes=np.array(list(self.classes.values())),
                ignore_index=np.array(
                    [] if self.ignore_index is None else [self.ignore_index], int
                ),
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            ValueError: if the file holds something else.
        """
        with np.load(path, allow_pickle=False) as file:
            if missing := set(_SAVED) - set(file.files):
                problem = f"it has no {min(missing)}"
                raise ValueError(f"{path} is not a state of SegmentationMetrics: {problem}")
            counts, change, seen, thresholds, classes, ignored = (file[name] for name in _SAVED)
        metric = cls(classes.tolist(), ignore_index=int(ignored[0]) if ignored.size else None)
        if not np.array_equal(thresholds, THRESHOLDS):
            raise ValueError(f"{path} was counted at other thresholds than these")
        shapes = {counts.shape, change.shape or counts.shape}
        kinds = {array.dtype for array in (counts, change, seen)}
        if shapes != {metric._counts.shape} or kinds != {np.dtype(np.int64)} or counts.min() < 0:
            raise ValueError(f"{path}: counts are {counts.dtype} of shape {counts.shape}")
        metric._counts, metric._change = torch.from_numpy(counts), torch.from_numpy(change)
        metric._seen = torch.from_numpy(seen.reshape(metric._seen.shape))
        return metric

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        tensors = ("_counts", "_change", "_seen")
        return {**vars(self), **{name: getattr(self, name).cpu() for name in tensors}}


_SAVED = ("counts", "change", "seen", "thresholds", "classes", "ignore_index")


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """``part / whole``, NaN for 0/0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.true_divide(part, whole))
