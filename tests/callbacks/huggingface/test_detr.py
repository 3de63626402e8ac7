"""Boxes in the original frame, against the processors' own post-processing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxscore.callbacks.huggingface import read
from boxscore.callbacks.huggingface.detr import frames
from boxscore.callbacks.huggingface.mask2former import boxes_of
from boxscore.detection import DetectionMetrics

tf = pytest.importorskip("transformers")
tiny = pytest.importorskip("tests.tiny_batches")
detr_outputs = pytest.importorskip("transformers.models.detr.modeling_detr")

LABELS = range(3)
NAMES = {0: "disc", 1: "square", 2: "star"}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


PROCESSORS = {
    "detr": "DetrImageProcessor",
    "yolos": "YolosImageProcessor",
    "conditional_detr": "ConditionalDetrImageProcessor",
    "dab_detr": "ConditionalDetrImageProcessor",
    "deformable_detr": "DeformableDetrImageProcessor",
    "lw_detr": "DeformableDetrImageProcessor",
    "rt_detr": "RTDetrImageProcessor",
    "rt_detr_v2": "RTDetrImageProcessor",
    "d_fine": "RTDetrImageProcessor",
    "deimv2": "RTDetrImageProcessor",
    "rf_detr": "RfDetrImageProcessor",
}


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize("name", PROCESSORS)
def test_detections_are_those_of_the_processor(name: str, passed: bool) -> None:
    model, batch, outputs = tiny.evaluated(name)
    sizes = [(48, 96), (200, 100)]
    for label, size in zip(batch["labels"], sizes, strict=True):
        label["orig_size"] = torch.tensor(size)
    processor = getattr(tf, PROCESSORS[name])()
    expected = processor.post_process_object_detection(outputs, 0.0, sizes)
    predictions, targets = read(
        model,
        batch,
        outputs,
        task="detection",
        labels=LABELS,
        processor=processor if passed else None,
    )
    assert len(targets) == len(predictions) == 2
    for found, wanted in zip(predictions, expected, strict=True):
        torch.testing.assert_close(found["scores"], wanted["scores"].detach())
        assert torch.equal(found["labels"], wanted["labels"])
        torch.testing.assert_close(found["boxes"], wanted["boxes"].detach(), rtol=0, atol=1e-3)


def test_detections_of_no_class_are_dropped() -> None:
    model, batch, outputs = tiny.evaluated("rt_detr")
    predictions, _ = read(model, batch, outputs, task="detection", labels=[2])
    assert all((one["labels"] == 2).all() for one in predictions)
    assert any(len(one["labels"]) for one in predictions)


def test_half_precision_is_read_as_single() -> None:
    model, batch, outputs = tiny.evaluated("detr")
    for key in ("logits", "pred_boxes"):
        outputs[key] = outputs[key].bfloat16()
    for processor in (None, tf.DetrImageProcessor()):
        predictions, _ = read(
            model, batch, outputs, task="detection", labels=LABELS, processor=processor
        )
        assert predictions[0]["scores"].dtype == predictions[0]["boxes"].dtype == torch.float32


def annotated(
    sizes: list[tuple[int, int]], boxes: list[list[list[float]]]
) -> tuple[list[Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Images, COCO annotations, and the targets that they mean; an area is 3/4 of the box's."""
    images = [np.full((*size, 3), 90, np.uint8) for size in sizes]
    annotations, targets = [], []
    for image_id, image in enumerate(boxes):
        objects = [
            {
                "bbox": [x, y, width, height],
                "category_id": place % 3,
                "area": width * height * 0.75,
                "iscrowd": 0,
            }
            for place, (x, y, width, height) in enumerate(image)
        ]
        annotations.append({"image_id": image_id, "annotations": objects})
        xywh = torch.tensor(image).reshape(-1, 4)
        targets.append(
            {
                "image_id": image_id,
                "boxes": torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1),
                "labels": torch.arange(len(image)) % 3,
                "area": xywh[:, 2] * xywh[:, 3] * 0.75,
                "iscrowd": torch.zeros(len(image), dtype=torch.long),
            }
        )
    return images, annotations, targets


