"""Which backbone a torchvision module is, told from its layers: they cannot be misnamed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .backbones import backbone

BLOCKS = {
    ("BasicBlock", (2, 2, 2, 2)): "18",
    ("BasicBlock", (3, 4, 6, 3)): "34",
    ("Bottleneck", (3, 4, 6, 3)): "50",
    ("Bottleneck", (3, 4, 23, 3)): "101",
    ("Bottleneck", (3, 8, 36, 3)): "152",
}
"""Depth of a ResNet by its kind of block and their number in each layer (He et al. 2015, table 1)."""

VGG = {6: "VGG-11", 8: "VGG-13", 10: "VGG-16", 12: "VGG-19"}
"""By the convolutions before the fourth pooling, where SSD cuts it."""

MOBILE = {
    ("mobilenetv2", 17): "MobileNetV2",
    ("mobilenetv3", 15): "MobileNetV3-Large",
    ("mobilenetv3", 11): "MobileNetV3-Small",
}
"""By the file of torchvision that the inverted residuals come from, and their number."""


def trunk(module: Any) -> str:
    """The backbone's one spelling; "" where its layers are no known network's.

    Args:
        module: a torch module: the backbone itself, or with its pyramid around it.
    """
    body = getattr(module, "body", module)
    return _resnet(body) or _vgg(body) or _mobilenet(body) or backbone(type(body).__name__)


def _resnet(body: Any) -> str:
    """A ResNet, ResNeXt or Wide ResNet, whole or cut after its third layer (C4)."""
    layers = [getattr(body, f"layer{n}", None) for n in (1, 2, 3, 4)]
    if any(layer is None for layer in layers[:3]):
        return ""
    layers = [layer for layer in layers if layer is not None]
    counts, block = tuple(len(layer) for layer in layers), layers[0][0]
    depths = {
        depth
        for (kind, whole), depth in BLOCKS.items()
        if kind == type(block).__name__ and whole[: len(counts)] == counts
    }
    if len(depths) != 1:
        return ""
    (depth,) = depths
    groups, width = block.conv2.groups, block.conv2.out_channels
    if groups > 1:
        return backbone(f"resnext{depth} {groups}x{width // groups}d")
    return backbone(f"wideresnet{depth}2" if width == 128 else f"resnet{depth}")


def _vgg(body: Any) -> str:
    """The VGG inside torchvision's SSD."""
    if type(body).__name__ != "SSDFeatureExtractorVGG":
        return ""
    return VGG.get(sum(type(layer).__name__ == "Conv2d" for layer in body.features), "")


def _mobilenet(body: Any) -> str:
    residuals = Counter(
        type(layer).__module__.rpartition(".")[2]
        for layer in body.modules()
        if type(layer).__name__ == "InvertedResidual"
    )
    return MOBILE.get(next(iter(residuals.items()), ("", 0)), "")
