"""The tables: one spelling each, no two meanings for one spelling."""

from __future__ import annotations

from collections import Counter

import pytest

from boxscore import Identity
from boxscore.identity.algorithms import (
    ALGORITHMS,
    OVERRIDES,
    algorithm,
    algorithms,
    normalized,
    scales,
    spellings,
)
from boxscore.identity.backbones import BACKBONES, backbone, backbones


@pytest.mark.parametrize(
    "spelling", ["Faster R-CNN", "FasterRCNN", "faster_rcnn", "FASTERRCNN", "faster rcnn", "frcnn"]
)
def test_aliases_meet_in_one_spelling(spelling: str) -> None:
    assert algorithm(spelling) == "Faster R-CNN"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("RetinaNet", "SSD"),
        ("SSD", "SSDLite"),
        ("YOLOv8", "YOLO11"),
        ("Faster R-CNN", "Mask R-CNN"),
        ("Cascade R-CNN", "Faster R-CNN"),
        ("DeepLabV3", "DeepLabV3+"),
        ("DETR", "Deformable DETR"),
        ("RT-DETR", "RT-DETRv2"),
        ("U-Net", "U-Net++"),
    ],
)
def test_parent_algorithms_are_kept_apart(one: str, other: str) -> None:
    assert algorithm(one) == one
    assert algorithm(other) == other
    assert Identity(one, 640).group != Identity(other, 640).group


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("yolov8n", "yolov8x-seg"),
        ("retinanet_resnet50_fpn", "retinanet_resnet101_fpn_v2"),
        ("faster_rcnn_r50_caffe_dc5_1x_coco", "faster_rcnn_R_50_FPN_3x"),
        ("ssd_resnet50_v1_fpn_640x640", "RetinaNet"),
    ],
)
def test_scale_backbone_neck_and_schedule_make_no_other_algorithm(one: str, other: str) -> None:
    assert Identity.parse(one).algorithm == Identity.parse(other).algorithm != ""


def test_no_spelling_means_two_algorithms() -> None:
    spelled = [
        normalized(text) for family in ALGORITHMS for text in {family.name, *family.aliases.split()}
    ]
    doubled = [text for text, times in Counter(spelled).items() if times > 1]
    assert doubled == []


def test_no_alias_repeats_its_name() -> None:
    for family in ALGORITHMS:
        assert normalized(family.name) not in map(normalized, family.aliases.split()), family.name


def test_no_spelling_means_two_backbones() -> None:
    meant: dict[str, set[str]] = {}
    for row in BACKBONES:
        for spelling, values in spellings([row.name, *row.aliases.split()], row.choices):
            meant.setdefault(spelling, set()).add(row.name.format(*values))
    assert {text: names for text, names in meant.items() if len(names) > 1} == {}


@pytest.mark.parametrize("name", sorted(set(backbones().values()) - {""}))
def test_a_backbone_meets_its_own_name(name: str) -> None:
    assert backbone(name) == name


@pytest.mark.parametrize("family", ALGORITHMS, ids=lambda family: family.name)
def test_an_algorithm_meets_its_own_name(family: object) -> None:
    name: str = family.name  # type: ignore[attr-defined]
    assert algorithm(name) == algorithm(name.lower()) == algorithm(name.replace(" ", "_")) == name


def test_overrides_are_in_the_table() -> None:
    names = {family.name for family in ALGORITHMS}
    assert OVERRIDES.keys() <= names
    assert set().union(*OVERRIDES.values()) <= names


def test_a_scale_gives_the_backbone() -> None:
    assert scales("EfficientDet")["d7"] == "EfficientNet-B6"  # of the paper: D7 has B6, D7x B7
    assert scales("EfficientDet")["d7x"] == "EfficientNet-B7"
    assert scales("YOLO11")["n"] == scales("YOLO11")["nano"] == "n"
    assert scales("SegFormer")["b0"] == "MiT-B0"
    assert scales("RetinaNet") == {}


def test_every_spelling_is_found() -> None:
    assert algorithms()[normalized("detection transformer")].name == "DETR"
    assert backbone("MobileNetV3 large") == backbone("mobilenet_v3_large") == "MobileNetV3-Large"
    assert backbone("no such") == algorithm("no such") == algorithm("") == ""
