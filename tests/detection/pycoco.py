"""pycocotools as an oracle, and cases to put to it: COCO dicts, and the same as batches."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxscore.detection import DetectionMetrics
from boxscore.detection.coco_summary import Arrays
from tests.shared_data import SHARED

DATA = SHARED / "data"

FIGURES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A COCO ground truth and results on it."""

    truth: Json
    results: list[Json]

    @property
    def classes(self) -> dict[int, str]:
        return {one["id"]: f"{one['name']} {one['id']}" for one in self.truth["categories"]}

    def batches(
        self, size: int = 16, order: Sequence[int] | None = None, *, masks: bool = False
    ) -> Iterator[tuple[list[Json], list[Json]]]:
        """The same in DetectionMetrics' convention, the images in ``order``."""
        found: dict[Any, list[Json]] = {image["id"]: [] for image in self.truth["images"]}
        given: dict[Any, list[Json]] = {image["id"]: [] for image in self.truth["images"]}
        for result in self.results:
            found[result["image_id"]].append(result)
        for annotation in self.truth["annotations"]:
            given[annotation["image_id"]].append(annotation)
        images = [self.truth["images"][place] for place in order or range(len(found))]
        for start in range(0, len(images), size):
            some = images[start : start + size]
            yield (
                [prediction(found[image["id"]], masks=masks) for image in some],
                [target(image, given[image["id"]], masks=masks) for image in some],
            )

    def measured(self, size: int = 16, **options: Any) -> DetectionMetrics:
        """Metrics that have seen it."""
        metrics = DetectionMetrics(self.classes, **options)
        for predictions, targets in self.batches(size, masks=options.get("masks", False)):
            metrics.update(predictions, targets)
        return metrics


def prediction(results: list[Json], *, masks: bool) -> Json:
    one = {
        "scores": np.array([result["score"] for result in results]),
        "labels": np.array([result["category_id"] for result in results], np.int64),
    }
    field = {"masks": [result["segmentation"] for result in results]} if masks else {}
    boxes = [result["bbox"] for result in results if "bbox" in result]
    return one | field | {"boxes_xywh": np.array(boxes, float).reshape(-1, 4)}


def target(image: Json, annotations: list[Json], *, masks: bool) -> Json:
    one = {
        "image_id": image["id"],
        "labels": np.array([each["category_id"] for each in annotations], np.int64),
        "iscrowd": np.array([each["iscrowd"] for each in annotations], np.int64),
        "area": np.array([each["area"] for each in annotations], float),
        "orig_size": (image["height"], image["width"]),
        "boxes_xywh": np.array([each["bbox"] for each in annotations], float).reshape(-1, 4),
    }
    return one | ({"masks": [each["segmentation"] for each in annotations]} if masks else {})


def evaluate(case: Case, kind: str = "box", limit: int = 100) -> COCOeval:
    """What pycocotools makes of it, evaluated and accumulated."""
    iou_type = {"box": "bbox", "mask": "segm"}[kind]
    truth, results = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = [dict(one) for one in case.truth["annotations"]]
        truth.dataset = {"info": {}, **case.truth, "annotations": annotations}
        truth.createIndex()
        if case.results:
            drop = ("bbox",) if kind == "mask" else ("segmentation",)
            results = truth.loadRes(
                [{k: v for k, v in one.items() if k not in drop} for one in case.results]
            )
        else:  # loadRes cannot take none
            results.dataset = {**case.truth, "annotations": []}
            results.createIndex()
        evaluation = COCOeval(truth, results, iou_type)
        evaluation.params.maxDets = [*(few for few in (1, 10) if few < limit), limit]
        evaluation.evaluate()
        evaluation.accumulate()
        if limit == 100:
            evaluation.summarize()
    return evaluation


def equal(arrays: Arrays, evaluation: COCOeval) -> bool:
    """Whether every cell is the same, to the last bit."""
    return (
        np.array_equal(arrays.precision, evaluation.eval["precision"][..., -1])
        and np.array_equal(arrays.scores, evaluation.eval["scores"][..., -1])
        and np.array_equal(arrays.recall, evaluation.eval["recall"])
    )


