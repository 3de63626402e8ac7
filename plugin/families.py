"""The tables of known algorithms and backbones. A newcomer is one line.

What counts as one parent algorithm, and why
    An algorithm is what its loss makes it: two models share one where the same loss terms are
    computed by the same rules (which anchors, queries or pixels are held against which target), so
    that the loss of one says something about the loss of the other.

    * RetinaNet and SSD differ (focal loss over all anchors; softmax over mined hard negatives), as
      do SSD and SSDLite, Faster, Mask, Keypoint and Cascade R-CNN (another stage or head is another
      sum), DETR, Conditional and Deformable DETR (other queries and matching costs), DeepLabV3 and
      DeepLabV3+ (another decoder).
    * What its authors name as a family is kept apart (YOLOv8, YOLO11, YOLOX; RT-DETR, RT-DETRv2):
      one loss formula today is no promise for tomorrow.
    * Backbone, neck (FPN, DC5, C4, BiFPN), schedule, training set, task suffix ("-seg") and a
      library's own revision ("_v2") make no other algorithm; nor does the scale (n, s, m, l, x),
      which is kept as the backbone where the name says no more.
    * TFOD's "SSD ResNet FPN" is RetinaNet, as its own zoo says in brackets; a U-Net with another
      head ("unet-s5-d16_fcn") stays U-Net. Such pairs stand in `MEANT`.

Case, spaces, dots, hyphens and underscores do not matter in any spelling (`key`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

WORD = re.compile(r"[0-9]+\.[0-9]+|[0-9]+|[a-z]+|(?<=[a-z0-9+])\+")


def key(text: str) -> str:
    """The text without what people vary.

    >>> key("Faster R-CNN") == key("faster_rcnn") == key("FasterRCNN")
    True
    """
    return "".join(WORD.findall(text.lower()))


def _spellings(templates: list[str], choices: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Every key of the templates, with the first spelling of each value chosen for it."""
    values = [[value.split("/") for value in choice.split()] for choice in choices]
    for chosen in itertools.product(*values):
        for template, words in itertools.product(templates, itertools.product(*chosen)):
            yield key(template.format(*words)), [value[0] for value in chosen]


@dataclass(frozen=True, slots=True)
class Family:
    """One parent algorithm.

    Attributes:
        name: its one spelling.
        aliases: further spellings, divided by spaces.
        scales: what may follow the name, ``"n/nano s/small"``: the first spelling is the one kept.
        backbone: what a scale says of the backbone, ``"MiT-{}"``; by itself the scale.
        whole: the name is an everyday word of other models' names (``fpn`` is a neck): it is
            believed only where it is given alone.
    """

    name: str
    aliases: str = ""
    scales: str = ""
    backbone: str = "{}"
    whole: bool = False


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


YOLO = "n/nano/nu s/small/su m/medium/mu l/large/lu x/xlarge/xu"
DETR = "n/nano s/small m/medium l/large x/xlarge"
SIZES = "Tiny/t Small/s Base/b Large/l"
B0_B5 = "B0 B1 B2 B3 B4 B5"
D0_D7 = "B0/d0 B1/d1 B2/d2 B3/d3 B4/d4 B5/d5 B6/d6 B7/d7/d7x Lite0 Lite1 Lite2 Lite3 Lite4"
D0_D7 = "B0/d0 B1/d1 B2/d2 B3/d3 B4/d4 B5/d5 B6/d6 B7/d7/d7x Lite0 Lite1 Lite2 Lite3 Lite4"

