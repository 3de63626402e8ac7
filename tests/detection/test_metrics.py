"""DetectionMetrics against pycocotools, cell for cell; merging; and where the two differ."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxscore.detection import DetectionMetrics
from boxscore.metric import TaskMetric
from tests.benchmarks.coco import Workload, result_dicts, truth_dicts
from tests.detection.pycoco import (
    DATA,
    FIGURES,
    Case,
    assert_equal,
    equal,
    evaluate,
    jittered,
    random_case,
)

CAT = {1: "cat", 2: "dog"}
BOX = [[10.0, 10.0, 50.0, 50.0]]
FOUND = {"boxes": BOX, "scores": [0.9], "labels": [1]}
OBJECT = {"boxes": BOX, "labels": [1]}


def peer_cases(task: str) -> list[Any]:
    folder = DATA / "peer_cases"
    cases = [json.loads(path.read_text()) for path in sorted(folder.glob("[!i]*.json"))]
    cases += [json.loads(path.read_text()) for path in sorted(folder.glob("ig_*.json"))]
    # thresholds and area ranges are COCO's here; the malformed are in test_coco.py
    chosen = [
        case
        for case in cases
        if case["task"] == task
        and not {"iouThrs", "areaRng"} & case["params"].keys()
        and "malformed" not in case["tags"]
    ]
    return [pytest.param(case, id=case["id"]) for case in chosen]


def case_of(peer: Any) -> Case:
    def content(value: Any) -> Any:
        if isinstance(value, dict) and "$file" in value:
            return json.loads((DATA / "peer_cases" / value["$file"]).read_text())
        return value

    truth, results = content(peer["input"]["gt"]), content(peer["input"]["dt"])
    least = peer["params"].get("min_score", -1)
    results = [one for one in results if one["score"] >= least]
    if peer["params"].get("useCats") == 0:
        truth["categories"] = truth["categories"][:1]
        label = truth["categories"][0]["id"]
        truth["annotations"] = [one | {"category_id": label} for one in truth["annotations"]]
        results = [one | {"category_id": label} for one in results]
    return Case(truth, results)


@pytest.mark.parametrize("peer", peer_cases("bbox") + peer_cases("segm"))
def test_a_peers_case_has_the_right_numbers(peer: Any) -> None:
    case, masks = case_of(peer), peer["task"] == "segm"
    kind = "mask" if masks else "box"
    for limit in sorted({*peer["params"].get("maxDets", [100]), 100} - {1, 10}):
        metrics = case.measured(boxes=not masks, masks=masks, max_detections=limit)
        figures = metrics.compute()
        if "zero_annotation_id" not in peer["tags"]:
            assert_equal(case, metrics, kind)
        if limit != max(peer["params"].get("maxDets", [100])):
            continue
        short = {"APs": "AP_small", "APm": "AP_medium", "APl": "AP_large"}
        short |= {"ARs": "AR_small", "ARm": "AR_medium", "ARl": "AR_large"}
        for name, value in peer["expected"]["metrics"].items():
            if isinstance(value, float) and "@" not in name:
                found = figures.get(f"{kind}_{short.get(name, name)}", -1.0)
                assert found == pytest.approx(value, abs=peer["expected"]["abs_tol"]), name


def test_recall_is_named_by_a_small_detection_limit() -> None:
    """mmdetection's published AR@2 and 4 (test_fast_eval_recall, Apache-2.0), and pycocotools'."""
    boxes = [[50, 60, 20, 20], [100, 120, 30, 30], [150, 160, 40, 40], [250, 260, 100, 100]]
    for limit, recall in ((1, 0.25), (2, 0.5), (4, 1.0)):
        metrics = DetectionMetrics({0: "any"}, max_detections=limit)
        one = {"boxes_xywh": np.array(boxes, float), "labels": [0] * 4}
        metrics.update([one | {"scores": [1.0, 0.98, 0.96, 0.95]}], [one])
        values = metrics.compute()
        assert values[f"box_AR{limit}"] == recall
        assert "box_AR10" not in values


@pytest.mark.parametrize("block", range(8))
def test_random_ties_are_decided_as_in_pycocotools(block: int) -> None:
    for seed in range(block * 130, (block + 1) * 130):
        case = random_case(seed)
        limit = (100, 100, 300, 3, 1)[seed % 5]
        assert_equal(case, case.measured(1 + seed % 7, max_detections=limit))


@pytest.mark.parametrize("seed", range(12))
def test_classes_of_more_than_101_objects_are_exact(seed: int) -> None:
    """An engine with a real bug once passed 600 small cases; these found it."""
    case = random_case(seed, large=True)
    assert_equal(case, case.measured())


REAL = [
    ("bccd/annotations/instances_test.json", False),
    ("nuclei/annotations/instances_test.json", True),
    ("nuclei/annotations/instances_dense.json", True),
    ("coco_mini/annotations/instances_train.json", True),
    ("coco_mini/annotations/instances_test.json", True),
    ("coco_mini/annotations/instances_test_fullres.json", True),
]


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
@pytest.mark.parametrize(("path", "masks"), REAL)
def test_real_data_is_exact(path: str, masks: bool) -> None:
    case = jittered(json.loads((DATA / path).read_text()))
    metrics = case.measured(masks=masks)
    assert_equal_parts(case, metrics, masks)


def assert_equal_parts(case: Case, metrics: DetectionMetrics, masks: bool) -> None:
    figures = metrics.compute()
    for kind in ("box", "mask") if masks else ("box",):
        evaluation = evaluate(case, kind)
        assert equal(metrics.arrays(kind), evaluation)
        defined = [value for value in evaluation.stats.tolist() if value > -1]
        assert [figures[name] for name in figures if name.startswith(kind)] == defined


@pytest.mark.slow
def test_a_set_as_large_as_cocos_is_exact() -> None:
    """5,000 images and 500,000 detections, as tensors of corners in float32."""
    workload = Workload(5000, "boxes")
    truth = {
        "images": workload.images,
        "categories": workload.categories,
        "annotations": truth_dicts(workload.targets),
    }
    case = Case(truth, result_dicts(workload.predictions, workload.targets))
    metrics = DetectionMetrics(case.classes)
    for predictions, targets in workload.batches():
        metrics.update(predictions, targets)
    assert_equal(case, metrics)
    assert metrics.nbytes < 1100 * metrics.images  # DESIGN section 8


def test_scores_that_float32_cannot_tell_apart_stay_apart() -> None:
    case = random_case(3)
    for place, result in enumerate(case.results):
        result["score"] = 0.5 + 1e-12 * (place % 7)
    assert_equal(case, case.measured())


def test_it_is_a_metric() -> None:
    metrics: TaskMetric = DetectionMetrics(CAT)
    assert metrics.protocol == ""
    assert DetectionMetrics(CAT, max_detections=300).protocol == "max_detections=300"


def test_boxes_are_sized_in_the_type_that_they_come_in() -> None:
    """torchvision's evaluator subtracts in float32; the IoU then is another in the last bits."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 500, (200, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + rng.uniform(1, 99, (200, 2)).astype(np.float32)], 1)
    sized = boxes.copy()
    sized[:, 2:] -= sized[:, :2]
    seen = {"scores": rng.random(200), "labels": rng.integers(1, 3, 200)}
    given = {"labels": seen["labels"], "image_id": 1}
    one, other = DetectionMetrics(CAT), DetectionMetrics(CAT)
    one.update([{"boxes": torch.from_numpy(boxes), **seen}], [{"boxes": boxes, **given}])
    other.update([{"boxes_xywh": sized, **seen}], [{"boxes_xywh": sized, **given}])
    assert same(one, other)


