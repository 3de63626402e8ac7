"""The table of known backbones: one line each.

Depth, width and size are in a backbone's name, the patch size and the training set are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .algorithms import B0_B5, SIZES, normalized, spellings


@dataclass(frozen=True, slots=True)
class Backbone:
    """One family of backbones.

    Attributes:
        name: its one spelling, with a ``{}`` for each choice.
        aliases: further spellings, divided by spaces, with the same ``{}``.
        choices: the values of each ``{}``; ``"Tiny/t"`` is also written ``t``.
    """

    name: str
    aliases: str = ""
    choices: tuple[str, ...] = ()


PLAIN = (
    "ResNet ResNeXt MobileNet MobileViTV2 EfficientNet MobileDet LCNet MnasNet GhostNet "
    "ShuffleNetV2 SqueezeNet Xception NAS NASNet PNASNet CSPDarknet CSPNeXt HGNetv2 "
    "UNet-S5-D16 Swin ConvNeXt"
)
FLOPS = "200MF 400MF 600MF 800MF 1.6GF 3.2GF 4GF/4.0GF 6.4GF 8GF/8.0GF 12GF"
DEPTHS = "18 34 50 101 152"
MULTIPLES = "0.25 0.35 0.5 0.75 1.4"
WIDTHS = "32x4d 32x8d 64x4d 32x16d 32x32d 32x48d"

BACKBONES = (
    Backbone("{}", "", (PLAIN,)),
    Backbone("Inception-ResNet V2"),
    Backbone("ResNet-{}", "r{} rn{}", (DEPTHS,)),
    Backbone("ResNet-{}", "", ("10 14 26 200",)),
    Backbone("ResNet-{}{}", "r{}{}", (DEPTHS, "b c d")),
    Backbone("ResNet-{}-vd", "r{}vd", (DEPTHS,)),
    Backbone("ResNet-{} V1", "resnetv1{}", (DEPTHS,)),
    Backbone("ResNet-{} V1{}", "", (DEPTHS, "b c d s")),
    Backbone("ResNet-{} V2", "resnetv2{}", (DEPTHS,)),
    Backbone("Wide-ResNet-{}-2", "", ("50 101",)),
    Backbone("ResNeXt-{}", "x{}", ("50 101 152",)),
    Backbone("ResNeXt-{} {}", "x{}{}", ("50 101 152", WIDTHS)),
    Backbone("SE-ResNet-{}", "", (DEPTHS,)),
    Backbone("SE-ResNeXt-{} {}", "", ("50 101", WIDTHS)),
    Backbone("SK-ResNet-{}", "", ("18 34",)),
    Backbone("SK-ResNeXt-{} {}", "", ("50", WIDTHS)),
    Backbone("ResNeSt-{}", "resnest{}d resnest{}e resnests{}", ("14 26 50 101 200 269",)),
    Backbone("Res2Net-{}", "r2{}", ("50 101",)),
    Backbone("SENet-{}", "", ("154",)),
    Backbone("MobileNetV{}", "mbv{} mobilenetv{}1.0", ("1 2 3 4",)),
    Backbone("MobileNetV1", "mobilenet1.0"),
    Backbone("MobileNetV{} {}", "", ("1 2", MULTIPLES)),
    Backbone("MobileNetV1 {}", "mobilenet{}", (MULTIPLES,)),
    Backbone("MobileNetV3-{}", "mbv3{}", ("Large Small",)),
    Backbone("MobileNetV4-{}", "mobilenetv4conv{} mobilenetv4hybrid{}", ("Small Medium Large",)),
    Backbone("MobileViT-{}", "", ("Small/s X-Small/xs XX-Small/xxs",)),
    Backbone("MobileOne-{}", "", ("S0 S1 S2 S3 S4",)),
    Backbone("EfficientNet-{}", "eff{}", ("B0 B1 B2 B3 B4 B5 B6 B7 B8 L2",)),
    Backbone("EfficientNet-Lite{}", "", ("0 1 2 3 4",)),
    Backbone("EfficientNetV2-{}", "", ("S M L XL",)),
    Backbone("VGG-{}", "vgg{}bn", ("11 13 16 19",)),
    Backbone("DenseNet-{}", "", ("121 161 169 201 264",)),
    Backbone("DPN-{}", "dpn{}b", ("68 92 98 107 131",)),
    Backbone("Xception-{}", "", ("41 65 71",)),
    Backbone("Inception V{}", "", ("1 2 3 4",)),
    Backbone("", "nasfpn"),  # a neck
    Backbone("DarkNet-{}", "d{}", ("19 53",)),
    Backbone("CSPDarknet-53", "cspd53"),
    Backbone("Hourglass-{}", "hg{}", ("52 104",)),
    Backbone("DLA", "dlav0"),
    Backbone("DLA-{}", "", ("34 46 60 102 169",)),
    Backbone("HRNet-W{}", "hrnet{} hrnetv2w{} hrnetv2pw{} hrnetv2p{} hr{}", ("18 30 32 40 48 64",)),
    Backbone("HRNet-W18-Small", "hr18s hrnetv2w18small hrnetw18smallv2"),
    Backbone("RegNet{}-{}", "", ("X Y", FLOPS)),
    Backbone("VoVNet-{}", "v{}ese", ("19 39 57 99",)),
    Backbone("STDC{}", "", ("1 2",)),
    Backbone("MiT-{}", "mixvisiontransformer{}", (B0_B5,)),
    Backbone("PVT-{}", "", ("Tiny/t Small/s Medium/m Large/l",)),
    Backbone("PVTv2-{}", "", (B0_B5,)),
    Backbone("Swin-{}", "swintransformer{}", (SIZES,)),
    Backbone("SwinV2-{}", "swintransformerv2{}", (SIZES,)),
    Backbone("ConvNeXt-{}", "", (f"Atto Femto Pico Nano {SIZES} XLarge/xl",)),
    Backbone("ConvNeXtV2-{}", "", ("Atto Femto Pico Nano Tiny/t Base/b Large/l Huge/h",)),
    Backbone("ViT-{}", "vit{}16 vit{}32 vit{}8 visiontransformer{} vitdet{}", (f"{SIZES} Huge/h",)),
    Backbone("ViT-{}", "vit{}14", ("Large/l Huge/h Giant/g",)),
    Backbone("DeiT-{}", "deit{}16", ("Tiny/t Small/s Base/b",)),
    Backbone("DeiT3-{}", "", (f"{SIZES} Huge/h",)),
    Backbone("BEiT-{}", "", ("Base/b Large/l",)),
    Backbone("DINOv2-{}", "dinov2vit{}14 dinov2vit{}", ("Small/s Base/b Large/l Giant/g",)),
    Backbone("DINOv2-{}", "dinov2windowed{} dinov2registerswindowed{}", ("Small Base Large",)),
    Backbone("MViTv2-{}", "", (SIZES,)),
    Backbone("MaxViT-{}", "", ("Tiny/t Small/s Base/b Large/l",)),
    Backbone("PoolFormer-{}", "", ("S12 S24 S36 M36 M48",)),
    Backbone("Twins-PCPVT-{}", "", ("Small/s Base/b Large/l",)),
    Backbone("Twins-SVT-{}", "", ("Small/s Base/b Large/l",)),
    Backbone("InternImage-{}", "", ("T S B L XL H",)),
    Backbone("MSCAN-{}", "", ("Tiny/t Small/s Base/b Large/l",)),
)


@cache
def backbones() -> dict[str, str]:
    """The name of every backbone by its normalized spellings."""
    found: dict[str, str] = {}
    for row in BACKBONES:
        templates = [row.name, *row.aliases.split()]
        for spelling, values in spellings(templates, row.choices):
            found.setdefault(spelling, row.name.format(*values))
    return found


def backbone(text: str) -> str:
    """The one spelling of the backbone that ``text`` is; "" where it is unknown.

    >>> backbone("resnet50"), backbone("R-101"), backbone("mit_b0")
    ('ResNet-50', 'ResNet-101', 'MiT-B0')
    """
    return backbones().get(normalized(text), "")
