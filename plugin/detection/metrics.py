"""COCO's metrics of boxes and instance masks, from batches.

`DetectionMetrics.update` matches each batch and keeps about a kilobyte per image (see
`match_table`), from which `compute` computes the metrics at any time. They equal those of
pycocotools, cell for cell and bit for bit, with five differences:

* Objects need no ids, and id 0 is valid (pycocotools: a miss).
* No detection is a valid result (pycocotools: an IndexError).
* With another ``max_detections`` than 100, AP is measured with it (pycocotools: -1), and the third
  recall is named by it.
* A metric without an object that counts is undefined, and absent (pycocotools: -1).
* A detection's area is that of its own region, the mask's for masks, as COCO's server, detectron2
  and mmdetection have it (pycocotools: the box's, where results hold both). ``areas="given"`` uses
  the predictions' ``area``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from boxscore.fingerprint import Fingerprint
from boxscore.metric import NO_CLASS, Classes, class_names
from boxscore.warn import Warnings

from .batch import Reader
from .coco_summary import Arrays, Ranking, accumulate, rank, summarize, summarize_per_class
from .confusion import Confusion
from .curves import BestF1, Curve, PerClass, best_f1s, count_detections, curve_table, curves
from .image_errors import image_errors
from .inputs import Dicts, image_name, read_ids
from .masks import Patches
from .match_batch import Kind, match_batch
from .match_table import IMAGE, TRUTH, MatchTable, joined
from .truth_digests import AREA_GIVEN, OFF_LATTICE, name_digests


class DetectionMetrics:
    """COCO's twelve metrics of boxes, of masks, or of both, over one set of images.

    Predictions and targets are sequences with one dict per image, in torchvision's convention;
    tensors on any device, arrays or lists:

    * predictions: ``boxes`` (n, 4), x1, y1, x2, y2 in pixels of the original image; ``scores``
      (n,); ``labels`` (n,); with ``masks=True`` also ``masks`` (see `masks.read_masks`).
    * targets: ``boxes``, ``labels``, ``masks`` likewise; optionally ``iscrowd`` (n,); ``area``
      (n,) in square pixels, by default that of the box, or for mask metrics of the mask;
      ``image_id``, an integer or a text; ``orig_size``, (height, width), for polygons. A target
      without objects needs none of these.
    * ``boxes_xywh`` instead of ``boxes``, on either side: x, y, width, height in float64, as in
      COCO's files. (A difference of rounded corners need not be the width in the file.)
    * ``tv_tensors.BoundingBoxes`` are read in the format that they name.

    An image that repeats (same id, same ground truth) counts once: samplers pad with repeats. One
    id with two ground truths counts as two images, with a warning. Without ids every image counts,
    and equal scores are ordered as the images came; with ids the order is that of the ids, so that
    merging in any order gives the same bits.

    Attributes:
        kinds: ``box``, ``mask`` or both.
        warnings: for repeated ids, ignored predictions and undefined metrics; where a run has put
            its own here, also for normalised boxes, which otherwise raise.

    Example:
        >>> import numpy as np
        >>> metrics = DetectionMetrics({1: "cat", 2: "dog"})
        >>> box = np.array([[10.0, 10.0, 50.0, 50.0]])
        >>> found = {"boxes": box, "scores": np.array([0.9]), "labels": np.array([1])}
        >>> metrics.update([found], [{"boxes": box, "labels": np.array([1]), "image_id": 7}])
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
        unknown: Literal["error", "ignore"] = "error",
        areas: Literal["region", "given"] = "region",
    ) -> None:
        """Start with no image.

        Args:
            classes: names by label; ``__background__`` and ``N/A`` are no classes.
            boxes: whether to measure boxes.
            masks: whether to measure masks.
            max_detections: the number of detections per image and class that count, best first.
            confusion: whether to keep what `confusion_matrix` needs.
            unknown: whether a prediction with a label outside the classes is an error, or ignored.
            areas: whether a detection's area is that of its region, or its ``area``.

        Raises:
            ValueError: if there are no classes (see `metric.class_names`), neither boxes nor masks
                are measured, or an argument is not one of its values.
        """
        self._names = class_names(classes, without=NO_CLASS)
        self.kinds: tuple[Kind, ...] = (*(("box",) if boxes else ()), *(("mask",) if masks else ()))
        if not self.kinds:
            raise ValueError("DetectionMetrics measures boxes, masks or both, not neither")
        if isinstance(max_detections, bool) or not hasattr(max_detections, "__index__"):
            raise ValueError(f"max_detections must be an integer, not {max_detections!r}")
        limit = int(max_detections)
        if limit < 1:
            raise ValueError(f"max_detections must be 1 or more, not {limit}")
        if unknown not in ("error", "ignore"):
            raise ValueError(f"unknown={unknown!r} is neither 'error' nor 'ignore'")
        if areas not in ("region", "given"):
            raise ValueError(f"areas={areas!r} is neither 'region' nor 'given'")
        self._limits = (*(fewer for fewer in (1, 10) if fewer < limit), limit)
        self._confusion = confusion
        self._patches = Patches()
        self.warnings = self._own_warnings = Warnings()
        labels = np.array(list(self._names), np.int64)
        self._reader = Reader(labels, boxes, unknown == "ignore", areas == "given")
        self._name_digests = name_digests(list(self._names.values()))
        self.reset()

    @property
    def protocol(self) -> str:
        """What differs from COCO's default, ``""`` or such as ``"max_detections=300"``."""
        limit, given = self._limits[-1], self._reader.detection_areas
        parts = [f"max_detections={limit}"] * (limit != 100) + ["areas=given"] * given
        return " ".join(parts)

    @property
    def images(self) -> int:
        """The number of images that count."""
        return sum(len(part.ids) for part in self._parts)

    @property
    def nbytes(self) -> int:
        """The size of the state, in bytes."""
        return sum(part.nbytes for part in self._parts)

    @property
    def evaluated(self) -> Fingerprint:
        """The images that count and their ground truth."""
        whole = self._whole()
        columns = whole.tables[IMAGE]
        facts = int(np.bitwise_or.reduce(columns["facts"], initial=0))
        return Fingerprint.of_detection(
            whole.ids,
            columns["content"].tolist(),
            columns["content_with_boxes"].tolist(),
            boxes_count=not facts & OFF_LATTICE,
            areas_given=bool(facts & AREA_GIVEN),
        )

    def counts(self) -> dict[str, int]:
        """The number of objects by class name."""
        label = self._whole().tables[TRUTH]["label"]
        numbers = np.bincount(label, minlength=len(self._names)).tolist()
        return dict(zip(self._names.values(), numbers, strict=True))

    def reset(self) -> None:
        """Forget all images, but keep ground-truth masks that were prepared."""
        self._parts: list[MatchTable] = []
        self._last: MatchTable | None = None
        self._seen: dict[str, tuple[int, ...]] = {}
        self._ranking: Ranking | None = None
        self._arrays: dict[str, Arrays] = {}
        self._reader.in_pixels.clear()

    def update(
        self, predictions: Dicts, targets: Dicts, image_ids: Sequence[Any] | None = None
    ) -> None:
        """Add a batch of images.

        Args:
            predictions: one dict per image.
            targets: one dict per image.
            image_ids: of the images whose targets have none, one per image.

        Raises:
            ValueError: naming image, field and value; the state is then unchanged. If numbers of
                images or lengths differ, a field is missing or no array of numbers, a box, score
                or area is NaN or infinite, x2 < x1 or y2 < y1, boxes are normalised, a label is
                outside the classes, or a mask is of another size, broken, or a float outside
                [0, 1].
        """
        if len(predictions) != len(targets):
            raise ValueError(
                f"{len(predictions)} predictions for {len(targets)} targets: one each per image"
            )
        if len(targets):
            self._last = self._match(predictions, targets, image_ids)
            self._add(self._last)

    def image_errors(self) -> list[float]:
        """How wrong the detections of each image of the last `update` are, from 0 to 1."""
        return image_errors(self._last or self._match([], [], None), self.kinds[0])

    def merge(self, other: Self) -> None:
        """Add the images of ``other``.

        Raises:
            ValueError: if it measures other classes, or in another way.
        """
        if other._settings() != self._settings():
            raise ValueError("only metrics of the same classes and settings merge")
        for part in list(other._parts):
            self._add(part)

    def compute(self) -> dict[str, float]:
        """The metrics by catalogue name, fractions from 0 to 1; what is undefined is absent."""
        metrics = {
            f"{kind}_{name}": value
            for kind in self.kinds
            for name, value in summarize(self.arrays(kind)).items()
        }
        whole = self._whole()
        if ignored := int(whole.tables[IMAGE]["ignored"].sum()):
            text = f"{ignored} predictions with labels outside the classes are ignored"
            self.warnings.warn_once("ignored", text)
        if self.images and not metrics:
            objects = len(whole.tables[TRUTH]["label"])
            reason = f"all {objects} objects are crowd regions (iscrowd), which do not count"
            reason = reason if objects else f"the {self.images} images have no objects"
            self.warnings.warn_once("undefined", f"no detection metric is defined: {reason}")
        return metrics

    def per_class(self) -> dict[str, dict[str, float]]:
        """The metrics by class name and catalogue name; what is undefined is absent."""
        result: dict[str, dict[str, float]] = {name: {} for name in self._names.values()}
        for kind in self.kinds:
            for row, found in zip(
                result.values(), summarize_per_class(self.arrays(kind)), strict=True
            ):
                row |= {f"{kind}_{name}": value for name, value in found.items()}
        return result

    def arrays(self, kind: Kind | None = None) -> Arrays:
        """COCO's arrays of ``"box"`` or ``"mask"`` (by default the first that is measured)."""
        kind = self._kind(kind)
        if kind not in self._arrays:
            table, ranking = self._ranked()
            self._arrays[kind] = accumulate(table, ranking, kind, len(self._names), self._limits)
        return self._arrays[kind]

    def curves(self, iou: float = 0.5, kind: Kind | None = None) -> PerClass[Curve]:
        """Precision and confidence over recall, per class and overall.

        Raises:
            ValueError: if ``iou`` is not one of COCO's ten thresholds.
        """
        return curves(self.arrays(kind), list(self._names.values()), iou)

    def best_f1(self, iou: float = 0.5, kind: Kind | None = None) -> PerClass[BestF1]:
        """The confidence of the best F1, per class and overall.

        Raises:
            ValueError: if ``iou`` is not one of COCO's ten thresholds.
        """
        kind = self._kind(kind)
        return best_f1s(*self._ranked(), kind, list(self._names.values()), iou)

    def curve_table(self) -> dict[str, Any]:
        """The curves at IoU 0.5, and the confusion matrix at the confidence of the best F1."""
        best = self.best_f1().overall
        confidence = 0.5 if best is None else best.confidence
        matrix = self.confusion_matrix() if self._confusion else None
        kind, names = self.kinds[0], list(self._names.values())
        counted = count_detections(*self._ranked(), kind, names, 0.5)
        return curve_table(self.curves(), counted, matrix, confidence, kind)

    def confusion_matrix(self) -> Confusion:
        """Objects by true and predicted class, for any confidence.

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
            metrics = cls.__new__(cls)
            metrics.__setstate__({"settings": settings, "whole": None})
            metrics._add(MatchTable.of(ids, columns, like=metrics._whole()))
        except (KeyError, TypeError, AttributeError, EOFError, ValueError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{path} is not a state of DetectionMetrics: {error}") from error
        return metrics

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self._settings(), "whole": self._whole()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        settings = dict(state["settings"])
        names = {int(label): name for label, name in settings.pop("classes").items()}
        DetectionMetrics.__init__(self, names, **settings)
        if state["whole"] is not None:
            self._add(state["whole"])

    def _settings(self) -> dict[str, Any]:
        return {
            "classes": {str(label): name for label, name in self._names.items()},
            "boxes": "box" in self.kinds,
            "masks": "mask" in self.kinds,
            "max_detections": self._limits[-1],
            "confusion": self._confusion,
            "unknown": "ignore" if self._reader.ignore_unknown else "error",
            "areas": "given" if self._reader.detection_areas else "region",
        }

    def _kind(self, kind: Kind | None) -> Kind:
        if kind is None:
            return self.kinds[0]
        if kind not in self.kinds:
            raise ValueError(f"kind {kind!r} is not measured; pass {' or '.join(self.kinds)}")
        return kind

    def _add(self, part: MatchTable) -> None:
        """Add the images of ``part`` that are no repeats."""
        new, contents = [], part.tables[IMAGE]["content_with_boxes"].tolist()
        for place, (image_id, content) in enumerate(zip(part.ids, contents, strict=True)):
            if image_id is not None:
                known = self._seen.get(str(image_id), ())
                if content in known:
                    continue
                if known:
                    self.warnings.warn_once(
                        "image ids",
                        f"{image_name(image_id, 0)}: several images with different ground truth "
                        "have this image_id; each counts as an image of its own. Give every image "
                        "an image_id of its own",
                    )
                self._seen[str(image_id)] = (*known, content)
            new.append(place)
        if new:
            self._parts.append(part if len(new) == len(part.ids) else part.take(new))
            self._ranking = None
            self._arrays = {}

    def _whole(self) -> MatchTable:
        """All images in one table, in order."""
        if not self._parts:
            return self._match([], [], None)
        if self._ranking is None:
            self._parts = [joined(self._parts).in_order()]
        return self._parts[0]

    def _ranked(self) -> tuple[MatchTable, Ranking]:
        whole = self._whole()
        if self._ranking is None:
            self._ranking = rank(whole, len(self._names))
        return whole, self._ranking

    def _match(
        self, predictions: Dicts, targets: Dicts, image_ids: Sequence[Any] | None
    ) -> MatchTable:
        ids = read_ids(targets, image_ids)
        by_hand = self.warnings is self._own_warnings
        batch = self._reader.read(predictions, targets, ids, self.warnings, is_strict=by_hand)
        return match_batch(
            batch,
            self.kinds,
            self._name_digests,
            limit=self._limits[-1],
            confusion=self._confusion,
            patches=self._patches,
        )
