"""How batches are read: pairs, longer tuples, mappings by the usual names, adapted ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision import tv_tensors

from boxscore.callbacks.reading.batches import AdaptedReader, BatchReader

IMAGES, MASKS = torch.rand(3, 1, 4, 4), torch.zeros(3, 4, 4).long()
BOXES, LABELS = [torch.tensor([[0.0, 0.0, 2.0, 3.0]])] * 3, [torch.tensor([1])] * 3


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, MASKS),
        [IMAGES, MASKS, ["a.png", "b.png", "c.png"]],
        {"image": IMAGES, "mask": MASKS},
        {"img": IMAGES, "seg": MASKS, "img_meta_dict": {}},
        {"pixel_values": IMAGES, "labels": MASKS},
        {"images": IMAGES, "masks": MASKS},
        {"image": IMAGES, "label": MASKS, "crs": 4326},
    ],
)
def test_the_usual_forms(batch: Any) -> None:
    reader = BatchReader()
    assert reader.images(batch) is IMAGES
    assert reader.targets(batch) is MASKS
    assert reader.count(batch) == 3
    part = reader.part(batch, [0, 2])
    assert reader.count(part) == 2
    assert torch.equal(reader.images(part), IMAGES[[0, 2]])


@pytest.mark.parametrize(
    ("entries", "field"),
    [
        ({"boxes": BOXES, "labels": LABELS}, "boxes"),
        ({"bbox_xyxy": BOXES, "label": LABELS}, "boxes"),
        ({"bboxes": BOXES, "labels": LABELS, "bbox_format": "coco"}, "boxes_xywh"),
        ({"bbox": BOXES, "labels": LABELS, "box_format": "XYXY"}, "boxes"),
        (
            {
                "bboxes": [
                    tv_tensors.BoundingBoxes(b, format="XYWH", canvas_size=(4, 4)) for b in BOXES
                ],
                "labels": LABELS,
            },
            "boxes",
        ),
    ],
)
def test_boxes_of_mappings(entries: dict[str, Any], field: str) -> None:
    batch = {"image": IMAGES, "image_id": [7, 8, 9], **entries}
    targets = BatchReader().targets(batch)
    assert [target["image_id"] for target in targets] == [7, 8, 9]
    assert all(target["labels"] is LABELS[0] and field in target for target in targets)
    assert BatchReader().ids(batch) == [7, 8, 9]


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"bboxes": BOXES, "labels": LABELS}, "boxes 'bboxes' of no known format"),
        ({"bbox": BOXES, "labels": LABELS, "format": "yolo"}, "boxes 'bbox' of no known format"),
        ({"boxes": BOXES}, "no labels beside 'boxes'"),
    ],
)
def test_boxes_of_an_unknown_format_are_refused(entries: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"{problem}; pass batch=lambda"):
        BatchReader().targets({"image": IMAGES, **entries})


def test_an_adapted_batch() -> None:
    reader = AdaptedReader(lambda batch: (batch["data"]["x"], batch["data"]["y"]))
    batch = {"data": {"x": IMAGES, "y": MASKS}}
    assert reader.images(batch) is IMAGES
    assert reader.targets(batch) is MASKS
    part = reader.part(batch, [1])
    assert torch.equal(reader.images(part), IMAGES[[1]])
    assert reader.count(part) == reader.count(reader.part(part, [0])) == 1
    with pytest.raises(ValueError, match=r"batch= returned a Tensor, not \(images, targets\)"):
        AdaptedReader(lambda batch: batch).images(IMAGES)
