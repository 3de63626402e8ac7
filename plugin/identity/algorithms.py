"""The table of known algorithms: one line each.

What counts as one parent algorithm, and why
    Two models share an algorithm where the same loss terms are computed by the same rules (which
    anchors, queries or pixels are matched with which target), so that their losses are comparable.

    * RetinaNet and SSD differ (focal loss over all anchors; softmax over mined hard negatives), as
      do SSD and SSDLite, Faster, Mask, Keypoint and Cascade R-CNN (another stage or head is another
      sum), DETR, Conditional and Deformable DETR (other queries and matching costs), DeepLabV3 and
      DeepLabV3+ (another decoder).
    * Families that their authors name are kept apart (YOLOv8, YOLO11, YOLOX; RT-DETR, RT-DETRv2):
      equal loss formulas may differ in the next release.
    * Backbone, neck (FPN, DC5, C4, BiFPN), schedule, training set, task suffix ("-seg") and a
      library's own revision ("_v2") make no other algorithm; nor does the scale (n, s, m, l, x),
      which is the backbone where the name has no other.
    * TFOD's "SSD ResNet FPN" is RetinaNet, as its own zoo has it in brackets; a U-Net with another
      head ("unet-s5-d16_fcn") is U-Net. Such pairs are in `OVERRIDES`.

Case, spaces, dots, hyphens and underscores do not matter in any spelling (`normalized`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

WORD = re.compile(r"[0-9]+\.[0-9]+|[0-9]+|[a-z]+|(?<=[a-z0-9+])\+")


def words_of(text: str) -> list[tuple[str, bool]]:
    """The words and numbers of a text in lower case, each with whether it is glued to the last.

    >>> words_of("DeepLab v3+")
    [('deeplab', False), ('v', False), ('3', True), ('plus', True)]
    """
    found = list(WORD.finditer(text.lower()))
    ends = [-1, *(match.end() for match in found)]
    return [
        ("plus" if match[0] == "+" else match[0], match.start() == end)
        for match, end in zip(found, ends, strict=False)
    ]


def normalized(text: str) -> str:
    """The text without case, spaces and punctuation.

    >>> normalized("Faster R-CNN") == normalized("faster_rcnn") == normalized("FasterRCNN")
    True
    """
    return "".join(word for word, _ in words_of(text))


def spellings(templates: list[str], choices: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Every normalized spelling of the templates, with the first spelling of each value in it."""
    values = [[value.split("/") for value in choice.split()] for choice in choices]
    for chosen in itertools.product(*values):
        for template, words in itertools.product(templates, itertools.product(*chosen)):
            yield normalized(template.format(*words)), [value[0] for value in chosen]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One parent algorithm.

    Attributes:
        name: its one spelling.
        aliases: further spellings, divided by spaces.
        scales: sizes that may follow the name, ``"n/nano s/small"``; the first spelling is kept.
        backbone: the backbone of a scale, ``"MiT-{}"``; by default the scale itself.
        whole: the name is a common word of other models' names (``fpn`` is a neck): it is read
            alone, or first before a backbone.
    """

    name: str
    aliases: str = ""
    scales: str = ""
    backbone: str = "{}"
    whole: bool = False


YOLO = "xs n/nano/nu s/small/su m/medium/mu l/large/lu x/xlarge/xu"
WORLD = " ".join(f"yolov8{scale}world yolov8{scale}worldv2" for scale in ("", *"smlx"))
DETR = "n/nano s/small m/medium l/large x/xlarge"
SIZES = "Tiny/t Small/s Base/b Large/l"
B0_B5 = "B0 B1 B2 B3 B4 B5"
D0_D7 = "B0/d0 B1/d1 B2/d2 B3/d3 B4/d4 B5/d5 B6/d6/d7 B7/d7x Lite0 Lite1 Lite2 Lite3 Lite4"


def _named(names: str) -> Iterator[Algorithm]:
    """Algorithms without aliases or scales, divided by commas."""
    return map(Algorithm, names.split(", "))


ALGORITHMS = (
    # one stage
    *_named(
        "SSDLite, FCOS, NAS-FCOS, ATSS, TOOD, PAA, FSAF, RepPoints, AutoAssign, DDOD, "
        "CenterNet2, TTFNet, CornerNet, CornerNet-Squeeze, CentripetalNet, ExtremeNet, "
        "NanoDet, NanoDet-Plus, YOLACT, SOLOv2, CondInst, BoxInst"
    ),
    Algorithm("SSD", "singleshotdetector", "300 512", "VGG-16"),
    Algorithm("RetinaNet", "retinanet50 retinanet101 retinanet152"),
    Algorithm("GFL", "generalizedfocalloss"),
    Algorithm("VarifocalNet", "vfnet"),
    Algorithm("FoveaBox", "fovea"),
    Algorithm("CenterNet", "ctdet centernetupdate"),
    Algorithm("EfficientDet", "effdet", D0_D7, "EfficientNet-{}"),
    Algorithm("PicoDet", "", "xs s m l"),
    Algorithm("RTMDet", "rtmdetins", "tiny/t s/small m/medium l/large x/xlarge", "CSPNeXt"),
    Algorithm("SOLO", "decoupledsolo"),
    # YOLO, by the families that their authors name
    *_named("YOLOv5-Lite, YOLOF, YOLOR, PP-YOLO, PP-YOLOv2, PP-YOLOE, PP-YOLOE+"),
    Algorithm("YOLOv1", "yolo1", "tiny"),
    Algorithm("YOLOv2", "yolo2", "tiny"),
    Algorithm("YOLOv3", "yolo3", "tiny/tinyu spp/sppu"),
    Algorithm("YOLOv4", "yolo4", "tiny"),
    Algorithm("YOLOv5", "yolo5", f"{YOLO} n6/n6u s6/s6u m6/m6u l6/l6u x6/x6u"),
    Algorithm("YOLOv6", "yolo6", YOLO),
    Algorithm("YOLOv7", "yolo7", "tiny x w6 e6 d6 e6e"),
    Algorithm("YOLOv8", "yolo8", f"{YOLO} x6"),
    Algorithm("YOLOv9", "yolo9", "t/tiny s/small m/medium c/compact e/extended"),
    Algorithm("YOLOv10", "yolo10", f"{YOLO} b/balanced"),
    Algorithm("YOLO11", "yolov11", YOLO),
    Algorithm("YOLO12", "yolov12", YOLO),
    Algorithm("YOLO26", "yolov26", YOLO),
    Algorithm("YOLOX", "", "nano tiny s/small m/medium l/large x/xlarge", "CSPDarknet"),
    Algorithm("YOLO-NAS", "", "s/small m/medium l/large"),
    Algorithm("YOLO-World", f"yoloworldv2 worldmodel {WORLD}"),
    Algorithm("YOLOE", "", "v8s v8m v8l 11s 11m 11l 26n 26s 26m 26l 26x"),
    Algorithm("DAMO-YOLO", "", "t/tiny s/small m/medium l/large"),
    # two stages and more
    *_named(
        "R-FCN, Fast R-CNN, Mask R-CNN, Keypoint R-CNN, Cascade Mask R-CNN, Context R-CNN, "
        "RPN, Grid R-CNN, Dynamic R-CNN, Sparse R-CNN, SCNet, PointRend, QueryInst, "
        "DiffusionDet, Panoptic FPN, Oriented R-CNN, Rotated RetinaNet, Rotated FCOS, "
        "Rotated Faster R-CNN"
    ),
    Algorithm("Faster R-CNN", "frcnn"),
    Algorithm("Cascade R-CNN", "fastercascadercnn"),
    Algorithm("Libra R-CNN", "librafasterrcnn"),
    Algorithm("Double-Head R-CNN", "doublehead doubleheads dhfasterrcnn"),
    Algorithm("Mask Scoring R-CNN", "msrcnn"),
    Algorithm("TridentNet", "tridentfasterrcnn"),
    Algorithm("HTC", "hybridtaskcascade"),
    Algorithm("RoI Transformer", "roitrans"),
    # queries
    *_named(
        "Conditional DETR, Deformable DETR, DAB-DETR, DN-DETR, Anchor DETR, RT-DETRv2, DEIM, "
        "DEIMv2, DETA, Table Transformer, OWLv2, OmDet-Turbo, GLIP, MaskFormer, Mask2Former, "
        "Mask DINO, OneFormer"
    ),
    Algorithm("DETR", "detectiontransformer"),
    Algorithm("RT-DETR", "rtdetrdetectionmodel", "l/large x/xlarge"),
    Algorithm("RF-DETR", "", "nano small medium base large"),
    Algorithm("LW-DETR", "", "tiny small medium large xlarge"),
    Algorithm("D-FINE", "", DETR, "HGNetv2"),
    Algorithm("Co-DETR", "codino codeformabledetr"),
    Algorithm("DINO", "dinodetr"),
    Algorithm("Grounding DINO", "mmgroundingdino gdino", "Tiny Base", "Swin-{}"),
    Algorithm("DDQ", "ddqdetr"),
    Algorithm("OWL-ViT", "", "Base Large", "ViT-{}"),
    Algorithm("YOLOS", "", "Tiny/ti Small/s Base/b", "DeiT-{}"),
    Algorithm("EoMT", "eomtdinov3", "Small Base Large", "ViT-{}"),
    # pixels
    *_named(
        "U-Net 3+, TransUNet, Swin-Unet, UNETR, Swin UNETR, SegNet, SegResNet, LinkNet, "
        "MA-Net, DeepLabV1, DeepLabV2, LR-ASPP, Segmenter, SegNeXt, OCRNet, CCNet, DANet, "
        "PSANet, EncNet, EMANet, DNLNet, GCNet, ANN, APCNet, DMNet, ISANet, K-Net, ICNet, "
        "ERFNet, ENet, CGNet, ESPNet, GINet, PP-LiteSeg, Decoupled SegNet, Fast-SCNN, "
        "FastFCN, BiSeNetV2, Panoptic-DeepLab"
    ),
    Algorithm("FCN", "depthwiseseparablefcn"),
    Algorithm("U-Net", "unets5d16"),
    Algorithm("U-Net++", "nestedunet"),
    Algorithm("3D U-Net", "unet3d"),
    Algorithm("Attention U-Net", "attunet"),
    Algorithm("nnU-Net", "nnunetv2"),
    Algorithm("V-Net", whole=True),
    Algorithm("PAN", whole=True),
    Algorithm("PSPNet", "psp"),
    Algorithm("DeepLabV3", "aspphead"),
    Algorithm("DeepLabV3+", "deeplabv3p deeplabv3bplus depthwiseseparableaspphead"),
    Algorithm("UPerNet", "uperhead uper"),
    Algorithm("SegFormer", "", B0_B5, "MiT-{}"),
    Algorithm("SETR", "setrpup setrnaive setrmla"),
    Algorithm("DPT", "", "Base/b Large/l", "ViT-{}"),
    Algorithm("BEiT", "data2vecvision beitbase beitlarge beitb beitl", "Base/b Large/l", "BEiT-{}"),
    Algorithm("Semantic FPN", "fpn semfpn fpnhead", whole=True),
    Algorithm("Non-local Net", "nonlocal"),
    Algorithm("BiSeNetV1", "bisenet"),
    Algorithm("STDC", "stdc1 stdc2"),
    Algorithm("PIDNet", "", "S/small M/medium L/large", "PIDNet-{}"),
    Algorithm("DDRNet", "", "23slim 23", "DDRNet-{}"),
)

OVERRIDES = {
    "RetinaNet": {"SSD"},
    "UPerNet": {"BEiT"},
    "U-Net": {"FCN", "PSPNet", "DeepLabV3"},
    "K-Net": {"FCN", "PSPNet", "DeepLabV3", "UPerNet"},
    **{
        name: {"FCN"}
        for name in ("BiSeNetV1", "BiSeNetV2", "Fast-SCNN", "ICNet", "ERFNet", "CGNet")
    },
}
"""The algorithms that are ignored beside another in one name. Any other two contradict."""


@cache
def algorithms() -> dict[str, Algorithm]:
    """Every algorithm by its normalized spellings."""
    return {
        normalized(spelling): row
        for row in ALGORITHMS
        for spelling in (row.name, *row.aliases.split())
    }


@cache
def scales(name: str) -> dict[str, str]:
    """The backbone of each scale of the algorithm, by the normalized scale."""
    row = algorithms()[normalized(name)]
    return {
        spelling: row.backbone.format(*values)
        for spelling, values in spellings(["{}"], (row.scales,))
    }


def algorithm(text: str) -> str:
    """The one spelling of the algorithm that ``text`` is; "" where it is unknown.

    >>> algorithm("FasterRCNN"), algorithm("unetplusplus"), algorithm("my own")
    ('Faster R-CNN', 'U-Net++', '')
    """
    row = algorithms().get(normalized(text))
    return row.name if row else ""
