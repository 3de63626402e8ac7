"""COCO's figures for boxes and instance masks, from batches as they come.

Each batch is matched when it arrives and shrinks to a kilobyte per image (see `tally`); the figures
are then worked out of that, at any time. The numbers are those of pycocotools, cell for cell and
bit for bit, with four differences, each of which mends something there:

* Ground truth needs no ids of its own, and id 0 is as good as any (there it counts as a miss).
* No detection at all is a result like any other (there it is an IndexError).
* With another ``max_detections`` than 100, AP is measured with it (there it is -1), and the third
  recall is named by it.
* What is undefined, since no object counts, is absent (there it is -1).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from boxscore.fingerprint import Fingerprint, detection_content
from boxscore.metric import NO_CLASS, Classes, class_names

from .batch import Batch, Detections, ImageId, Truths, read_batch
from .batch import image_ids as read_ids
from .coco_summary import Arrays, Ranking, accumulate, figures, figures_per_class, rank
from .confusion import Confusion, confuse
from .curves import BestF1s, Curves, best_f1s, curves
from .mask_pairs import measure_masks
from .masks import Patches
from .match_table import DETECTION, IMAGE, TRUTH, Table, Tally, joined
from .matching import (
    ALL_AREAS,
    Floats,
    Indices,
    Pairs,
    box_overlaps,
    match,
    outside,
    pair,
    sort_rows,
)

Kind = Literal["box", "mask"]
Dicts = Sequence[Mapping[str, Any]]


class DetectionMetrics:
    """The twelve COCO figures of boxes, of masks, or of both, over one set of images.

    Predictions and targets are lists with one dict per image, in torchvision's convention; tensors
    on any device, arrays or lists:

    * predictions: ``boxes`` (n, 4), x1, y1, x2, y2 in pixels of the original image; ``scores``
      (n,); ``labels`` (n,); with ``masks=True`` also ``masks`` (see `masks.read_masks`).
    * targets: ``boxes``, ``labels``, ``masks`` likewise; optionally ``iscrowd`` (n,); ``area``
      (n,) in square pixels, by default that of the box, or for mask figures of the mask;
      ``image_id``, an integer or a string; ``orig_size``, (height, width), for polygons.
    * ``boxes_xywh`` instead of ``boxes``, on either side: x, y, width, height in float64, as COCO's
      files have them. (A difference of rounded corners need not be the width in the file.)

    An image whose id was seen before counts once, as first seen: samplers that pad repeat images.
    Without an id every image counts, and equal scores are ordered as the images came; with ids
    the order is that of the ids, so that merging in any order gives the same bits.

    Example:
        >>> import numpy as np
        >>> metrics = DetectionMetrics({1: "cat", 2: "dog"})
        >>> box = np.array([[10.0, 10.0, 50.0, 50.0]])
        >>> seen = {"boxes": box, "scores": np.array([0.9]), "labels": np.array([1])}
        >>> metrics.update([seen], [{"boxes": box, "labels": np.array([1]), "image_id": 7}])
        >>> round(metrics.compute()["box_AP"], 6)
        1.0

    Source: Lin et al., Microsoft COCO (2014); ``COCOeval`` of pycocotools.
    """

    def __init__(
        self,
        classes: Classes,
        *,
        boxes: bool = True,
        masks: bool = False,
        max_detections: int = 100,
        confusion: bool = False,
    ) -> None:
        """Start with no image.

        Args:
            classes: names by label; ``__background__`` and ``N/A`` are no classes.
            boxes: whether to measure boxes.
            masks: whether to measure masks.
            max_detections: how many detections per image and class count, the best-scored first.
            confusion: whether to keep what `confusion_matrix` needs.

        Raises:
            ValueError: if the classes are none (see `metric.class_names`), neither boxes nor masks
                are wanted, or ``max_detections`` is not an integer of 1 or more.
        """
        self._names = class_names(classes, without=NO_CLASS)
        self._labels = np.array(list(self._names), np.int64)
        self.kinds: tuple[Kind, ...] = (*(("box",) if boxes else ()), *(("mask",) if masks else ()))
        if not self.kinds:
            raise ValueError("DetectionMetrics measures boxes, masks or both, not neither")
        if isinstance(max_detections, bool) or not isinstance(max_detections, int):
            raise ValueError(f"max_detections must be an integer, not {max_detections!r}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be 1 or more, not {max_detections}")
        self._limits = (*(few for few in (1, 10) if few < max_detections), max_detections)
        self._confusion = confusion
        self._patches = Patches()
        self.reset()

    @property
    def protocol(self) -> str:
        """What differs from COCO's default, ``""`` or such as ``"max_detections=300"``."""
        limit = self._limits[-1]
        return "" if limit == 100 else f"max_detections={limit}"

    @property
    def images(self) -> int:
        """How many images count."""
        return sum(len(part.ids) for part in self._parts)

    @property
    def nbytes(self) -> int:
        """The size of the state, in bytes."""
        return sum(part.nbytes for part in self._parts)

    def reset(self) -> None:
        """Forget every image; ground-truth masks that were made ready stay so."""
        self._parts: list[Tally] = []
        self.evaluated = Fingerprint()
        self._objects: Counter[str] = Counter()
        self._seen: set[ImageId] = set()
        self._ranking: Ranking | None = None
        self._arrays: dict[str, Arrays] = {}

    def counts(self) -> dict[str, int]:
        """How many objects each class has, by class name."""
        return {name: self._objects[name] for name in self._names.values()}

    def update(
        self, predictions: Dicts, targets: Dicts, image_ids: Sequence[Any] | None = None
    ) -> None:
        """Take in one batch of images.

        Raises:
            ValueError: naming image, field and value; nothing of the batch is then taken in. If
                numbers of images or lengths differ, a field is missing, a box, score or area is
                NaN or infinite, x2 < x1 or y2 < y1, a label is outside the classes, or a mask is
                of another size or broken.
        """
        if len(predictions) != len(targets):
            raise ValueError(
                f"{len(predictions)} predictions for {len(targets)} targets: one each per image"
            )
        if image_ids is not None:
            pairs = zip(image_ids, targets, strict=True)
            targets = [t if "image_id" in t else {**t, "image_id": i} for i, t in pairs]
        ids = read_ids(targets)
        fresh = self._unseen(ids)
        if not fresh:
            return
        batch = self._read(
            [predictions[place] for place in fresh],
            [targets[place] for place in fresh],
            [ids[place] for place in fresh],
        )
        self._add(self._tally(batch))
        for place in fresh:
            self.evaluated.add(
                targets[place].get("image_id"), detection_content(targets[place], self._names)
            )
            self._objects.update(self._names[int(n)] for n in targets[place]["labels"])

    def merge(self, other: Self) -> None:
        """Take in all that ``other`` has seen, less what was seen here.

        Raises:
            ValueError: if it measures other classes, or in another way.
        """
        if other._settings() != self._settings():
            raise ValueError("only metrics of the same classes and settings merge")
        self.evaluated.merge(other.evaluated)
        self._objects.update(other._objects)
        for part in list(other._parts):
            fresh = self._unseen(part.ids)
            self._add(part if len(fresh) == len(part.ids) else part.take(fresh))

    def compute(self) -> dict[str, float]:
        """The figures by catalogue name, fractions from 0 to 1; what is undefined is absent."""
        return {
            f"{kind}_{name}": value
            for kind in self.kinds
            for name, value in figures(self.arrays(kind)).items()
        }

    def per_class(self) -> dict[str, dict[str, float]]:
        """AP, AP50 and recall by class name and catalogue name; what is undefined is absent."""
        result: dict[str, dict[str, float]] = {name: {} for name in self._names.values()}
        for kind in self.kinds:
            for name, found in zip(result, figures_per_class(self.arrays(kind)), strict=True):
                result[name] |= {f"{kind}_{figure}": value for figure, value in found.items()}
        return result

    def arrays(self, kind: Kind | None = None) -> Arrays:
        """COCO's arrays of ``"box"`` or ``"mask"`` (by default the first that is measured)."""
        kind = self._kind(kind)
        if kind not in self._arrays:
            tally, ranking = self._ranked()
            self._arrays[kind] = accumulate(tally, ranking, kind, len(self._names), self._limits)
        return self._arrays[kind]

    def curves(self, iou: float = 0.5, kind: Kind | None = None) -> Curves:
        """Precision and confidence over recall, per class and overall.

        Raises:
            ValueError: if ``iou`` is not one of COCO's ten thresholds.
        """
        return curves(self.arrays(kind), list(self._names.values()), iou)

    def best_f1(self, iou: float = 0.5, kind: Kind | None = None) -> BestF1s:
        """The confidence at which F1 is best, per class and overall.

        Raises:
            ValueError: if ``iou`` is not one of COCO's ten thresholds.
        """
        kind = self._kind(kind)
        return best_f1s(*self._ranked(), kind, list(self._names.values()), iou)

    def confusion_matrix(self) -> Confusion:
        """What was taken for what, for any confidence.

        Raises:
            ValueError: unless built with ``confusion=True``.
        """
        if not self._confusion:
            raise ValueError("the confusion matrix needs DetectionMetrics(…, confusion=True)")
        return Confusion.of(self._ranked()[0], self.kinds[0], list(self._names.values()))

    def save(self, path: Path) -> None:
        """Write the state as ``.npz``, readable with ``allow_pickle=False``."""
        whole = self._whole()
        text = json.dumps({**self._settings(), "ids": whole.ids})
        with Path(path).open("wb") as file:
            np.savez_compressed(
                file,
                settings=np.frombuffer(text.encode(), np.uint8),
                **whole.columns(),  # type: ignore[arg-type]  # a keyword of savez is no column
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a state that `save` wrote.

        Raises:
            ValueError: if the file is no such state.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                columns = {name: file[name] for name in file.files}
            settings = json.loads(columns.pop("settings").tobytes())
            ids = settings.pop("ids")
            names = {int(label): name for label, name in settings.pop("classes").items()}
            metrics = cls(names, **settings)
            whole = Tally.of(ids, columns, like=metrics._empty())
        except (KeyError, TypeError, AttributeError, EOFError, ValueError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{path}: no state of DetectionMetrics: {error}") from error
        if ids:
            metrics._add(whole)
        return metrics

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self._settings(), "whole": self._whole()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        settings = dict(state["settings"])
        names = {int(label): name for label, name in settings.pop("classes").items()}
        DetectionMetrics.__init__(self, names, **settings)
        if state["whole"].ids:
            self._add(state["whole"])

    def _settings(self) -> dict[str, Any]:
        return {
            "classes": {str(label): name for label, name in self._names.items()},
            "boxes": "box" in self.kinds,
            "masks": "mask" in self.kinds,
            "max_detections": self._limits[-1],
            "confusion": self._confusion,
        }

    def _kind(self, kind: Kind | None) -> Kind:
        if kind is None:
            return self.kinds[0]
        if kind not in self.kinds:
            raise ValueError(f"kind {kind!r} is not measured; here it is {' or '.join(self.kinds)}")
        return kind

    def _unseen(self, ids: Sequence[ImageId]) -> list[int]:
        """The places of the images that are new, each id once."""
        new: dict[Any, int] = {}
        for place, image_id in enumerate(ids):
            if image_id is None or image_id not in self._seen:
                new.setdefault(("no id", place) if image_id is None else image_id, place)
        return list(new.values())

    def _add(self, part: Tally) -> None:
        self._parts.append(part)
        self._seen.update(part.ids)
        self._ranking = None
        self._arrays = {}

    def _empty(self) -> Tally:
        return self._tally(self._read([], [], []))

    def _read(self, predictions: Dicts, targets: Dicts, ids: list[ImageId]) -> Batch:
        return read_batch(predictions, targets, ids, self._labels, boxes="box" in self.kinds)

    def _whole(self) -> Tally:
        """All images in one tally, in order."""
        if not self._parts:
            return self._empty()
        if self._ranking is None:
            self._parts = [joined(self._parts).in_order()]
        return self._parts[0]

    def _ranked(self) -> tuple[Tally, Ranking]:
        whole = self._whole()
        if self._ranking is None:
            self._ranking = rank(whole, len(self._names))
        return whole, self._ranking

    def _tally(self, batch: Batch) -> Tally:
        """Match one batch."""
        truths, rows = batch.truths, self._best(batch.detections)
        image, label = batch.detections.image[rows], batch.detections.label[rows]
        score = batch.detections.score[rows]
        images, narrow = len(batch.ids), np.min_scalar_type(len(self._names))
        tables: dict[str, Table] = {
            IMAGE: {
                "detections": np.bincount(image, minlength=images).astype(np.uint32),
                "truths": np.bincount(truths.image, minlength=images).astype(np.uint32),
            },
            DETECTION: {"score": score, "label": label.astype(narrow)},
            TRUTH: {"label": truths.label.astype(narrow)},
        }
        for kind in self.kinds:
            across = self._confusion and kind == self.kinds[0]
            pairs = self._pairs(image, label, truths, across_classes=across)
            if kind == "box":
                found = _measure_boxes(pairs, batch.detections.box[:, rows], truths)
            else:
                found = measure_masks(pairs, batch, rows, self._patches)
            pairs, iou, area, truth_area = found
            if across:
                tables["confusion"] = confuse(pairs, iou, score, truths, len(self._names))
                same = np.flatnonzero(label[pairs.detection] == truths.label[pairs.truth])
                pairs, iou = Pairs(pairs.detection[same], pairs.truth[same]), iou[same]
            if truths.area is not None:
                truth_area = np.where(np.isnan(truths.area), truth_area, truths.area)
            truth_outside = outside(truth_area)
            truth_outside[truths.crowd] = ALL_AREAS
            matches = match(pairs, iou, truth_outside, truths.crowd)
            tables[DETECTION][f"{kind}_outside"] = outside(area)
            tables[TRUTH][f"{kind}_outside"] = truth_outside
            tables[kind] = matches._asdict() | {"row": matches.row.astype(np.uint32)}
        return Tally(batch.ids, tables)

    def _best(self, detections: Detections) -> Indices:
        """The rows by image, class and falling score, the best ones of each up to the limit."""
        limit = self._limits[-1]
        group = detections.image * len(self._names) + detections.label
        rows = sort_rows(group, detections.score)
        group = group[rows]
        over = group[limit:] == group[:-limit]
        return np.concatenate([rows[:limit], rows[limit:][~over]]) if over.any() else rows

    def _pairs(
        self, image: Indices, label: Indices, truths: Truths, *, across_classes: bool
    ) -> Pairs:
        if across_classes:
            return pair(image, truths.image)
        classes = len(self._names)
        return pair(image * classes + label, truths.image * classes + truths.label)


def _measure_boxes(
    pairs: Pairs, boxes: Floats, truths: Truths
) -> tuple[Pairs, Floats, Floats, Floats]:
    """The pairs that overlap, their IoU, and the areas of detections and ground truth."""
    overlapping, iou = box_overlaps(pairs, boxes, truths.box, truths.crowd)
    return overlapping, iou, boxes[2] * boxes[3], truths.box[2] * truths.box[3]
