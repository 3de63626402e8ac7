"""What changes the fingerprint of an evaluated set, and what does not."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxscore.detection import DetectionMetrics
from boxscore.fingerprint import Fingerprint

NAMES = {1: "RBC", 2: "WBC"}
BOXES = [[10.0, 20.0, 30.5, 44.25], [1.0, 2.0, 301.0, 202.0]]
NOTHING: dict[str, Any] = {"boxes": [], "scores": [], "labels": []}


def target(image_id: object = 7, **changes: Any) -> dict[str, Any]:
    objects = {"boxes": torch.tensor(BOXES), "labels": torch.tensor([1, 2])}
    return objects | {"image_id": image_id} | changes


def evaluated(*targets: dict[str, Any], names: dict[int, str] = NAMES, **options: Any) -> Any:
    metrics = DetectionMetrics(names, **options)
    for one in targets:
        metrics.update([NOTHING], [one])
    return metrics.evaluated


def digest(*targets: dict[str, Any], **options: Any) -> str:
    found: str = evaluated(*targets, **options).digest()
    return found


def test_twelve_hex_digits() -> None:
    assert len(digest(target())) == 12
    int(digest(target()), 16)


def test_the_order_of_images_and_objects_does_not_count() -> None:
    turned = target(2, boxes=BOXES[::-1], labels=torch.tensor([2, 1]))
    assert digest(target(1), target(2)) == digest(turned, target(1))


def test_kinds_of_numbers_do_not_count() -> None:
    array = {"boxes": np.array(BOXES), "labels": [1, 2], "image_id": "7"}
    xywh = [[10.0, 20.0, 20.5, 24.25], [1.0, 2.0, 300.0, 200.0]]
    same = [target(), target(torch.tensor(7)), target(7.0), array, target(boxes_xywh=xywh)]
    assert len({digest(one) for one in same}) == 1


def resized(boxes: Any, factor: float) -> Any:
    """Boxes after a resize and back, in float32, as centre and size in between."""
    there = boxes.astype(np.float32) * np.float32(factor)
    centre, size = (there[:, :2] + there[:, 2:]) / 2, there[:, 2:] - there[:, :2]
    corners = np.concatenate([centre - size / 2, centre + size / 2], 1)
    return corners / np.float32(factor)


def scene(seed: int, images: int, on_lattice: bool, given_area: bool, factor: float = 1.0) -> Any:
    """A set of images with seven objects each, perhaps resized and back."""
    rng = np.random.default_rng(seed)
    for image_id in range(images):
        corner, side = rng.uniform(0, 550, (7, 2)), rng.uniform(1, 90, (7, 2))
        corner, side = (corner.round(2), side.round(2)) if on_lattice else (corner, side)
        boxes = np.concatenate([corner, corner + side], 1)
        area = side.prod(1) * (rng.uniform(0.3, 0.9, 7) if given_area else 1)
        labels = rng.integers(1, 3, 7)
        if factor != 1:
            boxes, square = resized(boxes, factor), np.float32(factor**2)
            area = area.astype(np.float32) * square / square
        yield {"boxes": boxes, "labels": labels, "image_id": image_id, "area": area}


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.31, 0.8, 1.25, 1.7, 3.7]),
)
def test_a_resize_and_back_does_not_count(
    seed: int, on_lattice: bool, given_area: bool, factor: float
) -> None:
    plain = digest(*scene(seed, 20, on_lattice, given_area))
    assert digest(*scene(seed, 20, on_lattice, given_area, factor)) == plain


@pytest.mark.parametrize(
    "other",
    [
        target(boxes=torch.tensor(BOXES) + torch.tensor([0.02, 0, 0, 0])),
        target(boxes=torch.tensor(BOXES)[[1, 0]]),
        target(8),
        target(labels=torch.tensor([2, 1])),
        target(iscrowd=torch.tensor([0, 1])),
        target(area=torch.tensor([100.0, 60000.0])),
        target(boxes=BOXES[:1], labels=[1]),
        target(boxes=[*BOXES, BOXES[0]], labels=[1, 2, 1]),
        target(boxes=[], labels=[]),
    ],
    ids=["moved box", "swapped boxes", "other image", "other classes", "crowd", "area",
         "missing object", "doubled object", "no objects"],
)  # fmt: skip
def test_what_counts(other: dict[str, Any]) -> None:
    assert digest(other) != digest(target())


def test_boxes_off_the_lattice_do_not_count() -> None:
    """No rounding survives float32 noise in every box of a large set; their number counts."""
    odd = target(boxes=torch.tensor(BOXES) + 0.0033)
    other = target(boxes=torch.tensor(BOXES) + 0.0133)
    assert digest(odd) == digest(other)
    assert digest(odd) != digest(target(boxes=BOXES[:1], labels=[1]))
    assert digest(odd, target(8)) != digest(target(), target(8))


def test_areas_of_the_boxes_count_as_none() -> None:
    area = torch.tensor([20.5 * 24.25, 300 * 200.0001])
    assert digest(target(area=area)) == digest(target())
    assert digest(target(area=[None, 60000.0])) == digest(target())


def test_class_names_count_and_labels_do_not() -> None:
    assert digest(target(), names={1: "RBC", 2: "Platelets"}) != digest(target())
    moved = target(labels=torch.tensor([5, 9]))
    assert digest(moved, names={5: "RBC", 9: "WBC"}) == digest(target())


def test_a_missing_image_counts_and_a_doubled_one_does_not() -> None:
    assert digest(target(1)) != digest(target(1), target(2))
    assert digest(target(1), target(2), target(2)) == digest(target(1), target(2))
    assert digest(target(1), target(1, iscrowd=[1, 0])) != digest(target(1))


def test_another_protocol_is_another_set() -> None:
    one = evaluated(target())
    assert one.digest("max_detections=300") != one.digest()


def test_masks_are_left_out() -> None:
    mask = torch.ones(2, 8, 8, dtype=torch.bool)
    assert digest(target(masks=mask), masks=True) == digest(target())


@pytest.mark.parametrize("shift", [0, 0.0033])
def test_merging_metrics_and_fingerprints_is_gathering(shift: float) -> None:
    """Also where only one of them holds boxes off the lattice."""
    targets = [target(n, boxes=torch.tensor(BOXES) + n + shift * (n == 3)) for n in range(6)]
    left, right = DetectionMetrics(NAMES), DetectionMetrics(NAMES)
    left.update([NOTHING] * 3, targets[:3])
    right.update([NOTHING] * 4, targets[2:])
    both, whole = left.evaluated, digest(*targets)
    both.merge(right.evaluated)
    left.merge(right)
    assert left.evaluated.digest() == both.digest() == whole


def test_without_ids_content_decides_and_duplicates_count() -> None:
    one, other = (target(None, boxes=torch.tensor(BOXES) + n) for n in (0, 1))
    assert digest(one, other) == digest(other, one) != digest(one, one, other)
    gathered = evaluated(one, one, target(7))
    assert (len(gathered), gathered.anonymous, gathered.ids) == (3, True, frozenset())
    assert gathered.contents == {}


def test_contents_are_equal_for_equal_ground_truth_under_any_id() -> None:
    """An image in two sets is told by its content: equal numbers are no leak."""
    one = evaluated(target(7), target("a"), target(9, boxes=torch.tensor(BOXES) + 1),
                    target(10, boxes=[], labels=[]))  # fmt: skip
    contents = one.contents
    assert contents.keys() == one.ids == {"7", "a", "9", "10"}
    assert contents["7"] == contents["a"] != contents["9"]
    assert contents["10"] == ""


def test_fingerprints_of_bytes() -> None:
    """As semantic sets have them."""
    one = Fingerprint()
    for image_id, content in ((1, b"x"), (2, b"y"), (1, b"x"), (1, b"z"), (None, b""), (None, b"")):
        one.add(image_id, content)
    assert len(one) == 5
    other = Fingerprint()
    other.merge(one)
    assert other.digest() == one.digest() != Fingerprint().digest()
