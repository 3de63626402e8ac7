"""The table of known algorithms. A newcomer is one line.

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


def spelled(text: str) -> list[tuple[str, bool]]:
    """The words and numbers of a text in lower case, each with whether it is glued to the last.

    >>> spelled("DeepLab v3+")
    [('deeplab', False), ('v', False), ('3', True), ('plus', True)]
    """
    found = list(WORD.finditer(text.lower()))
    ends = [-1, *(match.end() for match in found)]
    return [
        ("plus" if match[0] == "+" else match[0], match.start() == end)
        for match, end in zip(found, ends, strict=False)
    ]


def key(text: str) -> str:
    """The text without what people vary.

    >>> key("Faster R-CNN") == key("faster_rcnn") == key("FasterRCNN")
    True
    """
    return "".join(word for word, _ in spelled(text))


def spellings(templates: list[str], choices: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
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


YOLO = "xs n/nano/nu s/small/su m/medium/mu l/large/lu x/xlarge/xu"
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
    Family("NAS-FCOS"),
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
    Family("TTFNet"),
    Family("CornerNet"),
    Family("CornerNet-Squeeze"),
    Family("CentripetalNet"),
    Family("ExtremeNet"),
    Family("EfficientDet", "effdet", D0_D7, "EfficientNet-{}"),
    Family("NanoDet"),
    Family("NanoDet-Plus"),
    Family("PicoDet", "", "xs s m l"),
    Family("RTMDet", "rtmdetins", "tiny/t s/small m/medium l/large x/xlarge", "CSPNeXt"),
    Family("YOLACT"),
    Family("SOLO", "decoupledsolo"),
    Family("SOLOv2"),
    Family("CondInst"),
    Family("BoxInst"),
    # YOLO, by the families that their authors name
    Family("YOLOv1", "yolo1", "tiny"),
    Family("YOLOv2", "yolo2", "tiny"),
    Family("YOLOv3", "yolo3", "tiny/tinyu spp/sppu"),
    Family("YOLOv4", "yolo4", "tiny"),
    Family("YOLOv5", "yolo5", f"{YOLO} n6/n6u s6/s6u m6/m6u l6/l6u x6/x6u"),
    Family("YOLOv5-Lite"),
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
    Family("YOLO-World", "yoloworldv2"),
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
    Family("Cascade R-CNN", "fastercascadercnn"),
    Family("Cascade Mask R-CNN"),
    Family("Context R-CNN"),
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
    Family("Panoptic FPN"),
    Family("RoI Transformer", "roitrans"),
    Family("Oriented R-CNN"),
    Family("Rotated RetinaNet"),
    Family("Rotated FCOS"),
    Family("Rotated Faster R-CNN"),
    # queries
    Family("DETR", "detectiontransformer"),
    Family("Conditional DETR"),
    Family("Deformable DETR"),
    Family("DAB-DETR"),
    Family("DN-DETR"),
    Family("Anchor DETR"),
    Family("RT-DETR", "rtdetrdetectionmodel", "l/large x/xlarge"),
    Family("RT-DETRv2"),
    Family("RF-DETR", "", "nano small medium base large"),
    Family("LW-DETR", "", "tiny small medium large xlarge"),
    Family("D-FINE", "", DETR, "HGNetv2"),
    Family("DEIM"),
    Family("DEIMv2"),
    Family("Co-DETR", "codino codeformabledetr"),
    Family("DINO", "dinodetr"),
    Family("Grounding DINO", "mmgroundingdino gdino", "Tiny Base", "Swin-{}"),
    Family("DETA"),
    Family("DDQ", "ddqdetr"),
    Family("Table Transformer"),
    Family("OWL-ViT", "", "Base Large", "ViT-{}"),
    Family("OWLv2"),
    Family("OmDet-Turbo"),
    Family("GLIP"),
    Family("YOLOS", "", "Tiny/ti Small/s Base/b", "DeiT-{}"),
    Family("MaskFormer"),
    Family("Mask2Former"),
    Family("Mask DINO"),
    Family("OneFormer"),
    Family("EoMT", "eomtdinov3", "Small Base Large", "ViT-{}"),
    # pixels
    Family("FCN", "depthwiseseparablefcn"),
    Family("U-Net"),
    Family("U-Net++", "nestedunet"),
    Family("U-Net 3+"),
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
    Family("PSPNet", "psp"),
    Family("DeepLabV1"),
    Family("DeepLabV2"),
    Family("DeepLabV3", "aspphead"),
    Family("DeepLabV3+", "deeplabv3p deeplabv3bplus depthwiseseparableaspphead"),
    Family("LR-ASPP"),
    Family("UPerNet", "uperhead uper"),
    Family("SegFormer", "", B0_B5, "MiT-{}"),
    Family("Segmenter"),
    Family("SegNeXt"),
    Family("SETR", "setrpup setrnaive setrmla"),
    Family("DPT", "", "Base/b Large/l", "ViT-{}"),
    Family("BEiT", "data2vecvision", "Base/b Large/l", "BEiT-{}"),
    Family("Semantic FPN", "fpn semfpn fpnhead", whole=True),
    Family("OCRNet"),
    Family("CCNet"),
    Family("DANet"),
    Family("PSANet"),
    Family("EncNet"),
    Family("EMANet"),
    Family("DNLNet"),
    Family("GCNet"),
    Family("ANN"),
    Family("APCNet"),
    Family("DMNet"),
    Family("ISANet"),
    Family("K-Net"),
    Family("Non-local Net", "nonlocal"),
    Family("ICNet"),
    Family("ERFNet"),
    Family("ENet"),
    Family("CGNet"),
    Family("ESPNet"),
    Family("GINet"),
    Family("PP-LiteSeg"),
    Family("Decoupled SegNet"),
    Family("Fast-SCNN"),
    Family("FastFCN"),
    Family("BiSeNetV1", "bisenet"),
    Family("BiSeNetV2"),
    Family("STDC", "stdc1 stdc2"),
    Family("PIDNet", "", "S/small M/medium L/large", "PIDNet-{}"),
    Family("DDRNet", "", "23slim 23", "DDRNet-{}"),
    Family("Panoptic-DeepLab"),
)

MEANT = {
    "RetinaNet": {"SSD"},
    "U-Net": {"FCN", "PSPNet", "DeepLabV3"},
    "K-Net": {"FCN", "PSPNet", "DeepLabV3", "UPerNet"},
    **{
        network: {"FCN"}
        for network in ("BiSeNetV1", "BiSeNetV2", "Fast-SCNN", "ICNet", "ERFNet", "CGNet")
    },
}
"""The algorithm that is meant where one of these is named beside it. Any other two contradict."""


@cache
def algorithms() -> dict[str, Family]:
    """Every spelling of every algorithm, by `key`."""
    return {
        key(spelling): family
        for family in FAMILIES
        for spelling in (family.name, *family.aliases.split())
    }


@cache
def scales(name: str) -> dict[str, str]:
    """The backbone that each scale of the algorithm says, by `key` of the scale."""
    family = algorithms()[key(name)]
    return {
        spelling: family.backbone.format(*values)
        for spelling, values in spellings(["{}"], (family.scales,))
    }


def algorithm(text: str) -> str:
    """The one spelling of an algorithm that is named and nothing else; "" where it is unknown.

    >>> algorithm("FasterRCNN"), algorithm("unetplusplus"), algorithm("my own")
    ('Faster R-CNN', 'U-Net++', '')
    """
    family = algorithms().get(key(text))
    return family.name if family else ""
