"""COCO's files: read as pycocotools reads them, and refused with the entry named."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxscore.cli.coco_files import Dataset, read
from boxscore.detection import DetectionMetrics, to_rle
from tests.detection.pycoco import DATA, Case, Json, equal, evaluate, jittered

RLE = {"size": [20, 20], "counts": [100, 50, 250]}
TRUTH: Json = {
    "images": [{"id": 3, "height": 20, "width": 20}, {"id": "b", "height": 20, "width": 20}],
    "categories": [{"id": 5, "name": "cat"}],
    "annotations": [
        {"id": 0, "image_id": 3, "category_id": 5, "bbox": [1, 1, 9.1, 9], "iscrowd": 0, "area": 5,
         "segmentation": RLE},
        {"id": 1, "image_id": "b", "category_id": 5, "bbox": [1, 1, 5, 5],
         "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]]},
    ],
}  # fmt: skip
RESULTS: list[Json] = [
    {"image_id": 3, "category_id": 5, "bbox": [1, 1, 9.1, 9], "score": 0.5, "segmentation": RLE},
    {"image_id": "b", "category_id": 5, "bbox": [1, 1, 5, 6], "score": 1, "segmentation": RLE},
]


def written(folder: Path, truth: Any, results: Any) -> tuple[Path, Path]:
    for name, content in (("gt.json", truth), ("dt.json", results)):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
    return folder / "gt.json", folder / "dt.json"


def measured(dataset: Dataset, **options: Any) -> DetectionMetrics:
    metrics = DetectionMetrics(dataset.classes, **options)
    for predictions, targets in dataset.batches(5):
        metrics.update(predictions, targets)
    return metrics


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
@pytest.mark.parametrize("with_boxes", [True, False])
def test_files_are_measured_as_pycocotools_does(tmp_path: Path, with_boxes: bool) -> None:
    """Boxes that results with masks lack are the masks'."""
    case = jittered(json.loads((DATA / "coco_mini/annotations/instances_test.json").read_text()))
    for result in case.results:
        result["segmentation"]["counts"] = result["segmentation"]["counts"].decode()
        if not with_boxes:
            del result["bbox"]
    paths = written(tmp_path, case.truth, case.results)
    metrics = measured(read(*paths, masks=True), masks=True)
    assert equal(metrics.arrays("mask"), evaluate(case, "mask"))
    if with_boxes:
        assert equal(metrics.arrays("box"), evaluate(case, "box"))
    else:
        with_mask_boxes = read(*paths)
        boxes = [
            one | {"bbox": box}
            for image in with_mask_boxes.predictions.values()
            for one, box in zip(image["labels"], image["boxes_xywh"], strict=True)
            if isinstance(one, dict)
        ]
        assert boxes == []
        assert metrics.compute()["box_AR100"] > 0


def test_what_is_optional_may_lack(tmp_path: Path) -> None:
    metrics = measured(read(*written(tmp_path, TRUTH, RESULTS), masks=True), masks=True)
    figures = metrics.compute()
    assert figures["mask_AR_small"] == 0.5
    assert figures["box_AP50"] == pytest.approx(1.0)


def test_without_results_nothing_is_found(tmp_path: Path) -> None:
    gt, _ = written(tmp_path, TRUTH, [])
    for dataset in (read(gt), read(*written(tmp_path, TRUTH, []))):
        assert measured(dataset).compute()["box_AR100"] == 0.0


def test_images_keep_their_sizes_and_ids(tmp_path: Path) -> None:
    dataset = read(*written(tmp_path, TRUTH, RESULTS))
    assert dataset.sizes == {3: (20, 20), "b": (20, 20)}
    assert dataset.classes == {5: "cat"}
    assert dataset.targets["b"]["image_id"] == "b"
    assert dataset.targets[3]["area"] == [5]
    assert "area" not in dataset.targets["b"]


