"""What an Ultralytics trainer and its validator say: losses, predictions, ground truth, facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from ultralytics.nn.modules.head import Segment26
from ultralytics.nn.tasks import RTDETRDetectionModel
from ultralytics.utils import RANK, ops
from ultralytics.utils.patches import override_configs
from ultralytics.utils.torch_utils import autocast, unwrap_model

from boxscore import Run, distributed
from boxscore.callbacks.options import Options
from boxscore.callbacks.sharding import random_numbers_kept
from boxscore.catalogue import Task
from boxscore.identity.models import Reading

from .batches import BatchReader
from .data_info import paths
from .facts import Facts
from .predict import Found, Predict, main_output

TASKS: dict[str, Task] = {
    "detect": "detection",
    "segment": "instance-segmentation",
    "semantic": "semantic-segmentation",
}
"""By Ultralytics' own name; of other tasks the user names one, ``task="detection"`` for poses."""

TRAINED_ONLY = ("aux_loss", "sem_loss", "dis_loss")
"""Losses of heads and of a teacher, which give nothing in eval mode."""

DIFFERENCE = (
    "box_AP and mask_AP are COCO's, in the original image: boxes clipped to it, the 100 best of a "
    "class, the mean precision at 101 recalls. Ultralytics' own mAP of the same predictions "
    "(conf={conf:g}, max_det={max_det}), progress/ultralytics_…, leaves boxes unclipped and masks "
    "at a quarter of the resized image, interpolates between recalls, and rounds"
)

ROOM = 2**24
"""Pixels of masks that are resized at once."""


class Reader(BatchReader):
    """Reads Ultralytics' batches, whose boxes are those of all images together."""

    def images(self, batch: Any) -> Any:
        """The images, a tensor (N, 3, H, W)."""
        return batch["img"]

    def targets(self, batch: Any) -> None:
        """None: in training they are those of augmented images."""

    def image(self, batch: Any, place: int) -> tuple[Any, tuple[int, int]]:
        """One image without the letterbox, and its original size; label maps keep the letterbox."""
        image = batch["img"][place]
        if "semantic_mask" in batch:
            return image, tuple(image.shape[-2:])
        height, width = batch["ori_shape"][place]
        (down, across), (left, top) = batch["ratio_pad"][place]
        rows, columns = round(height * down), round(width * across)
        return image[:, top : top + rows, left : left + columns], (height, width)


def facts_of(trainer: Any, loaders: Any) -> Facts:
    """What ``trainer`` states, once it is set up.

    Args:
        trainer: Ultralytics'.
        loaders: of the test set.
    """
    args, names = trainer.args, dict(trainer.data["names"])
    if args.task == "semantic" and len(names) == 1:
        names = {0: "background", 1: next(iter(names.values()))}
    return Facts(
        task=TASKS.get(args.task),
        classes=names,
        dataset=Path(str(args.data)).stem,
        size=Reading(f"{args.imgsz}x{args.imgsz}", "imgsz"),
        loaders=loaders,
        train_loader=trainer.train_loader,
        settings={
            "accumulate": trainer.accumulate,
            "precision": "bf16" if args.amp == "bf16" else "fp16" if trainer.amp else "32",
            "epochs": trainer.epochs,
        },
        evaluates=True,
    )


def other_trackers(trainer: Any, options: Options) -> Iterator[str]:
    """A text for each tracker to which Ultralytics logs by itself, beside boxscore."""
    modules = {
        getattr(c, "__module__", "") for listed in trainer.callbacks.values() for c in listed
    }
    for name, is_ours in {"MLflow": options.tracking_uri is not False, "TensorBoard": True}.items():
        setting = name.lower()
        if (
            is_ours
            and options.loggers is None
            and f"ultralytics.utils.callbacks.{setting}" in modules
        ):
            yield (
                f"Ultralytics logs to {name} too, a run of its own over epochs; to turn that off: "
                f"yolo settings {setting}=False"
            )


