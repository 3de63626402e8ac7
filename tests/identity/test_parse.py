"""Names as people write them: the given list, a held-out list, any text.

The held-out names came in five rounds, each measured before a rule was made with it in sight. Their
truth is written as ``"RetinaNet|SSD"`` where two are accepted and as ``"RetinaFace|"`` where unsure
is, because the table has no line for it or the name is not plain.
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from boxscore import Identity
from boxscore.identity.algorithms import ALGORITHMS, scales
from boxscore.identity.backbones import backbones
from boxscore.identity.parse import PLAIN
from tests.shared_data import SHARED

TESTS = Path(__file__).parent
GIVEN = SHARED / "data" / "model_names.csv"
LIMITS = {"fasterrcnn_mobilenet_v3_large_320_fpn": "320x640"}
"""The limits of torchvision's own model, of which the list has the short one alone."""

FIELDS = ("algorithm", "input_size", "backbone")


def held_out() -> list[dict[str, str]]:
    with (TESTS / "held_out_names.csv").open() as file:
        return list(csv.DictReader(file))


def given_names() -> list[dict[str, str]]:
    """The shared list in the form of the held-out one."""
    if not GIVEN.exists():
        return []
    with GIVEN.open() as file:
        return [
            {
                "name": row["name"],
                "algorithm": "|".join(
                    filter(None, (row["parent_algorithm"], row["parent_algorithm_also_accepted"]))
                ),
                "backbone": row["backbone"] or row["variant"],  # a scale, where no more is said
                "input_size": LIMITS.get(row["name"]) or squared(row["input_size"]),
            }
            for row in csv.DictReader(file)
        ]


def squared(size: str) -> str:
    return f"{size}x{size}" if size.isdigit() else size


def wrong(rows: list[dict[str, str]], field: str) -> list[tuple[str, str]]:
    """Confident answers that are not the truth."""
    answers = [(row, getattr(Identity.parse(row["name"]), field)) for row in rows]
    return [
        (row["name"], said) for row, said in answers if said not in {"", *row[field].split("|")}
    ]


def share_right(rows: list[dict[str, str]], field: str) -> float:
    """Of the names that plainly say the field, those that are understood."""
    truths = [(row["name"], row[field].split("|")) for row in rows]
    stated = [(name, truth) for name, truth in truths if "" not in truth]
    right = sum(getattr(Identity.parse(name), field) in truth for name, truth in stated)
    return right / len(stated)


needs_given = pytest.mark.skipif(not GIVEN.exists(), reason="no shared data beside this checkout")


@needs_given
@pytest.mark.parametrize("field", FIELDS)
def test_the_given_names(field: str) -> None:
    rows = given_names()
    assert len(rows) == 169
    assert share_right(rows, field) >= 0.98
    assert wrong(rows, field) == []


@needs_given
def test_the_held_out_names_are_others() -> None:
    assert {row["name"] for row in held_out()}.isdisjoint(row["name"] for row in given_names())


@pytest.mark.parametrize("field", FIELDS)
def test_no_held_out_name_is_answered_wrongly(field: str) -> None:
    rows = held_out()
    assert len(rows) > 300
    assert wrong(rows, field) == []


@pytest.mark.parametrize("field", FIELDS)
def test_the_held_out_names(field: str) -> None:
    assert share_right(held_out(), field) >= 0.98


@pytest.mark.parametrize(
    "name",
    [
        "",
        "best.pt",
        "anchor free thing",
        "mobile_retinanet_plus",  # a word before it may make it another
        "detr3d_r50",
        "3d retinanet",
        "rotated_fcos_lite",
        "retinanet or fcos",
        "yolo",
        "resnet50",
    ],
)
def test_what_is_unsure_is_left_open(name: str) -> None:
    identity = Identity.parse(name)
    assert "algorithm" in identity.missing or identity.algorithm.startswith("Rotated")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("retinanet_r50_fpn_8x8_300e", ""),
        ("retinanet x101 32x4d", ""),
        ("retinanet_coco_2017", ""),
        ("retinanet_epoch_300", ""),
        ("retinanet_bs256", ""),
        ("retinanet_640_800", "640x800"),
        ("retinanet_ms-640-800-3x", ""),
        ("retinanet 640 1280 320", ""),
        ("retinanet 640x640 320x320", ""),
        ("retinanet 640x640x3", "640x640"),
        ("retinanet img640", "640x640"),
        ("retinanet 640px", "640x640"),
        ("retinanet 640 x 480", "640x480"),
        ("retinanet 0640", ""),
        (f"retinanet {'9' * 5000}", ""),
        ("1024", ""),
    ],
)
def test_which_numbers_are_a_size(name: str, size: str) -> None:
    assert Identity.parse(name).input_size == size


