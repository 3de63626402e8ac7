"""``--data``: what the lists and annotations mean is read, what contradicts them is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boxscore.demo.datasets import read_folder

SEMANTIC = "semantic-segmentation"


def semantic(path: Path, **lists: bytes) -> Path:
    """Four images in sub-folders, each with its own shade and label map."""
    for n in range(4):
        image, mask = path / f"images/s{n % 2}/p{n}.jpg", path / f"masks_semantic/s{n % 2}/p{n}.png"
        for file in (image, mask):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (60 * n,) * 3).save(image)
        Image.new("L", (8, 6), n % 2).save(mask)
    (path / "splits").mkdir()
    for name, content in (
        {"train": b"p0.jpg\np1.jpg\n", "test": b"p2.jpg\np3.jpg\n"} | lists
    ).items():
        (path / "splits" / f"{name}.txt").write_bytes(content)
    (path / "classes.json").write_text('{"classes": ["ground", "cell"], "ignore_index": null}')
    return path


@pytest.mark.parametrize(
    "listed",
    [
        b"p0\np1",
        b"s0/p0.jpg\ns1/p1.jpg",
        b"\xef\xbb\xbfp0.jpg\r\np1.jpg\r\n",
        b"p0.jpg\n\n  \np1.jpg\n\n",
        b"p0.jpg  \n\tp1.jpg",
        rb"images\s0\p0.jpg" + b"\r\n" + rb"D:\set\images\s1\p1.jpg",
        b"/elsewhere/images/s0/p0.jpg\n/elsewhere/images/s1/p1.jpg",
        "p0\r\np1\r\n".encode("utf-16"),
        b"P0.JPG\nP1.JPG",
        b"p0\np1\np0.jpg",
    ],
)
def test_lists_as_people_write_them(tmp_path: Path, listed: bytes) -> None:
    train, _ = read_folder(semantic(tmp_path, train=listed), SEMANTIC, side=4)
    assert [file.name for file in train.files] == ["p0.jpg", "p1.jpg"]
    assert [int(train[n][1].max()) for n in range(len(train))] == [0, 1]
    assert train[1][0].shape == (3, 4, 4)
    assert float(train[1][0].mean()) == pytest.approx(60 / 255, abs=0.01)


def test_test_labels_keep_their_size(tmp_path: Path) -> None:
    _, test = read_folder(semantic(tmp_path), SEMANTIC, side=4)
    image, labels = test[1]
    assert (image.shape, labels.shape, labels.dtype) == ((3, 4, 4), (6, 8), torch.int64)
    assert test.is_even
    assert (test.classes, test.ignore_index) == ({0: "ground", 1: "cell"}, 255)


def test_label_maps_of_many_sizes(tmp_path: Path) -> None:
    semantic(tmp_path)
    Image.new("RGB", (9, 5)).save(tmp_path / "images/s0/p2.jpg")
    Image.new("L", (9, 5)).save(tmp_path / "masks_semantic/s0/p2.png")
    assert not read_folder(tmp_path, SEMANTIC, side=4)[1].is_even


def test_val_stands_for_test(tmp_path: Path) -> None:
    semantic(tmp_path)
    (tmp_path / "splits/test.txt").rename(tmp_path / "splits/val.txt")
    assert len(read_folder(tmp_path, SEMANTIC, side=4)[1]) == 2


def save_mask(mode: str, size: tuple[int, int] = (8, 6), colour: Any = 0) -> Callable[[Path], Any]:
    return lambda path: Image.new(mode, size, colour).save(path / "masks_semantic/s0/p2.png")


def write(name: str, content: str) -> Callable[[Path], Any]:
    return lambda path: (path / name).write_text(content)


def remove(*names: str) -> Callable[[Path], Any]:
    def change(path: Path) -> None:
        for name in names:
            (shutil.rmtree if (path / name).is_dir() else Path.unlink)(path / name)

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (save_mask("RGB"), r"p2\.png: PNG with RGB pixels is not a label map; store a grey"),
        (save_mask("L", (7, 6)), r"p2\.jpg is 8x6 pixels .* are for 7x6"),
        (save_mask("L", colour=9), r"p2\.png: label 9 is none of classes\.json's 2 classes"),
        (remove("masks_semantic/s0/p2.png"), r"test\.txt: line 1: 's0/p2'.*masks_semantic holds"),
        (remove("images/s0/p2.jpg"), r"test\.txt: line 1: 'p2\.jpg': .*images holds no such image"),
        (write("splits/test.txt", ""), r"test\.txt names no image"),
        (write("splits/test.txt", "p2\np9\n"), r"test\.txt: line 2: 'p9'"),
        (lambda path: (path / "splits/test.txt").write_bytes(b"\xff"), "not UTF-8 text"),
        (remove("splits/test.txt"), r"no splits/test.txt or splits/val.txt\. Expected .*images/.*"
         r"Found in .*splits: train\.txt"),
        (remove("classes.json"), r"no classes\.json.*Found in .*: images/, masks_semantic/"),
        (remove("masks_semantic"), r"has no masks_semantic\. Expected .*label map named as its"),
        (remove("images"), r"has no images\. Expected"),
        (remove("splits"), r"has no splits/train\.txt\. .*Found in .*: classes\.json, images/"),
        (write("classes.json", "{"), r"classes\.json is not JSON of the form"),
        (write("classes.json", "[]"), r"classes\.json is not JSON of the form"),
        (write("classes.json", '{"classes": "ab"}'), r"'classes' 'ab' is not a list"),
        (write("classes.json", '{"classes": [1]}'), r"'classes' \[1\] is not a list"),
        (write("classes.json", '{"classes": ["a"], "ignore_index": "x"}'), "'x' is not an integer"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    tmp_path: Path, change: Callable[[Path], Any], told: str
) -> None:
    semantic(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=told):
        read_folder(tmp_path, SEMANTIC, side=4)


def test_one_label_map_is_of_one_image(tmp_path: Path) -> None:
    semantic(tmp_path)
    for image in (tmp_path / "images").rglob("*.jpg"):
        image.rename(image.with_name("p.jpg"))
    (tmp_path / "masks_semantic/p.png").write_bytes(b"")
    (tmp_path / "splits/train.txt").write_text("s0/p\ns1/p")
    with pytest.raises(ValueError, match="two images of"):
        read_folder(tmp_path, SEMANTIC, side=4)


def test_train_masks_are_checked_as_they_are_read(tmp_path: Path) -> None:
    train, _ = read_folder(semantic(tmp_path), SEMANTIC, side=4)
    Image.new("L", (8, 6), 2).save(tmp_path / "masks_semantic/s0/p0.png")
    with pytest.raises(ValueError, match="label 2 is none of"):
        train[0]


def test_an_image_in_both_splits_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_folder(semantic(tmp_path, train=b"p0\np2"), SEMANTIC, side=4)
    assert "images in both the train and the test split: 1, such as" in caplog.text
    assert "p2.jpg" in caplog.text


def coco(path: Path, **changes: Any) -> Path:
    """Two splits with one image of 50x40 pixels each, and two categories with ids of their own."""
    for n, split in enumerate(("train", "test")):
        content = {
            "images": [{"id": 5, "file_name": f"{split}.jpg", "width": 50, "height": 40}],
            "categories": [{"id": n, "name": "cat"}, {"id": 90 - n, "name": "dog"}],
            "annotations": [
                {"id": k, "image_id": 5, "category_id": label, "bbox": [5, 5, 20, 10]}
                for k, label in enumerate((n, 90 - n))
            ],
        }
        (path / "images").mkdir(parents=True, exist_ok=True)
        (path / "annotations").mkdir(exist_ok=True)
        Image.new("RGB", (50, 40)).save(path / "images" / f"{split}.jpg")
        text = json.dumps(content | (changes if split == "test" else {}))
        (path / "annotations" / f"instances_{split}.json").write_text(text)
    return path


def test_a_category_has_one_label_whatever_its_id(tmp_path: Path) -> None:
    """Label 0 is the models' background, and an id of 90 needs no 91 outputs."""
    for data in read_folder(coco(tmp_path), "detection", side=64):
        assert data.classes == {1: "cat", 2: "dog"}
        assert data[0][1]["labels"].tolist() == [1, 2]


