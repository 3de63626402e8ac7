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
    (
        {"boxes": [[1, 2, 3], [1, 2, 3]]},
        r"prediction boxes: must be numbers of shape \(n, 4\), not .* of shape \(2, 3\)",
    ),
    ({"boxes": None}, "prediction boxes: is missing"),
    ({"scores": [0.9, NAN]}, "prediction scores: entry 1, nan, is not finite"),
    ({"scores": [INF, 0.8]}, "prediction scores: entry 0, inf, is not finite"),
    ({"scores": [0.9]}, "prediction scores: has 1 entries for 2 labels"),
    ({"scores": [[0.9, 0.1], [0.8, 0.2]]}, "prediction scores: must be one number per object"),
    ({"scores": ["high", "low"]}, "prediction scores: must be one number per object"),
    ({"labels": [1, 2]}, "prediction labels: entry 1, 2, is not the label of a class"),
    ({"labels": [-1, 7]}, "prediction labels: entry 0, -1, is not the label"),
    ({"labels": [0, 7]}, "prediction labels: entry 0, 0, is not the label"),
    ({"labels": [1.0, 7.0]}, "prediction labels: entry 0, 1.0, is not an integer"),
    ({"labels": 1}, "prediction labels: must have one entry per object"),
]
BAD_OBJECT = [
    ({"boxes": [BOX[0], [20, 20, INF, 30]]}, "target boxes: entry 1, .*inf.* not finite"),
    ({"boxes": [BOX[0], [40, 20, 20, 30]]}, "target boxes: entry 1, .* x2 < x1"),
    ({"labels": [1, 99]}, "target labels: entry 1, 99, is not the label of a class"),
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
    with pytest.raises(ValueError, match="entry 0, 4, is not the label"):
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


NONE: list[Any] = []
WITHOUT_OBJECTS: list[dict[str, Any]] = [
    {},
    {"labels": []},
    {"boxes": torch.tensor([]), "labels": torch.tensor([], dtype=torch.int64)},
    {"boxes": torch.tensor([]), "labels": torch.tensor([])},
    {"boxes": torch.zeros(0, 4), "labels": NONE, "area": torch.zeros(0), "iscrowd": NONE},
    {"boxes": np.array([[]]), "labels": np.array([])},
    {"boxes": [[]], "labels": ()},
    {"boxes": None, "labels": None, "masks": None},
    {"boxes_xywh": np.zeros((0, 4)), "labels": NONE},
]


@pytest.mark.parametrize("target", WITHOUT_OBJECTS)
def test_a_target_without_boxes_is_an_image_without_objects(target: dict[str, Any]) -> None:
    metrics = DetectionMetrics(CAT)
    metrics.update([FOUND, FOUND], [target | {"image_id": 1}, OBJECT])
    assert metrics.images == 2
    assert metrics.counts() == {"cat": 1, "dog": 1}


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ([], "target: must be a dict with 'boxes' .* not a list"),
        (None, "target: must be a dict .* not a NoneType"),
        ({"boxes": BOX}, "target labels: is missing"),
        ({"labels": [1, 7]}, "target boxes: is missing"),
        ({"boxes_xywh": BOX}, "target labels: is missing"),
        ({"boxes": [[1, 2], [3]]}, "target labels: is missing"),
        ({"boxes": BOX, "labels": [1, 7], "iscrowd": [0, NAN]}, "target iscrowd: entry 1, nan"),
        ({"boxes": [BOX[0], [1, 2]], "labels": [1, 7]}, r"target boxes: must be .* \(n, 4\)"),
        ({"boxes": "none", "labels": [1]}, "target boxes: has 4 entries for 1 labels"),
        ({"boxes": [["1", "2", "3", "4"]], "labels": [1]}, "target boxes: must be numbers"),
        ({"boxes": [{"x": 1}], "labels": [1]}, "target boxes: must be numbers"),
        ({"boxes": BOX, "labels": [1, "dog"]}, "target labels: must be one number per object"),
        ({"boxes": BOX, "labels": [1, 2**70]}, "target labels: must be one number per object"),
        ({"boxes": BOX, "labels": [1, 7], "area": [1, "big"]}, "target area: must be one number"),
        ({"boxes": 5, "labels": [1]}, "target boxes: must have one entry per object, not be a int"),
    ],
)
def test_an_unreadable_target_is_named_with_the_expected_form(target: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^image at place 1 of the batch, {problem}"):
        DetectionMetrics(CAT).update([FOUND, FOUND], [OBJECT, target])


def test_an_unreadable_prediction_is_named() -> None:
    bad: list[Any] = [[], {}]
    for found, problem in zip(
        bad, ("prediction: must be a dict", "labels: is missing"), strict=True
    ):
        with pytest.raises(ValueError, match=f"^image 17, .*{problem}"):
            DetectionMetrics(CAT).update([found], [OBJECT])


@pytest.mark.parametrize("area", [[700, None], (700.0, None), [None, 700]])
def test_an_object_may_lack_its_area(area: Any) -> None:
    """Then it has its box's, and the others theirs."""
    boxes = [[0, 0, 50, 50], [60, 60, 160, 160]]
    found = FOUND | {"boxes": boxes}
    metrics = DetectionMetrics(CAT)
    target = {"boxes": boxes, "labels": [1, 7], "area": area, "iscrowd": [None, 0]}
    metrics.update([found], [target])
    sizes = ("small", "large") if area[1] is None else ("medium", "small")
    assert [metrics.per_class()[n][f"box_AR_{s}"] for n, s in zip(CAT.values(), sizes, strict=True)]


VIEWS: dict[str, Any] = {
    "big-endian": lambda value: value.astype(value.dtype.newbyteorder(">")),
    "flipped": lambda value: np.ascontiguousarray(value[..., ::-1])[..., ::-1],
    "strided": lambda value: np.repeat(value, 2, axis=0)[::2],
    "Fortran": np.asfortranarray,
    "objects": lambda value: value.astype(object),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("masks", [False, True])
def test_any_layout_and_byte_order_gives_the_same(view: str, masks: bool) -> None:
    mask = np.zeros((2, 64, 64), np.float32)
    mask[0, 10:50, 10:50] = mask[1, 20:30, 20:40] = 0.75
    found: dict[str, Any] = {"boxes": np.array(BOX, np.float32), "labels": np.array([1, 7]),
             "scores": np.array([0.9, 0.8], np.float32), "masks": mask}  # fmt: skip
    given = found | {"area": np.array([5.0, 2000.0]), "iscrowd": np.array([0, 1], np.int8)}
    views = [{k: VIEWS[view](v) for k, v in one.items() if k != "masks" or view != "objects"}
             for one in (found, given)]  # fmt: skip
    if view == "objects" and masks:
        pytest.skip("masks are no objects")
    one, other = DetectionMetrics(CAT, masks=masks), DetectionMetrics(CAT, masks=masks)
    one.update([found], [given])
    other.update([views[0]], [views[1]])
    assert other.compute() == one.compute()
    assert other.evaluated.digest() == one.evaluated.digest()


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.uint64])
def test_labels_are_integers_of_any_kind(kind: Any) -> None:
    metrics = DetectionMetrics(CAT, max_detections=kind(100))
    labels = np.array([1, 7], kind)
    metrics.update([FOUND | {"labels": labels}], [OBJECT | {"labels": list(labels)}])
    assert metrics.compute()["box_AR100"] == 1.0