def perfect(labels: list[Any], queries: int = 8) -> Any:
    """What a DETR would give that knows the answer."""
    logits = torch.full((len(labels), queries, 4), -9.0)
    logits[..., 3] = 9
    boxes = torch.full((len(labels), queries, 4), 0.5)
    for place, label in enumerate(labels):
        for query, kind in enumerate(label["class_labels"].tolist()):
            logits[place, query, 3], logits[place, query, kind] = -9, 9
            boxes[place, query] = label["boxes"][query]
    return detr_outputs.DetrObjectDetectionOutput(logits=logits, pred_boxes=boxes)


SIZES = [(48, 100), (120, 40)]
GROUND_TRUTH = [
    [[4.0, 6.0, 12.0, 20.0], [40.5, 2.25, 55.0, 44.0]],
    [[1.0, 50.0, 38.0, 37.5], [5.0, 5.0, 10.0, 10.0], [0.0, 0.0, 40.0, 120.0]],
]


def padded_late(processor: Any, images: list[Any], annotations: list[Any]) -> dict[str, Any]:
    """As many collators do: the labels know nothing of the padding."""
    pairs = zip(images, annotations, strict=True)
    single = [processor(image, annotation, return_tensors="pt") for image, annotation in pairs]
    sides = [one["pixel_values"].shape[-2:] for one in single]
    height, width = (max(side) for side in zip(*sides, strict=True))
    pixels = torch.zeros(len(single), 3, height, width)
    mask = torch.zeros(len(single), height, width, dtype=torch.long)
    for place, (one, (rows, columns)) in enumerate(zip(single, sides, strict=True)):
        pixels[place, :, :rows, :columns] = one["pixel_values"][0]
        mask[place, :rows, :columns] = 1
    labels = [one["labels"][0] for one in single]
    return {"pixel_values": pixels, "pixel_mask": mask, "labels": labels}


@pytest.mark.parametrize("passed", [True, False])
@pytest.mark.parametrize("collate", [None, padded_late])
@pytest.mark.parametrize(
    "size", [{"shortest_edge": 96, "longest_edge": 160}, {"height": 64, "width": 96}]
)
def test_a_perfect_model_scores_one_in_the_original_frame(
    size: dict[str, int], collate: Callable[..., Any] | None, passed: bool
) -> None:
    processor = tf.DetrImageProcessor(size=size)
    images, annotations, originals = annotated(SIZES, GROUND_TRUTH)
    batch = (
        collate(processor, images, annotations)
        if collate
        else processor(images, annotations, return_tensors="pt")
    )
    model = tiny.built("detr")
    predictions, targets = read(
        model,
        batch,
        perfect(batch["labels"]),
        task="detection",
        labels=LABELS,
        processor=processor if passed else None,
    )
    figures, digests = [], []
    for ground_truth in (targets, originals):
        metrics = DetectionMetrics(NAMES)
        metrics.update(predictions, ground_truth)
        figures.append(metrics.compute())
        digests.append(metrics.evaluated.digest())
    assert digests[0] == digests[1]
    assert figures[0]["box_AP"] == pytest.approx(1)
    assert figures[0] == pytest.approx(figures[1])  # the same objects are small and large
    for found, original in zip(targets, originals, strict=True):
        torch.testing.assert_close(found["boxes"], original["boxes"], rtol=0, atol=1e-3)
        torch.testing.assert_close(found["area"].float(), original["area"], rtol=1e-5, atol=0)
        assert int(found["image_id"]) == original["image_id"]


side = st.integers(12, 60)


@st.composite
def images_with_boxes(draw: Any) -> tuple[list[tuple[int, int]], list[list[list[float]]]]:
    sizes = draw(st.lists(st.tuples(side, side), min_size=1, max_size=3))
    boxes = []
    for height, width in sizes:
        corner = st.tuples(st.integers(0, width - 2), st.integers(0, height - 2))
        boxes.append(
            [
                [x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y))]
                for x, y in draw(st.lists(corner, max_size=3))
            ]
        )
    return sizes, [[[float(v) for v in box] for box in one] for one in boxes]


