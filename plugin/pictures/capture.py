"""From a batch's tensors to samples: images, boxes, masks and label maps at a picture's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxscore.detection import decode, to_rle

from .samples import LabelMap, Objects, Sample

LONGEST, SHORTEST = 512, 256
"""Pixels of a picture's longer side, at most and at least; smaller images are magnified."""

_OBJECTS = 100  # of one picture, those with the highest scores
_MASKS = 30  # likewise
_QUANTILE = 10_000  # pixels that are looked at for the darkest and the brightest
_STRIDE = 8  # pixels between those that the error of a label map is measured on

Size = tuple[int, int]


Maker = Callable[[int, str, Any, Size], Sample]
"""From an image's place in its batch, id, pixels (C, H, W), and frame to a sample."""


def of_batch(
    metric: Any, predictions: Any, targets: Any, ignore_index: int | None
) -> tuple[Sequence[float], Maker]:
    """The error of each image of a batch, and what makes a sample of one.

    Args:
        metric: has measured the batch last.
        predictions: as it took them.
        targets: likewise.
        ignore_index: of semantic targets, which are one tensor.
    """
    if isinstance(targets, Tensor):

        def of_maps(n: int, image_id: str, image: Any, frame: Size) -> Sample:  # noqa: ARG001
            known: Any = {"target": targets[n], "logits": predictions[n]}
            return sample_of_maps(image_id, errors[n], image, ignore_index=ignore_index, **known)

        errors = map_errors(predictions, targets, ignore_index)
        return errors, of_maps

    def of_objects(n: int, image_id: str, image: Any, frame: Size) -> Sample:
        known: Any = {"target": targets[n], "detection": predictions[n]}
        return sample_of_objects(image_id, errors[n], image, frame=frame, **known)

    known = hasattr(metric, "image_errors")  # a metric of the user's may have none
    errors = metric.image_errors() if known else [0.0] * len(targets)
    return errors, of_objects


def sample_of_objects(
    image_id: str, error: float, image: Any, *, frame: Size, target: Any, detection: Any
) -> Sample:
    """A sample of a detection model.

    Args:
        image_id: as text.
        error: of the prediction.
        image: (C, H, W), without padding.
        frame: height and width of the image that boxes and masks refer to.
        target: ``boxes`` xyxy or ``boxes_xywh``, ``labels``, and ``masks`` where there are.
        detection: the same with ``scores``.
    """
    size = size_of(image)
    if "masks" not in detection:  # those of the truth would hide what is compared
        target = {name: value for name, value in target.items() if name != "masks"}
    truth, prediction = _objects(target, frame, size), _objects(detection, frame, size)
    return Sample(image_id, error, bytes_of(image), size, truth, prediction)


def sample_of_maps(
    image_id: str,
    error: float,
    image: Any,
    *,
    target: Tensor,
    logits: Tensor,
    ignore_index: int | None,
) -> Sample:
    """A sample of a semantic model.

    Args:
        image_id: as text.
        error: of the prediction.
        image: (C, H, W), without padding.
        target: labels (H, W).
        logits: (C, H, W).
        ignore_index: the label that counts nowhere.
    """
    size = size_of(image)
    predicted = _labels(_at_size(logits, size)[None])[0]
    truth: LabelMap = _at_size(target, size).cpu().numpy().astype(np.int64)
    if ignore_index is not None:
        truth[truth == ignore_index] = -1
    found = predicted.cpu().numpy().astype(np.int64)
    return Sample(image_id, error, bytes_of(image), size, truth, found)


def map_errors(logits: Tensor, targets: Tensor, ignore_index: int | None) -> list[float]:
    """The share of wrong pixels of each image, on a grid of pixels.

    Args:
        logits: (N, C, H, W).
        targets: labels (N, H, W).
        ignore_index: the label that counts nowhere.
    """
    grid = targets[:, ::_STRIDE, ::_STRIDE]
    valid = grid >= 0 if ignore_index is None else grid != ignore_index
    wrong = (_labels(logits[:, :, ::_STRIDE, ::_STRIDE]) != grid) & valid
    shares = wrong.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
    return [float(share) for share in shares.tolist()]


