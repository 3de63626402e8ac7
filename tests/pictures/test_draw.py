"""What a picture shows, read from its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from boxscore.pictures import capture, draw
from boxscore.pictures.colours import colour_of

NAMES = {1: "cat", 2: "dog"}
GREY = torch.full((3, 100, 200), 0.5)
BOX = [[20.0, 30, 60, 80]]


def objects(image: Any = GREY, frame: tuple[int, int] = (100, 200), **detection: Any) -> Any:
    target = {"boxes": torch.tensor(BOX), "labels": torch.tensor([1])}
    found = {"boxes": torch.tensor(BOX), "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}
    return capture.sample_of_objects(
        "7", 0.0, image, frame=frame, target=target, detection=found | detection
    )


def coloured(panel: Any, label: int) -> Any:
    """Where a panel has about the colour of a class."""
    return np.abs(np.asarray(panel).astype(int) - colour_of(label - 1)).sum(-1) < 30


def panels(sample: Any, confidence: float = 0.5) -> tuple[Any, Any]:
    """The left and the right half of a picture, without captions."""
    sheet = np.asarray(draw(sample, NAMES, confidence))
    height, width = sample.size
    return sheet[18 : 18 + height, :width], sheet[18 : 18 + height, -width:]


def line(panel: Any, sample: Any, label: int) -> float:
    """How much of a box's lower edge has the colour of its class."""
    scale = sample.size[0] / 100
    row = panel[int(80 * scale) - 2 : int(80 * scale) + 2, int(20 * scale) : int(60 * scale)]
    return float(coloured(row, label).any(0).mean())


def test_a_found_object_is_solid_on_both_sides() -> None:
    sample = objects()
    assert [line(panel, sample, 1) > 0.95 for panel in panels(sample)] == [True, True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": torch.tensor([2])},
        {"boxes": torch.tensor([[40.0, 30, 120, 80]])},
        {"scores": torch.tensor([0.4])},
    ],
)
def test_a_missed_object_is_dashed(wrong: dict[str, Any]) -> None:
    sample = objects(**wrong)
    assert 0.2 < line(panels(sample)[0], sample, 1) < 0.8


def test_a_false_positive_is_dashed_in_its_own_colour() -> None:
    sample = objects(labels=torch.tensor([2]))
    assert 0.2 < line(panels(sample)[1], sample, 2) < 0.8


def test_a_detection_below_the_confidence_is_not_drawn() -> None:
    sample = objects(scores=torch.tensor([0.4]))
    assert not coloured(panels(sample)[1], 1).any()
    assert coloured(panels(sample, 0.3)[1], 1).any()


def test_boxes_of_the_original_image_lie_on_the_resized_one() -> None:
    """The model saw half the size; boxes are those of the original."""
    small = objects(torch.nn.functional.interpolate(GREY[None], scale_factor=0.5)[0])
    assert line(panels(small)[0], small, 1) > 0.95


@pytest.mark.parametrize("kind", ["float", "bool", "four dimensions", "RLE", "polygon"])
def test_masks_are_translucent(kind: str) -> None:
    dense = torch.zeros(1, 100, 200)
    dense[0, 30:80, 20:60] = 1
    fortran = np.asfortranarray(dense[0].numpy().astype(np.uint8))
    masks: Any = {
        "float": dense,
        "bool": dense.bool(),
        "four dimensions": dense[:, None],
        "RLE": [coco.encode(fortran)],
        "polygon": [[[20.0, 30, 60, 30, 60, 80, 20, 80]]],
    }[kind]
    target = {"boxes": torch.tensor(BOX), "labels": torch.tensor([1]), "masks": masks}
    detection = {**target, "scores": torch.tensor([0.9])}
    sample = capture.sample_of_objects(
        "7", 0.0, GREY, frame=(100, 200), target=target, detection=detection
    )
    scale = sample.size[0] / 100
    inside = [panel[int(55 * scale), int(40 * scale)].astype(int) for panel in panels(sample)]
    blend = 0.55 * 128 + 0.45 * np.array(colour_of(0))
    assert all(np.abs(pixel - blend).max() < 8 for pixel in inside)


def test_a_label_map_has_the_colours_of_its_classes_and_what_counts_nowhere_is_dark() -> None:
    target = torch.zeros(100, 200, dtype=torch.long)
    target[:, 100:], target[:20] = 1, 255
    logits = torch.stack([(target != 1).float(), (target == 1).float()])
    sample = capture.sample_of_maps("7", 0.0, GREY, target=target, logits=logits, ignore_index=255)
    height, width = sample.size
    for labels in (sample.truth, sample.prediction):
        assert isinstance(labels, np.ndarray)
        assert labels[height // 2, width // 4] == 0
        assert labels[height // 2, 3 * width // 4] == 1
    sheet = np.asarray(draw(sample, {0: "ground", 1: "cell"}))
    for x in (0, sheet.shape[1] - width):
        left, right = (sheet[18 + height // 2, x + n * width // 4].astype(int) for n in (1, 3))
        assert np.abs(left - (0.4 * 128 + 0.6 * np.array(colour_of(0)))).max() < 4
        assert np.abs(right - (0.4 * 128 + 0.6 * np.array(colour_of(1)))).max() < 4
        assert sheet[20, x + 5].max() < 60


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a" * 200, "🐈 قط", "two\nlines"])
def test_any_name_is_drawn(name: str) -> None:
    size = draw(objects(), {1: name, 2: "dog"}).size
    assert size == draw(objects(), NAMES).size


@pytest.mark.parametrize(
    "image",
    [
        torch.rand(3, 50, 70),
        (torch.rand(3, 50, 70) - 0.45) / 0.22,
        (torch.rand(3, 50, 70) * 255).byte(),
        torch.rand(1, 50, 70),
        torch.rand(5, 50, 70),
        torch.full((3, 50, 70), torch.nan),
        torch.rand(3, 1, 4000),
        torch.rand(3, 3000, 2000),
    ],
)
def test_images_of_any_kind_are_bytes_of_bounded_size(image: torch.Tensor) -> None:
    picture = capture.bytes_of(image)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert max(picture.shape) < 2048
    assert 256 <= max(capture.size_of(image)) <= 512


def test_images_are_the_same_however_they_are_normalised() -> None:
    image = torch.rand(3, 300, 300)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (image - mean[:, None, None]) / deviation[:, None, None]
    plain, stretched = capture.bytes_of(image), capture.bytes_of(normalised)
    assert np.abs(plain.astype(int) - stretched).mean() < 4