@pytest.mark.parametrize(
    ("name", "algorithm", "backbone"),
    [
        ("efficientdet_d7", "EfficientDet", "EfficientNet-B6"),
        ("tf_efficientdet_d7x", "EfficientDet", "EfficientNet-B7"),
        ("yolov8s-worldv2", "YOLO-World", ""),
        ("beit-base-upernet", "UPerNet", "BEiT-Base"),
        ("UNet+ResNet34", "U-Net", ""),
        ("unet+", "", ""),
        ("yolov8-face", "", ""),
        ("ssd_resnet101_v1_fpn_1024", "RetinaNet", "ResNet-101 V1"),
    ],
)
def test_which_words_are_an_algorithm(name: str, algorithm: str, backbone: str) -> None:
    identity = Identity.parse(name)
    assert (identity.algorithm, identity.backbone) == (algorithm, backbone)


def test_a_long_text_is_no_name() -> None:
    assert Identity.parse("retinanet x 640 " * 20_000).missing == ("algorithm", "input_size")


def test_a_path_is_read_at_its_end() -> None:
    assert Identity.parse("configs/fcos/retinanet_r50.py").algorithm == "RetinaNet"
    assert Identity.parse("facebook\\detr-resnet-50").algorithm == "DETR"


SIDES = st.integers(1, 9999)
SIZES = st.builds("{}x{}".format, SIDES, SIDES)
KNOWN = st.sampled_from([family.name for family in ALGORITHMS])
TRUNKS = st.sampled_from(["", *sorted(set(backbones().values()) - {""})])


@given(KNOWN, SIZES, TRUNKS)
def test_formatting_and_parsing_gives_it_back(name: str, size: str, backbone: str) -> None:
    identity = Identity(name, size, backbone)
    assert Identity.parse(str(identity)) == identity


@pytest.mark.parametrize("family", [family for family in ALGORITHMS if family.scales])
def test_a_scale_comes_back_too(family: object) -> None:
    name: str = family.name  # type: ignore[attr-defined]
    for backbone in scales(name).values():
        identity = Identity(name, "640x640", backbone)
        assert Identity.parse(str(identity)) == identity


@given(KNOWN, SIZES, st.text(min_size=1))
def test_an_own_backbone_comes_back_as_typed(name: str, size: str, backbone: str) -> None:
    identity = Identity(name, size, backbone)
    if PLAIN.isdisjoint(re.split(r"[\W_]+", identity.backbone.lower())):
        assert Identity.parse(str(identity)) == identity


VOCABULARY = [
    *(family.name for family in ALGORITHMS),
    *sorted(PLAIN),
    *["r50", "ResNet50", "swin-t", "640", "512x512", "3x", "20e", "x", "v2", "+", "d", "3", "n"],
]


@given(st.text())
@example("+")
@example("SSD 0x0")
@example("640x")
@example("\x00")
def test_parse_never_raises(text: str) -> None:
    identity = Identity.parse(text)
    assert identity.algorithm in {"", *(family.name for family in ALGORITHMS)}


@given(st.lists(st.sampled_from(VOCABULARY), max_size=8), st.sampled_from([" ", "_", "-", ""]))
def test_parse_never_raises_on_words_of_the_trade(words: list[str], between: str) -> None:
    identity = Identity.parse(between.join(words))
    for field in identity.missing:
        assert getattr(identity, field) == ""
    if not identity.missing:
        assert replace(identity) == identity
