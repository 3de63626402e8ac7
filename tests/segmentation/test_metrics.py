"""Semantic metrics against scikit-learn, torchmetrics, published cases and their own laws."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, jaccard_score
from torch import Tensor
from torch.nn.functional import one_hot

from boxscore.segmentation import SegmentationMetrics
from tests.shared_data import SHARED

from .batches import as_logits, batch, counted, measured, names, state

DATA = SHARED / "data"
METRICS = ["AP", "AR", "IoU", "pixel_accuracy", "F1"]
needs_shared = pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def scored(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The probabilities of one image; another memory layout could differ by one float."""
    return logits[0].flatten(1).softmax(0)[None], targets.flatten(1)


def sklearn_figures(truth: Any, taken: Any, **options: Any) -> dict[str, float]:
    options = {"average": "macro", "zero_division": np.nan, **options}
    return {
        "IoU": jaccard_score(truth, taken, **{**options, "zero_division": 0}),
        "pixel_accuracy": accuracy_score(truth, taken),
        "F1": f1_score(truth, taken, **options),
    }


# --- the field's numbers


def test_label_figures_equal_scikit_learn() -> None:
    logits, targets = batch(3, 7, 20, 30)
    expected = sklearn_figures(targets.flatten(), logits.argmax(1).flatten())
    figures = measured(logits, targets).compute()
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_label_figures_per_class_equal_scikit_learn() -> None:
    logits, targets = batch(3, 7, 20, 30)
    truth, taken = targets.flatten(), logits.argmax(1).flatten()
    per_class = measured(logits, targets).per_class()
    assert list(per_class) == names(7)
    assert all(list(metrics) == METRICS for metrics in per_class.values())
    for figure, score in (("IoU", jaccard_score), ("F1", f1_score)):
        values = [figures[figure] for figures in per_class.values()]
        assert values == pytest.approx(score(truth, taken, average=None).tolist(), abs=1e-12)


def test_label_figures_equal_torchmetrics_with_ignored_pixels() -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    logits, targets = batch(2, 5, 16, 16)
    targets[:, ::3] = 255
    figures = measured(logits, targets).compute()
    options = {"num_classes": 5, "ignore_index": 255}
    for name, function, average in (
        ("IoU", classification.multiclass_jaccard_index, "macro"),
        ("F1", classification.multiclass_f1_score, "macro"),
        ("pixel_accuracy", classification.multiclass_accuracy, "micro"),
    ):
        expected = float(function(logits, targets, average=average, **options))
        assert figures[name] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [1, 5, 15])
def test_curves_equal_torchmetrics_at_the_same_thresholds(scale: float) -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    logits, targets = batch(1, 3, 8, 8, scale=scale)
    metric = measured(logits, targets)
    expected = classification.multiclass_precision_recall_curve(
        *scored(logits, targets), 3, torch.tensor(metric.thresholds)
    )
    for label, (precision, recall) in enumerate(metric.curves().values()):
        reached = ~np.isnan(precision)
        assert precision[reached] == pytest.approx(expected[0][label, :-1].numpy()[reached])
        assert recall == pytest.approx(expected[1][label, :-1].numpy())


def test_ap_and_ar_equal_torchmetrics_at_the_same_thresholds() -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    logits, targets = batch(1, 3, 8, 8, scale=3)
    metric = measured(logits, targets)
    scores, labels = scored(logits, targets)
    ap = classification.multiclass_average_precision(
        scores, labels, 3, thresholds=torch.tensor(metric.thresholds)
    )
    steps = torch.arange(256) / 256
    _, recall, _ = classification.multiclass_precision_recall_curve(scores, labels, 3, steps)
    figures = metric.compute()
    assert figures["AP"] == pytest.approx(float(ap), abs=1e-6)
    assert figures["AR"] == pytest.approx(float(recall[:, :-1].mean()), abs=1e-6)