def same(one: DetectionMetrics, other: DetectionMetrics) -> bool:
    return all(
        np.array_equal(getattr(one.arrays(kind), name), getattr(other.arrays(kind), name))
        for kind in one.kinds
        for name in ("precision", "recall", "scores")
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), states=st.integers(1, 5))
def test_any_partition_merged_in_any_order_is_one_state(seed: int, states: int) -> None:
    case, rng = random_case(seed), np.random.default_rng(seed)
    whole = case.measured(confusion=True)
    images = rng.permutation(len(case.truth["images"]))
    parts = []
    for some in np.array_split(images, states):
        part = DetectionMetrics(case.classes, confusion=True)
        again = [*some.tolist(), *images[:1].tolist()]  # as samplers that pad do
        for predictions, targets in case.batches(3, again):
            part.update(predictions, targets)
        parts.append(part)
    first, *rest = [parts[place] for place in rng.permutation(states)]
    for part in rest:
        first.merge(part)
    assert first.images == whole.images == len(images)
    assert same(first, whole)
    assert first.compute() == whole.compute()
    assert np.array_equal(first.confusion_matrix().at(0.005), whole.confusion_matrix().at(0.005))


def test_merging_leaves_the_other_as_it_was() -> None:
    case = random_case(8)
    one, other = case.measured(), case.measured()
    before = other.compute()
    DetectionMetrics(case.classes).merge(other)
    one.merge(other)
    assert (other.compute(), one.compute(), one.images) == (before, before, other.images)