def bytes_of(image: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """RGB in bytes, shape (height, width, 3), of an image (C, H, W) however it is normalised.

    Of a large image every n-th pixel is kept. Bytes and values from 0 to 1 stay as they are; of
    others the darkest and the brightest hundredth of each channel become black and white.
    """
    pixels = torch.as_tensor(image).detach()
    stride = max(1, max(pixels.shape[-2:]) // (2 * LONGEST))
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    pixels = pixels[:, ::stride, ::stride].cpu()
    if pixels.dtype != torch.uint8:
        pixels = pixels.float()
        low, high = pixels.aminmax()
        if not (low >= 0 and high <= 1 + 1e-3):
            some = pixels.reshape(3, -1)[:, :: max(1, pixels[0].numel() // _QUANTILE)]
            low, high = (some.quantile(q, dim=1)[:, None, None] for q in (0.01, 0.99))
            pixels = ((pixels - low) / (high - low).clamp(min=1e-6)).nan_to_num()
        pixels = pixels.mul(255).add_(0.5).clamp_(0, 255).byte()
    result: np.ndarray[Any, np.dtype[np.uint8]] = pixels.permute(1, 2, 0).contiguous().numpy()
    return result


def size_of(image: Any) -> Size:
    """Height and width of the picture of an image (C, H, W)."""
    height, width = image.shape[-2:]
    longest = max(height, width)
    scale = min(LONGEST / longest, max(1.0, SHORTEST / longest))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _labels(logits: Tensor) -> Tensor:
    """The predicted labels (N, H, W)."""
    if logits.shape[1] > 1:
        return logits.argmax(1)
    threshold = 0.5 if logits.min() >= 0 and logits.max() <= 1 else 0.0  # probabilities
    return (logits[:, 0] > threshold).long()


def _at_size(maps: Any, size: Size) -> Any:
    """The nearest pixels of maps (…, H, W) for a picture of ``size``."""
    rows, columns = (
        [min(int((n + 0.5) * given / wanted), given - 1) for n in range(wanted)]
        for given, wanted in zip(maps.shape[-2:], size, strict=True)
    )
    return maps[..., rows, :][..., columns]


def _objects(entry: Mapping[str, Any], frame: Size, size: Size) -> Objects:
    labels = _array(entry.get("labels", ())).reshape(-1)
    given, crowd = entry.get("scores"), entry.get("iscrowd")
    scores = np.ones(len(labels)) if given is None else _array(given).reshape(-1)
    crowd = np.zeros(len(labels)) if crowd is None else _array(crowd).reshape(-1)
    best = np.argsort(-scores, kind="stable")[:_OBJECTS]
    masks = entry.get("masks")
    if masks is not None:
        masks = _masks(masks, best[:_MASKS], frame, size) if len(labels) else None
    if masks is not None and "boxes" not in entry and "boxes_xywh" not in entry:
        best = best[:_MASKS]
        boxes = np.array([_extent(mask) for mask in masks])
    else:
        boxes = _boxes(entry, len(labels))[best] * ([size[1] / frame[1], size[0] / frame[0]] * 2)
    return Objects(
        boxes.astype(np.float32),
        labels[best].astype(np.int64),
        scores[best].astype(np.float32),
        crowd[best].astype(bool),
        masks,
    )


def _extent(mask: Any) -> tuple[int, int, int, int]:
    """The box of a mask, which has no pixel where the mask has none."""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 0, 0, 0, 0
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def _boxes(entry: Mapping[str, Any], count: int) -> Any:
    if not count:
        return np.zeros((0, 4))
    if (xywh := entry.get("boxes_xywh")) is not None:
        corner = _array(xywh).reshape(-1, 4)
        return np.concatenate([corner[:, :2], corner[:, :2] + corner[:, 2:]], axis=1)
    boxes = entry["boxes"]
    form = str(getattr(getattr(boxes, "format", None), "value", "XYXY")).upper()
    values = _array(boxes).astype(np.float64).reshape(-1, 4)
    if form in ("XYWH", "CXCYWH"):
        size = values[:, 2:]
        start = values[:, :2] - (size / 2 if form == "CXCYWH" else 0)
        return np.concatenate([start, start + size], axis=1)
    return values


def _masks(masks: Any, places: Any, frame: Size, size: Size) -> Any:
    if hasattr(masks, "shape"):
        planes = masks.reshape(len(masks), *masks.shape[-2:])
        small = _array(_at_size(planes[places.tolist()], size))
        return small >= 0.5 if small.dtype.kind == "f" else small.astype(bool)
    decoded = [decode(to_rle(masks[place], frame)) for place in places.tolist()]
    return np.stack([_at_size(one, size) for one in decoded]).astype(bool)


def _array(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