FAMILIES = (
    # one stage
    Family("SSD", "singleshotdetector", "300 512", "VGG-16"),
    Family("SSDLite"),
    Family("RetinaNet", "retinanet50 retinanet101 retinanet152"),
    Family("FCOS"),
    Family("ATSS"),
    Family("GFL", "generalizedfocalloss"),
    Family("VarifocalNet", "vfnet"),
    Family("TOOD"),
    Family("PAA"),
    Family("FSAF"),
    Family("FoveaBox", "fovea"),
    Family("RepPoints"),
    Family("AutoAssign"),
    Family("DDOD"),
    Family("CenterNet", "ctdet centernetupdate"),
    Family("CenterNet2"),
    Family("CornerNet"),
    Family("CentripetalNet"),
    Family("ExtremeNet"),
    Family("EfficientDet", "effdet", D0_D7, "EfficientNet-{}"),
    Family("NanoDet"),
    Family("NanoDet-Plus"),
    Family("PicoDet"),
    Family("RTMDet", "rtmdetins", "tiny/t s/small m/medium l/large x/xlarge", "CSPNeXt"),
    Family("YOLACT"),
    Family("SOLO", "decoupledsolo"),
    Family("SOLOv2"),
    Family("CondInst"),
    Family("BoxInst"),
    # YOLO, by the families that their authors name
    Family("YOLOv1"),
    Family("YOLOv2"),
    Family("YOLOv3", "", "tiny/tinyu spp/sppu"),
    Family("YOLOv4", "", "tiny"),
    Family("YOLOv5", "yolo5", f"{YOLO} n6/n6u s6/s6u m6/m6u l6/l6u x6/x6u"),
    Family("YOLOv6", "yolo6", YOLO),
    Family("YOLOv7", "yolo7", "tiny x w6 e6 d6 e6e"),
    Family("YOLOv8", "yolo8", f"{YOLO} x6"),
    Family("YOLOv9", "yolo9", "t/tiny s/small m/medium c/compact e/extended"),
    Family("YOLOv10", "yolo10", f"{YOLO} b/balanced"),
    Family("YOLO11", "yolov11", YOLO),
    Family("YOLO12", "yolov12", YOLO),
    Family("YOLO26", "yolov26", YOLO),
    Family("YOLOX", "", "nano tiny s/small m/medium l/large x/xlarge", "CSPDarknet"),
    Family("YOLOF"),
    Family("YOLOR"),
    Family("YOLO-NAS", "", "s/small m/medium l/large"),
    Family("YOLO-World", "yoloworldv2 yolov8world yolov8worldv2"),
    Family("YOLOE", "", "v8s v8m v8l 11s 11m 11l 26n 26s 26m 26l 26x"),
    Family("PP-YOLO"),
    Family("PP-YOLOv2"),
    Family("PP-YOLOE"),
    Family("PP-YOLOE+"),
    Family("DAMO-YOLO", "", "t/tiny s/small m/medium l/large"),
    # two stages and more
    Family("R-FCN"),
    Family("Fast R-CNN"),
    Family("Faster R-CNN", "frcnn"),
    Family("Mask R-CNN"),
    Family("Keypoint R-CNN"),
    Family("Cascade R-CNN"),
    Family("Cascade Mask R-CNN"),
    Family("RPN"),
    Family("Libra R-CNN", "librafasterrcnn"),
    Family("Grid R-CNN"),
    Family("Dynamic R-CNN"),
    Family("Double-Head R-CNN", "doublehead doubleheads dhfasterrcnn"),
    Family("Sparse R-CNN"),
    Family("Mask Scoring R-CNN", "msrcnn"),
    Family("TridentNet", "tridentfasterrcnn"),
    Family("HTC", "hybridtaskcascade"),
    Family("SCNet"),
    Family("PointRend"),
    Family("QueryInst"),
    Family("DiffusionDet"),
    Family("Panoptic FPN", "panopticfpn"),
    Family("Oriented R-CNN"),
    Family("Rotated RetinaNet"),
    Family("Rotated FCOS"),
    Family("Rotated Faster R-CNN"),
    # queries
    Family("DETR"),
    Family("Conditional DETR"),
    Family("Deformable DETR"),
    Family("DAB-DETR"),
    Family("DN-DETR"),
    Family("Anchor DETR"),
    Family("RT-DETR", "", "l/large x/xlarge"),
    Family("RT-DETRv2"),
    Family("RF-DETR", "", "nano small medium base large"),
    Family("LW-DETR", "", "tiny small medium large xlarge"),
    Family("D-FINE", "dfine", DETR, "HGNetv2"),
    Family("DEIM"),
    Family("Co-DETR", "codino codeformabledetr"),
    Family("DINO", "dinodetr"),
    Family("Grounding DINO", "mmgroundingdino gdino"),
    Family("DETA"),
    Family("DDQ", "ddqdetr"),
    Family("Table Transformer", "tabletransformer"),
    Family("OWL-ViT"),
    Family("OWLv2"),
    Family("OmDet-Turbo"),
    Family("GLIP"),
    Family("YOLOS", "", "Tiny/ti Small/s Base/b", "DeiT-{}"),
    Family("MaskFormer"),
    Family("Mask2Former"),
    Family("Mask DINO", "maskdino"),
    Family("OneFormer"),
    Family("EoMT"),
    # pixels
    Family("FCN"),
    Family("U-Net"),
    Family("U-Net++", "unetplusplus nestedunet"),
    Family("U-Net 3+", "unet3+ unet3plus"),
    Family("3D U-Net", "unet3d"),
    Family("Attention U-Net", "attunet"),
    Family("TransUNet"),
    Family("Swin-Unet"),
    Family("UNETR"),
    Family("Swin UNETR"),
    Family("nnU-Net", "nnunetv2"),
    Family("V-Net", whole=True),
    Family("SegNet"),
    Family("SegResNet"),
    Family("LinkNet"),
    Family("MA-Net"),
    Family("PAN", whole=True),
    Family("FPN", whole=True),
    Family("PSPNet"),
    Family("DeepLabV1", "deeplab"),
    Family("DeepLabV2"),
    Family("DeepLabV3"),
    Family("DeepLabV3+", "deeplabv3plus"),
    Family("LR-ASPP"),
    Family("UPerNet"),
    Family("SegFormer", "", B0_B5, "MiT-{}"),
    Family("Segmenter"),
    Family("SegNeXt"),
    Family("SETR", "setrpup setrnaive setrmla"),
    Family("DPT", "", "Base/b Large/l", "ViT-{}"),
    Family("BEiT", "", "Base/b Large/l", "BEiT-{}"),
    Family("Semantic FPN", "semfpn fpnhead"),
    Family("OCRNet"),
    Family("CCNet"),
    Family("DANet"),
    Family("PSANet"),
    Family("EncNet"),
    Family("EMANet"),
    Family("DNLNet"),
    Family("GCNet", whole=True),
    Family("ANN", whole=True),
    Family("APCNet"),
    Family("DMNet"),
    Family("ISANet"),
    Family("K-Net"),
    Family("Non-local Net", "nonlocal nonlocalnet"),
    Family("ICNet"),
    Family("ERFNet"),
    Family("ENet", whole=True),
    Family("CGNet"),
    Family("Fast-SCNN"),
    Family("FastFCN"),
    Family("BiSeNetV1", "bisenet"),
    Family("BiSeNetV2"),
    Family("STDC", "stdc1 stdc2"),
    Family("PIDNet", "", "s/small m/medium l/large", "PIDNet-{}"),
    Family("DDRNet", "", "23slim 23", "DDRNet-{}"),
    Family("Panoptic-DeepLab", "panopticdeeplab"),
)

