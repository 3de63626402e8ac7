"""Draws a sample: the ground truth on the left, the prediction on the right.

Of boxes, a dashed one is an error: on the left an object that was missed, on the right a false
positive. They are matched by class, the highest score first, at IoU 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .colours import Colour, colour_of
from .samples import LabelMap, Objects, Sample

_BAR, _LINE, _GAP = 18, 16, 6  # pixels: a caption, a line of the legend, between the panels
_DASH = 6  # pixels of a dash, and of the gap after it
_OPACITY = 0.45
_SHOWN = 12  # names in the legend
_PAPER, _INK = (24, 24, 27), (228, 228, 231)

Pixels = NDArray[np.uint8]


def draw(sample: Sample, names: Mapping[int, str], confidence: float = 0.5) -> Image.Image:
    """The picture of a sample.

    Args:
        sample: of an evaluation.
        names: of the classes by label.
        confidence: below which detections are not drawn.
    """
    places = {label: place for place, label in enumerate(names)}
    image = np.asarray(Image.fromarray(sample.image).resize(sample.size[::-1]))
    if isinstance(sample.truth, Objects) and isinstance(sample.prediction, Objects):
        found = _from(confidence, sample.prediction)
        counts, panels = _of_objects(sample.truth, found, image, names)
        captions = f"truth  {sample.image_id}  {counts[0]}", f"from {confidence:.2f}  {counts[1]}"
        return _side_by_side(panels, captions, {})
    assert not isinstance(sample.truth, Objects)
    assert not isinstance(sample.prediction, Objects)
    left = Image.fromarray(_tinted(image, sample.truth, places))
    shown = np.where(sample.truth < 0, -1, sample.prediction)
    right = Image.fromarray(_tinted(image, shown, places))
    counted = np.unique([*np.unique(sample.truth), *np.unique(shown)]).tolist()
    legend = {names[label]: colour_of(places[label]) for label in counted if label in places}
    captions = f"truth  {sample.image_id}", f"prediction  {sample.error:.0%} of pixels wrong"
    return _side_by_side((left, right), captions, legend)


def matched(
    truth: Objects, found: Objects, iou: float = 0.5
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which objects were found, and which detections are of an object.

    Args:
        truth: the objects.
        found: the detections, of falling score.
        iou: that a match needs, of boxes.
    """
    hit = np.zeros(len(truth.labels), bool)
    right = np.zeros(len(found.labels), bool)
    if not len(hit) or not len(right):
        return hit, right
    overlap = _iou(found.boxes, truth.boxes, truth.crowd)
    overlap[found.labels[:, None] != truth.labels[None]] = 0
    for place, row in enumerate(overlap):
        free = np.where(hit & ~truth.crowd, 0, row)
        if free.max() >= iou:
            hit[free.argmax()] = right[place] = True
    return hit | truth.crowd, right


