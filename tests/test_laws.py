"""Laws that every metric obeys; loggers' are in ``tests/loggers/test_laws.py``."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxscore import CATALOGUE
from boxscore.detection import DetectionMetrics
from boxscore.segmentation import SegmentationMetrics

Batch = tuple[Any, Any]


def objects(seed: int) -> Batch:
    """One image with jittered detections, masks and all."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 4))
    corner = rng.integers(0, 30, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(4, 20, (count, 2))], 1).astype(float)
    masks = np.zeros((count, 60, 60), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
        mask[top:bottom, left:right] = True
    target = {"boxes": boxes, "labels": rng.integers(1, 3, count), "masks": masks, "image_id": seed}
    shifted = np.roll(masks, 1, axis=1)
    scores = rng.integers(0, 3, count) / 3  # ties
    found = target | {"boxes": boxes + 1, "scores": scores, "masks": shifted}
    return [found], [target]


def pixels(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (1, 9, 7), generator=generator)
    targets[0, 0, 0] = 255
    return torch.randn(1, 3, 9, 7, generator=generator) * 4, targets


METRICS: dict[str, tuple[Callable[[], Any], Callable[[int], Batch]]] = {
    "boxes": (lambda: DetectionMetrics({1: "a", 2: "b"}), objects),
    "masks": (lambda: DetectionMetrics({1: "a", 2: "b"}, masks=True), objects),
    "pixels": (lambda: SegmentationMetrics(["a", "b", "c"]), pixels),
}
EACH = pytest.mark.parametrize("name", METRICS)


def filled(name: str, seeds: Sequence[int]) -> Any:
    make, batch = METRICS[name]
    metric = make()
    for seed in seeds:
        metric.update(*batch(seed))
    return metric


@EACH
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_any_partition_merged_in_any_order_is_one_pass(name: str, order: tuple[int, ...]) -> None:
    shares = [range(0, 3), range(3, 11), range(11, 12)]
    merged = METRICS[name][0]()
    for index in order:
        merged.merge(filled(name, shares[index]))
    whole = filled(name, range(12))
    assert merged.compute() == whole.compute()
    assert merged.per_class() == whole.per_class()


@EACH
def test_merging_with_nothing_changes_nothing(name: str) -> None:
    metric = filled(name, range(5))
    before = metric.compute()
    metric.merge(METRICS[name][0]())
    assert metric.compute() == before


@EACH
def test_it_pickles(name: str) -> None:
    metric = filled(name, range(5))
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


@EACH
def test_it_is_kept_without_pickles(name: str, tmp_path: Path) -> None:
    metric = filled(name, range(5))
    path = tmp_path / "state.npz"
    metric.save(path)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays.files
        assert all(arrays[name].dtype != object for name in arrays.files)
    assert type(metric).load(path).compute() == metric.compute()


@EACH
def test_forgetting_is_beginning_anew(name: str) -> None:
    metric = filled(name, range(5))
    metric.reset()
    for seed in range(5, 9):
        metric.update(*METRICS[name][1](seed))
    assert metric.compute() == filled(name, range(5, 9)).compute()


@EACH
def test_nothing_seen_has_no_figures(name: str) -> None:
    metric = METRICS[name][0]()
    assert metric.compute() == {}
    assert not any(metric.per_class().values())


@EACH
def test_figures_are_the_catalogues_and_in_its_ranges(name: str) -> None:
    metric = filled(name, range(12))
    figures = metric.compute()
    assert figures
    for measure, value in figures.items():
        low, high = CATALOGUE[measure].range
        assert low <= value <= high
        assert isinstance(value, float)
    assert metric.protocol == ""