def remarks(network: Any) -> Iterator[str]:
    """What a person would otherwise miss in the losses of ``network``."""
    head = network.model[-1]
    if getattr(head, "one2one_cv2", None) is not None:
        yield (
            "end-to-end head: the parts are those of its one-to-one branch, as Ultralytics prints "
            "them; total is the objective, and `other` what this has of the one-to-many branch"
        )
    elif isinstance(network, RTDETRDetectionModel):
        yield (
            "RT-DETR: the parts are those of the last layer; `other` holds the other layers and, "
            "of the train split alone, denoising"
        )
    if getattr(head, "aux_head", None) is not None or isinstance(head, Segment26):
        yield "the total of the train split holds an auxiliary loss that the test set lacks"


def losses_of(
    trainer: Any, loss: torch.Tensor, items: Mapping[str, Any], images: int, *, shares: int = 1
) -> dict[str, Any]:
    """The parts of a loss, and the objective as ``loss``, by image.

    YOLO's objective is multiplied by the number of images, RT-DETR's is not. Of an end-to-end head
    the parts are those of the one-to-one branch, of RT-DETR those of the last layer.

    Args:
        trainer: Ultralytics'.
        loss: the objective, or its summands.
        items: its parts, with gains.
        images: of the batch.
        shares: by how many processes the trainer multiplied ``loss``.
    """
    of_images = 1 if isinstance(unwrap_model(trainer.model), RTDETRDetectionModel) else images
    return {**items, "loss": loss.detach().sum() / (of_images * shares)}


def train_losses(trainer: Any, images: int) -> dict[str, Any]:
    """Those of the trainer's last batch, of so many ``images``."""
    shares = trainer.world_size if RANK != -1 else 1
    return losses_of(trainer, trainer.loss, trainer.loss_items, images, shares=shares)


def plain_loader(trainer: Any, path: Any, loader: Any) -> Any:
    """A loader of the images of ``loader`` as they are tested, that may be read in any order.

    Args:
        trainer: Ultralytics'.
        path: of the images, as in ``trainer.data``.
        loader: the trainer's, which augments, or sorts the images into rectangles.
    """
    with random_numbers_kept(), override_configs(trainer.args, {"cache": False}):
        data = trainer.build_dataset(path, "val", loader.batch_size)
    data.rect = False
    known, files = set(paths(loader.dataset)), paths(data)
    picked = [index for index, file in enumerate(files) if file in known]
    chosen: Any = data if len(picked) in (0, len(files)) else Subset(data, picked)
    chosen.ids = [image_name(trainer, file) for file in paths(chosen)]  # of any order
    return DataLoader(
        chosen, loader.batch_size, num_workers=loader.num_workers, collate_fn=data.collate_fn
    )


def image_name(trainer: Any, file: str) -> str:
    """An image's file in the folder of the data set, which may be elsewhere in another run."""
    path, root = Path(file), Path(str(trainer.data.get("path", "")))
    known = path.relative_to(root) if path.is_relative_to(root) else Path(*path.parts[-2:])
    return known.as_posix()


def own_metrics(validator: Any) -> dict[str, float]:
    """Ultralytics' own metrics, such as ``box_mAP50``."""
    kinds = {"(B)": "box_", "(M)": "mask_", "(P)": "pose_"}
    named = {}
    for name, value in validator.metrics.results_dict.items():
        kind = name[-3:] if name[-3:] in kinds else ""
        if name.startswith("metrics/"):
            short = name.removeprefix("metrics/").removesuffix(kind)
            named[f"{kinds.get(kind, '')}{short}"] = float(value)
    return named