def test_only_like_merges_with_like() -> None:
    with pytest.raises(ValueError, match="same classes and settings"):
        DetectionMetrics(CAT).merge(DetectionMetrics(CAT, max_detections=10))


def test_an_image_seen_twice_counts_once() -> None:
    metrics = DetectionMetrics(CAT)
    for image_id in (0, 1, torch.tensor(0), np.int64(1), torch.tensor([0]), "0", 1.0, "1"):
        metrics.update([FOUND], [OBJECT | {"image_id": image_id}])
    metrics.update([FOUND, FOUND], [OBJECT, OBJECT | {"image_id": None}], image_ids=["1", 0])
    assert metrics.images == 2


def placed(place: int, image_id: Any = 0) -> tuple[Any, Any]:
    """An image with one object of its own; only that of the first one is detected."""
    box = [[10.0 + place, 10, 50 + place, 50]]
    found = {"boxes": box if place == 0 else [[200.0, 200, 240, 240]]}
    return FOUND | found, {"boxes": box, "labels": [1], "image_id": image_id}


def test_one_id_with_several_ground_truths_is_several_images(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As pycocotools has it with ids of their own; a repeat of one of them counts once."""
    apart, alike = DetectionMetrics(CAT), DetectionMetrics(CAT)
    for place in (0, 1, 2, 3, 1):
        for metrics, image_id in ((apart, place), (alike, "7" if place % 2 else 7)):
            found, given = placed(place, image_id)
            metrics.update([found], [given])
    assert alike.images == apart.images == 4
    assert alike.compute() == apart.compute()
    assert round(alike.compute()["box_AP"], 6) == 0.257426
    assert [record.getMessage() for record in caplog.records if "image_id" in record.message] == [
        "boxscore: image '7': several images with different ground truth have this image_id; each "
        "counts as an image of its own. Give every image an image_id of its own"
    ]


def test_one_id_with_several_ground_truths_merges(caplog: pytest.LogCaptureFixture) -> None:
    parts = []
    for place in (0, 1, 2):
        parts.append(DetectionMetrics(CAT))
        for image in (place, place + 1):  # as samplers that pad do
            parts[-1].update(*([one] for one in placed(image, "7" if place else 7)))
    whole = parts[0]
    for part in parts[1:]:
        whole.merge(pickle.loads(pickle.dumps(part)))
    assert whole.images == len(whole.evaluated) == 4
    assert round(whole.compute()["box_AP"], 6) == 0.257426
    assert "image_id" in caplog.text


def test_masks_alone_tell_images_of_one_id_apart() -> None:
    metrics = DetectionMetrics(CAT, boxes=False, masks=True)
    for side in (4, 5, 4):
        mask = np.zeros((1, 8, 8), bool)
        mask[:, :side] = True
        one = {"labels": [1], "masks": mask, "image_id": 0}
        metrics.update([one | {"scores": [0.5]}], [one])
    assert metrics.images == 2


def test_text_ids_are_ordered_as_in_pycocotools() -> None:
    """Which decides between equal scores: "10" comes before "9"."""
    for seed in (8, 21, 42):
        case = random_case(seed)
        for one in (*case.truth["annotations"], *case.results):
            one["image_id"] = str(one["image_id"])
        case.truth["images"] = [image | {"id": str(image["id"])} for image in case.truth["images"]]
        assert_equal(case, case.measured())


def test_images_without_an_id_all_count() -> None:
    metrics = DetectionMetrics(CAT)
    metrics.update([FOUND, FOUND], [OBJECT, OBJECT])
    metrics.update([FOUND], [OBJECT])
    assert metrics.images == 3


def test_a_state_survives_pickling_and_its_file(tmp_path: Path) -> None:
    case = random_case(14)
    case.truth["images"] = [image | {"id": str(image["id"])} for image in case.truth["images"]]
    for one in (*case.truth["annotations"], *case.results):
        one["image_id"] = str(one["image_id"])
    metrics = case.measured(confusion=True, max_detections=7)
    metrics.save(tmp_path / "state.npz")
    loaded = DetectionMetrics.load(tmp_path / "state.npz")
    for copy in (pickle.loads(pickle.dumps(metrics)), loaded):
        assert same(copy, metrics)
        assert copy.protocol == "max_detections=7"
        assert copy.evaluated.digest() == metrics.evaluated.digest()
        copy.merge(metrics)
        assert copy.images == metrics.images


def test_an_empty_state_survives_its_file(tmp_path: Path) -> None:
    DetectionMetrics(CAT, masks=True).save(tmp_path / "state.npz")
    assert DetectionMetrics.load(tmp_path / "state.npz").compute() == {}


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no archive at all"])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not a state of DetectionMetrics"):
        DetectionMetrics.load(tmp_path / "state.npz")


def test_a_state_with_a_column_out_of_place_is_refused(tmp_path: Path) -> None:
    case = random_case(14)
    case.measured().save(tmp_path / "state.npz")
    with np.load(tmp_path / "state.npz") as file:
        columns = dict(file)
    columns["box.row"] = columns["box.row"] + np.uint32(10**6)
    np.savez(tmp_path / "state.npz", **columns)
    with pytest.raises(ValueError, match="index of a detection that does not exist"):
        DetectionMetrics.load(tmp_path / "state.npz")


def test_reset_forgets_the_images() -> None:
    case = random_case(8)
    metrics = case.measured()
    before = metrics.compute()
    metrics.reset()
    assert (metrics.images, metrics.compute()) == (0, {})
    for predictions, targets in case.batches():
        metrics.update(predictions, targets)
    assert metrics.compute() == before


def test_no_detections_are_a_result_like_any_other() -> None:
    """pycocotools' loadRes raises an IndexError here."""
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}
    metrics = DetectionMetrics(CAT)
    metrics.update([none], [OBJECT])
    assert metrics.compute()["box_AP"] == metrics.compute()["box_AR100"] == 0.0


