"""Pictures and labels from a folder, for the demo: COCO's layout, or label maps beside images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from boxscore.cli import coco_files
from boxscore.detection import decode

Pair = tuple[Tensor, Any]


def read_folder(folder: Path, task: str, *, side: int) -> tuple[Any, Any]:
    """The train and the test set that lie in ``folder``.

    Args:
        folder: detection and instances: ``annotations/instances_train.json`` and
            ``instances_test.json`` or ``instances_val.json``, ``images/``. Semantic: ``images/``,
            ``masks_semantic/`` with a PNG label map of the same stem, ``splits/train.txt`` and
            ``splits/test.txt`` with file names, ``classes.json`` with ``classes`` and perhaps
            ``ignore_index``.
        task: which of the two.
        side: semantic images are resized to so many pixels in height and width.

    Raises:
        ValueError: in one line, for what is missing or broken.
        OSError: for a file that cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"--data {folder}: no such folder")
    if task == "semantic-segmentation":
        return LabelMaps(folder, "train", side), LabelMaps(folder, "test", side)
    notes = folder / "annotations"
    test = next((s for s in ("test", "val") if (notes / f"instances_{s}.json").exists()), "test")
    masks = task == "instance-segmentation"
    return Instances(folder, "train", masks=masks), Instances(folder, test, masks=masks)


class Instances(torch.utils.data.Dataset[Pair]):
    """One split in COCO's usual layout.

    Attributes:
        ids: of the images, in order.
        classes: names by label.
    """

    ignore_index = 255

    def __init__(self, folder: Path, split: str, *, masks: bool) -> None:
        path = folder / "annotations" / f"instances_{split}.json"
        truth = coco_files.read(path, masks=masks)
        names = {row["id"]: row.get("file_name") for row in json.loads(path.read_bytes())["images"]}
        self._files = {image_id: folder / "images" / str(name) for image_id, name in names.items()}
        for image_id, file in self._files.items():
            if not file.is_file():
                raise ValueError(f"{path.name}: image {image_id!r}: {file} does not exist")
        if not truth.sizes:
            raise ValueError(f"{path.name} holds no image")
        self.ids, self.classes = list(truth.sizes), dict(truth.classes)
        self._targets, self._masks, self._train = truth.targets, masks, split == "train"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Pair:
        image_id = self.ids[index]
        image = _picture(self._files[image_id])
        height, width = image.shape[-2:]
        objects = self._targets[image_id]
        boxes = np.asarray(objects["boxes_xywh"], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        target = {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "labels": torch.tensor(objects["labels"], dtype=torch.int64),
            "iscrowd": torch.tensor(objects["iscrowd"], dtype=torch.int64),
            "area": torch.tensor(objects["area"], dtype=torch.float64),
        }
        if self._masks:
            maps = [decode(mask) for mask in objects["masks"]]
            stacked = np.stack(maps) if maps else np.zeros((0, height, width), np.uint8)
            target["masks"] = torch.from_numpy(stacked)
        if self._train:  # crowds are regions to pass over, not objects to learn
            single = target["iscrowd"] == 0
            sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
            target = {key: value[single & (sides > 0).all(1)] for key, value in target.items()}
        return image, {**target, "image_id": image_id}


class LabelMaps(torch.utils.data.Dataset[Pair]):
    """One split of images with a label for each pixel.

    Train images and labels are resized to ``side``; test labels stay at their own size, where they
    are measured.

    Attributes:
        classes: names by label.
        ignore_index: the label that counts nowhere; 255 where the data names none.
        even: whether all label maps have one size, so that they can be stacked.
    """

    def __init__(self, folder: Path, split: str, side: int) -> None:
        listed = folder / "splits" / f"{split}.txt"
        names = listed.read_text().splitlines()
        if not names:
            raise ValueError(f"{listed} names no image")
        described = json.loads((folder / "classes.json").read_bytes())
        if not isinstance(described, dict) or not isinstance(described.get("classes"), list):
            raise ValueError(f"{folder / 'classes.json'} holds no list 'classes'")
        self.classes = dict(enumerate(described["classes"]))
        ignored = described.get("ignore_index")
        self.ignore_index: int = 255 if ignored is None else ignored
        self._pairs = [
            (folder / "images" / name, folder / "masks_semantic" / f"{Path(name).stem}.png")
            for name in names
        ]
        for file in (file for pair in self._pairs for file in pair):
            if not file.is_file():
                raise ValueError(f"{listed.name}: {file} does not exist")
        self._side, self._train = side, split == "train"
        self.even = self._train or len({_opened(mask).size for _, mask in self._pairs}) == 1

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Pair:
        image, labels = self._pairs[index]
        shown = _opened(labels)
        if self._train:
            shown = shown.resize((self._side, self._side), Image.Resampling.NEAREST)
        return _picture(image, self._side), torch.from_numpy(np.array(shown).astype(np.int64))


def _picture(file: Path, side: int | None = None) -> Tensor:
    """An image (3, H, W) in [0, 1]."""
    image = _opened(file).convert("RGB")
    if side is not None:
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        image.load()
    return image
