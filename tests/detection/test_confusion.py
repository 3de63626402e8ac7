"""The confusion matrix, against matching anew for each confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from boxscore.detection import DetectionMetrics
from tests.detection.pycoco import Case, random_case


def by_hand(case: Case, confidence: float) -> Any:
    """Greedy, by falling score, whatever the class."""
    labels = [one["id"] for one in case.truth["categories"]]
    size = len(labels) + 1
    matrix = np.zeros((size, size), int)
    for image in case.truth["images"]:
        objects = [one for one in case.truth["annotations"] if one["image_id"] == image["id"]]
        found = [one for one in case.results if one["image_id"] == image["id"]]
        # among equal scores by class, then in order, as the state keeps them
        found = sorted(found, key=lambda one: (-one["score"], one["category_id"]))
        free = set(range(len(objects)))
        for one in found:
            if one["score"] < confidence:
                continue
            column = labels.index(one["category_id"])
            crowd = [each["iscrowd"] for each in objects]
            iou = coco.iou([one["bbox"]], [each["bbox"] for each in objects], crowd)
            near = [
                (not crowd[at], iou[0][at], at)
                for at in range(len(objects))
                if iou[0][at] >= 0.5 and (at in free or crowd[at])
            ]
            if not near:
                matrix[-1, column] += 1
                continue
            at = max(near)[2]
            if not crowd[at]:
                free.remove(at)
                matrix[labels.index(objects[at]["category_id"]), column] += 1
        for at in free:
            if not objects[at]["iscrowd"]:
                matrix[labels.index(objects[at]["category_id"]), -1] += 1
    return matrix


@pytest.mark.parametrize("seed", range(25))
def test_one_matching_holds_for_every_confidence(seed: int) -> None:
    case = random_case(seed)
    confusion = case.measured(confusion=True).confusion_matrix()
    for confidence in (0.0, 0.002, 0.3, 1.1):
        assert confusion.at(confidence).tolist() == by_hand(case, confidence).tolist()


def test_its_sums_are_the_objects_and_the_detections() -> None:
    case = random_case(40, large=True)
    metrics = case.measured(confusion=True)
    confusion = metrics.confusion_matrix()
    counts = [
        sum(one["category_id"] == label and not one["iscrowd"] for one in case.truth["annotations"])
        for label in case.classes
    ]
    assert confusion.at(0).sum(axis=1)[:-1].tolist() == counts
    assert confusion.names == (*case.classes.values(), "background")
    assert metrics.compute() == case.measured().compute()


def test_masks_can_be_confused_too() -> None:
    mask = np.zeros((2, 8, 8), bool)
    mask[0, :4], mask[1, 4:] = True, True
    metrics = DetectionMetrics({1: "cat", 2: "dog"}, boxes=False, masks=True, confusion=True)
    found = {"masks": mask, "scores": [0.9, 0.4], "labels": [1, 2]}
    metrics.update([found], [{"masks": mask[::-1], "labels": [1, 1]}])
    assert metrics.confusion_matrix().at(0.5).tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert metrics.confusion_matrix().at(0.1).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert metrics.compute()["mask_AR100"] == 0.5


def test_it_must_be_asked_for() -> None:
    with pytest.raises(ValueError, match="confusion=True"):
        DetectionMetrics({1: "cat"}).confusion_matrix()
