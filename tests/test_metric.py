"""Names by label, in every form that libraries give them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from boxscore.detection import DetectionMetrics
from boxscore.metric import NO_CLASS, class_names
from boxscore.segmentation import SegmentationMetrics


class Series(SimpleNamespace):
    """A pandas Series, as far as it goes: no Mapping, and iterates over its values."""

    def items(self) -> Any:
        return zip(self.index, self.values, strict=True)

    def __iter__(self) -> Any:
        return iter(self.values)


@pytest.mark.parametrize(
    "classes",
    [
        {1: "cat", 2: "dog"},
        {np.int64(1): "cat", np.int64(2): "dog"},
        {np.uint8(1): np.str_("cat"), np.int32(2): np.str_("dog")},
        dict(zip(np.unique([2, 1]), ["cat", "dog"], strict=True)),
        json.loads('{"1": "cat", "2": "dog"}'),
        {2: "dog", "1": "cat"},
        ["__background__", "cat", "dog"],
        ("N/A", "cat", "dog"),
        np.array(["background", "cat", "dog"]),
        {0: "_Background_", 1: "cat", 2: "dog"},
        Series(index=[1, 2], values=["cat", "dog"]),
    ],
)
def test_labels_of_any_integer_kind(classes: Any) -> None:
    assert class_names(classes, without=NO_CLASS) == {1: "cat", 2: "dog"}
    assert all(type(label) is int for label in class_names(classes, without=NO_CLASS))
    assert list(DetectionMetrics(classes).per_class()) == ["cat", "dog"]


def test_tensors_are_labels_too() -> None:
    torch = pytest.importorskip("torch")
    assert class_names({torch.tensor(1): "cat"}) == {1: "cat"}


def test_semantic_labels_keep_their_background() -> None:
    classes: Any = {np.int64(0): "background", np.int64(1): "cat"}
    metric = SegmentationMetrics(classes)
    assert metric.classes == {0: "background", 1: "cat"}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({1.0: "cat"}, r"label 1.0 is not an integer"),
        ({np.float64(1): "cat"}, r"label np.float64\(1.0\) is not an integer"),
        ({"cat": 1}, r"label 'cat' is not an integer"),
        ({"-1": "cat"}, r"label '-1' is not an integer"),
        ({-1: "cat"}, r"label -1 is not an integer of 0 or more"),
        ({None: "cat"}, r"label None is not an integer"),
        ("cat", r"'cat' gives no names by label"),
        ({"cat", "dog"}, r"gives no names by label"),
        (iter(["cat"]), r"gives no names by label"),
        (3, r"3 gives no names by label"),
        ({}, r"no class is left"),
        (["__background__"], r"no class is left"),
    ],
)
def test_other_forms_are_refused_with_the_right_spelling(classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^classes: .*{message}.*; pass names by label, .*1: 'ca"):
        class_names(classes, without=NO_CLASS)


def test_one_label_with_two_names_and_two_labels_with_one() -> None:
    with pytest.raises(ValueError, match="label 1 has two names, 'cat' and 'dog'"):
        class_names({1: "cat", "1": "dog"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="'cat' names more than one label"):
        class_names({1: "cat", 2: "cat"})
