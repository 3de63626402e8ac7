"""Instances and label maps of models that predict one mask per query."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boxscore.callbacks.huggingface import read
from boxscore.callbacks.huggingface.mask2former import boxes_of
from boxscore.detection import DetectionMetrics
from boxscore.segmentation import SegmentationMetrics

tf = pytest.importorskip("transformers")
tiny = pytest.importorskip("tests.tiny_batches")
mask_outputs = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")

LABELS = range(3)
NAMES = {0: "disc", 1: "square", 2: "star"}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def planted(masks: list[Tensor], labels: list[Tensor], queries: int = 6) -> Any:
    """What a Mask2Former would give that knows the answer."""
    size = masks[0].shape[-2:]
    kinds = torch.full((len(masks), queries, 4), -20.0)
    kinds[..., 3] = 20
    logits = torch.full((len(masks), queries, *size), -30.0)
    for place, (image, found) in enumerate(zip(masks, labels, strict=True)):
        logits[place, : len(image)] += 60 * image
        for query, label in enumerate(found.tolist()):
            kinds[place, query, 3], kinds[place, query, label] = -20, 20
    kind = mask_outputs.Mask2FormerForUniversalSegmentationOutput
    return kind(class_queries_logits=kinds, masks_queries_logits=logits)


def test_perfect_instances_score_one() -> None:
    batch = tiny.mask_batch()
    outputs = planted(batch["mask_labels"], batch["class_labels"])
    model, task = tiny.built("mask2former"), "instance-segmentation"
    predictions, targets = read(model, batch, outputs, task=task, labels=LABELS)
    metrics = DetectionMetrics(NAMES, masks=True)
    metrics.update(predictions, targets)
    assert metrics.compute()["mask_AP"] == metrics.compute()["box_AP"] == pytest.approx(1)
    assert targets[0]["boxes"].tolist() == [[4, 4, 40, 30], [8, 32, 24, 60]]
    assert targets[0]["masks"].dtype == predictions[0]["masks"].dtype == torch.bool


@pytest.mark.parametrize("name", tiny.MASKS)
def test_instances_are_scored_as_the_processor_scores_them(name: str) -> None:
    """It works at 384 x 384 and keeps as many pairs as there are queries."""
    model, batch, outputs = tiny.evaluated(name)
    batch["mask_labels"] = [torch.zeros(1, 384, 384)] * 2
    batch["class_labels"] = [torch.tensor([0])] * 2
    task = "instance-segmentation"
    predictions, _ = read(model, batch, outputs, task=task, labels=LABELS)
    processor = tf.Mask2FormerImageProcessor()
    expected = processor.post_process_instance_segmentation(outputs, threshold=0.0)
    for found, wanted in zip(predictions, expected, strict=True):
        pairs = zip(found["labels"].tolist(), found["scores"].tolist(), strict=True)
        scored = [(label, pytest.approx(score, abs=2e-6)) for label, score in pairs]
        assert all((one["label_id"], one["score"]) in scored for one in wanted["segments_info"])
        assert wanted["segments_info"] or not scored


def test_perfect_label_maps_score_one() -> None:
    batch = tiny.mask_batch()
    outputs = planted(batch["mask_labels"], batch["class_labels"])
    model, task = tiny.built("mask2former"), "semantic-segmentation"
    logits, targets = read(model, batch, outputs, task=task, labels=LABELS)
    assert targets.unique().tolist() == [0, 1, 2, 255]
    assert (targets[0] == 1).sum() == 28 * 16
    metrics = SegmentationMetrics(list(NAMES.values()))
    metrics.update(logits, targets)
    assert metrics.compute()["IoU"] == pytest.approx(1)
    _, targets = read(model, batch, outputs, task=task, labels=LABELS, ignore_index=None)
    assert targets.unique().tolist() == [-1, 0, 1, 2]


@pytest.mark.parametrize("name", tiny.MASKS)
def test_label_maps_are_those_of_the_processor(name: str) -> None:
    model, batch, outputs = tiny.evaluated(name)
    batch["mask_labels"] = [torch.zeros(0, 384, 384)] * 2
    batch["class_labels"] = [torch.zeros(0, dtype=torch.long)] * 2
    task = "semantic-segmentation"
    logits, targets = read(model, batch, outputs, task=task, labels=LABELS)
    assert (targets == 255).all()
    processor = tf.Mask2FormerImageProcessor()
    for found, wanted in zip(
        logits,
        processor.post_process_semantic_segmentation(outputs, return_segmentation_scores=True),
        strict=True,
    ):
        scores = wanted.segmentation_scores.detach()
        torch.testing.assert_close(found.softmax(0), scores / scores.sum(0), rtol=1e-4, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.integers(1, 60), st.integers(1, 60))
def test_boxes_enclose_masks(seed: int, count: int, height: int, width: int) -> None:
    random = np.random.default_rng(seed)
    masks = torch.from_numpy(random.random((count, height, width)) < 0.01)
    for mask, box in zip(masks, boxes_of(masks).tolist(), strict=True):
        rows, columns = np.nonzero(mask.numpy())
        if len(rows):
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        else:
            assert box == [0, 0, 0, 0]
