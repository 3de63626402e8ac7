"""Probabilities are measured as such, and doubtful sets are told once."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, jaccard_score
from torch import Tensor
from torch.nn.functional import one_hot

from boxscore.segmentation import SegmentationMetrics

from .batches import batch, measured, names, state

LOGITS, TARGETS = batch(2, 4, 12, 10)
ONE, MASKS = batch(2, 1, 12, 10)


def told(metric: SegmentationMetrics, caplog: pytest.LogCaptureFixture) -> str:
    """All that is logged by reading the metric twice."""
    caplog.clear()
    for _ in range(2):
        metric.compute()
        metric.per_class()
    return "\n".join(caplog.messages)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 4])
def test_probabilities_are_measured_as_such_and_told_once(
    channels: int, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    logits, targets = (ONE, MASKS) if channels == 1 else (LOGITS, TARGETS)
    scores = (logits.sigmoid() if channels == 1 else logits.softmax(1)).to(dtype)
    metric = measured(scores, targets)
    assert told(metric, caplog).count("measured as probabilities") == 1
    taken = (scores[:, 0] > 0.5).long() if channels == 1 else scores.argmax(1)
    expected = jaccard_score(targets.flatten(), taken.flatten(), average="macro")
    assert metric.compute()["IoU"] == pytest.approx(expected, abs=1e-12)
    if dtype == torch.float32:
        figures, exact = metric.compute(), measured(logits, targets).compute()
        assert figures == pytest.approx(exact, abs=2e-4)


@pytest.mark.parametrize(
    "predictions",
    [(ONE > 0).float(), one_hot((ONE[:, 0] > 0).long(), 2).permute(0, 3, 1, 2).float()],
    ids=["masks of 0 and 1", "one-hot"],
)
def test_hard_masks_are_probabilities_too(predictions: Tensor) -> None:
    metric, taken = measured(predictions, MASKS), (ONE[:, 0] > 0).flatten()
    expected = jaccard_score(MASKS.flatten(), taken, average="macro")
    assert metric.compute()["IoU"] == pytest.approx(expected)
    exact = average_precision_score(MASKS.flatten(), taken)
    assert metric.per_class()["class 1"]["AP"] == pytest.approx(exact, abs=1e-9)


def test_one_channel_is_logits_if_any_image_of_the_set_leaves_0_to_1() -> None:
    """In any partition: the first images alone would be probabilities."""
    low = ONE[:1].sigmoid()  # a network of little confidence gives such logits as well
    expected = measured(torch.cat([torch.zeros_like(ONE), torch.cat([low, ONE[1:]])], 1), MASKS)
    for order in ((0, 1), (1, 0)):
        parts = [measured(low, MASKS[:1]), measured(ONE[1:], MASKS[1:])]
        first, second = (parts[index] for index in order)
        first.merge(pickle.loads(pickle.dumps(second)))
        assert state(first) == state(expected)


@pytest.mark.parametrize(
    ("predictions", "targets", "text"),
    [
        (ONE, MASKS, ""),
        (LOGITS, TARGETS, ""),
        (LOGITS.log_softmax(1), TARGETS, ""),
        (torch.cat([ONE[:1].sigmoid(), ONE[1:]]), MASKS, "1 of 2 images hold"),
        (torch.cat([LOGITS[:1].softmax(1), LOGITS[1:]]), TARGETS, "1 of 2 images hold"),
        (LOGITS.sigmoid(), TARGETS, "do not add up to 1"),
        ((ONE > 0) * 255.0, MASKS, "no prediction is below 0.*'class 1'"),
        (torch.nn.functional.logsigmoid(ONE), MASKS, "no prediction is above 0.*'class 0'"),
    ],
    ids=[
        "logits, one channel", "logits", "log-probabilities", "mixed, one channel", "mixed",
        "a sigmoid per class", "masks of 0 and 255", "log-sigmoid",
    ],
)  # fmt: skip
def test_what_is_no_logits_or_doubtful_is_told_once(
    predictions: Tensor, targets: Tensor, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    told(measured(predictions, targets), caplog)
    assert len(caplog.messages) == bool(text)
    if text:
        assert re.search(text, caplog.messages[0])


def test_log_probabilities_are_logits() -> None:
    exact = measured(LOGITS, TARGETS).compute()
    assert measured(LOGITS.log_softmax(1), TARGETS).compute() == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize(
    ("label_map", "options", "text"),
    [
        ([0, 0, 255, 0, 0, 0, 0, 0], {}, "12.50% .* all others are 'class 0'.* masks of 0 and 255"),
        ([0, 1, 1, 2, 0, 1, 1, 1], {"ignore_index": 2}, ""),
        ([1, 1, 1, 1, 1, 1, 0, 0], {"ignore_index": 0}, "25.00% .* all others are 'class 1'"),
        ([0, 1, 255, 255, 255, 255, 255, 2], {}, "62.50% of the evaluated pixels"),
        ([255] * 8, {}, "100.00% of the evaluated pixels"),
        ([0, 0, 0, 0, 1, 1, 2, 255], {}, ""),
        ([0] * 8, {}, ""),
        ([0, 1, 0, 0, 0, 0, 0, 2], {"ignore_index": 0}, ""),
    ],
)  # fmt: skip
def test_an_ignore_index_that_takes_the_foreground_or_most_pixels_is_told_once(
    label_map: list[int], options: Any, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    logits = torch.randn(1, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    metric = measured(logits, np.array(label_map).reshape(1, 2, 4), **options)
    messages = told(metric, caplog)
    assert len(caplog.messages) == bool(text)
    assert re.search(text, messages)


def test_a_new_evaluation_of_the_same_metric_is_not_told_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metric = SegmentationMetrics(names(4))
    for _ in range(2):
        metric.reset()
        metric.update(LOGITS.softmax(1), TARGETS)
        metric.compute()
    assert len(caplog.messages) == 1
