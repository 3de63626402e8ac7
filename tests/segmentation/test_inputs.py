"""What predictions and label maps may be, and how everything else is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from boxscore.segmentation import SegmentationMetrics

from .batches import batch, measured, names, state

LOGITS, TARGETS = batch(3, 4, 6, 8)

GOOD: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (LOGITS.numpy(), TARGETS.numpy()),
    "lists": lambda: (LOGITS.tolist(), TARGETS.tolist()),
    "channels last in memory": lambda: (
        LOGITS.contiguous(memory_format=torch.channels_last), TARGETS.mT.contiguous().mT,
    ),
    "a part of a wider tensor": lambda: (torch.cat([LOGITS, LOGITS], 3)[..., :8], TARGETS),
    "read-only": lambda: tuple(np.broadcast_to(t.numpy(), t.shape) for t in (LOGITS, TARGETS)),
    "negative strides": lambda: tuple(
        t.numpy()[..., ::-1].copy()[..., ::-1] for t in (LOGITS, TARGETS)
    ),
    "big endian": lambda: (LOGITS.numpy().astype(">f4"), TARGETS.numpy().astype(">i2")),
    "Fortran order": lambda: tuple(np.asfortranarray(t.numpy()) for t in (LOGITS, TARGETS)),
    "float64": lambda: (LOGITS.double(), TARGETS),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_form_and_layout_do_not_matter(name: str) -> None:
    logits, targets = as_arrays(GOOD[name]())
    assert state(measured(logits, targets)) == state(measured(LOGITS, TARGETS))


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64"])
def test_labels_may_be_integers_of_any_kind(kind: str) -> None:
    labels = TARGETS.numpy().astype(kind)
    assert state(measured(LOGITS, labels)) == state(measured(LOGITS, TARGETS))


def as_arrays(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    """Lists have no shape for `measured`; everything else stays as it is."""
    return (np.asarray(pair[0], np.float32), pair[1]) if isinstance(pair[0], list) else pair


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_are_scored_in_float32(dtype: torch.dtype) -> None:
    logits = (LOGITS * 8).to(dtype)
    assert state(measured(logits, TARGETS)) == state(measured(logits.float(), TARGETS))


def test_one_channel_takes_boolean_masks() -> None:
    logits, targets = batch(1, 1, 6, 6)
    assert state(measured(logits, targets.bool())) == state(measured(logits, targets))


def changed(tensor: Tensor, place: tuple[int, ...], value: float) -> Tensor:
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


def bad_values() -> Iterator[Any]:
    """Faults that only the values show: on a GPU they are told at the next reading."""
    yield LOGITS, changed(TARGETS, (1, 2, 3), 4), "image 1 .*label 4 in targets"
    yield LOGITS, changed(TARGETS, (1, 2, 3), -1), "image 1 .*label -1 in targets"
    for value in (np.nan, np.inf, -np.inf):
        yield changed(LOGITS, (2, 1, 0, 4), value), TARGETS, f"image 2 .*logits hold {value}"


def bad_forms() -> Iterator[Any]:
    yield LOGITS, TARGETS.float(), "targets are torch.float32"
    yield LOGITS, TARGETS.to(torch.complex64), "targets are torch.complex64"
    yield LOGITS, TARGETS.numpy().astype(object), "targets are ndarray"
    yield LOGITS, None, "targets are NoneType"
    yield LOGITS.long(), TARGETS, "logits are torch.int64"
    yield LOGITS.argmax(1), TARGETS, "logits are torch.int64.*before softmax, sigmoid and argmax"
    yield (LOGITS * 255).byte(), TARGETS, "logits are torch.uint8"
    yield "nonsense", TARGETS, "logits are str"
    yield LOGITS[:, :3], TARGETS, r"\(3, 3, 6, 8\) for 4 classes"
    yield LOGITS[:, :1], TARGETS, r"\(3, 1, 6, 8\) for 4 classes"
    yield LOGITS[0], TARGETS, r"pass floats \(N, C, H, W\)"
    yield LOGITS.permute(0, 2, 3, 1), TARGETS, r"channels are last.*permute\(0, 3, 1, 2\)"
    yield LOGITS, TARGETS[:2], r"\(2, 6, 8\).*need \(3, 6, 8\)"
    yield LOGITS, TARGETS[:, None], r"\(3, 1, 6, 8\).*squeeze\(1\)"
    yield LOGITS, torch.zeros(LOGITS.shape).long(), r"\(3, 4, 6, 8\).*argmax\(1\)"
    yield LOGITS[..., ::2, ::2], TARGETS, r"3x4 and targets 6x8.*size=\(6, 8\)"


@pytest.mark.parametrize(("logits", "targets", "message"), [*bad_values(), *bad_forms()])
def test_bad_input_is_named_and_leaves_the_state_as_it_was(
    logits: Any, targets: Any, message: str
) -> None:
    metric = measured(*batch(1, 4, 6, 8, seed=1))
    before = state(metric)
    with pytest.raises(ValueError, match=message):
        metric.update(logits, targets)
    assert state(metric) == before


def test_image_ids_of_another_number_are_refused() -> None:
    metric = SegmentationMetrics(names(4))
    with pytest.raises(ValueError, match="2 image ids for 3 targets"):
        metric.update(LOGITS, TARGETS, ["a", "b"])
    assert metric.compute() == {}


# --- on a device


def test_update_never_reads_a_value_off_the_device() -> None:
    """Meta tensors have no values: whatever would make a GPU wait raises on them."""
    for channels, classes in ((4, 4), (1, 2)):
        metric = SegmentationMetrics(names(classes))
        logits = torch.empty(2, channels, 6, 5, device="meta")
        metric.update(logits, torch.empty(2, 6, 5, device="meta").int(), ["a", "b"])


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("reading", ["logits", "probabilities"])
def test_a_device_counts_the_same(
    channels: int, reading: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, targets = batch(2, channels, 6, 5)
    if reading == "probabilities":
        logits = logits.sigmoid() if channels == 1 else logits.softmax(1)
    targets[0, 0] = 255
    expected = state(measured(logits, targets))
    monkeypatch.setattr("boxscore.segmentation.metrics.waits", lambda _: True)
    assert state(measured(logits, targets)) == expected


@pytest.mark.parametrize(("logits", "targets", "message"), list(bad_values()))
def test_on_a_device_bad_values_are_told_at_the_next_reading_and_count_nowhere(
    logits: Tensor, targets: Tensor, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxscore.segmentation.metrics.waits", lambda _: True)
    metric = measured(*batch(1, 4, 6, 8, seed=1))
    before = state(metric)
    metric.update(logits, targets)
    with pytest.raises(ValueError, match=message.replace(" .*", " of batch 0 .*")):
        metric.compute()
    assert state(metric) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_counts_the_same_without_waiting() -> None:
    logits, targets = (tensor.cuda() for tensor in batch(2, 4, 64, 64))
    metric = SegmentationMetrics(names(4))
    metric.update(logits, targets)  # the lookup table is copied once
    torch.cuda.set_sync_debug_mode("error")
    try:
        metric.update(logits, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = measured(logits.cpu(), targets.cpu()).compute()
    assert metric.compute() == pytest.approx(expected, abs=1e-4)
