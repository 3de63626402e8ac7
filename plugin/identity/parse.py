"""Reads the name of a model: the longest known spelling wins, and doubt leaves a field empty."""

from __future__ import annotations

import re
from typing import NamedTuple

from .algorithms import OVERRIDES, Algorithm, algorithm, algorithms, normalized, scales, words_of
from .backbones import backbone, backbones

_WORDS = """
    fpn nasfpn bifpn pafpn panfpn fpnlite dc5 c4 neck head backbone caffe gn bn syncbn
    coco mscoco voc pascal ade cityscapes lvis openimages camvid kitti drive imagenet
    tf tensorflow keras torch pytorch torchvision paddle gluon mxnet onnx openvino timm
    smp mmdet mmseg detectron ultralytics hf facebook nvidia microsoft google detectors
    segmentation detection detect det seg segm sem semantic instance panoptic pose obb
    keypoint keypoints ins object objects image model models tiny
    cv my our the a an new best last final baseline default test train training trained
    pretrained pre finetuned finetune scratch run exp experiment v u
"""
PLAIN = set(_WORDS.split())
"""Words that name no algorithm. Any other word right before an algorithm may make another of it
("anchor detr", "attention unet"), as `VARIANTS` after it do: such an algorithm is not read."""

VARIANTS = {"oriented", "rotated", "3d", "face", "lstm"}

SIDE = "(3[2-9]|[4-9][0-9]|[1-9][0-9]{2,3})"
RECTANGLE = re.compile(rf"(?<![0-9x.]){SIDE} ?[x\u00d7] ?{SIDE}(?:x[1-4])?(?:px)?(?![a-z0-9]|.pre)")
"""A height and a width, no volume ("96x96x96"), width of a ResNeXt or size of a pretraining."""

SQUARE = re.compile(
    r"(?<![a-z0-9.])(?:(?:img|imgsz|image|size|input|res|crop) ?)?([1-9][0-9]{1,3})(?![0-9a-oq-z])"
)
RANGE = re.compile(r"\b(?:ms|mstrain|multiscale) [0-9]+ [0-9]+\b")
COUNT = re.compile(r"\b(?:epochs?|ep|iters?|steps?|bs|batch|seed|r) ?[0-9]+")

LIMITS = {"fasterrcnnmobilenetv3large320fpn": "320x640"}  # torchvision states the short limit
FOLDER = re.compile(r"[/\\](?=\S)")
OWN = re.compile(r"(.+?) ([1-9][0-9]{0,4}x[1-9][0-9]{0,4})(?: (.+))?")  # str(Identity(...))
LONGEST = 9  # words in a spelling; "Faster R-CNN" has three

Words = list[tuple[str, bool]]
"""Words and numbers in lower case, each with whether it is glued to the one before."""


class Span(NamedTuple):
    """The words from ``start`` to before ``stop``, and the algorithm or backbone they spell."""

    start: int
    stop: int
    algorithm: Algorithm | None
    backbone: str


def parse(name: str) -> dict[str, str]:
    """The fields of an identity; "" for those that the name leaves open. Never raises."""
    if (own := OWN.fullmatch(name)) and algorithm(own[1]) == own[1]:
        trunk = own[3] or ""
        is_known = trunk in {backbone(trunk), *scales(own[1]).values()}
        if is_known or PLAIN.isdisjoint(re.split(r"[\W_]+", trunk.lower())):  # no remark ("coco")
            return {"algorithm": own[1], "input_size": own[2], "backbone": trunk}
    name = FOLDER.split(name.strip().rstrip("/\\"))[-1] if len(name) <= 1000 else ""
    words = words_of(name)
    spans = _spans(words)
    found = _algorithm(words, spans)
    named = {span.backbone for span in spans} - {""}
    named = named or {_scale(words, s.stop, s.algorithm) for s in spans if s.algorithm} - {""}
    trunk = named.pop() if len(named) == 1 else ""
    if found == "SSD" and trunk.startswith("ResNet-") and ("fpn", False) in words:
        # the Object Detection API's name for RetinaNet, which it has over ResNet V1 alone
        found, trunk = "RetinaNet", f"{trunk.removesuffix(' V1')} V1"
    size = next((LIMITS[text] for text in LIMITS if text in normalized(name)), "")
    if stated := set(RECTANGLE.findall(name.lower())):
        size = "x".join(stated.pop()) if len(stated) == 1 else ""
    elif not size and (found or trunk):
        size = _square(words, spans)
    return {"algorithm": found, "input_size": size, "backbone": trunk}


