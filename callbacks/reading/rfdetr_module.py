"""RF-DETR's Lightning module in a training: its batches, losses, detections and ground truth.

Its criterion and its post-processing are watched, whose forwards hold all that is measured, of the
averaged weights where RF-DETR evaluates these. The ground truth is that of the annotation file, by
the image's id, which no resize has changed and which has the crowd regions that the data set leaves
out; of other data sets, and of YOLO's masks, it is the batch's, taken back to the original size.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from boxscore import Identity, distributed
from boxscore.callbacks.huggingface.detr import corners
from boxscore.identity.backbones import backbone
from boxscore.losses import modes_kept
from boxscore.metric import Classes

from . import lightning_module
from .batches import BatchReader
from .facts import Facts
from .frames import Frame, of_labels, resized, size_of
from .predict import Found, Predict

LONGEST = 1333
"""Of the longer side, in pixels, where RF-DETR keeps the images' aspect ratio."""

MEAN, DEVIATION = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
"""Of each channel, by which RF-DETR normalises images from 0 to 1."""


class Reader(BatchReader):
    """Reads pairs of a `NestedTensor` and the targets, packed or not."""

    def images(self, batch: Any) -> Any:
        """The images (N, C, H, W), padded."""
        return batch[0].tensors

    def targets(self, batch: Any) -> list[dict[str, Tensor]]:
        """The targets of the N images, without rows that fill them up."""
        return [_filled(target) for target in batch[1]]

    def image(self, batch: Any, place: int) -> tuple[Any, tuple[int, int]]:
        """One image (C, H, W) without padding, from 0 to 1, and the size of its original."""
        height, width = size_of(batch[1][place]["size"])
        image = batch[0].tensors[place, :, :height, :width].cpu()
        if len(image) == len(MEAN):
            image = (image * DEVIATION + MEAN).clamp(0, 1)
        return image, size_of(batch[1][place]["orig_size"])

    def part(self, batch: Any, picked: Any) -> Any:
        """The ``picked`` images of the batch with their targets."""
        samples, places = batch[0], list(picked)
        mask = None if samples.mask is None else samples.mask[places]
        return type(samples)(samples.tensors[places], mask), [batch[1][n] for n in places]


