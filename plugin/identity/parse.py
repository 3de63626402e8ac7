"""Reads the name of a model: the longest known spelling wins, and doubt leaves a field empty."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
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
COUNTS = {"epoch", "epochs", "ep", "iter", "iters", "step", "steps", "bs", "batch", "seed", "r"}
SIZES = {"img", "imgsz", "image", "size", "input", "res", "crop"}
RANGES = {"ms", "mstrain", "multiscale"}
"""Words before a number that is no size, may be glued to one, or begins a range of sizes."""

SIDE = "(3[2-9]|[4-9][0-9]|[1-9][0-9]{2,3})"
RECTANGLE = re.compile(rf"(?<![0-9x.]){SIDE} ?[x\u00d7] ?{SIDE}(?:x[1-4])?(?:px)?(?![a-z0-9]|.pre)")
"""A height and a width, no volume ("96x96x96"), width of a ResNeXt or size of a pretraining."""

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
    own = OWN.fullmatch(name)
    if own and algorithm(own[1]) == own[1] and _is_backbone(own[3] or "", own[1]):
        return {"algorithm": own[1], "input_size": own[2], "backbone": own[3] or ""}
    name = FOLDER.split(name.strip().rstrip("/\\"))[-1] if len(name) <= 1000 else ""
    words = words_of(name)
    spans = list(_spans(words))
    found = _algorithm(words, spans)
    named = {span.backbone for span in spans} - {""}
    named = named or {_scale(words, s.stop, s.algorithm) for s in spans if s.algorithm} - {""}
    trunk = named.pop() if len(named) == 1 else ""
    if found == "SSD" and trunk.startswith("ResNet-") and ("fpn", False) in words:
        # the Object Detection API's name for RetinaNet, which it has over ResNet V1 alone
        found, trunk = "RetinaNet", f"{trunk.removesuffix(' V1')} V1"
    size = next((LIMITS[text] for text in LIMITS if text in normalized(name)), "")
    stated = set(RECTANGLE.findall(name.lower()))
    if stated:
        size = "x".join(stated.pop()) if len(stated) == 1 else ""
    elif not size and (found or trunk):
        size = _square(words, spans)
    return {"algorithm": found, "input_size": size, "backbone": trunk}


def _is_backbone(text: str, of: str) -> bool:
    """Whether what follows an own name is a backbone, and no remark ("coco")."""
    known = text in {backbone(text), *scales(of).values()}
    return known or PLAIN.isdisjoint(re.split(r"[\W_]+", text.lower()))


@cache
def _spellings() -> dict[str, tuple[Algorithm | None, str]]:
    known = {**algorithms(), **backbones()}
    return {text: (algorithms().get(text), backbones().get(text, "")) for text in known}


def _joined(words: Words) -> str:
    return "".join(text for text, _ in words)


def _spans(words: Words) -> Iterator[Span]:
    """Known spellings from left to right, each as long as possible, from border to border."""
    start = 0
    while start < len(words):
        for stop in range(min(len(words), start + LONGEST), start, -1):
            found = _spellings().get(_joined(words[start:stop]))
            if found and not words[start][1] and _ends(words, stop, found[0]):
                yield Span(start, stop, *found)
                start = stop - 1
                break
        start += 1


def _ends(words: Words, stop: int, spelled: Algorithm | None = None) -> bool:
    """Whether a spelling may end here, or the word glued to it makes it another ("detr3d")."""
    text, glued = words[stop] if stop < len(words) else ("", False)
    if not glued or text in PLAIN:
        return True
    if text == "plus":  # a variant, unless it joins two: "FasterRCNN+FPN"
        return any(glued for _, glued in words[stop + 1 : stop + 2])
    return spelled is not None and (_is_side(text) or _scale(words, stop, spelled) != "")


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
    if not VARIANTS.isdisjoint(text for text, _ in words[spans[0].stop if spans else 0 :]):
        return ""
    return next((name for name in names if names - {name} <= OVERRIDES.get(name, set())), "")


def _scale(words: Words, at: int, of: Algorithm) -> str:
    """The backbone by the scale that follows an algorithm, as in "yolo11n", "yolo11-seg-n"."""
    known = scales(of.name)
    for start in range(at, len(words)):
        for stop in range(min(len(words), start + 3), start, -1):
            text = _joined(words[start:stop])
            is_size = text.isdigit() and not words[start][1]  # "ssd_512"
            if text in known and not is_size and _ends(words, stop):
                return known[text]
        if words[start][0] not in PLAIN:
            break
    return ""


def _square(words: Words, spans: list[Span]) -> str:
    """A size given as one number ("ssd512", "img640") or as two limits ("800_1333")."""
    places = []
    for at, (text, glued) in enumerate(words):
        before = words[at - 1][0] if at else ""
        begins = not glued or before in SIZES or any(span.stop == at for span in spans)
        ends = at + 1 == len(words) or not words[at + 1][1] or words[at + 1][0] == "px"
        is_spelling = any(span.start <= at < span.stop for span in spans)
        if _is_side(text) and begins and ends and not is_spelling and before not in COUNTS:
            places.append(at)
    sides = [words[at][0] for at in places]
    if len(sides) == 2 and places[1] == places[0] + 1:
        return "x".join(sides) if words[places[0] - 1][0] not in RANGES else ""
    return f"{sides[0]}x{sides[0]}" if len(set(sides)) == 1 else ""


def _is_side(text: str) -> bool:
    """Whether a number may be a side in pixels: no year, and a multiple of 4 or 8 n + 1."""
    side = int(text) if text.isdigit() and text[0] != "0" and len(text) < 5 else 0
    return 96 <= side <= 4096 and side not in range(1990, 2040) and (side % 4 == 0 or side % 8 == 1)
