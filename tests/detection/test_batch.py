"""What DetectionMetrics takes in, and what it refuses: in words, and with its state as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from boxscore.detection import DetectionMetrics
from tests.detection.pycoco import random_case

CAT = {1: "cat", 7: "dog"}
BOX = [[10.0, 10.0, 50.0, 50.0], [20.0, 20.0, 40.0, 30.0]]
FOUND = {"boxes": BOX, "scores": [0.9, 0.8], "labels": [1, 7]}
OBJECT = {"boxes": BOX, "labels": [1, 7], "image_id": 17}
NAN, INF = float("nan"), float("inf")


BAD_FOUND = [
    ({"boxes": [BOX[0], [20, 20, NAN, 30]]}, "prediction boxes: entry 1, .*nan.* not finite"),
    ({"boxes": [[-INF, 20, 30, 30], BOX[1]]}, "prediction boxes: entry 0, .*inf.* not finite"),
    ({"boxes": [BOX[0], [40, 20, 20, 30]]}, r"entry 1, \[40.*20.*\], has x2 < x1 or y2 < y1"),
    ({"boxes": [[40, 20, 60, 10], BOX[1]]}, "entry 0, .* has x2 < x1 or y2 < y1"),
    ({"boxes": BOX[:1]}, "prediction boxes: has 1 entries for 2 labels"),
    ({"boxes": [[1, 2, 3], [1, 2, 3]]}, r"prediction boxes: must be numbers of shape \(n, 4\), not .* of shape \(2, 3\)"),
    ({"boxes": None}, "prediction boxes: is missing"),
    ({"scores": [0.9, NAN]}, "prediction scores: entry 1, nan, is not finite"),
    ({"scores": [INF, 0.8]}, "prediction scores: entry 0, inf, is not finite"),
    ({"scores": [0.9]}, "prediction scores: has 1 entries for 2 labels"),
    ({"scores": [[0.9, 0.1], [0.8, 0.2]]}, "prediction scores: must be one number per object"),
    ({"scores": ["high", "low"]}, "prediction scores: must be one number per object"),
    ({"labels": [1, 2]}, "prediction labels: entry 1, 2, is no label among the classes"),
    ({"labels": [-1, 7]}, "prediction labels: entry 0, -1, is no label"),
    ({"labels": [0, 7]}, "prediction labels: entry 0, 0, is no label"),
    ({"labels": [1.0, 7.0]}, "prediction labels: entry 0, 1.0, is not an integer"),
    ({"labels": 1}, "prediction labels: must have one entry per object"),
]
BAD_OBJECT = [
    ({"boxes": [BOX[0], [20, 20, INF, 30]]}, "target boxes: entry 1, .*inf.* not finite"),
    ({"boxes": [BOX[0], [40, 20, 20, 30]]}, "target boxes: entry 1, .* x2 < x1"),
    ({"labels": [1, 99]}, "target labels: entry 1, 99, is no label among the classes"),
    ({"labels": [1]}, "target boxes: has 2 entries for 1 labels"),
    ({"area": [5.0]}, "target area: has 1 entries for 2 labels"),
    ({"area": [5.0, NAN]}, "target area: entry 1, nan, is not a finite number of 0 or more"),
    ({"area": [-1.0, 5.0]}, "target area: entry 0, -1.0, is not a finite"),
    ({"iscrowd": [0, 0, 1]}, "target iscrowd: has 3 entries for 2 labels"),
]


def tensors(one: dict[str, Any]) -> dict[str, Any]:
    return {
        key: torch.tensor(value) if isinstance(value, list) and value != ["high", "low"] else value
        for key, value in one.items()
    }


@pytest.mark.parametrize("convert", [dict, tensors], ids=["lists", "tensors"])
@pytest.mark.parametrize(
    ("side", "change", "problem"),
    [(0, *bad) for bad in BAD_FOUND] + [(1, *bad) for bad in BAD_OBJECT],
)
def test_bad_input_is_named_and_leaves_the_state(
    side: int, change: dict[str, Any], problem: str, convert: Any
) -> None:
    metrics = DetectionMetrics(CAT)
    metrics.update([FOUND], [OBJECT | {"image_id": 1}])
    before = metrics.compute()
    good, bad = [FOUND, OBJECT], [FOUND, OBJECT]
    bad[side] = bad[side] | change
    with pytest.raises(ValueError, match=f"^image 17, .*{problem}"):
        metrics.update(
            [convert(good[0]), convert(bad[0])],
            [convert(good[1] | {"image_id": 16}), convert(bad[1])],
        )
    assert (metrics.images, metrics.compute()) == (1, before)


def test_a_box_of_negative_width_is_refused() -> None:
    bad = FOUND | {"boxes_xywh": [BOX[0], [1, 1, -2, 3]]}
    with pytest.raises(ValueError, match=r"image 17, prediction boxes_xywh: entry 1, .* below 0"):
        DetectionMetrics(CAT).update([bad], [OBJECT])


def test_an_image_without_an_id_is_named_by_its_place() -> None:
    bad = FOUND | {"scores": [0.9, NAN]}
    plain = {key: value for key, value in OBJECT.items() if key != "image_id"}
    with pytest.raises(ValueError, match="image at place 1 of the batch, prediction scores"):
        DetectionMetrics(CAT).update([FOUND, bad], [plain, plain])


def test_targets_and_predictions_of_different_count_are_refused() -> None:
    with pytest.raises(ValueError, match="2 predictions for 1 targets"):
        DetectionMetrics(CAT).update([FOUND, FOUND], [OBJECT])


@pytest.mark.parametrize("image_id", [1.5, True, [1, 2], torch.tensor([1, 2]), b"1"])
def test_an_id_is_an_integer_or_a_string(image_id: Any) -> None:
    with pytest.raises(ValueError, match=r"target image_id: .* neither an integer nor a string"):
        DetectionMetrics(CAT).update([FOUND], [OBJECT | {"image_id": image_id}])


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        torch.tensor,
        lambda value: torch.tensor(value, requires_grad=isinstance(value[0], float)),
        lambda value: torch.tensor(value).to(torch.bfloat16) if value == [0.5, 0.25] else value,
        tuple,
    ],
)
def test_any_kind_of_array_gives_the_same(convert: Any) -> None:
    found = FOUND | {"scores": [0.5, 0.25]}
    plain, other = DetectionMetrics(CAT), DetectionMetrics(CAT)
    plain.update([found], [OBJECT])
    converted = [
        {key: convert(value) if isinstance(value, list) else value for key, value in one.items()}
        for one in (found, OBJECT)
    ]
    other.update(converted[:1], converted[1:])
    assert other.compute() == plain.compute()
    assert np.array_equal(other.arrays().scores, plain.arrays().scores)


def test_bfloat16_boxes_are_read_as_they_are() -> None:
    boxes = torch.tensor(BOX, dtype=torch.bfloat16)
    metrics = DetectionMetrics(CAT)
    metrics.update([FOUND | {"boxes": boxes}], [OBJECT | {"boxes": boxes.double()}])
    assert metrics.compute()["box_AR100"] == 1.0


def test_images_of_one_batch_may_differ_in_type() -> None:
    """What an image gives does not depend on its neighbours in the batch."""
    case = random_case(11)
    apart, together = DetectionMetrics(case.classes), DetectionMetrics(case.classes)
    predictions, targets = next(case.batches(100))
    for place, prediction in enumerate(predictions):
        kind = (np.float32, np.float64, np.int64)[place % 3]
        boxes = prediction.pop("boxes_xywh") + 0.3
        boxes[:, 2:] += boxes[:, :2]
        prediction["boxes"] = boxes.astype(kind)
    for target in targets:
        target["boxes"] = target.pop("boxes_xywh")
        target["boxes"][:, 2:] += target["boxes"][:, :2]
    together.update(predictions, targets)
    for prediction, target in zip(predictions, targets, strict=True):
        apart.update([prediction], [target])
    assert np.array_equal(apart.arrays().precision, together.arrays().precision)


def test_optional_fields_may_be_there_in_some_images_only() -> None:
    with_area = OBJECT | {"image_id": 1, "area": [5.0, 5.0], "iscrowd": torch.tensor([False, True])}
    metrics = DetectionMetrics(CAT)
    metrics.update([FOUND, FOUND], [with_area, OBJECT])
    assert metrics.compute()["box_AR_small"] == 1.0
    assert metrics.compute()["box_AR_medium"] == 1.0
    assert metrics.per_class()["dog"]["box_AR100"] == 1.0


def test_images_without_objects_are_good_input() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    bare: dict[str, Any] = {"boxes": [], "labels": [], "scores": []}
    metrics = DetectionMetrics(CAT)
    metrics.update([bare, FOUND], [nothing | {"image_id": 5}, OBJECT])
    metrics.update([], [])
    assert metrics.images == 2
    assert metrics.compute()["box_AR100"] == 1.0


def test_labels_need_not_be_small() -> None:
    far = {3: "near", 10**9: "far"}
    seen = FOUND | {"labels": [10**9, 3]}
    metrics = DetectionMetrics(far)
    metrics.update([seen], [OBJECT | {"labels": [10**9, 3]}])
    assert metrics.compute()["box_AR100"] == 1.0
    with pytest.raises(ValueError, match="entry 0, 4, is no label"):
        metrics.update([seen | {"labels": [4, 3]}], [OBJECT | {"image_id": 2}])


NUMBERS = st.floats(-100, 1000, width=32) | st.sampled_from([0.0, -0.0, NAN, INF, -INF, 1e38])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), count=st.integers(0, 4))
def test_odd_input_is_measured_or_refused_and_nothing_else(data: Any, count: int) -> None:
    """Figures lie between 0 and 1, or a ValueError says why there are none."""
    draw = data.draw
    boxes = draw(arrays.arrays(np.float32, (count, 4), elements=NUMBERS))
    scores = draw(arrays.arrays(np.float32, count, elements=NUMBERS))
    labels = draw(arrays.arrays(np.int64, count, elements=st.sampled_from([1, 7, 7, 8])))
    metrics = DetectionMetrics(CAT)
    fine = np.isfinite(boxes).all() and np.isfinite(scores).all() and (labels < 8).all()
    fine = fine and (boxes[:, 2:] >= boxes[:, :2]).all()
    update = {"boxes": boxes, "scores": scores, "labels": labels}
    if not fine:
        with pytest.raises(ValueError, match=r"^image 17, prediction"):
            metrics.update([update], [OBJECT])
        assert metrics.images == 0
    else:
        metrics.update([update], [OBJECT])
        assert all(0 <= value <= 1 for value in metrics.compute().values())