DEPTHS = "18 34 50 101 152"
WIDTHS = "32x4d 32x8d 64x4d 32x16d 32x32d 32x48d"

BACKBONES = (
    Backbone("ResNet"),
    Backbone("ResNet-{}", "r{} rn{}", (DEPTHS,)),
    Backbone("ResNet-{}", "", ("10 14 26 200",)),
    Backbone("ResNet-{}{}", "r{}{}", (DEPTHS, "b c d")),
    Backbone("ResNet-{}-vd", "r{}vd", (DEPTHS,)),
    Backbone("ResNet-{} V1", "resnetv1{}", (DEPTHS,)),
    Backbone("ResNet-{} V1{}", "", (DEPTHS, "b c d s")),
    Backbone("ResNet-{} V1{}", "", (DEPTHS, "b c d s")),
    Backbone("ResNet-{} V2", "resnetv2{}", (DEPTHS,)),
    Backbone("Wide-ResNet-{}-2", "", ("50 101",)),
    Backbone("ResNeXt"),
    Backbone("ResNeXt-{}", "x{}", ("50 101 152",)),
    Backbone("ResNeXt-{} {}", "x{}{}", ("50 101 152", WIDTHS)),
    Backbone("SE-ResNet-{}", "", (DEPTHS,)),
    Backbone("SE-ResNeXt-{} {}", "", ("50 101", WIDTHS)),
    Backbone("SK-ResNet-{}", "", ("18 34",)),
    Backbone("SK-ResNeXt-{} {}", "", ("50", WIDTHS)),
    Backbone("ResNeSt-{}", "resnest{}d resnest{}e", ("14 26 50 101 200 269",)),
    Backbone("Res2Net-{}", "r2{}", ("50 101",)),
    Backbone("SENet-{}", "", ("154",)),
    Backbone("MobileNet"),
    Backbone("MobileNetV{}", "", ("1 2 3 4",)),
    Backbone("MobileNetV{} {}", "", ("1 2", "0.25 0.35 0.5 0.75 1.4")),
    Backbone("MobileNetV3-{}", "", ("Large Small",)),
    Backbone("MobileNetV4-{}", "mobilenetv4conv{} mobilenetv4hybrid{}", ("Small Medium Large",)),
    Backbone("MobileViT-{}", "", ("Small/s X-Small/xs XX-Small/xxs",)),
    Backbone("MobileViTV2"),
    Backbone("MobileOne-{}", "", ("S0 S1 S2 S3 S4",)),
    Backbone("EfficientNet"),
    Backbone("EfficientNet-{}", "", ("B0 B1 B2 B3 B4 B5 B6 B7 B8 L2",)),
    Backbone("EfficientNet-Lite{}", "", ("0 1 2 3 4",)),
    Backbone("EfficientNetV2-{}", "", ("S M L XL",)),
    Backbone("MnasNet"),
    Backbone("GhostNet"),
    Backbone("ShuffleNetV2"),
    Backbone("SqueezeNet"),
    Backbone("VGG-{}", "vgg{}bn", ("11 13 16 19",)),
    Backbone("DenseNet-{}", "", ("121 161 169 201 264",)),
    Backbone("DPN-{}", "dpn{}b", ("68 92 98 107 131",)),
    Backbone("Xception"),
    Backbone("Xception-{}", "", ("41 65 71",)),
    Backbone("Inception V{}", "", ("1 2 3 4",)),
    Backbone("Inception-ResNet V2"),
    Backbone("NAS"),
    Backbone("", "nasfpn"),  # a neck
    Backbone("NASNet"),
    Backbone("PNASNet"),
    Backbone("DarkNet-{}", "d{}", ("19 53",)),
    Backbone("CSPDarknet"),
    Backbone("CSPDarknet-53", "cspd53"),
    Backbone("CSPNeXt"),
    Backbone("HGNetv2"),
    Backbone("Hourglass-{}", "hg{}", ("52 104",)),
    Backbone("DLA", "dlav0"),
    Backbone("DLA-{}", "", ("34 46 60 102 169",)),
    Backbone("HRNet-W{}", "hrnet{} hrnetv2w{} hrnetv2pw{} hrnetv2p{} hr{}", ("18 30 32 40 48 64",)),
    Backbone("HRNet-W18-Small", "hr18s hrnetv2w18small hrnetw18smallv2"),
    Backbone("RegNet{}-{}", "", ("X Y", "200MF 400MF 600MF 800MF 1.6GF 3.2GF 4.0GF 6.4GF 8GF 12GF")),
    Backbone("VoVNet-{}", "v{}ese", ("19 39 57 99",)),
    Backbone("UNet-S5-D16"),
    Backbone("STDC{}", "", ("1 2",)),
    Backbone("MiT-{}", "mixvisiontransformer{}", (B0_B5,)),
    Backbone("PVT-{}", "", ("Tiny Small Medium Large",)),
    Backbone("PVTv2-{}", "", (B0_B5,)),
    Backbone("Swin"),
    Backbone("Swin-{}", "swintransformer{}", (SIZES,)),
    Backbone("SwinV2-{}", "swintransformerv2{}", (SIZES,)),
    Backbone("ConvNeXt"),
    Backbone("ConvNeXt-{}", "", (f"Atto Femto Pico Nano {SIZES} XLarge/xl",)),
    Backbone("ConvNeXtV2-{}", "", ("Atto Femto Pico Nano Tiny/t Base/b Large/l Huge/h",)),
    Backbone("ViT-{}", "vit{}16 vit{}32 vit{}8 visiontransformer{}", (f"{SIZES} Huge/h",)),
    Backbone("ViT-{}", "vit{}14", ("Large/l Huge/h Giant/g",)),
    Backbone("DeiT-{}", "", ("Tiny/t Small/s Base/b",)),
    Backbone("DeiT3-{}", "", (f"{SIZES} Huge/h",)),
    Backbone("BEiT-{}", "", ("Base/b Large/l",)),
    Backbone("DINOv2-{}", "dinov2vit{}14 dinov2vit{}", ("Small/s Base/b Large/l Giant/g",)),
    Backbone("MaxViT-{}", "", ("Tiny/t Small/s Base/b Large/l",)),
    Backbone("PoolFormer-{}", "", ("S12 S24 S36 M36 M48",)),
    Backbone("Twins-PCPVT-{}", "", ("Small/s Base/b Large/l",)),
    Backbone("Twins-SVT-{}", "", ("Small/s Base/b Large/l",)),
    Backbone("InternImage-{}", "", ("T S B L XL H",)),
    Backbone("MSCAN-{}", "", ("Tiny/t Small/s Base/b Large/l",)),
)

