"""The original image's frame: boxes, areas and masks as they were before a resize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Size = tuple[int, int]
"""Height and width, in pixels."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The sizes that lead from an image as the model saw it back to the original.

    Attributes:
        seen: after the resize, without padding.
        original: before the resize.
        unit: of the boxes, in seen pixels; of normalised boxes the size that they refer to.
    """

    seen: Size
    original: Size
    unit: Size = (1, 1)

    @property
    def ratio(self) -> tuple[float, float]:
        """Pixels of the original image per seen pixel, down and across."""
        return self.original[0] / self.seen[0], self.original[1] / self.seen[1]

    @property
    def scale(self) -> tuple[float, float]:
        """The boxes' unit in pixels of the original image, down and across."""
        return self.unit[0] * self.ratio[0], self.unit[1] * self.ratio[1]

    def areas(self, areas: Any) -> Tensor:
        """Areas, in seen pixels, in pixels of the original image."""
        return torch.as_tensor(areas).cpu().double() * (self.ratio[0] * self.ratio[1])


def original_frame(
    detection: Mapping[str, Any], target: Mapping[str, Any], size: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Undo a resize: one image's detections and targets as they are in the original image.

    Args:
        detection: ``boxes`` (N, 4) xyxy in pixels of the resized image, ``masks`` where there are.
        target: the same, with ``orig_size`` (height, width) where the image was resized.
        size: (height, width) of the image that the model saw.
    """
    frame = Frame(size_of(size), size_of(target.get("orig_size", size)))
    if frame.seen == frame.original:
        return dict(detection), dict(target)
    scaled = []
    for objects in (detection, target):
        if "boxes" not in objects:  # an image without objects
            scaled.append(dict(objects))
            continue
        given = _corners(objects["boxes"])
        boxes = rescaled(given.cpu().double().reshape(-1, 4), frame.scale)
        changed: dict[str, Any] = {"boxes": boxes.to(given.device)}
        if "area" in objects:
            changed["area"] = frame.areas(objects["area"])
        if isinstance(masks := objects.get("masks"), Tensor):
            maps = masks.reshape(len(masks), *masks.shape[-2:])
            changed["masks"] = resized(maps, frame.original, mode="nearest")
        scaled.append({**objects, **changed})
    return scaled[0], scaled[1]


def _corners(boxes: Any) -> Tensor:
    """Boxes as xyxy, also where a `BoundingBoxes` names another format."""
    if hasattr(boxes, "format"):
        from torchvision.transforms.v2.functional import convert_bounding_box_format

        boxes = convert_bounding_box_format(boxes, new_format="XYXY")
    return torch.as_tensor(boxes)


def rescaled(boxes: Tensor, scale: tuple[float, float]) -> Tensor:
    """Boxes (n, 4) xyxy times (height, width); float64 in, float32 out."""
    height, width = scale
    return (boxes * torch.tensor([width, height, width, height], dtype=torch.float64)).float()


def resized(maps: Tensor, size: Size, mode: str = "bilinear") -> Tensor:
    """Maps (n, h, w) at another size, in their own type; none at all stay none."""
    if not len(maps):
        return maps.new_zeros((0, *size))
    if tuple(maps.shape[-2:]) == size:
        return maps
    aligned = {"align_corners": False} if mode == "bilinear" else {}
    result = nn.functional.interpolate(maps[None].float(), size=size, mode=mode, **aligned)[0]
    return result.to(maps.dtype)


def of_labels(detection: Mapping[str, Tensor], labels: Sequence[int]) -> dict[str, Tensor]:
    """The detections whose label is one of ``labels``."""
    named = torch.isin(detection["labels"], torch.tensor(labels, device=detection["labels"].device))
    return {k: v[named] if v.shape[:1] == named.shape else v for k, v in detection.items()}


def moved(value: Any, device: torch.device) -> Any:
    """A batch, or a part of it, on ``device``."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    return [moved(item, device) for item in value] if isinstance(value, list) else value


def size_of(sides: Any) -> Size:
    """Height and width out of a tensor, a `torch.Size` or a sequence."""
    height, width = torch.as_tensor(sides).reshape(-1).tolist()
    return int(height), int(width)
