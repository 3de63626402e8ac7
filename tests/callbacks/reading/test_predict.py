"""How a batch is measured: criteria, and what they ignore."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest
import torch

from boxscore import Identity
from boxscore.callbacks.loop import LoopCallback
from boxscore.callbacks.reading.predict import Criterion, label_map, segment
from boxscore.warn import Warnings
from tests.warned import warns


@pytest.mark.parametrize(
    ("criterion", "wanted"),
    [
        (torch.nn.CrossEntropyLoss(ignore_index=0), 0),
        (torch.nn.CrossEntropyLoss(), 255),
        (partial(torch.nn.functional.cross_entropy, ignore_index=1), 1),
        (torch.nn.Sequential(torch.nn.NLLLoss(ignore_index=1)), 1),
    ],
)
def test_the_label_that_the_criterion_ignores_is_heeded(criterion: Any, wanted: int) -> None:
    for options, expected in (({}, wanted), ({"ignore_index": 7}, 7)):
        score = LoopCallback(
            torch.nn.Conv2d(3, 2, 1),
            None,
            criterion=criterion,
            identity=Identity("U-Net", 4),
            task="semantic-segmentation",
            dataset="d",
            classes=["a", "b"],
            loggers=[],
            **cast(Any, options),
        )
        with score:
            assert score.ignore_index == expected


@pytest.mark.parametrize("takes_dict", [True, False])
def test_a_criterion_gets_what_the_model_gave(takes_dict: bool) -> None:
    def of_dict(outputs: Any, targets: Any) -> Any:
        losses = {n: torch.nn.functional.cross_entropy(v, targets) for n, v in outputs.items()}
        return losses["out"] + 0.5 * losses["aux"]

    def of_logits(logits: Any, targets: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits, targets)

    logits = {"out": torch.rand(1, 2, 4, 4), "aux": torch.rand(1, 2, 4, 4)}
    targets = torch.zeros(1, 4, 4).long()
    losses = Criterion(of_dict if takes_dict else of_logits, Warnings())(logits, targets)
    assert sum(losses.values()) == pytest.approx(float(of_dict(logits, targets)))


def test_masks_of_one_channel_or_floats_are_label_maps() -> None:
    labels = torch.randint(0, 3, (2, 4, 4))
    for masks in (labels, labels[:, None], labels.float(), labels[:, None].double()):
        assert torch.equal(label_map(masks), labels)
    assert label_map(labels > 0).dtype == torch.int64
    for odd in (torch.rand(2, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(4, 4)):
        with pytest.raises(ValueError, match=r"not whole numbers \(N, H, W\).*pass batch=lambda"):
            label_map(odd)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), r"no images of uint8.*b\[0\].float\(\) / 255"),
        (torch.zeros(1, 5, 3, 4, 4), r"several crops or slices of each.*flatten\(0, 1\)"),
    ],
)
def test_images_that_the_model_does_not_take_are_told(images: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        segment(torch.nn.Conv2d(3, 2, 1), images, torch.zeros(1, 4, 4).long(), None)


def test_a_criterion_that_raises_costs_its_own_losses_only() -> None:
    def broken(logits: Any, targets: Any) -> Any:
        raise RuntimeError("wants floats")

    with warns(r"criterion=: broken\(float32 \(1, 2, 4, 4\), int64 \(1, 4, 4\)\) raised Runtime"):
        given = torch.rand(1, 2, 4, 4), torch.zeros(1, 4, 4).long()
        assert Criterion(broken, Warnings())(*given) == {}
