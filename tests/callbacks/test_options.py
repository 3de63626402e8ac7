from typing import Any

import pytest

from boxscore.callbacks.options import task_of
from boxscore.catalogue import Task


def of(name: str, module: str) -> Any:
    """A model whose class is said to come from ``module``, and a user's subclass of it."""
    return type("Mine", (type(name, (), {"__module__": module}),), {})()


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("DetrForObjectDetection", "detection"),
        ("RTDetrV2ForObjectDetection", "detection"),
        ("SegformerForSemanticSegmentation", "semantic-segmentation"),
        ("EomtForInstanceSegmentation", "instance-segmentation"),
    ],
)
@pytest.mark.parametrize("package", ["transformers.models.x", "transformers_modules.some.remote"])
def test_a_transformers_model_tells_its_task(name: str, task: Task, package: str) -> None:
    assert task_of(of(name, package), None) == task
    assert task_of(of(name, package), "semantic-segmentation") == "semantic-segmentation"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("Mask2FormerForUniversalSegmentation", "transformers.models.mask2former"),
        ("DetrForSegmentation", "transformers.models.detr"),
        ("MaskFormerForInstanceSegmentation", "transformers.models.maskformer"),  # or semantic
        ("DetrForObjectDetection", "my_models"),
    ],
)
def test_a_model_that_does_not_tell_is_asked_about(name: str, module: str) -> None:
    with pytest.raises(ValueError, match="task: Mine does not tell; pass task='detection'"):
        task_of(of(name, module), None)
