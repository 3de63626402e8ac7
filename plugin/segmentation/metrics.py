"""Semantic segmentation: five figures from one pass over the logits.

Every figure comes from three counts per class: the confusion matrix, and two histograms of the
scores over `THRESHOLDS`, one of the class's own pixels and one of all pixels. They are integers, so
that batches and processes add up exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boxscore.fingerprint import Fingerprint, label_map_content
from boxscore.metric import Classes, class_names

from .inputs import as_pixels, label_range, valid_pixels, waits, wrong_label
from .thresholds import PER_256, THRESHOLDS, places

_AT_ONCE = 2**23
"""Scores in work at a time, 32 MB of them: little memory, whatever the size of the images."""


class SegmentationMetrics:
    """AP, AR, IoU, pixel accuracy and F1 over a set of images.

    Pixels of ``ignore_index`` count nowhere. Where that is the label of a class, the class has no
    figures either, and a pixel that is taken for it is a miss.

    The counts stay on the logits' device, and `update` never waits for a GPU. What is wrong with
    labels or logits there is therefore told at the next reading (`compute` and the like); the batch
    is left out of the counts all the same.

    Args:
        classes: names by label 0..C-1, at least two; the labels are the logits' channels.
        ignore_index: the label of pixels that count nowhere; `None` for no such label.

    Raises:
        ValueError: if there are fewer than two classes, or their labels have a gap.
    """

    def __init__(self, classes: Classes, *, ignore_index: int | None = 255) -> None:
        self.classes = class_names(classes)
        self.ignore_index = ignore_index
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
                f"classes: {self.classes[0]!r} alone leaves nothing to tell apart; one logit "
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

    def reset(self) -> None:
        """Forget every image."""
        classes = len(self.classes)
        self._counts = torch.zeros(classes, classes + 2 * len(THRESHOLDS), dtype=torch.int64)
        self._unread: list[Tensor] = []
        self.evaluated = Fingerprint()

    @torch.no_grad()
    def counts(self) -> dict[str, int]:
        """How many pixels each class has, by class name."""
        pixels = self._tables()[0].sum(1)
        return {name: int(n) for name, n in zip(self.classes.values(), pixels, strict=True)}

    def update(self, predictions: Any, targets: Any, image_ids: Any = None) -> None:
        """Take in one batch.

        Args:
            predictions: logits (N, C, H, W), floats before softmax, at the label maps' own size; C
                is the number of classes, or 1 for two classes through a sigmoid.
            targets: integers (N, H, W), each a class's label or ``ignore_index``.

        Raises:
            ValueError: if shapes or types do not fit; if a label is outside the classes, or a logit
                NaN or infinite (on a GPU at the next reading). The batch then counts nowhere.
        """
        logits, labels = as_pixels(predictions, targets)
        classes = len(self.classes)
        if logits.shape[1] != classes:
            raise ValueError(
                f"logits are {tuple(np.shape(predictions))} for {classes} classes "
                f"({', '.join([*self.classes.values()][:5])}{', …' if classes > 5 else ''}); C is "
                "the number of classes, background included, or 1 for two"
            )
        if not labels.numel():
            return
        extremes = _extremes(logits, labels, self.ignore_index)
        if waits(logits):
            self._unread.append(extremes)
            sound = extremes.isfinite() & (extremes[:, :1] >= 0) & (extremes[:, 1:2] < classes)
            counts = _count(logits, labels, self.ignore_index) * sound.all()
        else:
            self._refuse(extremes)
            counts = _count(logits, labels, self.ignore_index)
        for number, target in enumerate(targets):
            known = None if image_ids is None else image_ids[number]
            self.evaluated.add(known, label_map_content(target, self.classes))
        self._counts = self._counts.to(counts.device) + counts

    def merge(self, other: Self) -> None:
        """Take in all that ``other`` has seen.

        Raises:
            ValueError: if its classes or its ``ignore_index`` are others.
        """
        mine, theirs = (self.classes, self.ignore_index), (other.classes, other.ignore_index)
        if mine != theirs:
            raise ValueError(f"cannot merge: classes and ignore_index are {mine} and {theirs}")
        self._counts = self._counts + other._counts.to(self._counts.device)
        self._unread = self._unread + other._unread
        self.evaluated.merge(other.evaluated)

    def compute(self) -> dict[str, float]:
        """The five figures in [0, 1] by catalogue name; what is undefined is absent.

        AP: area under the pixel precision-recall curve, Σ(Rₙ-Rₙ₋₁)Pₙ over `thresholds`, one class
        against the rest. AR: recall averaged over the thresholds k/256. Both are means over the
        classes with ground truth; IoU and F1 are, over the classes in truth or prediction.

        Raises:
            ValueError: if a batch on a GPU had a wrong label or logit; the next call goes without.
        """
        confusion = self._tables()[0]
        figures = self._figures()
        figures["pixel_accuracy"] = _ratio(confusion.trace(), confusion.sum())
        means = {name: values[~np.isnan(values)] for name, values in figures.items()}
        return {name: float(values.mean()) for name, values in means.items() if values.size}

    def per_class(self) -> dict[str, dict[str, float]]:
        """The figures by class name, then by catalogue name; what is undefined is absent.

        A class's ``pixel_accuracy`` is the share of its own pixels that were taken for it.
        """
        figures = self._figures()
        return {
            name: {
                figure: float(values[label])
                for figure, values in figures.items()
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

    def confusion_matrix(self, *, normalised: bool = True) -> NDArray[Any]:
        """Pixels (C, C) of the class of the row that were taken for the class of the column.

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
        classes, steps = len(self.classes), len(THRESHOLDS)
        confusion, own, every = np.split(
            self._counts.cpu().numpy(), [classes, classes + steps], axis=1
        )
        return confusion.copy(), own, every

    def _curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Precision and recall (C, T), NaN where undefined."""
        confusion, own, every = self._tables()
        hits, taken = (table[:, ::-1].cumsum(1)[:, ::-1] for table in (own, every))
        return _ratio(hits, taken), _ratio(hits, confusion.sum(1, keepdims=True))

    def _figures(self) -> dict[str, NDArray[np.float64]]:
        """The figures (C,) by name, NaN where undefined."""
        confusion, own, _ = self._tables()
        precision, recall = self._curves()
        right, true, taken = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        figures = {
            "AP": _ratio((own * np.nan_to_num(precision)).sum(1), true),
            "AR": recall[:, PER_256].mean(1),
            "IoU": _ratio(right, true + taken - right),
            "pixel_accuracy": _ratio(right, true),
            "F1": _ratio(2 * right, true + taken),
        }
        if self.ignore_index in self.classes:
            for values in figures.values():
                values[self.ignore_index] = np.nan
        return figures

    def _settle(self) -> None:
        """Tell what was wrong with batches that were not looked at in time."""
        unread, self._unread = self._unread, []
        for batch, extremes in enumerate(unread):
            self._refuse(extremes, f"batch {batch} since the last reading")

    def _refuse(self, extremes: Tensor, which: str = "the batch") -> None:
        for image, (lowest, highest, *logits) in enumerate(extremes.tolist()):
            fault = wrong_label(lowest, highest, len(self.classes), self.ignore_index)
            if wrong := [logit for logit in logits if not np.isfinite(logit)]:
                fault = f"logits hold {wrong[0]}"
            if fault:
                raise ValueError(f"image {image} of {which}: {fault}")

    def save(self, path: Path) -> None:
        """Write the state as ``.npz``, readable with ``allow_pickle=False``."""
        self._settle()
        with open(path, "wb") as file:
            np.savez_compressed(
                file,
                counts=self._counts.cpu().numpy(),
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
            if missing := {"counts", "thresholds", "classes", "ignore_index"} - set(file.files):
                raise ValueError(f"{path} is no state of SegmentationMetrics: no {min(missing)}")
            counts, thresholds = file["counts"], file["thresholds"]
            names, ignored = file["classes"].tolist(), file["ignore_index"].tolist()
        metric = cls(names, ignore_index=ignored[0] if ignored else None)
        if not np.array_equal(thresholds, THRESHOLDS):
            raise ValueError(f"{path} was counted at other thresholds than these")
        if counts.shape != metric._counts.shape or counts.dtype != np.int64 or counts.min() < 0:
            raise ValueError(f"{path}: counts are {counts.dtype} of shape {counts.shape}")
        metric._counts = torch.from_numpy(counts)
        return metric

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return {**vars(self), "_counts": self._counts.cpu()}


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """``part / whole``, NaN for 0/0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.true_divide(part, whole))