def test_annotations_without_area_are_good_input(tmp_path: Path) -> None:
    from boxscore.detection import DetectionMetrics

    _, test = read_folder(coco(tmp_path), "detection", side=64)
    target = test[0][1]
    metric = DetectionMetrics(test.classes)
    metric.update([{**target, "scores": np.ones(2)}], [target])
    assert metric.compute()["box_AP_small"] == pytest.approx(1)


@pytest.mark.parametrize(
    "file_name", ["test", "images/test.jpg", r"C:\set\images\test.jpg", "TEST.JPG", "x/test.jpg"]
)
def test_file_names_as_tools_write_them(tmp_path: Path, file_name: str) -> None:
    images = [{"id": 5, "file_name": file_name, "width": 50, "height": 40}]
    _, test = read_folder(coco(tmp_path, images=images), "detection", side=64)
    assert test.files == [tmp_path / "images" / "test.jpg"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"file_name": "b.jpg"}, r"instances_test\.json: image 5: 'b\.jpg': .* no such image"),
        ({"file_name": None}, r"image 5: "),
        ({"width": 100, "height": 80}, r"test\.jpg is 50x40 pixels .* are for 100x80"),
    ],
)
def test_an_image_that_does_not_fit_is_named(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    image = {"id": 5, "file_name": "test.jpg", "width": 50, "height": 40}
    with pytest.raises(ValueError, match=told):
        read_folder(coco(tmp_path, images=[image | change]), "detection", side=64)


def test_an_image_without_a_file_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image 5: no file_name"):
        read_folder(coco(tmp_path, images=[{"id": 5}]), "detection", side=64)


def test_a_turned_photo_is_read_as_it_was_annotated(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = {"id": 5, "file_name": "test.jpg", "width": 40, "height": 50}
    coco(tmp_path, images=[image])
    Image.new("RGB", (50, 40)).save(tmp_path / "images/test.jpg", exif=exif)
    assert read_folder(tmp_path, "detection", side=64)[1][0][0].shape == (3, 50, 40)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (remove("annotations"), r"no annotations/instances_train\.json.*Found in .*: images/"),
        (remove("annotations/instances_test.json"), r"instances_test.json or .*instances_val.json"),
        (remove("images"), r"has no images"),
        (write("annotations/instances_test.json", "{"), r"instances_test\.json is not JSON"),
    ],
)
def test_a_part_that_is_absent_is_named(
    tmp_path: Path, change: Callable[[Path], Any], told: str
) -> None:
    coco(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=told):
        read_folder(tmp_path, "detection", side=64)


def test_a_folder_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        read_folder(tmp_path / "a", SEMANTIC, side=4)