def _iou(boxes: Any, others: Any, crowd: Any) -> Any:
    """The IoU of all pairs; with a crowd region the share of the box that lies in it."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    sides = np.clip(np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner, 0, None)
    shared = sides[..., 0] * sides[..., 1]
    own, area = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, others))
    union = np.where(crowd, own[:, None], own[:, None] + area - shared)
    return shared / np.maximum(union, 1e-9)


def _from(confidence: float, found: Objects) -> Objects:
    """The detections, of falling score, with this confidence or more."""
    count = int((found.scores >= confidence).sum())
    masks = None if found.masks is None else found.masks[:count]
    boxes, labels = found.boxes[:count], found.labels[:count]
    return Objects(boxes, labels, found.scores[:count], found.crowd[:count], masks)


def _of_objects(
    truth: Objects, found: Objects, image: Pixels, names: Mapping[int, str]
) -> tuple[tuple[str, str], list[Image.Image]]:
    """The counts of objects and errors, and the panels."""
    hit, right = matched(truth, found)
    places = {label: place for place, label in enumerate(names)}
    texts = [
        [names.get(label, str(label)) for label in objects.labels.tolist()]
        for objects in (truth, found)
    ]
    left_texts = [t if ok else f"missed: {t}" for t, ok in zip(texts[0], hit, strict=True)]
    right_texts = [
        f"{'' if ok else 'false: '}{text} {score:.2f}"
        for text, ok, score in zip(texts[1], right, found.scores.tolist(), strict=True)
    ]
    panels = [
        _panel(image, objects, lines, solid, places)
        for objects, lines, solid in ((truth, left_texts, hit), (found, right_texts, right))
    ]
    counts = (
        f"missed {int((~hit).sum())} of {len(hit)}",
        f"{int(right.sum())} right, {int((~right).sum())} false",
    )
    return counts, panels


def _panel(
    image: Pixels,
    objects: Objects,
    texts: list[str],
    solid: NDArray[np.bool_],
    places: Mapping[int, int],
) -> Image.Image:
    colours = [colour_of(places.get(label, 0)) for label in objects.labels.tolist()]
    pixels = image.astype(np.float32)
    for mask, colour in zip(objects.masks if objects.masks is not None else (), colours):  # noqa: B905
        pixels[mask] += _OPACITY * (np.array(colour, np.float32) - pixels[mask])
    panel = Image.fromarray(pixels.round().astype(np.uint8))
    pen = ImageDraw.Draw(panel)
    order = range(len(texts) - 1, -1, -1)  # the highest score is on top
    for place in order:
        _rectangle(pen, objects.boxes[place].tolist(), colours[place], dashed=not solid[place])
    for place in order:
        _label(pen, objects.boxes[place].tolist(), texts[place], colours[place], panel.size)
    return panel


def _rectangle(pen: Any, box: list[float], colour: Colour, *, dashed: bool) -> None:
    x1, y1, x2, y2 = box
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    for (ax, ay), (bx, by) in pairwise(corners):
        length = max(abs(bx - ax), abs(by - ay))
        step = 2 * _DASH if dashed else max(length, 1.0)
        for start in np.arange(0, max(length, 1.0), step).tolist():
            end = min(start + (_DASH if dashed else length), length)
            at = [(ax + (bx - ax) * n / max(length, 1e-9), ay + (by - ay) * n / max(length, 1e-9))
                  for n in (start, end)]  # fmt: skip
            pen.line(at, fill=colour, width=2)


def _label(pen: Any, box: list[float], text: str, colour: Colour, size: tuple[int, int]) -> None:
    text, font = _printable(text), _font(11)
    width, height = pen.textlength(text, font=font) + 4, 13
    x = min(max(0.0, box[0]), max(0.0, size[0] - width))
    y = box[1] - height if box[1] >= height else min(box[1], size[1] - height)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 130
    pen.text((x + 2, y), text, fill=(0, 0, 0) if dark else (255, 255, 255), font=font)


def _tinted(image: Pixels, labels: LabelMap, places: Mapping[int, int]) -> Pixels:
    """The image in the colours of its classes; pixels that do not count are dark."""
    shades = np.zeros((*labels.shape, 3), np.float32)
    for label in np.unique(labels).tolist():
        if label in places:
            shades[labels == label] = colour_of(places[label])
    return (image * (1 - 0.6) + shades * 0.6).astype(np.uint8)


def _side_by_side(
    panels: Sequence[Image.Image], captions: tuple[str, str], legend: Mapping[str, Colour]
) -> Image.Image:
    width, height = panels[0].size
    widest = max(width, 200)
    per_line = max(1, (2 * widest + _GAP) // 130)
    shown = list(legend.items())[:_SHOWN]
    lines = -(-len(shown) // per_line)
    sheet = Image.new("RGB", (2 * widest + _GAP, _BAR + height + lines * _LINE), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        x = place * (widest + _GAP)
        sheet.paste(panel, (x, _BAR))
        pen.text((x + 2, 2), _fitting(pen, _printable(caption), widest), fill=_INK, font=_font(12))
        if not place:  # a long caption ends at the panel's edge
            pen.rectangle((widest, 0, widest + _GAP, _BAR), fill=_PAPER)
    for number, (name, colour) in enumerate(shown):
        x, y = number % per_line * 130 + 2, _BAR + height + number // per_line * _LINE + 2
        pen.rectangle((x, y + 1, x + 10, y + 11), fill=colour)
        pen.text((x + 15, y - 1), _fitting(pen, _printable(name), 112), fill=_INK, font=_font(12))
    return sheet


def _fitting(pen: Any, text: str, width: float) -> str:
    while text and pen.textlength(text, font=_font(12)) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text


def _printable(text: str) -> str:
    """Text of one line, of at most 60 characters."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= 60 else f"{clean[:59]}…"


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
