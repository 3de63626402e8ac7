"""The three semantic losses against torch, segmentation-models-pytorch, MONAI and the formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.nn.functional import one_hot

from boxscore.losses import (
    count_valid,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    semantic_losses,
)
from boxscore.warn import Warnings

Loss = Callable[..., Tensor]

LOSSES: list[Loss] = [focal_loss, cross_entropy_loss, dice_loss]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=["focal", "cross_entropy", "dice"])


def batch(*shape: int, ignored: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (N, C, H, W) that want a gradient, and labels (N, H, W) in which all classes occur."""
    random = torch.Generator().manual_seed(seed)
    count, channels, height, width = shape
    classes = max(channels, 2)
    targets = torch.arange(count * height * width).view(count, height, width) % classes
    if ignored:
        targets[torch.rand(targets.shape, generator=random) < 0.3] = 255
    return (2 * torch.randn(shape, generator=random)).requires_grad_(), targets


def equal(ours: Tensor, theirs: Tensor, logits: Tensor) -> None:
    """Both values and both gradients agree to float32 precision."""
    assert ours.item() == pytest.approx(theirs.item(), rel=2e-6, abs=1e-7)
    slopes = [torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)]
    assert slopes[1].abs().max() > 0
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-7)


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


# --- cross-entropy


@pytest.mark.parametrize("weight", [None, (0.5, 3.0, 0.0, 1.0)])
def test_cross_entropy_equals_torchs(weight: tuple[float, ...] | None) -> None:
    logits, targets = batch(3, 4, 9, 7, ignored=True)
    weights = None if weight is None else torch.tensor(weight)
    theirs = F.cross_entropy(logits, targets, weights, ignore_index=255)
    equal(cross_entropy_loss(logits, targets, weight=weight), theirs, logits)


def test_cross_entropy_of_one_channel_equals_torchs_binary_one() -> None:
    logits, targets = batch(3, 1, 9, 7)
    theirs = F.binary_cross_entropy_with_logits(logits[:, 0], targets.float())
    equal(cross_entropy_loss(logits, targets), theirs, logits)


# --- focal


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_equals_its_formula(gamma: float) -> None:
    logits, targets = batch(3, 4, 9, 7, ignored=True)
    valid = targets != 255
    p = logits.double().softmax(1).gather(1, (targets * valid)[:, None])[:, 0][valid]
    alpha = torch.tensor([0.5, 1.0, 2.0, 0.1])
    theirs = (alpha[targets[valid]] * (1 - p) ** gamma * -p.log()).mean()
    equal(focal_loss(logits, targets, gamma=gamma, alpha=alpha), theirs, logits)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, targets = batch(3, 4, 9, 7, ignored=True)
    equal(focal_loss(logits, targets, gamma=0), cross_entropy_loss(logits, targets), logits)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, None), (2.0, 0.25), (1.5, 0.6)])
def test_focal_of_one_channel_equals_segmentation_models_pytorchs(
    gamma: float, alpha: float | None
) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, targets = batch(3, 1, 9, 7, ignored=True)
    criterion = smp.losses.FocalLoss("binary", alpha=alpha, gamma=gamma, ignore_index=255)
    theirs = criterion(logits, targets[:, None].float())
    equal(focal_loss(logits, targets, gamma=gamma, alpha=alpha), theirs, logits)


@pytest.mark.slow  # to import MONAI
def test_focal_equals_monais() -> None:
    """MONAI averages over the C channels too, of which all but the true one are 0."""
    monai = pytest.importorskip("monai.losses")
    logits, targets = batch(3, 4, 9, 7)
    criterion = monai.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)
    equal(focal_loss(logits, targets), 4 * criterion(logits, targets[:, None]), logits)


# --- Dice


def test_dice_equals_segmentation_models_pytorchs() -> None:
    """With every class in the target; theirs averages a 0 for an absent one."""
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, targets = batch(3, 4, 9, 7, ignored=True)
    theirs = smp.losses.DiceLoss("multiclass", ignore_index=255)(logits, targets)
    equal(dice_loss(logits, targets), theirs, logits)


def test_dice_of_the_object_alone_equals_segmentation_models_pytorchs_binary_one() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, targets = batch(3, 1, 9, 7, ignored=True)
    theirs = smp.losses.DiceLoss("binary", ignore_index=255)(logits, targets[:, None])
    equal(dice_loss(logits, targets, weight=(0, 1)), theirs, logits)


@pytest.mark.slow  # to import MONAI
def test_dice_equals_monais() -> None:
    monai = pytest.importorskip("monai.losses")
    logits, targets = batch(3, 4, 9, 7)
    criterion = monai.DiceLoss(
        to_onehot_y=True, softmax=True, batch=True, smooth_nr=0, smooth_dr=1e-12
    )
    equal(dice_loss(logits, targets), criterion(logits, targets[:, None]), logits)