def two_classes(logits: torch.Tensor) -> torch.Tensor:
    """Logits (N, C, H, W); of one class (N, 1, H, W) those of the background and of it."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


class Detection(Mapping[str, Any]):
    """The detections of an image, whose masks are made whenever they are read."""

    def __init__(self, fields: Mapping[str, Any], masks: Callable[[], torch.Tensor]) -> None:
        self._fields, self._masks = fields, masks

    def __getitem__(self, name: str) -> Any:
        return self._masks() if name == "masks" else self._fields[name]

    def __contains__(self, name: object) -> bool:
        return name == "masks" or name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter((*self._fields, "masks"))

    def __len__(self) -> int:
        return len(self._fields) + 1


class Validation:
    """From the batches of a validator to what is measured, in the frame of the original images.

    Args:
        trainer: Ultralytics', set up.
        run: of its training.
        predict: the user's, instead of the validator's predictions.
    """

    def __init__(self, trainer: Any, run: Run, predict: Predict | None) -> None:
        network: Any = unwrap_model(trainer.model)
        self.network = getattr(network, "student_model", network)  # in a distillation
        self.is_semantic = run.task == "semantic-segmentation"
        self._trainer, self._run, self._predict = trainer, run, predict
        self._has_masks = run.task == "instance-segmentation"
        self._own: Any = None  # a validator for passes that are not the trainer's
        self._outputs: Any = None  # of the model for the batch at hand
        self._instances: list[tuple[Any, ...]] = []  # its prototypes, coefficients, boxes by image
        self._labels: dict[str, Any] = {}  # by file

    @contextmanager
    def own_pass(self, model: Any) -> Iterator[None]:
        """A pass of boxscore's own over a set, with the settings of the trainer's validation."""
        own = self._own = self._own or self._trainer.get_validator()
        own.device, own.data = self._trainer.device, self._trainer.data
        own.args.quantize = self._precision
        own.args.plots = own.args.save_json = own.args.save_txt = False
        head = getattr(model, "end2end", None)
        try:
            if head is not None:
                model.end2end = own.args.nms is False
            own.init_metrics(model)
            distributed.copy_from_rank0(model.buffers())  # as the trainer does before its own
            yield
        finally:
            if head is not None:
                model.end2end = head

    def predict(self, model: Any, batch: Any) -> Found:
        """Losses, predictions and targets of a batch as the loader gives it."""
        batch = self._own.preprocess(dict(batch))
        with self._autocast():
            outputs = model(batch["img"])
        found = self.see(self._own, self._own.postprocess, outputs)
        return self.found(found, batch, model)

    def see(self, validator: Any, postprocess: Callable[[Any], Any], outputs: Any) -> Any:
        """Call a validator's ``postprocess``, and keep what it discards.

        Returns:
            its predictions.
        """
        self._outputs, self._instances = outputs, []
        make_masks = getattr(validator, "process", None)
        if make_masks is ops.process_mask:
            validator.process = partial(self._keep, make_masks)
        try:
            return postprocess(outputs)
        finally:
            if make_masks is not None:
                validator.process = make_masks

    def found(self, predictions: Any, batch: Any, model: Any = None) -> Found:
        """Losses, predictions and targets of a batch that went through `see`."""
        model = self._trainer.ema.ema if model is None else model
        if self._predict is not None:
            return self._predict(model, batch)
        losses = self._losses(model, batch)
        if self.is_semantic:
            outputs = self._outputs
            logits = outputs[0] if isinstance(outputs, list | tuple) else outputs
            masks = batch["semantic_mask"]
            logits = main_output(two_classes(logits.float()), masks)
            return losses, logits, masks.long()
        images = range(len(batch["img"]))
        detections = [self._detection(predictions[n], batch, n) for n in images]
        return losses, detections, [self._target(batch, n) for n in images]

    def _losses(self, model: Any, batch: Any) -> dict[str, Any]:
        """The test losses of a batch, weighted as the training weighs them now."""
        with self._run.warnings.catch("test losses"), self._autocast():
            criterion = self.network.criterion
            if hasattr(criterion, "one2one"):  # the average's own keeps the branches' first weights
                loss, items = criterion(self._outputs, batch)
            else:
                loss, items = model.loss(batch, self._outputs)
            items = {name: value for name, value in items.items() if name not in TRAINED_ONLY}
            return losses_of(self._trainer, loss, items, len(batch["img"]))
        return {}

    def _detection(self, found: Mapping[str, Any], batch: Any, image: int) -> Mapping[str, Any]:
        fields = {
            "boxes": self._original(found["bboxes"], batch, image),
            "scores": found["conf"],
            "labels": found["cls"].long(),
        }
        if not self._has_masks:
            return fields
        return Detection(fields, partial(self._masks, found, batch, image, self._instances))

    def _masks(self, found: Any, batch: Any, image: int, instances: list[Any]) -> torch.Tensor:
        """Masks (n, height, width) in the original image, cut to their boxes."""
        maps, threshold = found["masks"].float(), 0.5
        if instances:
            prototypes, coefficients, _ = instances[image]
            maps = torch.einsum("nc,chw->nhw", coefficients.float(), prototypes.float())
            threshold = 0.0
        height, width = batch["ori_shape"][image]
        some = maps.split(max(1, ROOM // (height * width)))
        masks = [self._in_original(few, batch, image) > threshold for few in some]
        return ops.crop_mask(torch.cat(masks), self._original(found["bboxes"], batch, image))

    def _in_original(self, maps: torch.Tensor, batch: Any, image: int) -> torch.Tensor:
        """Maps (n, h, w) of the image as it was seen, of whatever size, at its original size."""
        (down, across), (left, top) = batch["ratio_pad"][image]
        sizes = batch["ori_shape"][image], batch["img"].shape[2:]
        y, x = (
            ((torch.arange(side, device=maps.device) + 0.5) * ratio + shift) / seen * 2 - 1
            for side, seen, ratio, shift in zip(*sizes, (down, across), (top, left), strict=True)
        )
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
        return nn.functional.grid_sample(
            maps[None], places, padding_mode="border", align_corners=False
        )[0]

    def _target(self, batch: Any, image: int) -> dict[str, Any]:
        """The ground truth of an image as the data set holds it, which no resize has changed."""
        file, (height, width) = batch["im_file"][image], batch["ori_shape"][image]
        label = self._label(file)
        centered = torch.as_tensor(label["bboxes"]).reshape(-1, 4).double()
        centers, halves = centered[:, :2], centered[:, 2:] / 2
        corners = torch.cat([centers - halves, centers + halves], 1)
        target = {
            "boxes": corners * torch.tensor([width, height, width, height]),
            "labels": torch.as_tensor(label["cls"]).reshape(-1).long(),
            "image_id": image_name(self._trainer, file),
            "orig_size": (height, width),
        }
        if self._has_masks:
            polygons = (segment * [width, height] for segment in label["segments"])
            target["masks"] = [[polygon.reshape(-1).tolist()] for polygon in polygons]
        return target

    def _label(self, file: str) -> Any:
        if file not in self._labels:
            for loader in (self._trainer.test_loader, self._trainer.train_loader):
                for data in getattr(loader.dataset, "datasets", [loader.dataset]):
                    self._labels |= {label["im_file"]: label for label in data.labels}
        if file not in self._labels:
            raise ValueError(f"{file} is not among the data set's labels; pass predict=")
        return self._labels[file]

    def _original(self, boxes: torch.Tensor, batch: Any, image: int) -> torch.Tensor:
        """Boxes xyxy in pixels of the original image, clipped to it."""
        size, placed = batch["ori_shape"][image], batch["ratio_pad"][image]
        scaled = ops.scale_boxes(batch["img"].shape[2:], boxes.clone().float(), size, placed)
        return torch.as_tensor(scaled)

    def _keep(
        self, make_masks: Any, prototypes: Any, coefficients: Any, boxes: Any, shape: Any
    ) -> Any:
        self._instances.append((prototypes, coefficients, boxes))
        return make_masks(prototypes, coefficients, boxes, shape=shape)

    @property
    def _precision(self) -> int | None:
        return 16 if self._trainer.device.type != "cpu" and self._trainer.amp else None

    def _autocast(self) -> Any:
        return autocast(self._precision == 16, device=self._trainer.device.type)
