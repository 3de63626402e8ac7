"""The name of a backbone by its layers and their numbers; "" if these are in no table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .backbones import backbone

RESNET = {
    ("basic", (2, 2, 2, 2)): "18",
    ("basic", (3, 4, 6, 3)): "34",
    ("bottleneck", (3, 4, 6, 3)): "50",
    ("bottleneck", (3, 4, 23, 3)): "101",
    ("bottleneck", (3, 8, 36, 3)): "152",
}
"""Depth by the kind of block and their number in each layer (He et al. 2015, table 1)."""

VGG = {6: "VGG-11", 8: "VGG-13", 10: "VGG-16", 12: "VGG-19"}
"""By the convolutions before the fourth pooling, where SSD cuts it."""

MOBILENET = {
    ("mobilenetv2", 17): "MobileNetV2",
    ("mobilenetv3", 15): "MobileNetV3-Large",
    ("mobilenetv3", 14): "MobileNetV3-Large",  # SSDlite splits one block
    ("mobilenetv3", 11): "MobileNetV3-Small",
    ("mobilenetv3", 10): "MobileNetV3-Small",
}
"""By torchvision's module of the inverted residuals, and their number."""

PYRAMIDS = {
    ("swin", 96, (2, 2, 6, 2)): "Swin-Tiny",
    ("swin", 96, (2, 2, 18, 2)): "Swin-Small",
    ("swin", 128, (2, 2, 18, 2)): "Swin-Base",
    ("swin", 192, (2, 2, 18, 2)): "Swin-Large",
    ("convnext", 96, (3, 3, 9, 3)): "ConvNeXt-Tiny",
    ("convnext", 96, (3, 3, 27, 3)): "ConvNeXt-Small",
    ("convnext", 128, (3, 3, 27, 3)): "ConvNeXt-Base",
    ("convnext", 192, (3, 3, 27, 3)): "ConvNeXt-Large",
    ("convnext", 256, (3, 3, 27, 3)): "ConvNeXt-XLarge",
    ("mit", 32, (2, 2, 2, 2)): "MiT-B0",
    ("mit", 64, (2, 2, 2, 2)): "MiT-B1",
    ("mit", 64, (3, 4, 6, 3)): "MiT-B2",
    ("mit", 64, (3, 4, 18, 3)): "MiT-B3",
    ("mit", 64, (3, 8, 27, 3)): "MiT-B4",
    ("mit", 64, (3, 6, 40, 3)): "MiT-B5",
    ("mobilevit", 144, ()): "MobileViT-Small",
    ("mobilevit", 96, ()): "MobileViT-X-Small",
    ("mobilevit", 64, ()): "MobileViT-XX-Small",
}
"""By kind, width of the first stage and blocks in each stage."""

VIT = {
    (192, 12): "Tiny",
    (384, 12): "Small",
    (768, 12): "Base",
    (1024, 24): "Large",
    (1280, 32): "Huge",
}
"""Size of a plain transformer by width and layers."""


def resnet(block: str, counts: tuple[int, ...]) -> str:
    """The depth as text, also of a ResNet that is cut after its third layer; "" if unknown."""
    depths = {
        depth
        for (kind, whole), depth in RESNET.items()
        if kind == block.lower().removesuffix("block") and whole[: len(counts)] == counts
    }
    return depths.pop() if len(depths) == 1 else ""


def backbone_of(module: Any) -> str:
    """The backbone's one spelling; "" where its layers are in no table.

    Args:
        module: a torch module: the backbone itself, or with its pyramid around it.
    """
    body = getattr(module, "body", module)
    return _resnet(body) or _vgg(body) or _mobilenet(body) or backbone(type(body).__name__)


def _resnet(body: Any) -> str:
    """A ResNet, ResNeXt or Wide ResNet of torchvision."""
    layers = [getattr(body, name) for n in "1234" if hasattr(body, name := f"layer{n}")]
    if len(layers) < 3 or not hasattr(layers[0][0], "conv2"):
        return ""
    block = layers[0][0]
    depth = resnet(type(block).__name__, tuple(len(layer) for layer in layers))
    groups, width = block.conv2.groups, block.conv2.out_channels
    if groups > 1:
        return backbone(f"resnext{depth} {groups}x{width // groups}d") if depth else ""
    return backbone(f"wideresnet{depth}2" if width == 128 else f"resnet{depth}") if depth else ""


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
    return MOBILENET.get(next(iter(residuals.items()), ("", 0)), "")


def hugging_face(config: Any) -> str:
    """The backbone that a Transformers configuration of one describes; "" if unknown."""
    kind = str(getattr(config, "model_type", ""))
    depths = tuple(getattr(config, "depths", None) or ())
    widths = getattr(config, "hidden_sizes", None) or [getattr(config, "embed_dim", 0)]
    if kind == "timm_backbone":
        return backbone(str(config.backbone).partition(".")[0])
    if kind in {"resnet", "rt_detr_resnet"}:
        depth = resnet(config.layer_type, depths)
        return backbone(f"resnet{depth}{'vd' if kind != 'resnet' else ''}") if depth else ""
    if kind in {"mobilenet_v1", "mobilenet_v2"}:
        return backbone(f"{kind}_{config.depth_multiplier}")
    vit = VIT.get((getattr(config, "hidden_size", 0), getattr(config, "num_hidden_layers", 0)))
    if kind in PLAIN_TRANSFORMERS and vit:
        return PLAIN_TRANSFORMERS[kind].format(vit)
    return PYRAMIDS.get((PYRAMID_KINDS.get(kind, kind), widths[0], depths)) or backbone(kind)


PYRAMID_KINDS = {
    **{"segformer": "mit", "maskformer-swin": "swin", "donut-swin": "swin"},
    **{"SwinTransformer": "swin", "MixVisionTransformer": "mit"},
}
"""The kind by Transformers' ``model_type`` or OpenMMLab's ``type``, where these differ from it."""

PLAIN_TRANSFORMERS = {
    "yolos": "DeiT-{}",
    "beit": "BEiT-{}",
    **dict.fromkeys(("dpt", "vit", "eomt", "vitdet"), "ViT-{}"),
    **dict.fromkeys(("dinov2", "rf_detr_dinov2"), "DINOv2-{}"),
}
"""The name by Transformers' ``model_type``."""


def open_mmlab(config: Mapping[str, Any]) -> str:
    """The backbone that an OpenMMLab configuration of one describes; "" if unknown."""
    kind = str(config.get("type", "")).rpartition(".")[2]
    depth = config.get("depth", "")
    if kind == "ResNeXt":
        return backbone(f"resnext{depth}{config.get('groups', 1)}x{config.get('base_width', 4)}d")
    if kind in {"ResNet", "ResNetV1c", "ResNetV1d"}:  # c and d alter the stem, not the name
        return backbone(f"resnet{depth}")
    if kind == "SSDVGG":
        return backbone(f"vgg{depth}")
    width = config.get("embed_dims", config.get("embed_dim", 0))
    depths = tuple(config.get("depths") or config.get("num_layers") or ()) if width else ()
    named = PYRAMIDS.get((PYRAMID_KINDS.get(kind, ""), width, depths))
    return named or backbone(f"{kind}{config.get('arch', depth)}") or backbone(kind)
