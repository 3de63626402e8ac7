"""Curves and operating points, against a count over every detection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from boxscore.detection import DetectionMetrics
from boxscore.detection.curves import BestF1
from tests.detection.pycoco import Case, evaluate, random_case


def test_curves_are_the_rows_of_cocos_arrays() -> None:
    case = random_case(5, large=True)
    evaluation = evaluate(case)
    curves = case.measured().curves(iou=0.75)
    precision = evaluation.eval["precision"][5, :, :, 0, -1]
    for place, curve in enumerate(curves.per_class.values()):
        assert curve.recall.tolist() == np.linspace(0, 1, 101).tolist()
        assert curve.precision.tolist() == precision[:, place].tolist()
        assert curve.confidence.tolist() == evaluation.eval["scores"][5, :, place, 0, -1].tolist()
    assert curves.overall is not None
    assert curves.overall.precision == pytest.approx(precision.mean(axis=1))


def by_hand(case: Case, label: int | None, iou: int) -> list[tuple[float, float, float, float]]:
    """(F1, confidence, precision, recall) for every confidence, from pycocotools' matches."""
    evaluation = evaluate(case)
    labels = evaluation.params.catIds
    rows, objects = [], 0
    for image in evaluation.evalImgs:
        if image is None or image["aRng"] != [0, 1e10]:
            continue
        if image["category_id"] not in ([label] if label is not None else labels):
            continue
        objects += int((1 - image["gtIgnore"]).sum())
        ignored = image["dtIgnore"][iou]
        hits = (image["dtMatches"][iou] > 0) & ~ignored
        rows += list(zip(image["dtScores"], hits, ~ignored, strict=True))
    points = []
    for confidence in sorted({row[0] for row in rows}):
        hits = sum(row[1] for row in rows if row[0] >= confidence)
        kept = sum(row[2] for row in rows if row[0] >= confidence)
        if hits:
            points.append((2 * hits / (kept + objects), confidence, hits / kept, hits / objects))
    return points


@pytest.mark.parametrize("seed", range(30))
def test_the_best_f1_is_the_best_of_all_confidences(seed: int) -> None:
    case, iou = random_case(seed), seed % 10
    metrics = case.measured()
    best = metrics.best_f1(iou=0.5 + 0.05 * iou)
    classes = {one["category_id"] for one in case.truth["annotations"] if not one["iscrowd"]}
    for label, name in case.classes.items():
        check(best.per_class.get(name), by_hand(case, label, iou) if label in classes else [])
    counting = {result["category_id"] for result in case.results} <= classes
    if counting:
        check(best.overall, by_hand(case, None, iou))


def check(found: BestF1 | None, points: list[Any]) -> None:
    if not points:
        assert found is None
        return
    assert found is not None
    assert found.f1 == pytest.approx(max(points)[0])
    exact = next(point for point in points if point[1] == pytest.approx(found.confidence))
    assert (found.f1, found.precision, found.recall) == pytest.approx((exact[0], *exact[2:]))


@pytest.mark.parametrize("seed", range(10))
def test_positives_are_counted_at_every_confidence(seed: int) -> None:
    """Those of all classes are the sum of the classes with objects."""
    case = random_case(seed, large=seed % 2 == 0)
    counted = case.measured().curve_table()["counts"]["classes"]
    names = {name: label for label, name in case.classes.items()}
    for one in counted[1:]:
        points = by_hand(case, names[one["name"]], 0)
        for place, (tp, fp) in enumerate(zip(one["tp"], one["fp"], strict=True)):
            reached = [point for point in points if point[1] >= place / 128]
            if reached:
                *_, precision, recall = min(reached, key=lambda point: point[1])
                assert (tp / (tp + fp), tp / one["truths"]) == pytest.approx((precision, recall))
            else:
                assert tp == 0
    if counted:
        for key in ("tp", "fp"):
            assert counted[0][key] == np.sum([one[key] for one in counted[1:]], axis=0).tolist()
        assert counted[0]["truths"] == sum(one["truths"] for one in counted[1:])


def test_without_objects_there_is_no_curve() -> None:
    metrics = DetectionMetrics({1: "cat"})
    assert metrics.curves().overall is None
    assert metrics.best_f1().overall is None
    assert metrics.curve_table()["counts"]["classes"] == []


def test_other_thresholds_than_cocos_are_refused() -> None:
    with pytest.raises(ValueError, match=r"iou 0.51 is none of COCO's thresholds"):
        DetectionMetrics({1: "cat"}).curves(iou=0.51)
    with pytest.raises(ValueError, match="kind 'mask' is not measured"):
        DetectionMetrics({1: "cat"}).curves(kind="mask")