def truth(*path: str | int, value: Any = ...) -> Json:
    """TRUTH with something else at a path, or nothing."""
    changed = copy.deepcopy(TRUTH)
    at: Any = changed
    for step in path[:-1]:
        at = at[step]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "gt.json is not JSON"),
        ("[" * 100_000, "gt.json is not JSON"),
        ("[]", "gt.json is not COCO"),
        ("{}", "gt.json is not COCO: it has no array 'categories'"),
        (truth("images"), "gt.json is not COCO: it has no array 'images'"),
        (truth("annotations", value={}), "it has no array 'annotations'"),
        (truth("images", 1, value=7), r"gt.json: images\[1\]: 7 is not an object"),
        (truth("images", 1, "id", value=3), r"images\[1\]: id 3 is not a new integer"),
        (truth("images", 0, "id", value=1.5), r"images\[0\]: id 1.5"),
        (truth("categories", 0, "id", value="x"), r"categories\[0\]: id 'x'"),
        (truth("categories", 0, "name"), r"categories\[0\]: has no 'name'"),
        (truth("annotations", 1, "image_id", value=9), r"annotations\[1\]: image_id 9 is unknown"),
        (truth("annotations", 1, "image_id", value=[]), r"image_id \[\] is unknown"),
        (truth("annotations", 0, "category_id", value=9), r"\[0\]: category_id 9 is unknown"),
        (truth("annotations", 0, "bbox"), r"annotations\[0\]: has no 'bbox'"),
        (truth("annotations", 0, "bbox", value=[1, 2, 3]), r"bbox \[1, 2, 3\] is not \[x, y"),
        (
            truth("annotations", 0, "bbox", value=[1, 2, -3, 3]),
            "bbox -3 is not a finite number of 0 or more",
        ),
        (truth("annotations", 0, "area", value=-1), "area -1 is not a finite number of 0 or more"),
        (truth("annotations", 0, "area", value="big"), "area 'big' is not a finite number"),
        (truth("annotations", 0, "segmentation"), r"annotations\[0\]: has no 'segmentation'"),
        (
            truth("annotations", 0, "segmentation", value={"size": [20, 20], "counts": "P"}),
            r"gt.json: annotations\[0\]: segmentation: the RLE is cut off",
        ),
        (
            truth("annotations", 0, "segmentation", value={"size": [20, 20], "counts": [3]}),
            r"annotations\[0\]: segmentation: the RLE's counts do not sum",
        ),
        (
            truth("annotations", 1, "segmentation", value=[[1, 2, 3, 4]]),
            r"annotations\[1\]: segmentation: a polygon needs three points",
        ),
    ],
)
def test_a_bad_annotation_file_is_refused_in_one_line(
    tmp_path: Path, content: Any, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        read(*written(tmp_path, content, RESULTS), masks=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("nothing", "dt.json is not JSON"),
        ("{}", "dt.json is not COCO: it is not an array of results"),
        ([{"image_id": 3}], r"dt.json: \[0\]: has no 'category_id'"),
        ([RESULTS[0] | {"image_id": 99}], r"dt.json: \[0\]: image_id 99 is unknown"),
        ([RESULTS[0], RESULTS[0] | {"category_id": 1}], r"\[1\]: category_id 1 is unknown"),
        ([RESULTS[0] | {"score": float("nan")}], r"\[0\]: score nan is not a finite number"),
        ([RESULTS[0] | {"score": None}], r"\[0\]: has no 'score'"),
        ([RESULTS[0] | {"score": "high"}], r"\[0\]: score 'high' is not a finite number"),
        (
            [RESULTS[0] | {"bbox": [0, 0, float("inf"), 1]}],
            r"\[0\]: bbox inf is not a finite number",
        ),
        (
            [*RESULTS, RESULTS[0] | {"segmentation": {"size": [20, 20], "counts": "T31"}}],
            r"dt.json: \[2\]: segmentation: the RLE is cut off",
        ),
        ([RESULTS[0] | {"segmentation": {"size": [20, 20]}}], r"\[0\]: segmentation: an RLE needs"),
    ],
)
def test_a_bad_results_file_is_refused_in_one_line(
    tmp_path: Path, content: Any, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        read(*written(tmp_path, TRUTH, content), masks=True)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
@pytest.mark.parametrize("name", ["mal_nan_box", "mal_inf_box", "mal_unknown_category",
                                  "mal_unknown_image", "d2_omit_dt_score",
                                  "d2_omit_gt_category_id"])  # fmt: skip
def test_malformed_peer_cases_are_refused(tmp_path: Path, name: str) -> None:
    peer = json.loads((DATA / "peer_cases" / f"{name}.json").read_text())["input"]
    results = json.dumps(peer["dt"]).replace('"NaN"', "NaN").replace('"Infinity"', "Infinity")
    with pytest.raises(ValueError, match=r"[dg]t.json: (annotations)?\[\d+\]: "):
        read(*written(tmp_path, peer["gt"], results))


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
@pytest.mark.parametrize("name", ["mal_zero_area_det", "mal_score_above_1"])
def test_odd_peer_cases_are_measured(tmp_path: Path, name: str) -> None:
    peer = json.loads((DATA / "peer_cases" / f"{name}.json").read_text())["input"]
    metrics = measured(read(*written(tmp_path, peer["gt"], peer["dt"])))
    assert equal(metrics.arrays(), evaluate(Case(peer["gt"], peer["dt"])))


def test_missing_crowd_flags_mean_none(tmp_path: Path) -> None:
    """pycocotools raises a KeyError."""
    dataset = read(*written(tmp_path, TRUTH, RESULTS))
    assert np.any([np.any(one["iscrowd"]) for one in dataset.targets.values()]) == np.False_


@pytest.mark.parametrize("name", ["area", "iscrowd"])
def test_an_optional_field_is_filled_per_object(tmp_path: Path, name: str) -> None:
    """The others keep theirs; null is as good as absent."""
    one = TRUTH["annotations"][0] | {"bbox": [1, 1, 8, 9], "segmentation": None}
    without = {key: value for key, value in one.items() if key != name}
    for lacking in (without, one | {name: None}):
        content = TRUTH | {"annotations": [one, lacking]}
        target = read(*written(tmp_path, content, [])).targets[3]
        assert target["iscrowd"] == [False, False]
        assert target["area"] == ([5, None] if name == "area" else [5, 5])


@pytest.mark.parametrize("convert", [float, lambda n: n])
def test_ids_may_be_written_as_floats(tmp_path: Path, convert: Any) -> None:
    content, results = copy.deepcopy(TRUTH), copy.deepcopy(RESULTS)
    content["categories"][0]["id"] = convert(5)
    content["images"][0] = {"id": convert(3), "height": 20.0, "width": convert(20)}
    for one in (*content["annotations"], *results):
        one["category_id"] = 5.0
        if one["image_id"] == 3:
            one["image_id"] = "3" if one in results else 3.0
    dataset = read(*written(tmp_path, content, results), masks=True)
    plain = read(*written(tmp_path, TRUTH, RESULTS), masks=True)
    assert (dataset.targets, dataset.predictions) == (plain.targets, plain.predictions)
    assert dataset.sizes == plain.sizes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_and_blank_lines_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "gt.json").write_bytes(f"\n\n {json.dumps(TRUTH)}\n\n".encode(encoding))
    assert read(tmp_path / "gt.json").classes == {5: "cat"}