def test_what_is_undefined_is_absent() -> None:
    """pycocotools gives -1 here."""
    metrics = DetectionMetrics(CAT)
    assert metrics.compute() == {}
    metrics.update([FOUND], [OBJECT])
    assert "box_AP_small" not in metrics.compute()
    assert metrics.per_class()["dog"] == {}


CROWD = OBJECT | {"iscrowd": [1]}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (CROWD, "all 1 objects are crowd regions"),
        ({"image_id": 1}, "the 1 images have no objects"),
    ],
)
def test_the_reason_is_told_where_no_metric_is_defined(
    given: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = DetectionMetrics(CAT)
    assert metrics.compute() == {}
    assert caplog.text == ""
    metrics.update([FOUND], [given])
    assert metrics.compute() == {} == metrics.compute()
    assert caplog.text.count("no detection metric is defined") == 1
    assert reason in caplog.text


def test_objects_are_counted_by_class() -> None:
    metrics = DetectionMetrics(CAT)
    assert metrics.counts() == {"cat": 0, "dog": 0}
    metrics.update([FOUND], [{"boxes": BOX * 3, "labels": [2, 1, 2]}])
    metrics.update([FOUND], [CROWD])
    assert metrics.counts() == {"cat": 2, "dog": 2}


@pytest.mark.parametrize("masks", [False, True])
def test_unknown_labels_can_be_ignored(masks: bool, caplog: pytest.LogCaptureFixture) -> None:
    """An 80-class model on a subset, and padding rows of -1, whatever else these hold."""
    mask = np.zeros((4, 64, 64), bool)
    mask[:, 10:50, 10:50] = True
    nan = float("nan")
    rows = [*BOX, [1, 2, 3, nan], *BOX, [-1, -1, -1, -1]]
    found = {"boxes": rows, "labels": [57, -1, 1, -1], "scores": [0.95, nan, 0.9, -1]}
    given = OBJECT | {"masks": mask[:1], "image_id": 5}
    alone, all_of_them = DetectionMetrics(CAT, masks=masks), DetectionMetrics(CAT, masks=masks)
    with pytest.raises(ValueError, match=r'entry 0, 57, is not the label .* unknown="ignore"'):
        all_of_them.update([found | {"masks": mask}], [given])
    alone.update([FOUND | {"masks": mask[:1]}], [given])
    ignoring = DetectionMetrics(CAT, masks=masks, unknown="ignore")
    ignoring.update([found | {"masks": mask}], [given])
    other = pickle.loads(pickle.dumps(ignoring))
    other.merge(ignoring)
    assert other.compute() == ignoring.compute() == alone.compute()
    assert caplog.text.count("3 predictions with labels outside the classes are ignored") == 2
    with pytest.raises(
        ValueError, match=r"target labels: entry 0, 57, is not the label of a class$"
    ):
        ignoring.update([FOUND], [OBJECT | {"labels": [57]}])


def test_the_areas_of_detections_can_be_given() -> None:
    """As pycocotools does with the boxes' in results that hold masks too."""
    far = FOUND | {"boxes": [[200.0, 200, 240, 240]], "area": [10.0]}
    by_region, given = DetectionMetrics(CAT), DetectionMetrics(CAT, areas="given")
    for metrics in (by_region, given):
        metrics.update([far], [OBJECT])
        metrics.update([FOUND | {"scores": [0.5]}], [OBJECT])
    assert by_region.compute()["box_AP_medium"] < given.compute()["box_AP_medium"]
    assert (by_region.protocol, given.protocol) == ("", "areas=given")


def test_annotation_id_0_is_as_good_as_any() -> None:
    """pycocotools takes the match with it for none."""
    case = random_case(1)
    zero = [one | {"id": place} for place, one in enumerate(case.truth["annotations"])]
    assert_equal(case, Case(case.truth | {"annotations": zero}, case.results).measured())


def test_ap_is_measured_with_another_detection_limit() -> None:
    """pycocotools' summarize gives -1 here, since it looks for 100 among the limits."""
    metrics = DetectionMetrics(CAT, max_detections=300)
    metrics.update([FOUND], [OBJECT])
    figures = metrics.compute()
    assert round(figures["box_AP"], 9) == 1.0
    assert figures["box_AR300"] == 1.0
    assert "box_AR100" not in figures


@pytest.mark.parametrize("seed", [2, 5, 9])
@pytest.mark.parametrize("limit", [1, 100, 200])
def test_each_class_has_every_metric(seed: int, limit: int) -> None:
    """Those of pycocotools, with that class alone."""
    case = random_case(seed, large=seed == 5)
    metrics = case.measured(max_detections=limit)
    for label, (name, values) in zip(metrics._names, metrics.per_class().items(), strict=True):
        one = {"categories": [{"id": label, "name": "c"}]}
        truth = [row for row in case.truth["annotations"] if row["category_id"] == label]
        found = [row for row in case.results if row["category_id"] == label]
        alone = Case(case.truth | one | {"annotations": truth}, found)
        assert values == alone.measured(max_detections=limit).compute(), name
        if limit == 100:
            stats = evaluate(alone).stats.tolist()
            expected = dict(zip(FIGURES, stats, strict=True))
            assert values == {f"box_{n}": value for n, value in expected.items() if value > -1}


def test_zero_area_boxes_are_good_input() -> None:
    flat = {"boxes": [[5.0, 5.0, 5.0, 9.0]], "scores": [0.5], "labels": [2]}
    metrics = DetectionMetrics(CAT)
    metrics.update([flat], [{"boxes": [[5.0, 5.0, 5.0, 9.0]], "labels": [2]}])
    assert metrics.compute()["box_AP"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"boxes": False}, "not neither"),
        ({"max_detections": 0}, "1 or more"),
        ({"max_detections": 10.5}, "integer"),
        ({"max_detections": True}, "integer"),
        ({"unknown": "drop"}, "unknown='drop' is neither"),
        ({"areas": "box"}, "areas='box' is neither"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DetectionMetrics(CAT, **arguments)


def test_state_stays_small() -> None:
    """DESIGN section 8: 1.1 KB per image of 100 detections and 7 objects."""
    case = random_case(5, large=True)
    metrics = case.measured()
    assert metrics.nbytes < 11 * len(case.results) + 16 * metrics.images + 24 * len(
        case.truth["annotations"]
    )
