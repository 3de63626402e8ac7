"""The demo's models: small, with random weights, made to learn on two cores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import detection, segmentation
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

WIDTH = 128
"""Channels of the feature pyramid."""


def retinanet(backbone: str, classes: int, size: int) -> Any:
    """RetinaNet with anchors for objects from 8 px."""
    anchors = _anchors(5, scales=2)
    body = _pyramid(backbone, dense=True)
    return detection.RetinaNet(
        body, classes, anchor_generator=anchors, min_size=size, max_size=size
    )


def fcos(backbone: str, classes: int, size: int) -> Any:
    """FCOS, which has one anchor per location."""
    anchors = AnchorGenerator(((4,), (8,), (16,), (32,), (64,)), ((1.0,),) * 5)
    body = _pyramid(backbone, dense=True)
    model = detection.FCOS(body, classes, anchor_generator=anchors, min_size=size, max_size=size)
    # distances pass a ReLU, which some random weights would keep at 0 for the whole training
    nn.init.constant_(model.head.regression_head.bbox_reg.bias, 2.0)
    return model


def fasterrcnn(backbone: str, classes: int, size: int) -> Any:
    """Faster R-CNN with 300 proposals."""
    return _two_stage(detection.FasterRCNN, backbone, classes, size)


def maskrcnn(backbone: str, classes: int, size: int) -> Any:
    """Mask R-CNN with 300 proposals and a light mask head."""
    model = _two_stage(detection.MaskRCNN, backbone, classes, size)
    model.roi_heads.mask_head = MaskRCNNHeads(WIDTH, (WIDTH, WIDTH), 1)
    model.roi_heads.mask_predictor = MaskRCNNPredictor(WIDTH, WIDTH, classes)
    return model


def ssdlite(backbone: str, classes: int, size: int) -> Any:
    """SSDlite, which torchvision builds on MobileNetV3-Large alone."""
    if backbone != "mobilenet_v3_large":
        raise ValueError(f"ssdlite has the backbone mobilenet_v3_large, not {backbone}")
    model = detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=classes
    )
    transform = model.transform
    transform.min_size, transform.max_size, transform.fixed_size = (size,), size, (size, size)
    return model


def deeplabv3(backbone: str, classes: int, size: int) -> Any:
    """DeepLabV3 on MobileNetV3-Large or ResNet-50."""
    build = getattr(segmentation, f"deeplabv3_{backbone}", None)
    if build is None:
        raise ValueError(
            f"deeplabv3 has the backbones mobilenet_v3_large and resnet50, not {backbone}"
        )
    return build(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)


class UNet(nn.Module):
    """Ronneberger et al. (2015) with four levels, batch norm and padding; no backbone to choose."""

    def __init__(self, classes: int, width: int = 24) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(4)]
        self.down = nn.ModuleList(map(_twice, [3, *widths], widths))
        self.up = nn.ModuleList(_twice(3 * high, high) for high in widths[-2::-1])
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Any:
        """Logits (N, C, H, W) of images (N, 3, H, W)."""
        levels: list[Tensor] = []
        for block in self.down:
            levels.append(block(nn.functional.max_pool2d(levels[-1], 2) if levels else images))
        features = levels.pop()
        for block in self.up:
            skip = levels.pop()
            resized = nn.functional.interpolate(features, size=skip.shape[-2:])
            features = block(torch.cat([resized, skip], 1))
        return self.classify(features)


ALGORITHMS: dict[str, dict[str, Callable[[str, int, int], Any]]] = {
    "detection": {
        "retinanet": retinanet,
        "fcos": fcos,
        "fasterrcnn": fasterrcnn,
        "ssdlite": ssdlite,
    },
    "instance-segmentation": {"maskrcnn": maskrcnn},
    "semantic-segmentation": {
        "unet": lambda _backbone, classes, _size: UNet(classes),
        "deeplabv3": deeplabv3,
    },
}
"""Task → algorithm → ``build(backbone, classes, size)``; the first of a task is its default."""


def default_backbone(algorithm: str) -> str:
    """The backbone of an algorithm without ``--backbone``."""
    return "mobilenet_v3_large" if algorithm in ("ssdlite", "deeplabv3") else "resnet18"


def _pyramid(backbone: str, *, dense: bool = False) -> Any:
    """Features at strides 4 to 64: for proposals four levels and a pooled one, else three and two.

    Half as wide as usual and a level finer: the demo's objects are small, and so is its time.
    """
    blocks = LastLevelP6P7(WIDTH, WIDTH) if dense else None
    if backbone.startswith("resnet"):
        body: Any = getattr(models, backbone)(weights=None)
        deep = 4 if backbone == "resnet50" else 1
        channels = {f"layer{n + 1}": 64 * deep * 2**n for n in range(4)}
    else:
        body = models.mobilenet_v3_large(weights=None).features
        channels = {"3": 24, "6": 40, "12": 112, "16": 960}
    kept = list(channels)[: 3 if dense else 4]
    names = {layer: str(level) for level, layer in enumerate(kept)}
    return BackboneWithFPN(body, names, [channels[k] for k in kept], WIDTH, extra_blocks=blocks)


def _anchors(levels: int, scales: int = 1) -> AnchorGenerator:
    sizes = tuple(
        tuple(int(8 * 2**level * 2 ** (n / scales)) for n in range(scales))
        for level in range(levels)
    )
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * levels)


def _two_stage(build: Any, backbone: str, classes: int, size: int) -> Any:
    return build(
        _pyramid(backbone),
        classes,
        min_size=size,
        max_size=size,
        rpn_anchor_generator=_anchors(5),
        rpn_pre_nms_top_n_train=600,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_train=300,
        rpn_post_nms_top_n_test=150,
        box_batch_size_per_image=64,
        box_nms_thresh=0.5,
        box_detections_per_img=60,
    )


def _twice(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