def _extremes(logits: Tensor, labels: Tensor, ignore_index: int | None) -> Tensor:
    """Of each image the lowest and highest label and logit, float32 (N, 4); NaN shows in both."""
    spread = torch.stack([logits.amin((1, 2, 3)), logits.amax((1, 2, 3))], dim=1)
    return torch.cat([label_range(labels, ignore_index).float(), spread.float()], dim=1)


def _count(logits: Tensor, labels: Tensor, ignore_index: int | None) -> Tensor:
    """The counts (C, C + 2T) of one batch, as `SegmentationMetrics._tables` takes them apart."""
    classes = logits.shape[1]
    pixels = max(1, _AT_ONCE // classes)
    total = torch.zeros(classes, classes + 2 * len(THRESHOLDS), dtype=torch.int64)
    total = total.to(logits.device)
    for image, truth in zip(logits, labels, strict=True):
        parts = image.flatten(1).split(pixels, 1), truth.flatten().split(pixels)
        for part, true in zip(*parts, strict=True):
            total += _count_part(part, true, ignore_index)
    return total


def _count_part(logits: Tensor, truth: Any, ignore_index: int | None) -> Tensor:
    """The counts of some pixels, from their logits (C, n) and labels (n,)."""
    classes, steps = len(logits), len(THRESHOLDS)
    scores: Any = logits.float().softmax(0)
    taken: Any = logits.max(0).indices
    xp: Any = torch
    if not waits(logits):
        # torch would share each of many short steps between threads, and on a busy machine their
        # waiting for each other can take longer than the steps by a factor of twenty
        xp = np
        scores, taken, truth = scores.numpy(), taken.numpy(), truth.numpy()
    valid = valid_pixels(truth, classes, ignore_index)
    confusion = _tally(truth * classes + taken, valid, classes * classes)
    own, every = [], []
    for label, row in enumerate(scores):
        reached = places(row)
        own.append(_tally(reached, valid & (truth == label), steps))
        every.append(_tally(reached, valid, steps))
    tables = confusion.reshape(classes, classes), xp.stack(own), xp.stack(every)
    return torch.as_tensor(xp.concatenate(tables, 1))


def _tally(values: Any, among: Any, size: int) -> Any:
    """How often each of 0..size-1 occurs where ``among`` is true."""
    if isinstance(values, np.ndarray):
        return np.bincount(values[among], minlength=size)
    # bincount and a mask would make a GPU wait, to learn how many there are
    counts = torch.zeros(size + 1, dtype=torch.int64, device=values.device)
    kept = values.long().masked_fill(~among, size)
    return counts.scatter_add_(0, kept, torch.ones_like(kept))[:size]