MEANT = {
    frozenset({"SSD", "RetinaNet"}): "RetinaNet",
    frozenset({"U-Net", "FCN"}): "U-Net",
    frozenset({"U-Net", "PSPNet"}): "U-Net",
    frozenset({"U-Net", "DeepLabV3"}): "U-Net",
}
"""Two algorithms in one name, and the one that is meant. Any other pair is ambiguous."""

PLAIN = frozenset(
    """
    fpn nasfpn bifpn pafpn panfpn fpnlite dc5 c4 neck head backbone caffe gn bn syncbn dcn dcnv2
    coco mscoco coco14 coco17 voc pascal voc07 voc12 ade ade20k cityscapes lvis objects365 o365
    openimages camvid kitti drive stare mapillary imagenet in1k in21k in22k
    tf tf1 tf2 tensorflow keras torch pytorch torchvision paddle gluon mxnet onnx openvino tao timm
    smp segmentation models model detectron2 d2 mmdet mmseg ultralytics hf facebook
    detection detect det seg segm sem semantic instance panoptic pose obb cls keypoint keypoints ins
    object objects image tiny
    my our the a an new best last final baseline default test train training trained pretrained
    finetuned finetune scratch run exp experiment v u
    """.split()
)
"""Words that say nothing of the algorithm. Any other word right before an algorithm may name a kin
of it ("anchor detr", "attention unet"): there a name is left unsure."""