def test_dice_leaves_absent_classes_out() -> None:
    logits, targets = batch(2, 4, 6, 6)
    targets = targets % 3
    p, truth = logits.softmax(1), one_hot(targets, 4).permute(0, 3, 1, 2)
    dice = 2 * (p * truth).sum((0, 2, 3)) / (p + truth).sum((0, 2, 3))
    equal(dice_loss(logits, targets), (1 - dice[:3]).mean(), logits)


def test_dice_is_0_for_a_perfect_mask_and_1_for_disjoint_ones() -> None:
    targets = torch.zeros(1, 4, 4, dtype=torch.long)
    targets[:, :2] = 1
    right = 200.0 * one_hot(targets, 3).permute(0, 3, 1, 2)
    assert dice_loss(right, targets).item() == 0
    assert dice_loss(-right, targets).item() == 1
    assert dice_loss(right[:, 1:2] - 100, targets).item() == 0
    assert dice_loss(100 - right[:, 1:2], targets).item() == 1


# --- what all three share


@each_loss
def test_ignored_pixels_count_nowhere(loss: Loss) -> None:
    logits, targets = batch(2, 3, 6, 6)
    targets[:, 3:] = 255
    whole = loss(logits, targets)
    part = loss(logits[:, :, :3], targets[:, :3])
    equal(whole, part, logits)
    assert not gradient(loss(logits, targets), logits)[:, :, 3:].any()


@each_loss
def test_a_class_may_be_the_ignored_one(loss: Loss) -> None:
    logits, targets = batch(2, 3, 6, 6)
    elsewhere = targets.masked_fill(targets == 0, 255)
    equal(loss(logits, targets, ignore_index=0), loss(logits, elsewhere), logits)


@each_loss
def test_nothing_valid_is_zero_and_moves_nothing(loss: Loss) -> None:
    logits, targets = batch(2, 3, 4, 4)
    for labels in (torch.full_like(targets, 255), targets[:0]):
        value = loss(logits[: len(labels)], labels)
        assert value.item() == 0
        assert not gradient(value, logits).any()


@each_loss
@pytest.mark.parametrize("channels", [1, 4])
def test_gradient_is_the_slope(loss: Loss, channels: int) -> None:
    logits, targets = batch(2, channels, 3, 3, ignored=True)
    logits = logits.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32(loss: Loss, dtype: torch.dtype) -> None:
    logits, targets = batch(2, 4, 64, 64, ignored=True)
    half = logits.detach().to(dtype).requires_grad_()
    same = half.detach().float().requires_grad_()
    value, expected = loss(half, targets), loss(same, targets)
    assert value.dtype == torch.float32
    assert value.item() == expected.item()
    slope = gradient(value, half)
    assert slope.dtype == dtype
    torch.testing.assert_close(slope, gradient(expected, same).to(dtype))


@each_loss
def test_autocast_does_not_lower_the_precision(loss: Loss) -> None:
    logits, targets = batch(2, 4, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, targets)
    assert value.item() == loss(logits, targets).item()


@each_loss
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_confident_logits_stay_finite(loss: Loss, channels: int, scale: float) -> None:
    """Right ones cost nothing, wrong ones what they should, neither makes a NaN."""
    logits, targets = batch(2, channels, 5, 5)
    large = (logits.detach() * scale).requires_grad_()
    assert loss(large, targets).isfinite()
    assert gradient(loss(large, targets), large).isfinite().all()
    for gamma in (0, 0.5):
        assert gradient(focal_loss(large, targets, gamma=gamma), large).isfinite().all()


@each_loss
def test_means_of_millions_of_pixels_keep_their_digits(loss: Loss) -> None:
    logits, targets = batch(2, 2, 1024, 1024)
    with torch.no_grad():
        exact = loss(logits.double(), targets).item()
        assert loss(logits, targets).item() == pytest.approx(exact, rel=2e-6)


@each_loss
def test_it_trains(loss: Loss) -> None:
    _, targets = batch(1, 3, 8, 8)
    weights = torch.zeros(1, 3, 8, 8, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=20.0)
    first = loss(weights, targets).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss(weights, targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss(weights, targets).item() < first / 4
    assert torch.equal(weights.argmax(1), targets)


@each_loss
@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 2**32),
    st.floats(0, 1e6),
)
def test_any_batch_has_a_finite_loss_of_0_or_more(
    loss: Loss, shape: tuple[int, int, int, int], seed: int, scale: float
) -> None:
    logits, targets = batch(*shape, ignored=True, seed=seed)
    value = loss(logits * scale, targets)
    assert 0 <= value.item() < float("inf")
    if loss is dice_loss:
        assert value.item() <= 1 + 1e-6


