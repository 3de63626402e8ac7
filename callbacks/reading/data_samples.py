"""OpenMMLab's data samples: predictions and ground truth in the original image's frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from boxscore.catalogue import Task

from .batches import BatchReader
from .frames import Size, rescaled, resized


class SampleReader(BatchReader):
    """Reads batches ``{"inputs": N images, "data_samples": N samples}``, and those of others."""

    def targets(self, batch: Any) -> Any:
        """The ids of the N images, of a batch with data samples; else as they are."""
        if not isinstance(batch, Mapping) or batch.get("data_samples") is None:
            return super().targets(batch)
        return [ids(sample) for sample in batch["data_samples"]]

    def image(self, batch: Any, place: int) -> tuple[Any, tuple[int, int]]:
        """One image without padding, and the original's size; bytes are OpenCV's, blue first."""
        if not isinstance(batch, Mapping) or batch.get("data_samples") is None:
            return super().image(batch, place)
        image, facts = batch["inputs"][place], batch["data_samples"][place].metainfo
        height, width = facts.get("img_shape", image.shape[-2:])[:2]
        original = facts.get("ori_shape", (height, width))[:2]
        if image.dtype == torch.uint8 and len(image) == 3:
            image = image.flip(0)
        return image[..., :height, :width], (int(original[0]), int(original[1]))


def ids(sample: Any) -> dict[str, Any]:
    """The entry ``image_id``, of a sample that has one."""
    found = sample.metainfo.get("img_id", sample.metainfo.get("img_path"))
    return {} if found is None else {"image_id": found}


def task_of(samples: Sequence[Any]) -> Task | None:
    """The task that the ground truth is made for; None where it is of another."""
    if all("gt_sem_seg" in sample for sample in samples):
        return "semantic-segmentation"
    if not all("gt_instances" in sample for sample in samples):
        return None
    masked = any("masks" in sample.gt_instances for sample in samples)
    return "instance-segmentation" if masked else "detection"


def truth_is_resized(data: Any) -> bool | None:
    """Whether a data set resizes its annotations with the image; None where it does not say.

    OpenMMLab's pipelines for tests load them after the resize, as they are in the original image.
    """
    steps = getattr(getattr(data, "pipeline", None), "transforms", ())
    names = [type(step).__name__ for step in steps]
    loading = [n for n, name in enumerate(names) if "Annotations" in name and "Load" in name]
    return any("Resize" in name for name in names[loading[-1] :]) if loading else None


def scale_of(sample: Any) -> tuple[float, float]:
    """Pixels of the model's input per pixel of the original image, down and across."""
    width, height = map(float, list(sample.metainfo.get("scale_factor", (1, 1)))[:2])
    return height, width


def detection(sample: Any) -> dict[str, Any]:
    """One image's predicted instances: ``boxes``, ``scores``, ``labels`` and ``masks``."""
    found = sample.pred_instances
    return {**_instances(found), "scores": found.scores}


def target(sample: Any, *, is_resized: bool) -> dict[str, Any]:
    """One image's instances of ground truth; the ignored ones are crowds."""
    entry = _instances(sample.gt_instances)
    entry["iscrowd"] = torch.zeros(len(entry["labels"]), dtype=torch.int64)
    ignored = sample.get("ignored_instances")
    if ignored is not None and len(ignored):
        crowd = _instances(ignored)
        crowd["iscrowd"] = torch.ones(len(crowd["labels"]), dtype=torch.int64)
        entry = {name: torch.cat([value.cpu(), crowd[name].cpu()]) for name, value in entry.items()}
    if is_resized:
        height, width = scale_of(sample)
        boxes = entry["boxes"].cpu().double()
        entry["boxes"] = rescaled(boxes, (1 / height, 1 / width))
        if "masks" in entry:
            entry["masks"] = resized(entry["masks"], _original(sample), mode="nearest")
    return entry | ids(sample)


def as_input(sample: Any) -> Any:
    """A copy of a sample, its instances of ground truth in the frame of the model's input."""
    copy = sample.clone()
    height, width = scale_of(sample)
    for instances in (copy.get("gt_instances"), copy.get("ignored_instances")):
        if instances is not None and len(instances):
            boxes = _boxes(instances.bboxes)
            scaled = rescaled(boxes.cpu().double(), (height, width)).to(boxes.device)
            if hasattr(instances.bboxes, "tensor"):
                instances.bboxes.tensor = scaled
            else:
                instances.bboxes = scaled
            if "masks" in instances:
                instances.masks = instances.masks.resize(tuple(sample.img_shape[:2]))
    return copy


def logits(sample: Any) -> Tensor:
    """One image's scores (C, H, W) by class.

    Raises:
        ValueError: the sample holds only labels, which give no AP and no loss.
    """
    if "seg_logits" not in sample:
        raise ValueError(
            "the data samples hold pred_sem_seg without seg_logits, which AP, AR and the losses "
            "need; pass predict=, a function of (model, batch) that returns losses, logits, targets"
        )
    return sample.seg_logits.data  # type: ignore[no-any-return]


def label_maps(samples: Sequence[Any]) -> Tensor:
    """The labels (N, H, W) of N images of one size."""
    return torch.stack([sample.gt_sem_seg.data.squeeze(0).long() for sample in samples])


def _original(sample: Any) -> Size:
    height, width = sample.metainfo["ori_shape"][:2]
    return int(height), int(width)


def _instances(found: Any) -> dict[str, Any]:
    entry = {"boxes": _boxes(found.bboxes), "labels": found.labels}
    if "masks" in found:
        masks = found.masks
        masks = masks.to_ndarray() if hasattr(masks, "to_ndarray") else masks
        entry["masks"] = torch.as_tensor(masks).bool()
    return entry


def _boxes(boxes: Any) -> Tensor:
    """Boxes (N, 4) xyxy, also out of MMDetection's own type."""
    return torch.as_tensor(getattr(boxes, "tensor", boxes)).reshape(-1, 4)


def unaltered(batch: Any) -> Any:
    """A batch whose predictions stay in the frame of the model's input, where its truth is."""
    copies = [sample.clone() for sample in batch["data_samples"]]
    for copy in copies:
        copy.set_metainfo({"ori_shape": copy.metainfo["img_shape"], "flip": False})
    return {**batch, "data_samples": copies}


def losses(model: Any, batch: Any, *, is_resized: bool) -> dict[str, Any]:
    """The losses of a batch by name, of a model in eval mode.

    Args:
        model: of MMEngine's conventions.
        batch: as the loader gives it.
        is_resized: whether the ground truth is in the frame of the model's input.
    """
    data = model.data_preprocessor(batch, False)
    samples = data.get("data_samples")
    if not is_resized and samples and task_of(samples) != "semantic-segmentation":
        data = {**data, "data_samples": [as_input(sample) for sample in samples]}
    found = model._run_forward(data, mode="loss")
    return dict(model.parse_losses(found)[1])
