"""Instances and label maps of models that predict one mask per query: the Mask2Former family.

MaskFormer, Mask2Former, OneFormer and EoMT of Transformers return ``class_queries_logits``
(N, queries, classes + 1), whose last class is "no object", and ``masks_queries_logits``
(N, queries, h, w); their targets are ``mask_labels``, N tensors (n, H, W), and ``class_labels``, N
tensors (n,). Such a batch does not hold the size of the original images: the frame is that of
``mask_labels``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boxscore.callbacks.reading.frames import resized, size_of
from boxscore.callbacks.reading.predict import ADVICE

from .detr import MASKS


def read_instances(
    inputs: Mapping[str, Any], outputs: Any, labels: Sequence[int]
) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Instances and targets of a batch, in pixels of ``mask_labels``; masks are bool (n, H, W).

    An image's 100 best pairs of query and class count, less those whose mask is empty and those of
    classes that are not among ``labels``. A score is the class's probability times the mean
    probability inside the mask.

    Raises:
        ValueError: if the targets do not fit the outputs.

    Source: ``instance_inference`` of Cheng et al., Masked-attention Mask Transformer (2022), which
    Transformers' ``post_process_instance_segmentation`` follows at a fixed 384 x 384.
    """
    truths = _truths(inputs, outputs)
    predictions = [
        _instances(classes, masks, truth.shape[-2:], labels)
        for classes, masks, (truth, _) in zip(
            outputs.class_queries_logits, outputs.masks_queries_logits, truths, strict=True
        )
    ]
    targets = [
        {"masks": masks, "labels": found, "boxes": boxes_of(masks)} for masks, found in truths
    ]
    return predictions, targets


def read_label_maps(
    inputs: Mapping[str, Any], outputs: Any, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """Logits (N, classes, H, W) and label maps (N, H, W), in the size of ``mask_labels``.

    A softmax over the logits gives each class's share of the pixel's scores. A pixel in no mask
    has the label ``ignore_index``, or without one -1, which is no class.

    Raises:
        ValueError: if the targets do not fit the outputs, or are of several sizes.

    Source: ``semantic_inference`` of Cheng et al., Per-Pixel Classification is Not All You Need
    (2021).
    """
    truths = _truths(inputs, outputs)
    sizes = {tuple(masks.shape[-2:]) for masks, _ in truths}
    if len(sizes) > 1:
        raise ValueError(f"mask_labels of sizes {sorted(sizes)} in one batch; {ADVICE}")
    scores = []
    for classes, masks, (truth, _) in zip(
        outputs.class_queries_logits, outputs.masks_queries_logits, truths, strict=True
    ):
        shares = classes.float().softmax(-1)[:, :-1]
        inside = resized(masks.float(), size_of(truth.shape[-2:])).sigmoid()
        scores.append(torch.einsum("qc,qhw->chw", shares, inside))
    summed = torch.stack(scores)
    outside = -1 if ignore_index is None else ignore_index
    maps = torch.stack([_label_map(masks, found, outside) for masks, found in truths])
    return summed.clamp(min=torch.finfo(summed.dtype).tiny).log(), maps


def boxes_of(masks: Tensor) -> Tensor:
    """The boxes (n, 4) around bool masks (n, H, W), x1, y1, x2, y2; of an empty one, all zeros.

    Pixels have an extent: a mask of one pixel has a box of one by one, as in COCO's ``toBbox``.
    """
    sides = []
    for axis in (1, 2):  # along which lie the columns' x, then the rows' y
        filled = masks.any(axis).int()
        if not filled.numel():
            return masks.new_zeros((len(masks), 4), dtype=torch.float32)
        last = filled.shape[1] - filled.flip(1).argmax(1)
        sides.append((filled.argmax(1), last * filled.any(1)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], dim=1).float()


def _instances(
    classes: Tensor, masks: Tensor, size: Sequence[int], labels: Sequence[int]
) -> dict[str, Tensor]:
    """One image's, from class logits (queries, classes + 1) and mask logits (queries, h, w)."""
    probabilities = classes.float().softmax(-1)[:, :-1]
    kinds = probabilities.shape[1]
    scores, place = probabilities.flatten().topk(min(MASKS, probabilities.numel()))
    named = torch.isin(place % kinds, torch.tensor(list(labels), device=place.device))
    scores, place = scores[named], place[named]
    # a query may count with several classes, and its mask is large
    queries, which = torch.unique(place // kinds, return_inverse=True)
    logits = resized(masks[queries].float(), size_of(size))
    inside = logits > 0
    pixels = inside.flatten(1).sum(1)
    quality = (logits.sigmoid() * inside).flatten(1).sum(1) / pixels.clamp(min=1)
    kept = pixels[which] > 0
    which = which[kept]
    return {
        "scores": scores[kept] * quality[which],
        "labels": place[kept] % kinds,
        "masks": inside[which],
        "boxes": boxes_of(inside)[which],
    }


def _truths(inputs: Mapping[str, Any], outputs: Any) -> list[tuple[Tensor, Tensor]]:
    """Each image's bool masks (n, H, W) and labels (n,)."""
    masks, labels = inputs.get("mask_labels"), inputs.get("class_labels")
    count = len(outputs.class_queries_logits)
    if masks is None or labels is None:
        raise ValueError(
            f"a batch with {', '.join(inputs)}, but no mask_labels, class_labels; {ADVICE}"
        )
    if not len(masks) == len(labels) == count:
        raise ValueError(f"mask_labels of {len(masks)} images for outputs of {count}; {ADVICE}")
    device = outputs.class_queries_logits.device
    return [
        (mask.to(device).float() > 0.5, label.to(device).long())
        for mask, label in zip(masks, labels, strict=True)
    ]


def _label_map(masks: Tensor, labels: Tensor, outside: int) -> Tensor:
    if not len(masks):
        return labels.new_full(size_of(masks.shape[-2:]), outside)
    return torch.where(masks.any(0), labels[masks.int().argmax(0)], outside)
