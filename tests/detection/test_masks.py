"""Masks in every form give the same figures, and those are pycocotools'."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from boxscore.detection import BrokenRLE, DetectionMetrics, run_areas, to_rle
from boxscore.detection.masks import Pixels, pack, read_masks
from tests.detection.pycoco import DATA, decode, equal, evaluate, jittered

CELL = {1: "cell"}


def compressed(dense: Any) -> dict[str, Any]:
    return dict(coco.encode(np.asfortranarray(dense, np.uint8)))


def uncompressed(dense: Any) -> dict[str, Any]:
    flat = np.asarray(dense, bool).ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]])))
    counts = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
    return {"size": list(np.shape(dense)), "counts": counts[: -1 if counts[-1] == 0 else None]}


FORMS: dict[str, Any] = {
    "bool": lambda dense: dense.astype(bool),
    "uint8": lambda dense: dense.astype(np.uint8) * 255,
    "int64": lambda dense: dense.astype(np.int64),
    "probability": lambda dense: np.where(dense, 0.6, 0.5).astype(np.float32)[:, None],
    "tensor": lambda dense: torch.from_numpy(dense.astype(bool)),
    "half": lambda dense: torch.from_numpy(dense.astype(bool))[:, None].half(),
    "bfloat16": lambda dense: torch.from_numpy(dense.astype(bool)).bfloat16(),
    "compressed": lambda dense: [compressed(one) for one in dense],
    "text": lambda dense: [
        {**compressed(one), "counts": compressed(one)["counts"].decode()} for one in dense
    ],
    "uncompressed": lambda dense: [uncompressed(one) for one in dense],
    "list of arrays": lambda dense: list(dense.astype(bool)),
    "mixed": lambda dense: [
        one.astype(bool) if at % 2 else compressed(one) for at, one in enumerate(dense)
    ],
}


def scene(height: int = 37, width: int = 53) -> tuple[Any, Any]:
    """Overlapping discs, and the same moved, of an image whose rows end in the midst of a word."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:height, :width]
    centres = np.stack([rng.integers(0, height, 9), rng.integers(0, width, 9)], 1)
    radii = rng.integers(2, 12, 9)

    def discs(shift: Any) -> Any:
        moved = centres + shift
        return np.stack(
            [
                (rows - y) ** 2 + (columns - x) ** 2 < r * r
                for (y, x), r in zip(moved, radii, strict=True)
            ]
        ).astype(np.uint8)

    return discs(0), discs(rng.integers(-2, 3, (9, 2)))


