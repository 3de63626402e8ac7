from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxscore.fingerprint import Fingerprint, detection_content, label_map_content

NAMES = {1: "RBC", 2: "WBC"}


def target(image_id: object = 7, **changes: Any) -> dict[str, Any]:
    boxes = torch.tensor([[10.0, 20.0, 30.5, 44.25], [1.0, 2.0, 301.0, 202.0]])
    return {"boxes": boxes, "labels": torch.tensor([1, 2]), "image_id": image_id} | changes


def digest(*targets: dict[str, Any], names: dict[int, str] = NAMES, protocol: str = "") -> str:
    gathered = Fingerprint()
    for one in targets:
        gathered.add(one.get("image_id"), detection_content(one, names))
    return gathered.digest(protocol)


def test_twelve_hex_digits() -> None:
    assert len(digest(target())) == 12
    int(digest(target()), 16)


def test_the_order_of_images_and_objects_does_not_count() -> None:
    boxes = target()["boxes"]
    turned = target(2, boxes=boxes.flip(0), labels=torch.tensor([2, 1]))
    assert digest(target(1), target(2)) == digest(turned, target(1))


def test_kinds_of_numbers_do_not_count() -> None:
    array = {
        "boxes": target()["boxes"].numpy().astype(np.float64),
        "labels": [1, 2],
        "image_id": "7",
    }
    assert digest(target()) == digest(target(torch.tensor(7))) == digest(array)


@settings(deadline=None)
@given(st.sampled_from([0.5, 0.8, 1.25, 2.0, 3.7]), st.integers(0, 2**32 - 1), st.booleans())
def test_a_resize_and_back_does_not_count(factor: float, seed: int, given_area: bool) -> None:
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 900, (5, 2)), rng.uniform(1, 900, (5, 2))
    boxes = np.concatenate([corner, corner + side], 1).round(2).astype(np.float32)
    back = (boxes * np.float32(factor)) / np.float32(factor)
    area = (side[:, 0] * side[:, 1]).astype(np.float32)
    area_back = (area * np.float32(factor**2)) / np.float32(factor**2)
    one = {"boxes": boxes, "labels": rng.integers(1, 3, 5), "image_id": 0}
    other = one | {"boxes": back}
    if given_area:
        one, other = one | {"area": area}, other | {"area": area_back}
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    "other",
    [
        target(boxes=target()["boxes"] + torch.tensor([0.02, 0, 0, 0])),
        target(8),
        target(labels=torch.tensor([2, 1])),
        target(iscrowd=torch.tensor([0, 1])),
        target(area=torch.tensor([100.0, 60000.0])),
        target(boxes=target()["boxes"][:1], labels=torch.tensor([1])),
    ],
    ids=["moved box", "other image", "other classes", "crowd", "area", "missing object"],
)
def test_what_counts(other: dict[str, Any]) -> None:
    assert digest(other) != digest(target())


def test_class_names_count_and_labels_do_not() -> None:
    assert digest(target(), names={1: "RBC", 2: "Platelets"}) != digest(target())
    moved = target(labels=torch.tensor([5, 9]))
    assert digest(moved, names={5: "RBC", 9: "WBC"}) == digest(target())


def test_a_missing_image_counts_and_a_doubled_one_does_not() -> None:
    assert digest(target(1)) != digest(target(1), target(2))
    assert digest(target(1), target(2), target(2)) == digest(target(1), target(2))


def test_another_protocol_is_another_set() -> None:
    assert digest(target(), protocol="max_detections=300") != digest(target())


def test_masks_are_left_out() -> None:
    assert digest(target(masks=torch.ones(2, 8, 8))) == digest(target())


def test_an_image_without_objects_has_a_place() -> None:
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "image_id": 3}
    assert digest(target(), empty) != digest(target())


def test_merging_is_gathering() -> None:
    whole, left, right = Fingerprint(), Fingerprint(), Fingerprint()
    for n in range(6):
        content = detection_content(target(n), NAMES)
        whole.add(n, content)
        (left if n % 2 else right).add(n, content)
    left.merge(right)
    assert left.digest() == whole.digest()


def test_without_ids_content_decides_and_duplicates_count() -> None:
    one, other = (detection_content(target(boxes=target()["boxes"] + n), NAMES) for n in (0, 1))
    orders = []
    for contents in ([one, other], [other, one], [one, one, other]):
        gathered = Fingerprint()
        for content in contents:
            gathered.add(None, content)
        orders.append(gathered.digest())
        assert gathered.anonymous
        assert gathered.ids == frozenset()
    assert orders[0] == orders[1] != orders[2]


def test_label_maps() -> None:
    labels = torch.randint(0, 2, (5, 7))
    names = {0: "ground", 1: "cell"}
    same = label_map_content(labels.numpy().astype(np.uint8), names)
    assert label_map_content(labels, names) == same
    assert label_map_content(1 - labels, names) != same
    assert label_map_content(labels.T, names) != same
    assert label_map_content(labels, {0: "ground", 1: "nucleus"}) != same