@settings(max_examples=25, deadline=None)
@given(images_with_boxes(), st.integers(16, 90), st.booleans())
def test_whatever_the_processor_did_is_undone(images_and_boxes: Any, edge: int, late: bool) -> None:
    sizes, boxes = images_and_boxes
    images, annotations, originals = annotated(sizes, boxes)
    processor = tf.DetrImageProcessor(size={"shortest_edge": edge, "longest_edge": 100})
    batch = (
        padded_late(processor, images, annotations)
        if late
        else processor(images, annotations, return_tensors="pt")
    )
    model = tiny.built("detr")
    outputs = perfect(batch["labels"])
    predictions, targets = read(model, batch, outputs, task="detection", labels=LABELS)
    assert [frame.original for frame in frames(batch)] == sizes
    for prediction, target, original in zip(predictions, targets, originals, strict=True):
        count = len(original["labels"])
        assert torch.equal(target["labels"], original["labels"])
        torch.testing.assert_close(target["boxes"], original["boxes"], rtol=0, atol=1e-3)
        torch.testing.assert_close(prediction["boxes"][:count], target["boxes"])
        torch.testing.assert_close(target["area"].float(), original["area"], rtol=1e-5, atol=0)


def test_without_an_original_size_the_frame_is_that_of_the_pixels() -> None:
    model, batch, outputs = tiny.evaluated("detr")
    _, targets = read(model, batch, outputs, task="detection", labels=LABELS)
    expected = [[0.35 * 64, 0.35 * 64, 0.65 * 64, 0.65 * 64], [0.2 * 64, 0.2 * 64, 0.4 * 64, 25.6]]
    torch.testing.assert_close(targets[0]["boxes"], torch.tensor(expected))
    assert targets[0].keys() == {"boxes", "labels"}


# boxes with masks


@pytest.mark.parametrize("name", tiny.BOXES_AND_MASKS)
def test_box_models_give_masks_in_the_original_size(name: str) -> None:
    model, batch, outputs = tiny.evaluated(name)
    for label in batch["labels"]:
        label["orig_size"], label["size"] = torch.tensor([32, 96]), torch.tensor([64, 64])
    task = "instance-segmentation"
    predictions, targets = read(model, batch, outputs, task=task, labels=LABELS)
    assert [tuple(one["masks"].shape) for one in targets] == [(2, 32, 96), (1, 32, 96)]
    for one in predictions:
        assert one["masks"].shape == (len(one["scores"]), 32, 96)
    metrics = DetectionMetrics(NAMES, masks=True)
    metrics.update(predictions, targets)
    for one in targets:
        torch.testing.assert_close(boxes_of(one["masks"]), one["boxes"], rtol=0, atol=1.0)


def test_perfect_masks_of_a_padded_batch_score_one() -> None:
    height, width = 48, 64
    sizes = [(48, 32), (24, 64)]
    masks = torch.zeros(2, 1, height, width)
    masks[0, 0, 5:40, 3:30] = masks[1, 0, 2:20, 9:60] = 1
    labels = [
        {
            "class_labels": torch.tensor([place]),
            "boxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]]),
            "masks": masks[place] > 0,
            "orig_size": torch.tensor(size),
            "size": torch.tensor([height, width]),
        }
        for place, size in enumerate(sizes)
    ]
    mask = torch.zeros(2, height, width, dtype=torch.long)
    for place, (rows, columns) in enumerate(sizes):
        mask[place, :rows, :columns] = 1
    outputs = perfect(labels)
    logits = torch.full((2, 8, height, width), -9.0)
    logits[:, :1] += 18 * masks
    outputs = detr_outputs.DetrSegmentationOutput(**outputs, pred_masks=logits)
    batch = {"pixel_values": torch.zeros(2, 3, height, width), "pixel_mask": mask, "labels": labels}
    model = tiny.built("detr")
    task = "instance-segmentation"
    predictions, targets = read(model, batch, outputs, task=task, labels=LABELS)
    assert [tuple(one["masks"].shape[-2:]) for one in targets] == sizes
    metrics = DetectionMetrics(NAMES, masks=True)
    metrics.update(predictions, targets)
    assert metrics.compute()["mask_AP"] == pytest.approx(1)