@each_loss
def test_arrays_and_narrow_labels_are_taken(loss: Loss) -> None:
    logits, targets = batch(2, 3, 4, 4, ignored=True)
    expected = loss(logits, targets).item()
    assert loss(logits, targets.to(torch.uint8)).item() == expected
    assert loss(logits.detach().numpy(), targets.numpy().astype("uint8")).item() == expected


# --- all three of a batch


@pytest.mark.parametrize("on_a_device", [False, True])
@pytest.mark.parametrize("channels", [1, 4])
def test_the_losses_of_probabilities_are_those_of_their_logits(
    channels: int, on_a_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, targets = batch(2, channels, 6, 5, ignored=True)
    scores = logits.sigmoid() if channels == 1 else logits.softmax(1)
    expected = {
        "focal": focal_loss(logits, targets).item(),
        "cross_entropy": cross_entropy_loss(logits, targets).item(),
        "dice": dice_loss(logits, targets).item(),
    }
    monkeypatch.setattr("boxscore.segmentation.inputs.waits", lambda _: on_a_device)
    for predictions in (logits, scores, scores.detach().numpy()):
        found = semantic_losses(predictions, targets)
        assert {n: v.item() for n, v in found.items()} == pytest.approx(expected, rel=1e-4)
        assert not any(value.requires_grad for value in found.values())


@pytest.mark.parametrize("channels", [1, 2])
def test_saturated_probabilities_have_finite_losses(channels: int) -> None:
    targets = torch.tensor([[[0, 1], [1, 0]]])
    sure = (one_hot(1 - targets, 2).permute(0, 3, 1, 2).float())[:, -channels:]
    losses = semantic_losses(sure, targets)
    assert 15 < losses["cross_entropy"].item() < 100
    assert losses["dice"].item() == pytest.approx(1)


@each_loss
def test_probabilities_by_hand_are_told(
    loss: Loss, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxscore.losses.semantic._WARNINGS", Warnings())
    logits, targets = batch(2, 3, 4, 4)
    for predictions in (logits, logits.softmax(1), logits.softmax(1)):
        loss(predictions, targets)
    assert [text for text in caplog.messages if "take logits" in text] == caplog.messages
    assert len(caplog.messages) == 1


def test_valid_pixels_are_counted() -> None:
    _, targets = batch(2, 3, 4, 4, ignored=True)
    assert count_valid(targets, 255) == (targets != 255).sum()
    assert count_valid(targets.numpy(), None) == 32


# --- bad input


def test_labels_outside_the_classes_are_named() -> None:
    logits, targets = batch(2, 3, 4, 4)
    for loss in LOSSES:
        for label in (3, -1, 255):
            targets[1, 0, 0] = label
            with pytest.raises(ValueError, match=f"image 1 of the batch: label {label} "):
                loss(logits, targets, ignore_index=None)


@each_loss
def test_on_a_device_labels_outside_the_classes_give_nan_and_no_gradient(
    loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch itself would end the process's use of the GPU there."""
    monkeypatch.setattr("boxscore.segmentation.inputs.waits", lambda _: True)
    logits, targets = batch(2, 3, 4, 4)
    targets[1, 0, 0] = 7
    value = loss(logits, targets)
    assert value.isnan()
    assert not gradient(value, logits).any()


@each_loss
def test_a_device_is_never_waited_for(loss: Loss) -> None:
    """Meta tensors have no values: whatever would make a GPU wait raises on them."""
    logits, targets = (tensor.to("meta") for tensor in batch(2, 3, 4, 4))
    assert loss(logits, targets).shape == ()


@each_loss
@pytest.mark.parametrize(
    ("shape", "targets", "message"),
    [
        ((2, 3, 4, 4), torch.zeros(2, 4, 4), "targets are torch.float32"),
        ((2, 3, 4, 4), torch.zeros(2, 8, 8).long(), "4x4 and targets 8x8"),
        ((2, 3, 4, 4), torch.zeros(1, 4, 4).long(), "need"),
        ((3, 4, 4), torch.zeros(2, 4, 4).long(), r"\(N, C, H, W\)"),
    ],
)
def test_what_does_not_fit_is_said(
    loss: Loss, shape: tuple[int, ...], targets: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(shape), targets)


def test_weights_of_another_number_than_the_classes_are_refused() -> None:
    logits, targets = batch(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"weight is of shape \(2,\); 3 classes"):
        dice_loss(logits, targets, weight=(1, 2))
    with pytest.raises(ValueError, match="alpha"):
        focal_loss(logits, targets, alpha=0.25)