OTHER = frozenset("rotated oriented lite face lstm".split())
"""Words after an algorithm that make another one of it."""

NO_SIZE = frozenset(
    "epoch epochs ep iter iters iteration step steps bs batch seed fold id run exp queries q".split()
)
"""Words before a number that is no size."""

PLAIN = frozenset(
    """
    fpn nasfpn bifpn pafpn panfpn fpnlite dc5 c4 neck head backbone caffe gn bn syncbn dcn dcnv2
    coco mscoco coco14 coco17 voc pascal voc07 voc12 ade ade20k cityscapes lvis objects365 o365
    openimages camvid kitti drive stare mapillary imagenet in1k in21k in22k
    tf tf1 tf2 tensorflow keras torch pytorch torchvision paddle gluon mxnet onnx openvino tao timm
    smp segmentation models model detectron2 d2 mmdet mmseg ultralytics hf facebook
    detection detect det seg segm sem semantic instance panoptic pose obb cls keypoint keypoints ins
    object objects image tiny
    my our the a an new best last final baseline default test train training trained pretrained
    finetuned finetune scratch run exp experiment v u
    """.split()
)
"""Words that say nothing of the algorithm. Any other word right before an algorithm may name a kin
of it ("anchor detr", "attention unet"): there a name is left unsure."""

OTHER = frozenset("rotated oriented lite face lstm".split())
"""Words after an algorithm that make another one of it."""

NO_SIZE = frozenset(
    "epoch epochs ep iter iters iteration step steps bs batch seed fold id run exp queries q".split()
)
"""Words before a number that is no size."""


@cache
def algorithms() -> dict[str, Family]:
    """Every spelling of every algorithm, by `key`."""
    return {
        key(spelling): family
        for family in FAMILIES
        for spelling in (family.name, *family.aliases.split())
    }


@cache
def backbones() -> dict[str, str]:
    """Every spelling of every backbone, by `key`, with its one name."""
    found: dict[str, str] = {}
    for row in BACKBONES:
        templates = [row.name, *row.aliases.split()]
        for spelling, values in _spellings(templates, row.choices):
            found.setdefault(spelling, row.name.format(*values))
    return found


@cache
def scales(name: str) -> dict[str, str]:
    """The backbone that each scale of the algorithm says, by `key` of the scale."""
    family = algorithms()[key(name)]
    return {
        spelling: family.backbone.format(*values)
        for spelling, values in _spellings(["{}"], (family.scales,))
    }


def algorithm(text: str) -> str:
    """The one spelling of an algorithm that is named and nothing else; "" where it is unknown.

    >>> algorithm("FasterRCNN"), algorithm("unetplusplus"), algorithm("my own")
    ('Faster R-CNN', 'U-Net++', '')
    """
    family = algorithms().get(key(text))
    return family.name if family else ""


def backbone(text: str) -> str:
    """The one spelling of a backbone that is named and nothing else; "" where it is unknown.

    >>> backbone("resnet50"), backbone("R-101"), backbone("mit_b0")
    ('ResNet-50', 'ResNet-101', 'MiT-B0')
    """
    return backbones().get(key(text), "")