def _spans(words: Words) -> list[Span]:
    """Known spellings from left to right, each as long as possible, from border to border."""
    spans: list[Span] = []
    for start, (_, is_glued) in enumerate(words):
        if is_glued or (spans and start < spans[-1].stop):
            continue
        for stop in range(min(len(words), start + LONGEST), start, -1):
            text = "".join(text for text, _ in words[start:stop])
            spelled, trunk = algorithms().get(text), backbones().get(text)
            if (spelled or trunk is not None) and _ends(words, stop, spelled):
                spans.append(Span(start, stop, spelled, trunk or ""))
                break
    return spans


def _ends(words: Words, stop: int, spelled: Algorithm | None) -> bool:
    """Whether a spelling may end here, or the word glued to it makes it another ("detr3d")."""
    text, is_glued = words[stop] if stop < len(words) else ("", False)
    if text == "plus" and is_glued:  # a variant, unless it joins two: "FasterRCNN+FPN"
        return any(glued for _, glued in words[stop + 1 : stop + 2])
    if not is_glued or text in PLAIN:
        return True
    is_side = text.isdigit() and len(text) < 5 and _is_side(int(text))
    return spelled is not None and (is_side or _scale(words, stop, spelled) != "")


def _algorithm(words: Words, spans: list[Span]) -> str:
    """The one algorithm that is named; "" where there is none, doubt, or a contradiction."""
    names, last = set(), 0
    for start, stop, spelled, _ in spans:
        # a word of other names ("fpn") is believed alone, or first before a backbone
        leads = start == 0 and (stop == len(words) or any(s.start == stop for s in spans))
        if spelled and (leads or not spelled.whole):
            before = words[start - 1][0] if start > last else "0"
            if before not in PLAIN and not before[0].isdigit():
                return ""
            names.add(spelled.name)
        last = stop
    if spans and not VARIANTS.isdisjoint(text for text, _ in words[spans[0].stop :]):
        return ""
    return next((name for name in names if names - {name} <= OVERRIDES.get(name, set())), "")


def _scale(words: Words, at: int, of: Algorithm) -> str:
    """The backbone by the scale that follows an algorithm, as in "yolo11n", "yolo11-seg-n"."""
    while at < len(words):
        for stop in range(at + 3, at, -1):
            text = "".join(text for text, _ in words[at:stop])
            if text in scales(of.name):
                return scales(of.name)[text]
        if words[at][0] not in PLAIN:
            break
        at += 1
    return ""


def _square(words: Words, spans: list[Span]) -> str:
    """A size given as one number ("ssd512", "img640") or as two limits ("800_1333")."""
    spelled = {at for span in spans for at in range(span.start, span.stop)}
    parts = [" " if at in spelled else " " * (not w[1]) + w[0] for at, w in enumerate(words)]
    rest = COUNT.sub(" ", "".join(parts))
    sides = [side for side in SQUARE.findall(rest) if _is_side(int(side))]
    if RANGE.search(rest):
        return ""
    if len(sides) == 2 and " ".join(sides) in rest:
        return "x".join(sides)
    return f"{sides[0]}x{sides[0]}" if len(set(sides)) == 1 else ""


def _is_side(side: int) -> bool:
    """Whether a number may be a side in pixels: no year, and a multiple of 4 or 8 n + 1."""
    return 96 <= side <= 4096 and side not in range(1990, 2040) and (side % 4 == 0 or side % 8 == 1)