def measured(objects: Any, found: Any, **options: Any) -> DetectionMetrics:
    metrics = DetectionMetrics(CELL, boxes=False, masks=True)
    labels = [1] * 9
    metrics.update(
        [{"masks": found, "labels": labels, "scores": np.arange(9) // 2 / 10}],
        [{"masks": objects, "labels": labels, "iscrowd": [0] * 8 + [1], **options}],
    )
    return metrics


@pytest.mark.parametrize("of_objects", FORMS)
@pytest.mark.parametrize("of_found", FORMS)
def test_every_form_meets_every_other(of_objects: str, of_found: str) -> None:
    objects, found = scene()
    reference = measured(FORMS["compressed"](objects), FORMS["compressed"](found)).arrays()
    result = measured(FORMS[of_objects](objects), FORMS[of_found](found)).arrays()
    assert np.array_equal(result.precision, reference.precision)
    assert np.array_equal(result.scores, reference.scores)
    assert np.array_equal(result.recall, reference.recall)


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
@pytest.mark.parametrize("dense", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(
    "path", ["nuclei/annotations/instances_test", "coco_mini/annotations/instances_test_fullres"]
)
def test_dense_masks_of_real_data_are_exact(path: str, dense: tuple[bool, bool]) -> None:
    truth = json.loads((DATA / f"{path}.json").read_text())
    truth["images"] = truth["images"][:20]
    ids = {image["id"] for image in truth["images"]}
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] in ids]
    case = jittered(truth)
    metrics = DetectionMetrics(case.classes, masks=True)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for batch in case.batches(4, masks=True):
        for side, wanted in zip(batch, dense, strict=True):
            for one, target in zip(side, batch[1], strict=True):
                if wanted:
                    one["masks"] = pixels(one["masks"], sizes[target["image_id"]])
        metrics.update(*batch)
    assert equal(metrics.arrays("mask"), evaluate(case, "mask"))


def pixels(rles: list[Any], size: tuple[int, int]) -> Any:
    if not rles:
        return torch.zeros(0, *size, dtype=torch.bool)
    return torch.from_numpy(np.stack([decode(one) for one in rles]).astype(bool))


def test_polygons_are_those_of_pycocotools() -> None:
    objects, found = scene()
    outline = [[3.2, 4.1, 20.5, 5.0, 18.0, 30.7], [30, 2, 45, 2, 45, 12, 30, 12]]
    as_rle = coco.merge(coco.frPyObjects(outline, 37, 53))
    rles = FORMS["compressed"](objects)
    for form in ("compressed", "bool"):
        reference = measured([*rles[:8], as_rle], FORMS[form](found))
        result = measured([*rles[:8], outline], FORMS[form](found), orig_size=(37, 53))
        assert result.compute() == reference.compute()


def test_a_polygon_takes_its_size_from_the_predictions() -> None:
    found = scene()[1]
    outline = [[3.2, 4.1, 20.5, 5.0, 18.0, 30.7]]
    assert measured([outline] * 9, found).compute()
    with pytest.raises(ValueError, match=r"place 0 .* target masks: entry 0: .* orig_size"):
        metrics = DetectionMetrics(CELL, boxes=False, masks=True)
        metrics.update(
            [{"masks": [], "labels": [], "scores": []}], [{"masks": [outline], "labels": [1]}]
        )


def test_the_area_of_an_object_is_its_masks_for_masks_and_its_boxs_for_boxes() -> None:
    """So that box figures of one set agree between detectors with and without masks."""
    mask = np.zeros((1, 100, 100), bool)
    mask[0, 10:40, 10:40] = True
    one = {"boxes": [[10, 10, 43, 43]], "labels": [1], "masks": mask}
    metrics = DetectionMetrics(CELL, masks=True)
    metrics.update([one | {"scores": [0.5]}], [one])
    assert metrics.compute().keys() >= {"box_AR_medium", "mask_AR_small"}
    assert not {"box_AR_small", "mask_AR_medium"} & metrics.compute().keys()


def test_objects_made_ready_are_used_again() -> None:
    objects, found = scene()
    metrics = measured(FORMS["compressed"](objects), found)
    first = metrics.compute()
    metrics.reset()
    labels = [1] * 9
    metrics.update(
        [{"masks": found, "labels": labels, "scores": np.arange(9) // 2 / 10}],
        [{"masks": FORMS["compressed"](objects), "labels": labels, "iscrowd": [0] * 8 + [1]}],
    )
    assert metrics.compute() == first


GOOD = {"masks": np.ones((1, 8, 8), bool), "labels": [1], "scores": [0.5], "image_id": "a"}


@pytest.mark.parametrize(
    ("side", "masks", "problem"),
    [
        (0, None, "prediction masks: is missing"),
        (1, None, "target masks: is missing"),
        (0, np.ones((2, 8, 8)), "prediction masks: has 2 entries for 1 labels"),
        (1, np.ones((1, 8, 9)), r"target masks: the size \(8, 9\) differs from the image's"),
        (1, [compressed(np.ones((9, 8)))], r"target masks: the size \(9, 8\) differs"),
        (0, np.ones((1, 3, 8, 8)), r"prediction masks: the shape \(1, 3, 8, 8\)"),
        (0, np.full((1, 8, 8), np.nan), "prediction masks: a mask holds nan"),
        (0, torch.full((1, 8, 8), float("nan")), "prediction masks: a mask holds nan"),
        (1, [{"size": [8, 8], "counts": b"PP"}], "target masks: entry 0: the RLE is cut off"),
        (1, [{"size": [8, 8], "counts": [3, 4]}], "entry 0: the RLE's counts do not sum to 8 x 8"),
        (1, [{"size": [8, 8], "counts": [-3, 67]}], "entry 0: the RLE's counts"),
        (1, [{"size": [8, 8]}], "entry 0: an RLE needs 'size', two integers, and 'counts'"),
        (1, [{"size": 8, "counts": b""}], "entry 0: an RLE needs 'size'"),
        (1, [[[1, 2, 3, 4]]], "entry 0: a polygon needs three points or more"),
        (1, [[[1, 2, 3, 4, 5, float("inf")]]], "entry 0: a polygon's coordinate is not finite"),
        (1, ["polygon"], "target masks: entry 0"),
        (1, [compressed(np.ones((8, 8))), compressed(np.ones((8, 9)))], "several sizes"),
    ],
)
def test_bad_masks_are_named_and_leave_the_state(side: int, masks: Any, problem: str) -> None:
    metrics = DetectionMetrics(CELL, boxes=False, masks=True)
    metrics.update([GOOD], [GOOD | {"image_id": "before"}])
    before = metrics.compute()
    pair = [GOOD, GOOD]
    pair[side] = GOOD | {"masks": masks}
    with pytest.raises(ValueError, match=f"^image 'a', .*{problem}"):
        metrics.update([GOOD, pair[0]], [GOOD | {"image_id": "b"}, pair[1]])
    assert (metrics.images, metrics.compute()) == (1, before)


def test_images_without_objects_need_no_masks() -> None:
    metrics = DetectionMetrics(CELL, boxes=False, masks=True)
    nothing: dict[str, Any] = {"labels": [], "scores": []}
    metrics.update(
        [nothing, nothing | {"masks": torch.zeros(0)}, GOOD, nothing],
        [
            {"labels": []},
            {"labels": [], "masks": np.zeros((0, 8, 8))},
            GOOD,
            GOOD | {"image_id": 2},
        ],
    )
    assert metrics.images == 4
    assert metrics.compute()["mask_AR100"] == 0.5


def test_an_all_zero_mask_is_one_missed_object() -> None:
    """As in pycocotools; torchmetrics leaves it out."""
    metrics = DetectionMetrics(CELL, boxes=False, masks=True)
    empty = GOOD | {"masks": np.zeros((1, 8, 8), bool)}
    for found in (empty, empty | {"masks": [compressed(np.zeros((8, 8)))]}, GOOD):
        metrics.update([found], [empty | {"image_id": metrics.images}])
    assert metrics.compute()["mask_AP"] == 0.0


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20))))
def test_areas_and_packing_are_exact(dense: Any) -> None:
    rles = [compressed(one) for one in dense]
    expected = dense.sum(axis=(1, 2)).tolist()
    assert run_areas(rles).tolist() == expected
    assert pack(Pixels(dense, dense.shape[1:])).area.tolist() == expected
    assert [to_rle(uncompressed(one), None)["counts"] for one in dense] == [
        rle["counts"] for rle in rles
    ]


