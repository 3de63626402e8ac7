"""Test-set losses of torchvision's detectors, which give losses in train mode only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from boxscore.fingerprint import identifier
from boxscore.identity.wrappers import SHARDED, unwrapped

_SWITCHES = ("GeneralizedRCNN", "RegionProposalNetwork", "RoIHeads", "RetinaNet", "FCOS", "SSD")
"""torchvision's modules whose ``training`` decides between losses and detections."""


def is_torchvision_detector(model: Any) -> bool:
    """Whether ``model``, unwrapped, is one whose losses `test_losses` can measure."""
    return any(
        kind.__module__.startswith("torchvision.models.detection") and kind.__name__ in _SWITCHES
        for kind in type(unwrapped(model)).__mro__
    )


def test_losses(
    model: nn.Module, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Losses and detections of a torchvision detector on one batch, with one backbone pass.

    torchvision's detectors give losses in train mode only, in which batch norm, dropout and random
    resizing are active. Only the modules that decide between losses and detections are switched
    here; all others stay in eval mode. Weights, buffers, modes and the global RNG are
    left as found, and the same batch gives the same losses: the samplers of proposals and anchors
    are seeded by the batch's image ids.

    Args:
        model: RetinaNet, FCOS, SSD, SSDlite, Faster, Mask or Keypoint R-CNN, wrapped or not.
        images: N tensors (3, H, W) in [0, 1] on the model's device.
        targets: N dicts in torchvision's convention; zero-area boxes take no part in the losses.

    Returns:
        the losses by torchvision's names, and the N detections.

    Raises:
        TypeError: if ``model`` is no torchvision detector.
    """
    inner = unwrapped(model)
    if not is_torchvision_detector(inner):
        raise TypeError(
            f"test_losses measures torchvision's detectors, not {type(inner).__name__}; "
            "pass predict=, a function of (model, batch) that returns losses, predictions, targets"
        )
    model = model if type(model).__name__ == SHARDED else inner
    usable = [_without_empty_boxes(target) for target in targets]
    with torch.no_grad(), modes_kept(model), _one_backbone_pass(inner):
        model.eval()
        detections = model(list(images))
        for module in model.modules():
            if _is_switch(module):
                module.training = True  # the attribute: train() would reach batch norm as well
        with torch.random.fork_rng(devices=_cuda_devices(model)):
            torch.manual_seed(_seed(targets))
            losses = model(list(images), usable)
    return losses, detections


test_losses.__test__ = False  # type: ignore[attr-defined]  # the name is the contract's; it is no test


def _is_switch(module: nn.Module) -> bool:
    return any(kind.__name__ in _SWITCHES for kind in type(module).__mro__)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Leave each module of ``model`` in the mode, train or eval, in which it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _one_backbone_pass(model: nn.Module) -> Iterator[None]:
    """Let the second forward of the same images reuse the first one's features."""
    backbone: Any = model.backbone
    forward = backbone.forward
    own = "forward" in vars(backbone)
    seen: list[tuple[Tensor, Any]] = []

    def remembered(images: Tensor) -> Any:
        if not seen or seen[0][0].shape != images.shape or not torch.equal(seen[0][0], images):
            seen[:] = [(images, forward(images))]
        return seen[0][1]

    backbone.forward = remembered
    try:
        yield
    finally:
        if own:
            backbone.forward = forward
        else:
            del backbone.forward


def _without_empty_boxes(target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    boxes = target["boxes"]
    full = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    per_object = ("boxes", "labels", "masks", "keypoints", "iscrowd", "area")
    return {key: value[full] if key in per_object else value for key, value in target.items()}


def _seed(targets: Sequence[Mapping[str, Any]]) -> int:
    ids = "\n".join(identifier(target.get("image_id", n)) for n, target in enumerate(targets))
    return int.from_bytes(hashlib.sha256(ids.encode()).digest()[:4])


def _cuda_devices(model: nn.Module) -> list[int]:
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    return sorted(device.index or 0 for device in devices)
