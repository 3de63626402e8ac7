"""What the name of a model says.

The longest known spelling wins; doubt leaves a field empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from .algorithms import MEANT, algorithms, key, scales, spelled
from .backbones import backbone, backbones

PLAIN = set(
    " ".join(
        (
            "fpn nasfpn bifpn pafpn panfpn fpnlite dc5 c4 neck head backbone caffe gn bn syncbn",
            "coco mscoco voc pascal ade cityscapes lvis openimages camvid kitti drive imagenet",
            "tf tensorflow keras torch pytorch torchvision paddle gluon mxnet onnx openvino timm",
            "smp mmdet mmseg detectron ultralytics hf facebook nvidia microsoft google detectors",
            "segmentation detection detect det seg segm sem semantic instance panoptic pose obb",
            "keypoint keypoints ins object objects image model models tiny",
            "cv my our the a an new best last final baseline default test train training trained",
            "pretrained pre finetuned finetune scratch run exp experiment v u",
        )
    ).split()
)
"""Words that say nothing of the algorithm. Any other word right before an algorithm may name a kin
of it ("anchor detr", "attention unet"): there a name is left unsure."""

OTHER = {
    "world": {"YOLOv8": "YOLO-World"},
    "worldv": {"YOLOv8": "YOLO-World"},
    "rotated": {"RetinaNet": "Rotated RetinaNet", "FCOS": "Rotated FCOS"},
    **{word: {} for word in ("oriented", "3d", "face", "lstm")},
}
"""Words after an algorithm that make another of it ("yolov8s-world"), and which, where known."""

NO_SIZE = {"epoch", "epochs", "ep", "iter", "iters", "step", "steps", "bs", "batch", "seed", "r"}
"""Words before a number that is no size."""

SIZE = {"img", "imgsz", "image", "size", "input", "res", "crop"}
"""Words that a size may be glued to."""

LONGEST = 9
"""Words in a spelling; "Faster R-CNN" has three."""

SIDES = range(32, 10_000)
"""Pixels of a side where two are given: below it "8x8" is a batch and "32x4d" a ResNeXt."""

SQUARES = range(96, 4097)
"""Pixels where one number is given."""

YEARS = range(1990, 2040)

FOLDER = re.compile(r"[/\\](?=\S)")

OWN = re.compile(r"(.+?) ([1-9][0-9]{0,4}x[1-9][0-9]{0,4})(?: (.+))?")
"""The layout of ``str(Identity(...))``."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word or number; ``glued`` where nothing stands between it and the one before."""

    text: str
    glued: bool = False

    @property
    def number(self) -> int:
        """Its value; 0 where it is no whole number, begins with 0 or is too long for pixels."""
        plain = self.text.isdigit() and len(self.text) < 5 and self.text[0] != "0"
        return int(self.text) if plain else 0


Words = list[Word]


@dataclass(frozen=True, slots=True)
class Span:
    """The words from ``start`` to before ``stop``, and the key that they spell."""

    start: int
    stop: int
    key: str

    def within(self, others: list[Span]) -> bool:
        """Whether it is a part of a longer one."""
        return any(
            other.start <= self.start and self.stop <= other.stop
            for other in others
            if (other.start, other.stop) != (self.start, self.stop)
        )