def exact_ap(logits: Tensor, targets: Tensor) -> float:
    """scikit-learn's, the mean over the classes with ground truth."""
    scores = torch.cat([image.float().flatten(1).softmax(0) for image in logits], 1)
    labels = targets.flatten()
    each = [average_precision_score(labels == k, scores[k]) for k in sorted(set(labels.tolist()))]
    return float(np.mean(each))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1, 5, 15, 40])
def test_ap_equals_scikit_learns_within_1e_4(scale: float, dtype: torch.dtype) -> None:
    """At 15 and 40 most scores lie next to 0 and 1, and half precision makes ties."""
    for shape, seed in (((2, 5, 128, 128), 0), ((1, 2, 128, 128), 1), ((2, 21, 64, 64), 2)):
        logits, targets = batch(*shape, scale=scale, seed=seed)
        within = 2e-4 if (scale, dtype) == (40, torch.bfloat16) else 1e-4
        found = measured(logits.to(dtype), targets).compute()["AP"]
        assert found == pytest.approx(exact_ap(logits.to(dtype), targets), abs=within)


@pytest.mark.parametrize("scale", [1, 5, 15, 40])
def test_ap_of_a_rare_class_equals_scikit_learns_within_1e_4(scale: float) -> None:
    random = torch.Generator().manual_seed(3)
    targets = (torch.rand(4, 128, 128, generator=random) < 0.002).long()
    logits = torch.randn(4, 2, 128, 128, generator=random)
    logits += (
        1.5 * one_hot(targets, 2).permute(0, 3, 1, 2) - torch.tensor([0.0, 4.0])[:, None, None]
    )
    found = measured(scale * logits, targets).compute()["AP"]
    assert found == pytest.approx(exact_ap(scale * logits, targets), abs=1e-4)


def test_ap_of_tiny_sets_is_scikit_learns_unless_two_pixels_share_a_threshold() -> None:
    off = []
    for seed in range(100):
        logits, targets = batch(1, 3, 8, 8, scale=(1, 5, 15)[seed % 3], seed=seed)
        off.append(abs(exact_ap(logits, targets) - measured(logits, targets).compute()["AP"]))
    assert max(off) < 2e-3
    assert np.mean(np.array(off) < 1e-4) > 0.9


# --- one channel


def test_one_channel_is_two_classes_through_a_sigmoid() -> None:
    logits, _ = batch(2, 1, 12, 12)
    targets = torch.randint(0, 2, (2, 12, 12), generator=torch.Generator().manual_seed(3))
    one = measured(logits - 1, targets)
    two = measured(torch.cat([torch.zeros_like(logits), logits - 1], 1), targets)
    assert state(one) == state(two)
    expected = sklearn_figures(targets.flatten(), (logits > 1).flatten().long())
    assert {name: one.compute()[name] for name in expected} == pytest.approx(expected)


# --- real data and published cases


def real_maps(name: str, count: int) -> tuple[list[np.ndarray[Any, Any]], list[str], int | None]:
    folder = DATA / name
    facts = json.loads((folder / "classes.json").read_text())
    paths = sorted((folder / "masks_semantic").glob("*.png"))[:count]
    maps = []
    for path in paths:
        with Image.open(path) as image:
            maps.append(np.array(image))
    return maps, facts["classes"], facts["ignore_index"]


@needs_shared
@pytest.mark.parametrize("name", ["nuclei", "coco_mini"])
def test_real_maps_of_any_size_equal_scikit_learn(name: str) -> None:
    """coco_mini ignores its class 0, which then has no figures; and lacks most of its classes."""
    maps, classes, ignored = real_maps(name, 5)
    metric = SegmentationMetrics(classes, ignore_index=ignored)
    truth, taken = [], []
    for seed, labels in enumerate(maps):
        targets = torch.from_numpy(labels).long()[None]
        noise = torch.randn(
            1, len(classes), *labels.shape, generator=torch.Generator().manual_seed(seed)
        )
        logits = noise + 3 * one_hot(targets, len(classes)).permute(0, 3, 1, 2)
        metric.update(logits, labels[None])
        valid = (targets != ignored) if ignored is not None else torch.ones_like(targets).bool()
        truth.append(targets[valid])
        taken.append(logits.argmax(1)[valid])
    known = [label for label in range(len(classes)) if label != ignored]
    seen = sorted({*torch.cat(truth).tolist(), *torch.cat(taken).tolist()} & set(known))
    expected = sklearn_figures(torch.cat(truth), torch.cat(taken), labels=seen)
    assert metric.compute() == pytest.approx(metric.compute() | expected, abs=1e-12)
    present = {classes[label] for label in torch.cat(truth).tolist()}
    assert set(metric.curves()) == present
    assert {name for name, figures in metric.per_class().items() if "AP" in figures} == present