@pytest.mark.parametrize(
    ("categories", "names"),
    [
        ([(0, "cat"), (5, "cat")], {0: "cat (0)", 5: "cat"}),
        ([(5, "cat"), (9, "N/A"), (8, "dog"), (7, "dog")],
         {5: "cat", 7: "dog", 8: "dog (8)", 9: "N/A (9)"}),
        ([(5, "__background__")], {5: "__background__ (5)"}),
    ],
)  # fmt: skip
def test_names_that_meet_are_told_apart_by_id(
    tmp_path: Path, categories: list[tuple[int, str]], names: dict[int, str]
) -> None:
    content = TRUTH | {"categories": [{"id": label, "name": name} for label, name in categories]}
    dataset = read(*written(tmp_path, content, RESULTS))
    assert dataset.classes == names
    plain = measured(read(*written(tmp_path, TRUTH, RESULTS)))
    assert measured(dataset).compute() == plain.compute()


def test_used_names_that_meet_are_told_apart_by_id(tmp_path: Path) -> None:
    """Whatever the results use: the fingerprint depends on ground truth alone."""
    categories = [{"id": label, "name": "cat"} for label in (5, 6, 7)]
    annotations = [TRUTH["annotations"][0], TRUTH["annotations"][1] | {"category_id": 6}]
    content = TRUTH | {"categories": categories, "annotations": annotations}
    results = [RESULTS[0] | {"category_id": 7}]
    dataset = read(*written(tmp_path, content, results))
    assert dataset.classes == {5: "cat (5)", 6: "cat (6)", 7: "cat"}
    assert measured(dataset).compute()["box_AR100"] == 0.0


SIZES = [0, -1, "20", 20.5, None, 2**40, True, [20]]


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize("size", SIZES)
def test_an_impossible_size_is_named_where_a_polygon_needs_it(
    tmp_path: Path, side: str, size: Any
) -> None:
    content = truth("images", 1, side, value=size)
    problem = rf"gt.json: images\[1\]: .*{side} .* is not an image size"
    with pytest.raises(ValueError, match=problem):
        read(*written(tmp_path, content, RESULTS), masks=True)
    boxes = measured(read(*written(tmp_path, content, RESULTS)))
    assert boxes.compute()["box_AP50"] == pytest.approx(1.0)
    rles = copy.deepcopy(content)
    rles["annotations"][1]["segmentation"] = RLE
    assert measured(read(*written(tmp_path, rles, RESULTS), masks=True), masks=True).images == 2


@pytest.mark.parametrize("form", ["flat", "points"])
def test_polygons_are_read_in_every_form(tmp_path: Path, form: str) -> None:
    outline = TRUTH["annotations"][1]["segmentation"][0]
    points = [outline[at : at + 2] for at in range(0, 8, 2)]
    value = outline if form == "flat" else [points]
    content = truth("annotations", 1, "segmentation", value=value)
    one, other = (read(*written(tmp_path, c, []), masks=True) for c in (content, TRUTH))
    assert one.targets == other.targets


