"""What Keras models give and take: scores, label maps, and KerasHub's and KerasCV's boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .batches import AdaptedReader, BatchReader
from .keras_losses import array

SCORES, LABELS = ("confidence", "scores", "confidences"), ("classes", "labels", "class_ids")
"""Usual names beside ``boxes``."""

FORMATS = ("xyxy", "yxyx", "xywh", "center_xywh", "rel_xyxy", "rel_yxyx")


class KerasReader(BatchReader):
    """Reads batches whose images are in Keras' data format."""

    def image(self, batch: Any, place: int) -> tuple[Any, tuple[int, int]]:
        """One image (C, H, W), and its height and width."""
        import keras

        image = array(self.images(batch)[place])
        if keras.config.image_data_format() == "channels_last":
            image = np.moveaxis(image, -1, 0)
        return _tensor(image), (image.shape[1], image.shape[2])


class AdaptedKerasReader(KerasReader, AdaptedReader):
    """Reads such batches through a function of the user's."""


def listed(boxes: Mapping[str, Any], form: str, size: tuple[int, int]) -> list[dict[str, Any]]:
    """One mapping an image: ``boxes`` xyxy in pixels, ``labels``, and ``scores`` where there are.

    Args:
        boxes: ``boxes`` (N, M, 4), ``classes`` (N, M) and perhaps ``confidence`` (N, M); rows of
            class -1 are padding.
        form: of `FORMATS`.
        size: (height, width) of the images, in pixels.

    Raises:
        ValueError: for an unknown format, or a mapping without these names.
    """
    names = {
        "boxes": "boxes" if "boxes" in boxes else "",
        "labels": next((name for name in LABELS if name in boxes), ""),
        "scores": next((name for name in SCORES if name in boxes), ""),
    }
    if not (names["boxes"] and names["labels"]):
        raise ValueError(f"a mapping with the names {sorted(boxes)} has no 'boxes' and 'classes'")
    arrays = {name: array(boxes[key]) for name, key in names.items() if key}
    arrays["boxes"] = xyxy(arrays["boxes"].astype(np.float64), form, size).astype(np.float32)
    arrays["labels"] = arrays["labels"].astype(np.int64)
    kept = [labels >= 0 for labels in arrays["labels"]]
    return [{name: a[n][rows] for name, a in arrays.items()} for n, rows in enumerate(kept)]


def xyxy(boxes: Any, form: str, size: tuple[int, int]) -> Any:
    """Boxes (…, 4) of any of `FORMATS` as corners in pixels."""
    if form.lower() not in FORMATS:
        raise ValueError(f"bounding_box_format: {form!r} is none of {', '.join(FORMATS)}")
    form, (height, width) = form.lower(), size
    if form.endswith("yxyx"):
        boxes = boxes[..., [1, 0, 3, 2]]
    if form.startswith("rel_"):
        return boxes * np.array([width, height, width, height])
    if form.endswith("xywh"):
        corner, sides = boxes[..., :2], boxes[..., 2:]
        corner = corner - sides / 2 if form.startswith("center") else corner
        return np.concatenate([corner, corner + sides], -1)
    return boxes


def size(images: Any) -> tuple[int, int]:
    """Height and width of images (N, H, W, C) or (N, C, H, W), as ``keras.config`` says."""
    import keras

    sides = images.shape[1:3] if keras.config.image_data_format() == "channels_last" else None
    height, width = sides or images.shape[2:4]
    return int(height), int(width)


def logits(outputs: Any) -> Any:
    """The scores (N, C, H, W) in an array in Keras' data format, or a mapping of one.

    They stay on the device of a tensor of torch.

    Raises:
        ValueError: for anything else.
    """
    import keras

    if isinstance(outputs, Mapping) and len(outputs) == 1:
        outputs = next(iter(outputs.values()))
    shape = getattr(outputs, "shape", ())
    if len(shape) != 4:
        raise ValueError(
            f"the model's output is a {type(outputs).__name__} of shape {tuple(shape)}, not scores "
            "of 4 axes; pass predict=, a function of (model, batch) that returns losses, "
            "predictions, targets"
        )
    last, scores = keras.config.image_data_format() == "channels_last", _tensor(outputs)
    return scores.movedim(-1, 1).contiguous() if last else scores


def label_maps(masks: Any) -> Any:
    """Integers (N, H, W), of masks that have one channel, or one for each class."""
    import keras

    labels = array(masks)
    if labels.ndim == 4:
        axis = -1 if keras.config.image_data_format() == "channels_last" else 1
        one = labels.shape[axis] == 1
        labels = labels.squeeze(axis) if one else labels.argmax(axis)
    return _tensor(labels.astype(np.int64))


def _tensor(values: Any) -> Any:
    """As semantic metrics take it; arrays of JAX, which cannot be written, are copied."""
    import torch

    if isinstance(values, torch.Tensor):
        return values.detach()
    return torch.from_numpy(np.require(array(values), requirements=["C", "W"]))