def parse(name: str) -> dict[str, str]:
    """The fields of an identity; "" where the name does not say, or not clearly. Never raises."""
    own = OWN.fullmatch(name)
    if own and _is_own(own[1], own[3] or ""):
        return {"algorithm": own[1], "input_size": own[2], "backbone": own[3] or ""}
    if len(name) > 1000:  # a text, no name; reading it would take long
        name = ""
    words = split(FOLDER.split(name.strip().rstrip("/\\"))[-1])
    trunks = list(_spelled(words, backbones(), _nothing_follows))
    families = [
        span
        for span in _spelled(words, algorithms(), _size_or_scale_follows)
        if not algorithms()[span.key].whole or _leads(span, words, trunks)
    ]
    algorithm, trunk = _algorithm(words, families, trunks), _trunk(words, families, trunks)
    if algorithm == "SSD" and trunk.startswith("ResNet-") and Word("fpn") in words:
        # the Object Detection API's own word for RetinaNet, which it has over ResNet V1 alone
        algorithm, trunk = "RetinaNet", f"{trunk.removesuffix(' V1')} V1"
    return {
        "algorithm": algorithm,
        "input_size": _rectangle(words)
        or (_square(words, [*families, *trunks]) if algorithm or trunk else ""),
        "backbone": trunk,
    }


def split(name: str) -> Words:
    """The words and numbers of a name, in lower case.

    >>> [word.text for word in split("FasterRCNN_ResNet50-640")]
    ['fasterrcnn', 'resnet', '50', '640']
    """
    return [Word(text, glued) for text, glued in spelled(name)]


def _is_own(head: str, tail: str) -> bool:
    """Whether ``head`` is an algorithm's one spelling and ``tail`` no mere remark ("coco")."""
    family = algorithms().get(key(head))
    if family is None or family.name != head or tail != " ".join(tail.split()):
        return False
    known = {backbone(tail), *scales(head).values()}
    return tail in known or PLAIN.isdisjoint(re.split(r"[\W_]+", tail.lower()))


def _spelled(
    words: Words, known: Container[str], may_follow: Callable[[Words, Span], bool]
) -> Iterator[Span]:
    """Known spellings from left to right, each as long as possible, none out of a glued word."""
    start = 0
    while start < len(words):
        longest = start + 1
        for stop in range(min(len(words), start + LONGEST), start, -1):
            span = Span(start, stop, _joined(words, start, stop))
            if span.key in known and not words[start].glued and _ends(words, span, may_follow):
                yield span
                longest = stop
                break
        start = longest


def _ends(words: Words, span: Span, may_follow: Callable[[Words, Span], bool]) -> bool:
    """Whether a spelling may end there, or what is glued to it makes it another ("detr3d")."""
    after = words[span.stop : span.stop + 2]
    if not after or not after[0].glued or after[0].text in PLAIN:
        return True
    if after[0].text == "plus":  # a variant, unless it joins two: "FasterRCNN+FPN"
        return len(after) == 2 and after[1].glued
    return may_follow(words, span)


def _size_or_scale_follows(words: Words, span: Span) -> bool:
    """As in "ssd512", "yolo11n"."""
    return words[span.stop].number in SQUARES or bool(_scale(words, span))


def _nothing_follows(words: Words, span: Span) -> bool:  # noqa: ARG001
    return False


def _algorithm(words: Words, families: list[Span], trunks: list[Span]) -> str:
    """The one algorithm that is named; "" where there is none, doubt, or a contradiction."""
    if not all(_begins(words, span.start, [*families, *trunks]) for span in families):
        return ""
    # a word of the backbone's name is no second algorithm: "upernet_beit-base"
    apart = [span for span in families if not span.within(trunks)]
    name = _meant(families) or _meant(apart)
    for at in range(families[0].stop if families else 0, len(words)):
        turned = OTHER.get(words[at].text, OTHER.get(_joined(words, at, at + 2)))
        if turned is not None:
            return turned.get(name, "")
    return name


def _meant(families: list[Span]) -> str:
    """The one algorithm of these, or the one that is meant beside the others."""
    names = {algorithms()[span.key].name for span in families}
    return next((name for name in names if names - {name} <= MEANT.get(name, set())), "")


def _leads(span: Span, words: Words, trunks: list[Span]) -> bool:
    """Whether a common word stands as an algorithm does: alone, or first before a backbone."""
    alone = span.stop - span.start == len(words)
    return alone or (span.start == 0 and any(trunk.start == span.stop for trunk in trunks))