@settings(max_examples=200, deadline=None)
@given(dense=arrays.arrays(bool, (12, 40)), cut=st.integers(1, 8), tail=st.binary(max_size=4))
def test_no_broken_rle_reaches_pycocotools(dense: Any, cut: int, tail: bytes) -> None:
    """A cut-off one made its iou run on for ever."""
    rle = compressed(dense)
    counts = rle["counts"][:-cut] + tail
    try:
        area = run_areas([rle, {**rle, "counts": counts}])[1]
    except BrokenRLE as error:
        place = error.entry
    else:  # by chance another good mask
        assert decode({**rle, "counts": counts}).sum() == area
        place = 1
    assert place == 1


def test_more_masks_than_255_are_measured() -> None:
    """pycocotools 2.0.11 overflows on that many in one call of area."""
    masks = read_masks([compressed(np.eye(9))] * 300, None)
    assert len(masks) == 300


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    "convert",
    [
        lambda logits: logits,
        torch.from_numpy,
        lambda logits: torch.from_numpy(logits).half(),
        list,
        lambda logits: 1 + logits.clip(0),
        lambda logits: (255 / (1 + np.exp(-logits))).astype(np.uint8),
        lambda logits: (8 * logits).astype(np.int64),
    ],
    ids=["array", "tensor", "half", "list", "above 1", "soft bytes", "integers"],
)
def test_masks_on_another_scale_are_refused(side: int, convert: Any) -> None:
    """Such as logits, whose mask begins at 0: cut at 0.5 they gave a smaller AP in silence."""
    rows, columns = np.mgrid[:16, :16]
    logits = (6 - np.hypot(rows - 8, columns - 8)).astype(np.float32)[None] / 2
    mask = logits > 0
    one: dict[str, Any] = {"labels": [1], "masks": mask, "image_id": "a"}
    pair = [one | {"scores": [0.5]}, one]
    pair[side] = pair[side] | {"masks": convert(logits)}
    word = ("prediction", "target")[side]
    with pytest.raises(ValueError, match=f"^image 'a', {word} masks: (entry 0: )?a mask holds"):
        DetectionMetrics(CELL, boxes=False, masks=True).update([pair[0]], [pair[1]])


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(bool, st.tuples(st.integers(1, 3), st.just(6), st.just(9))),
    st.sampled_from([
        (np.uint8, 1), (np.uint8, 255), (np.int32, 7), (np.float32, 1), (np.float32, 255),
        (np.float64, 1.001), (np.float16, 0.75),
    ]),
)  # fmt: skip
def test_masks_of_two_values_are_good_input(dense: Any, form: tuple[Any, float]) -> None:
    kind, value = form
    masks = dense.astype(kind) * kind(value)
    labels = [1] * len(dense)
    metrics = DetectionMetrics(CELL, boxes=False, masks=True)
    metrics.update(
        [{"labels": labels, "scores": labels, "masks": masks}], [{"labels": labels, "masks": dense}]
    )
    if dense.any():
        assert metrics.compute()["mask_AR100"] == pytest.approx(dense.any(axis=(1, 2)).mean())


