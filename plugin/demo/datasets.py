"""Data sets in a folder, for the demo: COCO's layout, or label maps beside images."""

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
from boxscore.warn import Warnings

from .image_files import ImageFolder, read_image, read_label_map

Pair = tuple[Tensor, Any]
COCO = "images/, annotations/instances_train.json and instances_test.json (or instances_val.json)"
LAYOUTS = {
    "detection": COCO,
    "instance-segmentation": COCO,
    "semantic-segmentation": "images/, masks_semantic/ (a PNG label map named as its image), "
    "splits/train.txt and test.txt (or val.txt) with the images' names, classes.json",
}


def read_folder(folder: Path, task: str, *, side: int) -> tuple[Any, Any]:
    """The train and the test set that lie in ``folder``.

    Args:
        folder: laid out as `LAYOUTS` says. A list has one name a line, with or without folders and
            extension. ``classes.json`` holds ``{"classes": [name, …], "ignore_index": 255}``.
        task: which layout.
        side: semantic images are resized to so many pixels in height and width.

    Raises:
        ValueError: in one line, for a part that is absent, unreadable or contradicts another.
        OSError: a file cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"--data {folder}: no such folder")
    train: Instances | LabelMaps
    test: Instances | LabelMaps
    if task == "semantic-segmentation":
        train, test = (LabelMaps(folder, split, side) for split in ("train", "test"))
    else:
        train, test = (Instances(folder, split, task) for split in ("train", "test"))
        names = dict.fromkeys([*train.categories.values(), *test.categories.values()])
        train.classes = test.classes = dict(enumerate(names, 1))
    shapes = {getattr(test[n][1], "shape", None) for n in range(len(test))}  # reads each once
    test.is_even = len(shapes) == 1
    if both := {*train.files} & {*test.files}:
        text = f"images in both the train and the test split: {len(both)}, such as {min(both)}"
        Warnings().warn_once("overlap", text)
    return train, test


def _part(folder: Path, task: str, *names: str) -> Path:
    """The first of ``names`` that ``folder`` holds."""
    paths = [folder / name for name in names]
    if path := next((path for path in paths if path.exists()), None):
        return path
    place = paths[0].parent if paths[0].parent.is_dir() else folder
    held = sorted(p.name + "/" * p.is_dir() for p in place.iterdir())
    raise ValueError(
        f"--data {folder} has no {' or '.join(names)}. Expected for --task {task}: "
        f"{LAYOUTS[task]}. Found in {place}: {', '.join(held[:10]) or 'nothing'}"
        f"{', …' * (len(held) > 10)}"
    )


class Instances(torch.utils.data.Dataset[Pair]):
    """One split in COCO's usual layout.

    Attributes:
        categories: names by the file's own category id.
        classes: names by label, from 1, of both splits together: 0 is the models' background.
        files: of the images, in order.
    """

    ignore_index = 255
    is_even = True

    def __init__(self, folder: Path, split: str, task: str) -> None:
        splits = ("train",) if split == "train" else ("test", "val")
        path = _part(folder, task, *(f"annotations/instances_{one}.json" for one in splits))
        images = ImageFolder(_part(folder, task, "images"))
        self._masks, self._train = task == "instance-segmentation", split == "train"
        self._truth = coco_files.read(path, masks=self._masks)
        self.categories = self._truth.classes
        self.classes: dict[int, str] = {}
        self.files: list[Path] = []
        self._ids = list(self._truth.sizes)
        for row in json.loads(path.read_bytes())["images"]:
            try:
                self.files.append(images.find(str(row["file_name"]), split))
            except (KeyError, ValueError) as error:
                text = "no file_name" if isinstance(error, KeyError) else error
                raise ValueError(f"{path.name}: image {row['id']!r}: {text}") from None
        if not self.files:
            raise ValueError(f"{path} holds no image")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pair:
        image_id = self._ids[index]
        image = read_image(self.files[index], self._truth.sizes[image_id])
        objects = self._truth.targets[image_id]
        boxes = np.asarray(objects["boxes_xywh"], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = {name: label for label, name in self.classes.items()}
        target = {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "labels": torch.tensor(
                [labels[self.categories[label]] for label in objects["labels"]], dtype=torch.int64
            ),
            "iscrowd": torch.tensor(objects["iscrowd"], dtype=torch.int64),
        }
        if "area" in objects:
            target["area"] = torch.from_numpy(np.asarray(objects["area"], np.float64))
        if self._masks:
            maps = [decode(mask) for mask in objects["masks"]]
            stacked = np.stack(maps) if maps else np.zeros((0, image.height, image.width), np.uint8)
            target["masks"] = torch.from_numpy(stacked)
        if self._train:  # crowds are regions to pass over, not objects to learn
            single = target["iscrowd"] == 0
            sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
            target = {key: value[single & (sides > 0).all(1)] for key, value in target.items()}
        return _tensor(image), {**target, "image_id": image_id}


class LabelMaps(torch.utils.data.Dataset[Pair]):
    """One split of images with a label for each pixel.

    Train images and labels are resized to ``side``; test labels stay at their own size, in which
    they are measured.

    Attributes:
        classes: names by label.
        ignore_index: the label that counts nowhere; 255 where ``classes.json`` has none.
        files: of the images, in order.
        is_even: whether all label maps have one size, so that they can be stacked.
    """

    is_even = True

    def __init__(self, folder: Path, split: str, side: int) -> None:
        task = "semantic-segmentation"
        self.classes, self.ignore_index = _classes(_part(folder, task, "classes.json"))
        splits = ("train",) if split == "train" else ("test", "val")
        path = _part(folder, task, *(f"splits/{one}.txt" for one in splits))
        images = ImageFolder(_part(folder, task, "images"))
        masks = ImageFolder(_part(folder, task, "masks_semantic"))
        self._masks: dict[Path, Path] = {}
        for number, name in _lines(path):
            try:
                image = images.find(name, split)
                stem = image.relative_to(images.folder).with_suffix("")
                mask = masks.find(stem.as_posix(), split)
            except ValueError as error:
                raise ValueError(f"{path.name}: line {number}: {error}") from None
            self._masks[image] = mask
        self.files = list(self._masks)
        if not self.files:
            raise ValueError(f"{path} names no image")
        if len({*self._masks.values()}) < len(self.files):
            raise ValueError(f"{masks.folder}: two images of {path.name} have the same label map")
        self._side, self._train = side, split == "train"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Pair:
        file = self.files[index]
        labels = read_label_map(self._masks[file])
        unknown = set(np.unique(labels).tolist()) - {*self.classes, self.ignore_index}
        if unknown:
            raise ValueError(
                f"{self._masks[file]}: label {min(unknown)} is none of classes.json's "
                f"{len(self.classes)} classes, nor the ignore_index {self.ignore_index}"
            )
        image = read_image(file, labels.shape)
        if self._train:  # each the nearest pixel's
            places = [(np.arange(self._side) + 0.5) * n / self._side for n in labels.shape]
            labels = labels[np.ix_(*(place.astype(int) for place in places))]
        resized = image.resize((self._side, self._side), Image.Resampling.BILINEAR)
        return _tensor(resized), torch.from_numpy(labels.astype(np.int64))


def _lines(path: Path) -> list[tuple[int, str]]:
    """The names in a list with their line numbers; in any of Windows' encodings and line ends."""
    raw = path.read_bytes()
    is_utf_16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        lines = raw.decode("utf-16" if is_utf_16 else "utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None
    return [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip()]


def _classes(path: Path) -> tuple[dict[int, str], int]:
    """The names by label, and the label that counts nowhere."""
    try:
        content = json.loads(path.read_bytes())
        names, ignored = content["classes"], content.get("ignore_index")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"'classes' {names!r} is not a list of names")
        if ignored is not None and (not isinstance(ignored, int) or ignored is True):
            raise TypeError(f"'ignore_index' {ignored!r} is not an integer")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        form = '{"classes": [name of label 0, …], "ignore_index": 255}'
        raise ValueError(f"{path} is not JSON of the form {form}: {error}") from None
    return dict(enumerate(names)), 255 if ignored is None else ignored


def _tensor(image: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
