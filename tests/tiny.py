"""Models and data that train in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

CLASSES = {1: "disc", 2: "square"}


class Backbone(nn.Sequential):
    """One feature map at stride 4, with batch norm for evaluations to disturb."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 32, 3, stride=2, padding=1),
        )


def fcos(size: int = 64) -> FCOS:
    torch.manual_seed(0)
    anchors = AnchorGenerator(((16,),), ((1.0,),))
    return FCOS(
        Backbone(), 3, anchor_generator=anchors, min_size=size, max_size=size, score_thresh=0.0
    )


def two_stage(kind: Any = FasterRCNN, size: int = 64) -> Any:
    torch.manual_seed(0)
    options: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator(((8, 16, 32),), ((1.0,),)),
        "box_roi_pool": MultiScaleRoIAlign(["0"], 5, 2),
        "rpn_post_nms_top_n_train": 20,
        "rpn_post_nms_top_n_test": 10,
        "box_score_thresh": 0.0,
    }
    if kind is MaskRCNN:
        options["mask_roi_pool"] = MultiScaleRoIAlign(["0"], 7, 2)
    return kind(Backbone(), 3, min_size=size, max_size=size, **options)


class Pictures(torch.utils.data.Dataset[tuple[Tensor, dict[str, Any]]]):
    """Squares of noise with one or two bright boxes."""

    def __init__(self, count: int, first: int = 0, size: int = 64, scale: int = 1) -> None:
        self.ids = list(range(first, first + count))
        self.size, self.scale = size, scale

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        generator = torch.Generator().manual_seed(self.ids[index])
        image = torch.rand(3, self.size, self.size, generator=generator) * 0.3
        count = 1 + self.ids[index] % 2
        corner = torch.randint(0, self.size // 2, (count, 2), generator=generator).float()
        side = torch.randint(6, self.size // 2 - 2, (count, 2), generator=generator).float()
        boxes = torch.cat([corner, corner + side], 1)
        masks = torch.zeros(count, self.size, self.size, dtype=torch.bool)
        for n, (left, top, right, bottom) in enumerate(boxes.int().tolist()):
            masks[n, top:bottom, left:right] = True
            image[:, top:bottom, left:right] += 0.5
        target = {
            "boxes": boxes,
            "labels": torch.arange(count) + 1,
            "masks": masks,
            "image_id": torch.tensor(self.ids[index]),
        }
        return self._resized(image, target) if self.scale > 1 else (image, target)

    def _resized(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """As a data set does that resizes: boxes too, and the original size is kept."""
        target["orig_size"] = torch.tensor([self.size, self.size])
        target["boxes"] = target["boxes"] * self.scale
        image = nn.functional.interpolate(image[None], scale_factor=self.scale)[0]
        target["masks"] = target["masks"].repeat_interleave(self.scale, 1)
        target["masks"] = target["masks"].repeat_interleave(self.scale, 2)
        return image, target


def collate(batch: list[Any]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


def loader(count: int, first: int = 0, batch_size: int = 4, **options: Any) -> Any:
    """Batches of `Pictures`; ``shuffle`` and ``generator`` go to the loader."""
    pictures = Pictures(count, first, scale=options.pop("scale", 1))
    return torch.utils.data.DataLoader(
        pictures, batch_size=batch_size, collate_fn=collate, **options
    )


def train_step(model: Any, optimizer: Any, batch: Any) -> dict[str, Tensor]:
    model.train()
    losses: dict[str, Tensor] = model(*batch)
    optimizer.zero_grad()
    sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return losses