SQUARE = [3, 3, 3, 9, 9, 9, 9, 3]


@pytest.mark.parametrize(
    "form",
    [
        [SQUARE],
        SQUARE,
        tuple(SQUARE),
        [[[3, 3], [3, 9], [9, 9], [9, 3]]],
        [[3, 3], [3, 9], [9, 9], [9, 3]],
        [[3, 3, 3, 9, 9, 9, 9, 3], [[4, 4], [4, 5], [5, 5]]],
    ],
)
def test_polygons_are_read_in_every_form(form: Any) -> None:
    reference = to_rle([SQUARE], (12, 12))
    assert to_rle(form, (12, 12)) == reference


@pytest.mark.parametrize("form", [5, None, "polygon", [{"x": 1, "y": 2}], [["a"] * 6], {"a": 1}])
def test_what_is_no_mask_is_told_in_cocos_terms(form: Any) -> None:
    with pytest.raises(ValueError, match=r"an RLE|\[\[x1, y1, x2, y2, …\], …\]"):
        to_rle(form, (12, 12))


@pytest.mark.parametrize(
    "size", [[0, 0], [0, 8], [-1, 8], [2**16, 2**16], [8.5, 8], ["a", 8], [float("inf"), 8], 8]
)
def test_impossible_sizes_are_refused(size: Any) -> None:
    with pytest.raises(ValueError, match="RLE"):
        to_rle({"size": size, "counts": [0, 68]}, None)
    one: dict[str, Any] = {"labels": [1], "masks": [[SQUARE]], "image_id": "a", "orig_size": size}
    if size != [2**16, 2**16]:
        with pytest.raises(ValueError, match=r"image 'a'.* is not \(height, width\) in pixels"):
            DetectionMetrics(CELL, boxes=False, masks=True).update(
                [{"labels": [], "scores": []}], [one]
            )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300, -1e9])
def test_a_polygon_far_outside_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="coordinate"):
        to_rle([[number, *SQUARE[1:]]], (12, 12))