FORMS: dict[str, Any] = {
    "XYXY": lambda box: box,
    "XYWH": lambda box: torch.cat([box[:, :2], box[:, 2:] - box[:, :2]], 1),
    "CXCYWH": lambda box: torch.cat([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], 1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", [0, 1])
def test_boxes_are_read_in_the_format_that_they_name(form: str, side: int) -> None:
    """Also beside images of another format."""
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    named = tv_tensors.BoundingBoxes(
        FORMS[form](torch.tensor(BOX)), format=form, canvas_size=(64, 80)
    )
    pair = [FOUND, OBJECT]
    pair[side] = pair[side] | {"boxes": named}
    metrics, plain = DetectionMetrics(CAT), DetectionMetrics(CAT)
    other = OBJECT | {"image_id": 18}
    metrics.update([FOUND, pair[0]], [other, pair[1]])
    plain.update([FOUND, FOUND], [other, OBJECT])
    assert metrics.compute() == plain.compute()
    assert metrics.compute()["box_AR100"] == 1.0
    assert metrics.evaluated.digest() == plain.evaluated.digest()


def test_other_formats_and_frames_are_refused() -> None:
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    boxes = torch.tensor(BOX)
    rotated = tv_tensors.BoundingBoxes(
        torch.cat([boxes, boxes[:, :1]], 1), format="CXCYWHR", canvas_size=(64, 80)
    )
    with pytest.raises(ValueError, match="image 17, target boxes: has format CXCYWHR, not XYXY"):
        DetectionMetrics(CAT).update([FOUND], [OBJECT | {"boxes": rotated}])
    named = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(64, 80))
    same = OBJECT | {"boxes": named, "orig_size": torch.tensor([64, 80])}
    other = OBJECT | {"boxes": named, "orig_size": (128, 160)}
    DetectionMetrics(CAT).update([FOUND], [same])
    for found, target in ((FOUND, other), (FOUND | {"boxes": named}, OBJECT | other)):
        with pytest.raises(ValueError, match=r"image 17, .* canvas_size \(64, 80\), but .* \(128"):
            DetectionMetrics(CAT).update([found], [target])


UNIT = [[0.1, 0.1, 0.5, 0.5], [0.4, 0.3, 0.9, 0.8]]


@pytest.mark.parametrize(
    ("found", "given", "word"),
    [
        ({"boxes": UNIT}, {"boxes": UNIT}, "target boxes: entry 0, .*0.1"),
        ({"boxes": BOX}, {"boxes": UNIT}, "target boxes: entry 0"),
        ({"boxes": [], "labels": [], "scores": []}, {"boxes": torch.tensor(UNIT)}, "target boxes"),
        ({"boxes_xywh": UNIT}, {"boxes_xywh": [[0, 0, 0.5, 0.5], [0.1] * 4]}, "target boxes"),
        (
            {
                "boxes": [[0.1, 0.1, 0.2 + n / 16, 0.5] for n in range(10)],
                "labels": [1] * 10,
                "scores": [0.5] * 10,
            },
            {},
            "prediction boxes",
        ),
    ],
)
def test_normalised_boxes_are_refused(found: Any, given: Any, word: str) -> None:
    metrics = DetectionMetrics(CAT)
    with pytest.raises(ValueError, match=f"^image 17, {word}.* look normalised"):
        metrics.update([FOUND | found], [OBJECT | given])
    assert metrics.images == 0


def test_few_predictions_in_the_first_pixel_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    metrics = DetectionMetrics(CAT)
    for image_id in (17, 18):
        metrics.update([FOUND | {"boxes": UNIT}], [OBJECT | {"image_id": image_id}])
    assert caplog.text.count("image 17, prediction boxes: entry 0") == 1
    assert metrics.compute()["box_AR100"] == 0.0


SMALL = st.floats(0, 1, width=32)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=4),
    st.integers(0, 3),
    st.floats(2, 500, width=32),
)
def test_tiny_boxes_in_a_pixel_frame_are_good_input(
    sides: list[tuple[float, float]], before: int, far: float
) -> None:
    """A set of tiny objects, zero areas among them, once one object lies outside the first pixel;
    and boxes of whole numbers or without area, wherever they lie."""
    boxes = [[0.25, 0.25, 0.25 + width, 0.25 + height] for width, height in sides]
    boxes.insert(before % len(boxes), [far, far, far + 0.5, far + 0.5])
    metrics = DetectionMetrics(CAT)
    one = {"boxes": boxes, "labels": [1] * len(boxes)}
    metrics.update([one | {"scores": [0.5] * len(boxes)}], [one])
    metrics.update([FOUND], [{"boxes": [[0.1, 0.1, 0.6, 0.6]], "labels": [1]}])
    for box in ([0, 0, 0, 0], [0, 0, 1, 1], [0.5, 0, 0.5, 1], [0.1, 0.2, 0.7, 0.2]):
        apart = DetectionMetrics(CAT)
        apart.update([FOUND], [{"boxes": [box], "labels": [1]}])
        assert apart.images == 1
