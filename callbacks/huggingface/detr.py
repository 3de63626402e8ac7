"""Detections of models that predict one box per query: the DETR family of Transformers.

Two facts of their image processors decide the frame. Boxes are normalised to the label's ``size``:
that of the padded batch where the processor padded the labels with the images, that of the resized
image where only the images were padded later (``processor.pad`` in a collator). And ``pixel_mask``
holds the resized image's own extent. Predictions are learnt from such labels, so that one scale
takes both back to the original image.

Source: ``resize_annotation``, ``normalize_annotation`` and ``_update_annotation_for_padded_image``
in Transformers' ``models/detr/image_processing_detr.py``, which the other processors copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from boxscore.callbacks.reading.frames import Frame, Size, of_labels, rescaled, resized, size_of
from boxscore.callbacks.reading.predict import ADVICE

LIMITS = {"conditional_detr": 100, "dab-detr": 100, "deformable_detr": 100, "lw_detr": 100}
"""Detections per image where a sigmoid scores each class; elsewhere as many as there are queries.

The default ``top_k`` of the families' processors, by ``config.model_type``.
"""

MASKS = 100
"""Instances per image whose masks are read, the best-scored ones."""


def frames(inputs: Mapping[str, Any]) -> list[Frame]:
    """The frame of each image of a batch, from ``pixel_values``, ``pixel_mask`` and ``labels``."""
    padded, labels = size_of(inputs["pixel_values"].shape[-2:]), inputs["labels"]
    extents: list[Size | None] = [None] * len(labels)
    mask = inputs.get("pixel_mask")
    if mask is not None:
        valid = mask.bool()
        sides = torch.stack([valid.any(2).sum(1), valid.any(1).sum(1)], dim=1)
        extents = [size_of(pair) for pair in sides.tolist()]
    result = []
    for label, extent in zip(labels, extents, strict=True):
        unit = size_of(label.get("size", padded))
        seen = extent or unit
        result.append(Frame(seen, size_of(label.get("orig_size", seen)), unit))
    return result


def read_boxes(
    model: Any,
    inputs: Mapping[str, Any],
    outputs: Any,
    labels: Sequence[int],
    *,
    processor: Any = None,
    masks: bool = False,
) -> tuple[list[dict[str, Tensor]], list[dict[str, Any]]]:
    """Detections and targets of a batch; arguments and errors are those of `read`.

    ``outputs`` hold ``logits`` (N, queries, classes [+ 1]), ``pred_boxes`` (N, queries, 4), and
    for ``masks``, bool (n, H, W) in the original image's size, ``pred_masks`` (N, queries, h, w).
    """
    where = frames(inputs)
    if masks:
        predictions = _with_masks(model, outputs, where, size_of(inputs["pixel_values"].shape[-2:]))
    else:
        detect = _rule_of(processor) or _detections
        predictions = detect(model, outputs, [frame.scale for frame in where])
    predictions = [of_labels(prediction, labels) for prediction in predictions]
    targets = [_target(*pair, masks=masks) for pair in zip(inputs["labels"], where, strict=True)]
    return predictions, targets


def ranked(logits: Tensor, classes: int, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and queries (N, detections), at most ``limit``, of logits (N, queries, C).

    Where C is one more than the model's ``classes``, for "no object", a softmax gives each query
    its best class; else a sigmoid scores each class, and the best pairs of query and class count.

    Raises:
        ValueError: if the logits have neither number of classes.

    Source: ``post_process_object_detection`` of ``DetrImageProcessor`` and
    ``DeformableDetrImageProcessor``.
    """
    count, queries, kinds = logits.shape
    if kinds == classes + 1:
        scores, labels = logits.softmax(-1)[..., :-1].max(-1)
        if queries <= limit:
            return scores, labels, torch.arange(queries).expand(count, queries)
        scores, query = scores.topk(limit)
        return scores, labels.gather(1, query), query
    if kinds != classes:
        raise ValueError(
            f"logits of {kinds} classes from a model that has {classes}, with or without one for "
            f"'no object'; {ADVICE}"
        )
    scores, place = logits.sigmoid().flatten(1).topk(min(limit, queries * kinds))
    return scores, place % kinds, place // kinds