def _begins(words: Words, start: int, known: list[Span]) -> bool:
    """Whether what stands before an algorithm leaves it what it is, as "anchor detr" does not."""
    before = start - 1
    if before < 0 or any(span.start <= before < span.stop for span in known):
        return True
    text = words[before].text
    counted = words[before].glued and words[before - 1].text[0].isdigit()  # "2x", "20e"
    return text[0].isdigit() or text in PLAIN or (counted and text != "d")


def _trunk(words: Words, families: list[Span], trunks: list[Span]) -> str:
    """The one backbone that is named, else what the algorithm's scale says; "" where in doubt."""
    names = {backbones()[span.key] for span in trunks if not span.within(families)} - {""}
    if len(names) == 1:
        return names.pop()
    scaled = {_scale(words, span) for span in families}
    return scaled.pop() if not names and len(scaled) == 1 else ""


def _scale(words: Words, span: Span) -> str:
    """The backbone by the scale that follows an algorithm, as in "yolo11n", "yolo11-seg-n"."""
    known = scales(algorithms()[span.key].name)
    start = span.stop
    while start < len(words):
        for stop in range(min(len(words), start + 3), start, -1):
            scale = Span(start, stop, _joined(words, start, stop))
            alone = scale.key.isdigit() and not words[start].glued  # "ssd_512" states a size only
            if scale.key in known and not alone and _ends(words, scale, _nothing_follows):
                return known[scale.key]
        if words[start].text not in PLAIN:
            break
        start += 1
    return ""


def _rectangle(words: Words) -> str:
    """A size given as "512x1024" or "512-1024"; "" where there is none, or several."""
    found = set()
    for at, word in enumerate(words):
        after = words[at + 1 : at + 5]
        by = len(after) > 1 and after[0].text == "x" and word.number in SIDES
        if at > 1 and words[at - 1].text == "x" and words[at - 2].number in SIDES:
            continue
        if by and after[1].number in SIDES:
            if _ends_size(after[2:]):
                found.add((word.number, after[1].number))
        elif _is_square(words, at) and _is_square(words, at + 1):
            before = words[at - 1].text if at else ""
            if before not in {"ms", "mstrain", "multiscale"}:  # there they are the limits of many
                found.add((word.number, words[at + 1].number))
    return "{}x{}".format(*found.pop()) if len(found) == 1 else ""


def _ends_size(rest: Words) -> bool:
    """Whether two numbers are all: no "32x48d", no volume, no size of the pretraining."""
    if rest and rest[0].text == "x" and rest[0].glued:
        return len(rest) > 1 and rest[1].number not in SIDES  # "640x640x3"
    return not rest or rest[0].text == "px" or not (rest[0].glued or rest[0].text == "pre")


def _square(words: Words, spans: list[Span]) -> str:
    """A size given as one number, "ssd512", "img640"; "" where there is none, or several."""
    found = set()
    for at, word in enumerate(words):
        covered = any(span.start <= at < span.stop for span in spans)
        follows = any(span.stop == at for span in spans)
        if not covered and _is_square(words, at, glued=follows):
            found.add(word.number)
    side = found.pop() if len(found) == 1 else ""
    return f"{side}x{side}" if side else ""


def _is_square(words: Words, at: int, glued: bool = False) -> bool:
    """Whether the word is a number that may be a side: no year, count or part of a word."""
    if at >= len(words):
        return False
    word, before = words[at], words[at - 1].text if at else ""
    if word.number not in SQUARES or word.number in YEARS or before in NO_SIZE:
        return False
    if word.number % 4 and word.number % 8 != 1:  # networks halve it, or halve all but one
        return False
    after = words[at + 1] if at + 1 < len(words) else Word("")
    named = before in SIZE
    return (not word.glued or glued or named) and (not after.glued or after.text == "px")


def _joined(words: Words, start: int, stop: int) -> str:
    return "".join(word.text for word in words[start:stop])