def assert_equal(case: Case, metrics: DetectionMetrics, kind: Any = "box") -> None:
    """Every cell, and every figure, is pycocotools'."""
    limit = metrics.arrays(kind).limits[-1]
    evaluation = evaluate(case, kind, limit)
    assert equal(metrics.arrays(kind), evaluation)
    if limit == 100:
        figures = metrics.compute()
        found = [figures.get(f"{kind}_{name}", -1.0) for name in FIGURES]
        assert found == evaluation.stats.tolist()


def decode(rle: Json) -> Any:
    """One mask as pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pycocotools, with NumPy 2
        return coco_mask.decode(rle)


def random_case(seed: int, *, large: bool = False) -> Case:
    """Boxes on a coarse grid with few scores: ties everywhere, in IoU, score and area."""
    rng = np.random.default_rng(seed)
    images, classes = int(rng.integers(1, 9)) * (8 if large else 1), int(rng.integers(1, 5))
    grid = int(rng.choice([6, 12, 40, 130]))
    objects = int(rng.integers(600, 1500) if large else rng.integers(0, 40))
    found = int(rng.integers(0, 4000) if large else rng.integers(0, 120))
    ids = np.sort(rng.choice(10000, images, replace=False)).tolist()
    labels = np.sort(rng.choice(200, classes, replace=False)).tolist()

    def boxes(count: int) -> Any:
        return np.concatenate(
            [rng.integers(0, grid, (count, 2)), rng.integers(1, grid, (count, 2))], axis=1
        ).astype(float)

    truth_box, truth_image = boxes(objects), rng.integers(0, images, objects)
    truth_class = rng.integers(0, classes, objects)
    area = truth_box[:, 2] * truth_box[:, 3] * rng.choice([1, 1, 0.5], objects)
    area[rng.random(objects) < 0.1] = 1024.0
    crowd = rng.random(objects) < rng.choice([0, 0.1, 0.4])
    box, image = boxes(found), rng.integers(0, images, found)
    label = rng.integers(0, classes, found)
    if objects:
        near = np.flatnonzero(rng.random(found) < 0.6)
        source = rng.integers(0, objects, len(near))
        shift = rng.integers(-1, 2, (len(near), 4)) * (rng.random((len(near), 1)) < 0.7)
        box[near] = truth_box[source] + shift
        box[near, 2:] = np.maximum(box[near, 2:], 1)
        image[near], label[near] = truth_image[source], truth_class[source]
    score = rng.integers(0, rng.choice([2, 10, 1000]), found) / 1000
    return Case(
        {
            "images": [{"id": one, "width": 300, "height": 300} for one in ids],
            "categories": [{"id": one, "name": "c"} for one in labels],
            "annotations": [
                {
                    "id": row + 1,
                    "image_id": ids[truth_image[row]],
                    "category_id": labels[truth_class[row]],
                    "bbox": truth_box[row].tolist(),
                    "area": float(area[row]),
                    "iscrowd": int(crowd[row]),
                }
                for row in range(objects)
            ],
        },
        [
            {
                "image_id": ids[image[row]],
                "category_id": labels[label[row]],
                "bbox": box[row].tolist(),
                "score": float(score[row]),
            }
            for row in range(found)
        ],
    )


def jittered(truth: Json, seed: int = 0) -> Case:
    """Results near the ground truth of a real data set, masks shifted by some pixels."""
    rng = np.random.default_rng(seed)
    results = []
    for annotation in truth["annotations"]:
        for _ in range(int(rng.integers(0, 4))):
            noise = rng.normal(0, rng.choice([0.02, 0.1, 0.3]), 4)
            box = np.array(annotation["bbox"], float)
            box += noise * box[[2, 3, 2, 3]]
            box[2:] = np.maximum(box[2:], 1)
            result = {
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "bbox": box.tolist(),
                "score": round(float(rng.random()), 2),
            }
            if "segmentation" in annotation:
                dense = decode(annotation["segmentation"])
                shift = rng.integers(-4, 5, 2)
                moved = np.roll(dense, shift.tolist(), (0, 1))
                result["segmentation"] = coco_mask.encode(np.asfortranarray(moved))
            results.append(result)
    return Case({key: truth[key] for key in ("images", "categories", "annotations")}, results)