def _detections(
    model: Any, outputs: Any, scales: Sequence[tuple[float, float]]
) -> list[dict[str, Tensor]]:
    """By the families' rules; boxes times each image's scale (height, width)."""
    logits, boxes = _on_cpu(outputs.logits), _on_cpu(outputs.pred_boxes)
    limit = LIMITS.get(model.config.model_type, logits.shape[1])
    return [
        {"scores": score, "labels": label, "boxes": corners(box[query], scale)}
        for score, label, query, box, scale in zip(
            *ranked(logits, model.config.num_labels, limit), boxes, scales, strict=True
        )
    ]


def _rule_of(processor: Any) -> Any:
    """The processor's own rule in the shape of `_detections`, or None."""
    image_processor = getattr(processor, "image_processor", processor)
    rule = getattr(image_processor, "post_process_object_detection", None)
    if rule is None:
        return None

    def process(_: Any, outputs: Any, scales: Sequence[tuple[float, float]]) -> Any:
        tensors = {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
        single = SimpleNamespace(**{name: _on_cpu(value) for name, value in tensors.items()})
        # a score must exceed the threshold, and one of 0 is a detection too
        return rule(single, threshold=-1.0, target_sizes=list(scales))

    return process


def _with_masks(
    model: Any, outputs: Any, where: Sequence[Frame], padded: Size
) -> list[dict[str, Tensor]]:
    """The best-scored detections, of models that predict a box and a mask per query."""
    if not isinstance(getattr(outputs, "pred_masks", None), Tensor):
        raise ValueError(f"{type(outputs).__name__} holds boxes, but no pred_masks; {ADVICE}")
    logits, boxes = _on_cpu(outputs.logits), _on_cpu(outputs.pred_boxes)
    limit = min(MASKS, logits.shape[1])
    ranks = ranked(logits, model.config.num_labels, limit)
    result = []
    for place, (score, label, query) in enumerate(zip(*ranks, strict=True)):
        frame = where[place]
        chosen = outputs.pred_masks[place][query.to(outputs.pred_masks.device)].float()
        result.append(
            {
                "scores": score,
                "labels": label,
                "boxes": corners(boxes[place][query], frame.scale),
                "masks": _original_masks(chosen, frame, padded).cpu(),
            }
        )
    return result


def _original_masks(logits: Tensor, frame: Frame, padded: Size) -> Tensor:
    """Mask logits (n, h, w) of the padded image as bool masks of the original one.

    Source: ``post_process_instance_segmentation`` of ``RfDetrImageProcessor``; with padding, which
    is cut off first, ``post_process_instance`` of DETR.
    """
    if frame.seen != padded:
        logits = resized(logits, padded)[:, : frame.seen[0], : frame.seen[1]]
    return resized(logits, frame.original) > 0


def _target(label: Mapping[str, Any], frame: Frame, *, masks: bool) -> dict[str, Any]:
    """One image's ground truth; processors scale areas by the resize, not by the padding."""
    target: dict[str, Any] = {
        "boxes": corners(torch.as_tensor(label["boxes"]).cpu().reshape(-1, 4), frame.scale),
        "labels": torch.as_tensor(label["class_labels"]).cpu(),
    }
    target |= {key: label[key] for key in ("image_id", "iscrowd") if key in label}
    if "area" in label:
        target["area"] = frame.areas(label["area"])
    if masks:
        if "masks" not in label:
            raise ValueError(
                "labels hold no masks; ask the processor for return_segmentation_masks=True, or "
                + ADVICE
            )
        kept = label["masks"][:, : frame.seen[0], : frame.seen[1]]
        target["masks"] = resized(kept, frame.original, mode="nearest").cpu() > 0.5
    return target


def corners(boxes: Tensor, scale: tuple[float, float]) -> Tensor:
    """Boxes (n, 4), centre and sides, as x1, y1, x2, y2 times the scale (height, width).

    In float64 until the end, so that a resize and back changes a box by far less than 0.01 px.
    """
    centre, half = boxes[:, :2].double(), boxes[:, 2:].double() / 2
    return rescaled(torch.cat([centre - half, centre + half], dim=-1), scale)


def _on_cpu(value: Tensor) -> Tensor:
    """On the CPU, where float64 exists; half precision as float32."""
    value = value.detach().cpu()
    return value.float() if value.is_floating_point() else value