LONG = int("9" * 400)


@pytest.mark.parametrize(
    ("content", "results", "problem"),
    [
        (TRUTH, [RESULTS[0] | {"score": LONG}], r"dt.json: \[0\]: score 9+… .400 characters. is"),
        (TRUTH, [RESULTS[0] | {"bbox": [LONG, 1, 1, 1]}], r"dt.json: \[0\]: bbox 9"),
        (TRUTH, [RESULTS[0] | {"category_id": 2**64}], "category_id 18446744073709551616 is unk"),
        (TRUTH, [RESULTS[0] | {"image_id": True}], "image_id True is unknown: no image of gt.json"),
        (truth("categories", 0, "id", value=2**63 + 7), [], r"categories\[0\]: id 922337203685477"),
        (truth("annotations", 0, "area", value=LONG), [], r"annotations\[0\]: area 9"),
        (truth("annotations", 0, "iscrowd", value="no"), [], r"\[0\]: iscrowd 'no' is not"),
        (truth("images", 1, "id", value="3"), [], r"images\[1\]: id '3' is not a new"),
        (truth("annotations", 0, "segmentation", value={"size": [2**40, 9], "counts": "1"}), [],
         r"annotations\[0\]: segmentation: an RLE of size"),
        (truth("annotations", 1, "segmentation", value=[[1, 1, 6, 1e300, 6, 6]]), [],
         r"annotations\[1\]: segmentation: a polygon's coordinate"),
        (TRUTH, [RESULTS[0] | {"segmentation": None, "bbox": None}], "has no 'segmentation'"),
    ],
)  # fmt: skip
def test_numbers_beyond_all_bounds_are_refused_in_one_line(
    tmp_path: Path, content: Any, results: Any, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        read(*written(tmp_path, content, results), masks=True)
    assert "\n" not in str(caught.value)


def test_large_image_ids_are_good_ids(tmp_path: Path) -> None:
    content = json.loads(json.dumps(TRUTH).replace('"b"', str(2**70)))
    results = [RESULTS[1] | {"image_id": 2**70}]
    assert measured(read(*written(tmp_path, content, results))).images == 2


def test_results_without_masks_among_others_have_their_boxes(tmp_path: Path) -> None:
    """As in pycocotools; told, with their number."""
    bare = {key: value for key, value in RESULTS[1].items() if key != "segmentation"}
    dataset = read(*written(tmp_path, TRUTH, [RESULTS[0], bare]), masks=True)
    outline = [1, 1, 1, 7, 6, 7, 6, 1]
    assert dataset.predictions["b"]["masks"] == [to_rle([outline], (20, 20))]
    assert dataset.remarks[0].startswith("dt.json: 1 results have no 'segmentation'")
    with pytest.raises(ValueError, match=r"dt.json: \[0\]: has no 'segmentation'"):
        read(*written(tmp_path, TRUTH, [bare]), masks=True)


AREA_FIELDS: list[list[str]] = [["bbox", "segmentation"], ["segmentation"], ["bbox"]]


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
@pytest.mark.parametrize("fields", AREA_FIELDS)
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_pycocotools_areas_are_those_of_the_same_files(
    tmp_path: Path, fields: list[str], kind: str
) -> None:
    """To the bit; pycocotools' loadRes decides by the first result."""
    if kind == "mask" and fields == ["bbox"]:
        pytest.skip("no masks")
    case = jittered(json.loads((DATA / "coco_mini/annotations/instances_test.json").read_text()))
    for result in case.results:
        result["segmentation"]["counts"] = result["segmentation"]["counts"].decode()
        for name in {"bbox", "segmentation"} - {*fields}:
            del result[name]
    paths = written(tmp_path, case.truth, case.results)
    masks = kind == "mask"
    dataset = read(*paths, masks=masks, pycocotools_areas=True)
    metrics = measured(dataset, masks=masks, areas="given")
    expected = as_pycocotools(*paths, kind)
    assert equal(metrics.arrays("mask" if masks else "box"), expected)
    both = masks and len(fields) == 2
    assert bool(read(*paths, masks=masks).remarks) == both
    plain = measured(read(*paths, masks=masks), masks=masks)
    differs = {"box": ["segmentation"], "mask": ["bbox", "segmentation"]}[kind] == fields
    assert equal(plain.arrays(plain.kinds[-1]), expected) == (not differs)


def as_pycocotools(annotations: Path, predictions: Path, kind: str) -> Any:
    """What pycocotools makes of the files as they are."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(
            truth, truth.loadRes(str(predictions)), {"box": "bbox", "mask": "segm"}[kind]
        )
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