def _filled(target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A target less the rows with which ``pad_targets_to`` fills it up."""
    if (valid := target.get("valid")) is None:
        return dict(target)
    names = {"boxes", "labels", "area", "iscrowd", "keypoints", "masks"}
    return {n: v[valid] if n in names else v for n, v in target.items() if n != "valid"}


def facts_of(trainer: Any, module: Any, given: Any) -> Facts:
    """What ``trainer`` and the configurations in ``module`` state; arguments as Lightning's."""
    facts = lightning_module.facts_of(trainer, None, None, given)
    model, train = module.model_config, module.train_config
    side = model.resolution
    size = (side, side) if train.square_resize_div_64 else (side, LONGEST)
    facts.identity = Identity("RF-DETR", size, backbone(model.encoder))
    facts.task = "instance-segmentation" if model.segmentation_head else "detection"
    facts.dataset = Path(train.dataset_dir).name
    loaders = lightning_module.validation_loaders(trainer)
    test = next(iter(loaders.values()), None)
    facts.classes = classes_of(getattr(test or facts.train_loader, "dataset", None))
    facts.train_loader = _plain(facts.train_loader, test)
    if not module.automatic_optimization:
        facts.settings = {**facts.settings, "accumulate": train.grad_accum_steps}
    if distributed.rank() == 0:
        print(f"boxscore: {facts.identity} (from RF-DETR's configuration)", file=sys.stderr)
    return facts


def classes_of(data: Any) -> Classes | None:
    """The names by the labels that the data set gives; None where it holds no categories."""
    data = getattr(data, "_dataset", data)
    if (coco := getattr(data, "coco", None)) is None:
        return getattr(data, "class_names", None)
    table = getattr(data, "cat2label", None)
    labels = {category: category for category in coco.cats} if table is None else table
    return {label: str(coco.cats[category]["name"]) for category, label in labels.items()}


def _plain(loader: Any, test: Any) -> Any:
    """A loader of the train set without augmentation and repeats, where it is read by index."""
    data: Any = getattr(loader, "dataset", None)
    data = getattr(data, "_dataset", data)
    if not _has_annotations(data) or test is None:
        return loader
    plain = copy.copy(data)
    plain._transforms, plain._draft_size = test.dataset._transforms, None
    return DataLoader(
        plain,
        batch_size=loader.batch_size,
        collate_fn=test.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
    )


def _has_annotations(data: Any) -> bool:
    """Whether ``data`` is a set of RF-DETR's own whose images belong to an annotation file."""
    return type(data).__module__.startswith("rfdetr.") and hasattr(data, "coco")


class Watched(lightning_module.Watched):
    """RF-DETR's module; its criterion and its post-processing are watched.

    Attributes:
        train_set: the data set that is measured, while it is the train set; else None.
    """

    train_set: Any = None

    @property
    def hooks(self) -> dict[Any, Callable[..., None]]:
        """The modules to watch, and what takes their forwards."""
        return {self.module.criterion: self._see_losses, self.module.postprocess: self._see_found}

    @property
    def needs_forwards(self) -> bool:
        """Of each batch: the mean of the parts is logged, as that of the objective."""
        return True

    @property
    def own_pass(self) -> Predict:
        """How boxscore measures a batch by itself."""
        return self.measure

    def begin(self, batch: Any) -> None:
        """Keep the forwards of ``batch`` from now on, or with None nothing."""
        super().begin(batch)
        self._found: tuple[Any, Any] | None = None

    def _see_losses(self, criterion: Any, _: Any, __: Any, parts: Any) -> None:
        if criterion.training and self._images is not None:
            with self._run.warnings.catch("reading the losses of a step"):
                self.losses = self._weighted(parts)

    def _see_found(self, _: Any, args: Any, __: Any, found: Any) -> None:
        if self._images is not None and self._found is None:
            self._found = args[0], found

    def _weighted(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parts as they are in the objective, less what is only reported."""
        weights = self.module.criterion.weight_dict
        return {
            name: part.detach() * weights[name] for name, part in parts.items() if name in weights
        }

    def training_losses(self, outputs: Any) -> dict[str, Any]:
        """The objective and its parts, which a keypoint model has not yet divided by the boxes."""
        losses = super().training_losses(outputs)
        if self.module.automatic_optimization or not self.losses:
            return losses
        scale = losses["loss"] / sum(self.losses.values())
        return {"loss": losses["loss"], **{n: part * scale for n, part in self.losses.items()}}

    def _of_forward(self, batch: Any) -> Found:
        """From the forward of the step, or one more.

        The losses are those of this process's images, with the same random numbers each time.
        """
        module, targets = self.module, self._reader.targets(batch)
        if self._found is None or len(self._found[1]) != len(targets):
            outputs = self._evaluated(batch[0])
            sizes = torch.stack([target["orig_size"] for target in targets])
            self._found = outputs, module.postprocess(outputs, sizes)
        outputs, found = self._found
        boxes = max(1, sum(len(target["labels"]) for target in targets))
        devices = range(torch.cuda.device_count())
        with modes_kept(module.criterion), torch.random.fork_rng(devices=devices):
            module.criterion.eval()  # in training it expects each group's outputs
            torch.manual_seed(0)
            losses = self._weighted(module.criterion(outputs, targets, num_boxes=boxes))
        if self._run.task == "instance-segmentation":
            found = self._with_masks(outputs, found, targets)
        labels = list(self._run.names)
        found = [of_labels({n: _single(v) for n, v in one.items()}, labels) for one in found]
        return losses, found, [self._truth(target) for target in targets]

    def _evaluated(self, samples: Any) -> Any:
        """The outputs of the user's model, or else of the one that RF-DETR validates."""
        model = self._options.evaluate_model
        if model is None:
            return self.module._resolve_eval_model()(samples)
        return (model if hasattr(model, "eval") else model())(samples)

    def _with_masks(self, outputs: Any, found: Any, targets: Any) -> Any:
        """The detections with masks (n, H, W) in the original size, whatever RF-DETR measures."""
        postprocess = self.module.postprocess
        if not postprocess.upsample_masks_to_image_size:
            postprocess = copy.copy(postprocess)
            postprocess.upsample_masks_to_image_size = True
            found = postprocess(outputs, torch.stack([t["orig_size"] for t in targets]))
        return [{**one, "masks": one["masks"].squeeze(1)} for one in found]

    def _truth(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """The ground truth of an image, in the frame of the original."""
        has_masks, number = self._run.task == "instance-segmentation", int(target["image_id"])
        truth = _annotated(self._data, number, masks=has_masks)
        return _restored(target, number, masks=has_masks) if truth is None else truth

    @property
    def _data(self) -> Any:
        """The data set of the batch at hand."""
        if self.train_set is not None:
            return self.train_set
        trainer = self.trainer
        loaders = lightning_module.loaders_of(trainer) or lightning_module.validation_loaders(
            trainer
        )
        return getattr(next(iter(loaders.values()), None), "dataset", None)


def _single(value: Any) -> Any:
    """In single precision, which half-precision models leave."""
    return value.float() if value.is_floating_point() else value


def _annotated(data: Any, number: int, *, masks: bool) -> dict[str, Any] | None:
    """The ground truth of image ``number`` as the annotation file holds it; None where it does not.

    Crowd regions belong to it, and annotations of categories without a label do not.
    """
    if not _has_annotations(data) or number not in data.coco.imgs:
        return None
    image, table = data.coco.imgs[number], getattr(data, "cat2label", None)
    labels = {category: category for category in data.coco.cats} if table is None else table
    objects = [a for a in data.coco.imgToAnns.get(number, []) if a["category_id"] in labels]
    boxes = torch.tensor([a["bbox"] for a in objects], dtype=torch.float64).reshape(-1, 4)
    truth: dict[str, Any] = {
        "boxes": torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
        "labels": torch.tensor([labels[a["category_id"]] for a in objects], dtype=torch.long),
        "area": [float(a.get("area", a["bbox"][2] * a["bbox"][3])) for a in objects],
        "iscrowd": [int(a.get("iscrowd", 0)) for a in objects],
        "image_id": number,
        "orig_size": (image["height"], image["width"]),
    }
    if masks:
        truth["masks"] = [a.get("segmentation") for a in objects]
        if not all(truth["masks"]):
            return None
    return truth


def _restored(target: Mapping[str, Any], number: int, *, masks: bool) -> dict[str, Any]:
    """The ground truth of a batch's image, whose boxes are cxcywh in parts of it."""
    frame = Frame(size_of(target["size"]), size_of(target["orig_size"]))
    truth = {
        "boxes": corners(target["boxes"].cpu().reshape(-1, 4), frame.original),
        "labels": target["labels"],
        "area": frame.areas(target["area"]),
        "iscrowd": target["iscrowd"],
        "image_id": number,
    }
    if masks:
        truth["masks"] = resized(target["masks"], frame.original, mode="nearest") > 0
    return truth