def semantic_cases(*, strays: bool) -> list[Any]:
    """The published inputs, with or without labels outside the classes."""
    paths = sorted((DATA / "peer_cases").glob("*.json"))
    cases = [json.loads(path.read_text()) for path in paths if path.name != "index.json"]
    return [
        pytest.param(case["input"], case["expected"]["metrics"], id=case["id"])
        for case in cases
        if case["task"] == "semantic"
        and strays == any(astray(*pair, case["input"]).any() for pair in label_maps(case["input"]))
    ]


def label_maps(given: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    for target, prediction in zip(given["target"], given["pred"], strict=True):
        yield np.array(target), np.array(prediction)


def astray(target: Any, prediction: Any, given: dict[str, Any]) -> Any:
    """Pixels whose label or prediction is no class, and which are not ignored either."""
    known = np.isin([target, prediction], range(given["num_classes"])).all(0)
    return ~known & (target != given["ignore_index"])


def agrees(metric: SegmentationMetrics, expected: dict[str, Any]) -> None:
    figures, per_class = metric.compute(), list(metric.per_class().values())
    for figure, mean, each in (
        ("IoU", "mean_iou", "iou_per_class"),
        ("F1", "mean_f1", "f1_per_class"),
        ("pixel_accuracy", "pixel_accuracy", "accuracy_per_class"),
    ):
        assert figures[figure] == pytest.approx(expected[mean], abs=1e-9)
        for metrics, value in zip(per_class, expected[each], strict=True):
            assert metrics.get(figure) == (value and pytest.approx(value, abs=1e-9))
    assert metric.confusion_matrix(normalised=False).tolist() == expected["confusion_matrix"]


@pytest.mark.parametrize(("given", "expected"), semantic_cases(strays=False))
def test_published_case(given: dict[str, Any], expected: dict[str, Any]) -> None:
    metric = SegmentationMetrics(names(given["num_classes"]), ignore_index=given["ignore_index"])
    for target, prediction in label_maps(given):
        metric.update(as_logits(prediction % 255, given["num_classes"]), target[None])
    agrees(metric, expected)


@pytest.mark.parametrize(("given", "expected"), semantic_cases(strays=True))
def test_published_case_with_labels_outside_the_classes(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Peers drop such pixels in silence; here they are told, and drop only where marked so."""
    classes = given["num_classes"]
    metric = SegmentationMetrics(names(classes), ignore_index=-7)
    for target, prediction in label_maps(given):
        logits = as_logits(prediction * (prediction < classes), classes)
        if not np.isin(target, range(classes)).all():
            with pytest.raises(ValueError, match="neither a class"):
                metric.update(logits, target[None])
        metric.update(logits, np.where(astray(target, prediction, given), -7, target)[None])
    agrees(metric, expected)


# --- what is absent, ignored or tiny


def test_a_class_absent_from_truth_and_prediction_has_no_figures() -> None:
    metric = measured(as_logits([[0, 1], [1, 0]], 3), [[[0, 1], [1, 1]]])
    assert metric.per_class()["class 2"] == {}
    assert metric.compute()["IoU"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_class_only_predicted_lowers_iou_and_f1_alone() -> None:
    metric = measured(as_logits([[0, 2]], 3), [[[0, 0]]])
    assert metric.per_class()["class 2"] == {"IoU": 0.0, "F1": 0.0}
    assert metric.compute() == pytest.approx(
        {"AP": 1.0, "AR": 0.5 + 0.5 / 256, "IoU": 0.25, "pixel_accuracy": 0.5, "F1": 1 / 3}
    )


def test_one_class_alone_in_the_truth() -> None:
    metric = measured(as_logits([[1, 1], [1, 1]], 2), torch.ones(1, 2, 2, dtype=torch.uint8))
    assert metric.compute() == dict.fromkeys(METRICS, 1.0)
    assert metric.majority() == ("class 1", 1.0)


def test_ignored_pixels_count_nowhere() -> None:
    logits, targets = batch(1, 4, 10, 10)
    targets[:, 5:] = 255
    assert counted(measured(logits, targets)) == counted(measured(logits[:, :, :5], targets[:, :5]))


def test_an_image_of_nothing_but_ignored_pixels_changes_nothing() -> None:
    logits, targets = batch(1, 4, 10, 10)
    metric = measured(logits, targets)
    before = counted(metric)
    metric.update(logits, torch.full_like(targets, 255))
    assert counted(metric) == before


def test_nothing_seen_has_no_figures() -> None:
    metric = SegmentationMetrics(["a", "b"])
    assert metric.compute() == {}
    metric.update(torch.zeros(0, 2, 4, 4), torch.zeros(0, 4, 4, dtype=torch.long))
    metric.update(torch.zeros(1, 2, 1, 1), torch.full((1, 1, 1), 255))
    assert metric.compute() == {}
    assert metric.per_class() == {"a": {}, "b": {}}
    assert metric.curves() == {}
    assert metric.majority() is None
    assert np.isnan(metric.confusion_matrix()).all()


def test_one_pixel_images_equal_one_image_of_them() -> None:
    logits, targets = batch(1, 3, 6, 5)
    single = SegmentationMetrics(names(3))
    single.update(logits[0].flatten(1).T[:, :, None, None], targets.flatten()[:, None, None])
    assert counted(single) == counted(measured(logits, targets))


def test_the_ignored_class_has_no_figures_and_to_predict_it_is_a_miss() -> None:
    metric = measured(as_logits([[0, 1], [1, 1]], 2), [[[1, 1], [0, 1]]], ignore_index=0)
    assert metric.per_class()["class 0"] == {}
    assert metric.compute()["IoU"] == pytest.approx(2 / 3)
    assert metric.confusion_matrix(normalised=False).tolist() == [[0, 0], [1, 2]]


def test_equal_logits_are_decided_for_the_lower_label() -> None:
    metric = measured(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    assert metric.compute()["pixel_accuracy"] == 1


# --- tables


def test_pixels_are_counted_at_evenly_spaced_scores() -> None:
    logits, targets = batch(1, 4, 20, 30)
    scores, truth = scored(logits, targets)
    whole, *counted = measured(logits, targets).curve_table()["counts"]["classes"]
    assert whole["truths"] == targets.numel()
    for label, one in enumerate(counted):
        own = truth[0] == label
        assert (one["truths"], one["others"]) == (int(own.sum()), int((~own).sum()))
        taken = [scores[0, label] >= step / 128 for step in range(129)]
        assert one["tp"] == [int((reached & own).sum()) for reached in taken]
        assert one["fp"] == [int((reached & ~own).sum()) for reached in taken]


def test_confusion_matrix_rows_are_shares_of_the_true_class() -> None:
    metric = measured(as_logits([[0, 1, 1, 1]], 3), [[[0, 0, 0, 1]]])
    expected = np.array([[1 / 3, 2 / 3, 0], [0, 1, 0], [np.nan] * 3])
    np.testing.assert_allclose(metric.confusion_matrix(), expected)


def test_majority_names_the_largest_class_and_its_share() -> None:
    targets = torch.zeros(1, 4, 5, dtype=torch.long)
    targets[0, 0] = torch.tensor([1, 1, 255, 255, 255])
    metric = measured(torch.zeros(1, 2, 4, 5), targets)
    assert metric.majority() == ("class 0", 15 / 17)


def test_recall_falls_along_the_thresholds_from_one() -> None:
    for precision, recall in measured(*batch(1, 4, 16, 16)).curves().values():
        assert recall[0] == 1
        assert (np.diff(recall) <= 0).all()
        assert ((precision >= 0) & (precision <= 1) | np.isnan(precision)).all()


# --- memory


def test_update_leaves_gradients_alone() -> None:
    logits, targets = batch(1, 3, 4, 4)
    logits.requires_grad_()
    metric = measured(logits, targets)
    pickle.loads(pickle.dumps(metric)).compute()
    assert logits.grad is None


def test_large_images_are_counted_in_pieces_without_a_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits, targets = batch(2, 4, 9, 8)
    expected = state(measured(logits, targets))
    monkeypatch.setattr("boxscore.segmentation.counts.AT_ONCE", 40)
    assert state(measured(logits, targets)) == expected


# --- state


@given(
    st.integers(2, 5), st.integers(1, 6), st.lists(st.integers(0, 2), min_size=6, max_size=6),
    st.integers(0, 2**32), st.permutations([0, 1, 2]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_partition_merges_to_one_pass(
    classes: int, images: int, parts: list[int], seed: int, order: list[int]
) -> None:
    logits, targets = batch(images, classes, 3, 4, seed=seed, scale=1 + seed % 9)
    targets[0, 0, : seed % 4] = 255
    pieces = [SegmentationMetrics(names(classes)) for _ in range(3)]
    for image in range(images):
        pieces[parts[image]].update(logits[image : image + 1], targets[image : image + 1])
    merged = SegmentationMetrics(names(classes))
    for piece in order:
        merged.merge(pieces[piece])
    assert state(merged) == state(measured(logits, targets))


def test_merge_refuses_other_classes_and_other_ignored_pixels() -> None:
    metric = SegmentationMetrics(["a", "b"])
    for other in (
        SegmentationMetrics(["a", "c"]),
        SegmentationMetrics(["a", "b"], ignore_index=None),
    ):
        with pytest.raises(ValueError, match="cannot merge"):
            metric.merge(other)


def test_pickle_and_file_keep_the_counted(tmp_path: Path) -> None:
    for ignored in (255, 0, None):
        metric = measured(*batch(2, 4, 9, 8), ignore_index=ignored)
        metric.save(tmp_path / "state.npz")
        for copy in (
            pickle.loads(pickle.dumps(metric)),
            SegmentationMetrics.load(tmp_path / "state.npz"),
        ):
            assert counted(copy) == counted(metric)
            copy.merge(metric)
            copy.update(*batch(1, 4, 9, 8))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    metric = measured(*batch(2, 4, 9, 8))
    metric.save(tmp_path / "state.npz")
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        sound = dict(file)
    wrong = {
        "counts": sound["counts"][:, :-1],
        "thresholds": sound["thresholds"] / 2,
        "classes": sound["classes"][:-1],
    }
    for name, value in wrong.items():
        np.savez(tmp_path / "wrong.npz", **{**sound, name: value})
        with pytest.raises(ValueError, match="count"):
            SegmentationMetrics.load(tmp_path / "wrong.npz")
    np.savez(tmp_path / "wrong.npz", counts=sound["counts"])
    with pytest.raises(ValueError, match="not a state of SegmentationMetrics"):
        SegmentationMetrics.load(tmp_path / "wrong.npz")


def test_reset_forgets_every_image() -> None:
    metric = measured(*batch(2, 4, 9, 8))
    metric.reset()
    assert metric.compute() == {}


def test_the_state_takes_less_than_0_6_mb_per_class() -> None:
    metric = measured(*batch(1, 21, 8, 8))
    assert len(pickle.dumps(metric)) < 21 * 600_000


def test_protocol_says_what_is_ignored_unless_it_is_255() -> None:
    assert SegmentationMetrics(["a", "b"]).protocol == ""
    assert SegmentationMetrics(["a", "b"], ignore_index=0).protocol == "ignore_index=0"
    assert SegmentationMetrics(["a", "b"], ignore_index=None).protocol == "ignore_index=None"


# --- classes


def test_classes_may_be_a_mapping_in_any_order() -> None:
    metric = SegmentationMetrics({1: "nucleus", 0: "background"})
    metric.update(as_logits([[0, 1]], 2), [[[0, 1]]])
    assert list(metric.per_class()) == ["background", "nucleus"]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({0: "sky", 2: "road"}, "label 1 has no name"),
        ({1: "nucleus"}, "label 0 has no name"),
        (["nucleus"], "one logit channel means two classes"),
        ([], "no class is left"),
        (names(300), "ignore_index 255 is the label of 'class 255'"),
    ],
)
def test_classes_that_leave_a_channel_without_name_are_refused(classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationMetrics(classes)


# --- which label maps were read


def digest(targets: Any, ids: Any = None, **options: Any) -> str:
    metric = SegmentationMetrics(options.pop("classes", ["a", "b", "c"]), **options)
    targets = torch.as_tensor(targets)
    metric.update(torch.zeros(len(targets), 3, *targets.shape[1:]), targets, ids)
    return metric.evaluated.digest(metric.protocol)


MAPS = torch.randint(0, 3, (3, 6, 8), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ids", [None, [7, 8, 9], torch.tensor([7, 8, 9]), ["7", "8", "9"]])
def test_one_digest_for_a_set_of_any_type_stride_order_and_batch_size(ids: Any) -> None:
    expected = digest(MAPS, None if ids is None else [7, 8, 9])
    for maps in (MAPS.to(torch.uint8), MAPS.mT.contiguous().mT, MAPS.numpy().astype(np.int16)):
        assert digest(maps, ids) == expected
    back = None if ids is None else list(ids)[::-1]
    assert digest(MAPS.flip(0), back) == expected
    parts = [SegmentationMetrics(["a", "b", "c"]) for _ in MAPS]
    for index, part in enumerate(parts):
        own = None if ids is None else ids[index : index + 1]
        part.update(torch.zeros(1, 3, 6, 8), MAPS[index : index + 1], own)
        parts[0].merge(pickle.loads(pickle.dumps(part))) if index else None
    assert parts[0].evaluated.digest(parts[0].protocol) == expected


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2), st.integers(0, 5), st.integers(0, 7), st.sampled_from([1, 2, 254]))
def test_another_label_of_one_pixel_is_another_set(
    image: int, row: int, column: int, step: int
) -> None:
    maps = MAPS.clone()
    maps[image, row, column] = 255 if step == 254 else (maps[image, row, column] + step) % 3
    assert digest(maps) != digest(MAPS)


def test_shape_class_names_place_and_ignore_index_are_part_of_the_digest() -> None:
    others = [
        digest(MAPS.reshape(3, 8, 6)),
        digest(MAPS.flip(2)),
        digest(MAPS, classes=["a", "b", "d"]),
        digest(MAPS, ignore_index=None),
        digest(MAPS, [1, 2, 3]),
    ]
    assert len({digest(MAPS), *others}) == 6


def test_images_that_come_twice_under_one_id_count_twice_and_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metric, other = SegmentationMetrics(["a", "b", "c"]), SegmentationMetrics(["a", "b", "c"])
    for each, ids in ((metric, [1, 2, 3]), (other, [3, 4, 5])):
        each.update(torch.randn(3, 3, 6, 8), MAPS, ids)
        each.compute()
    assert not caplog.messages
    metric.merge(other)
    metric.compute()
    assert [m for m in caplog.messages if "1 images were passed again" in m]
    assert metric.confusion_matrix(normalised=False).sum() == 6 * 48


def test_a_refused_batch_is_not_in_the_evaluated_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in (False, True):
        monkeypatch.setattr("boxscore.segmentation.metrics.waits", lambda _, d=device: d)
        metric = SegmentationMetrics(["a", "b", "c"])
        metric.update(torch.zeros(1, 3, 6, 8), MAPS[:1])
        with pytest.raises(ValueError, match="label 9"):
            metric.update(torch.zeros(1, 3, 6, 8), MAPS[1:2] * 0 + 9)
            metric.compute()
        assert metric.evaluated.digest() == digest(MAPS[:1])
