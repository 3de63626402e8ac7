"""The facts that a model and its loaders state: task, input size, classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from boxscore import Identity
from boxscore.callbacks.loop import LoopCallback
from boxscore.callbacks.reading.model_info import classes_of, has_fixed_input_size, size_of, task_of
from boxscore.catalogue import Task
from boxscore.detection import DetectionMetrics
from boxscore.identity.wrappers import network
from boxscore.loggers import MemoryLogger
from boxscore.metric import NO_CLASS, class_names
from tests.tiny import fcos, two_stage


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
def test_a_transformers_model_states_its_task(name: str, task: Task, package: str) -> None:
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
def test_a_model_that_does_not_state_its_task_is_asked_about(name: str, module: str) -> None:
    with pytest.raises(ValueError, match="task: Mine states none; pass task='detection'"):
        task_of(of(name, module), None)


class Around(torch.nn.Module):
    """A module of a user's own around others."""

    def __init__(self, **children: Any) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


def unet() -> Any:
    smp = pytest.importorskip("segmentation_models_pytorch")
    return smp.Unet("resnet18", encoder_weights=None, decoder_channels=(8, 8, 8, 8, 8))


def segformer() -> Any:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        return transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig())


def in_lightning(model: Any) -> Any:
    pl = pytest.importorskip("lightning.pytorch")
    module = pl.LightningModule()
    module.net = model
    return module


MODELS: dict[str, tuple[Callable[[], Any], Task]] = {
    "torchvision detector": (fcos, "detection"),
    "torchvision masks": (lambda: two_stage(MaskRCNN), "instance-segmentation"),
    "smp": (unet, "semantic-segmentation"),
    "transformers": (segformer, "semantic-segmentation"),
}
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda model: model,
    "own": lambda model: Around(mine=model),
    "list": lambda model: torch.nn.ModuleList([model]),
    "lightning": in_lightning,
    "nested": lambda model: torch.nn.DataParallel(
        torch.compile(in_lightning(Around(inner=torch.compile(model))))
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_task_is_seen_through_wrappers_as_the_identity_is(kind: str, wrapper: str) -> None:
    make, task = MODELS[kind]
    model = WRAPPERS[wrapper](make())
    assert task_of(model, None) == task
    known = Identity.of(model, input_size=64)
    assert known == Identity.of(make(), input_size=64)


def test_networks_of_one_task_share_it_and_of_two_are_asked_about() -> None:
    assert task_of(Around(student=unet(), teacher=segformer()), None) == "semantic-segmentation"
    with pytest.raises(ValueError, match="task: Around states none; pass task='detection'"):
        task_of(Around(one=unet(), two=fcos()), None)


# the input size


class Skips(GeneralizedRCNNTransform):  # type: ignore[misc]
    """A transform that leaves images as they are."""

    def resize(self, image: Any, target: Any = None) -> Any:
        return image, target


def without_resize(how: str) -> Any:
    model = fcos()
    if how == "module":
        model.transform = torch.nn.Identity()
    elif how == "flag":
        model.transform._skip_resize = True
    elif how == "method":
        model.transform.resize = lambda image, target=None: (image, target)
    else:
        model.transform = Skips(64, 64, [0.0] * 3, [1.0] * 3)
    return model


@pytest.mark.parametrize("how", ["module", "flag", "method", "subclass"])
def test_a_transform_that_does_not_resize_fixes_no_size(how: str) -> None:
    assert has_fixed_input_size(fcos())
    assert not has_fixed_input_size(without_resize(how))
    assert not has_fixed_input_size(Around(inner=without_resize(how)))


def test_the_size_that_is_fed_decides_where_nothing_resizes() -> None:
    model, memory = without_resize("subclass"), MemoryLogger()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with LoopCallback(
        model, optimizer, dataset="d", classes={1: "a"}, loggers=[memory], log_every=1
    ) as score:
        target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}
        score.step(model([torch.rand(3, 96, 128)], [target]))
    assert score.run is not None
    assert score.run.identity.group == "FCOS 96x128"


@pytest.mark.parametrize(
    ("images", "size"),
    [
        (torch.zeros(2, 3, 48, 64), "48x64"),
        (np.zeros((2, 3, 48, 64)), "48x64"),
        ([torch.zeros(3, 48, 64), torch.zeros(3, 48, 64)], "48x64"),
        ((np.zeros((3, 48, 64)),), "48x64"),
        ({"image": torch.zeros(2, 3, 48, 64), "mask": torch.zeros(2, 48, 64)}, "48x64"),
        ({"img": torch.zeros(2, 3, 48, 64), "name": ["a", "b"]}, "48x64"),
        ([torch.zeros(3, 48, 64), torch.zeros(3, 64, 48)], None),
        ({"image": torch.zeros(2, 3, 48, 64), "small": torch.zeros(2, 3, 24, 32)}, None),
        ([], None),
        (7, None),
        (torch.zeros(3, 4), None),
    ],
)
def test_the_size_of_a_batch(images: Any, size: str | None) -> None:
    read = size_of(images)
    assert (read and read.value) == size


# classes


def pasted(error: str) -> list[Any]:
    """Both spellings of an error's advice, as a user would paste them."""
    found = re.search(r"pass classes=(\[.*\]) or (\{.*\})$", error)
    assert found
    return [ast.literal_eval(text) for text in found.groups()]


@pytest.mark.parametrize(
    "classes",
    [
        ["cat", "dog"],
        ("cat", "dog"),
        np.array(["cat", "dog"]),
        {0: "cat", 1: "dog"},
        {np.int64(0): "cat", np.int64(1): "dog"},
        {"0": "cat", "1": "dog"},
    ],
)
def test_a_class_at_label_0_is_refused_where_the_model_keeps_it(classes: Any) -> None:
    model = two_stage()
    with pytest.raises(ValueError, match="label 0 is 'cat', and FasterRCNN keeps label 0") as error:
        classes_of(None, classes, model=model, background=True)
    for advice in pasted(str(error.value)):
        taken = classes_of(None, advice, model=model, background=True)
        assert class_names(taken, without=NO_CLASS) == {1: "cat", 2: "dog"}
    assert classes_of(None, classes, model=model, background=False) is classes


def test_labels_with_gaps_have_both_spellings_too() -> None:
    with pytest.raises(ValueError, match="label 0") as error:
        classes_of(None, {0: "cat", 2: "dog"}, model=two_stage(), background=True)
    for advice in pasted(str(error.value)):
        assert class_names(advice, without=NO_CLASS) == {1: "cat", 3: "dog"}


def test_a_model_that_learns_label_0_takes_a_mapping_with_it() -> None:
    """RetinaNet and FCOS score every column; a list is read in torchvision's convention."""
    assert classes_of(None, {0: "cat"}, model=fcos(), background=True) == {0: "cat"}
    with pytest.raises(ValueError, match="FCOS keeps label 0 for the background"):
        classes_of(None, ["cat"], model=fcos(), background=True)


@pytest.mark.parametrize(
    "background", ["background", "Background", "BG", "bg", "__background__", "_background_", "N/A"]
)
@pytest.mark.parametrize("form", [list, dict])
def test_a_leading_background_is_understood(background: str, form: Any) -> None:
    names = [background, "cat"]
    classes = names if form is list else dict(enumerate(names))
    taken = classes_of(None, classes, model=two_stage(), background=True)
    assert class_names(taken, without=NO_CLASS) == {1: "cat"}
    assert DetectionMetrics(classes).per_class() == DetectionMetrics({1: "cat"}).per_class()


def coco(categories: list[int], used: list[int]) -> Any:
    cats = {n: {"id": n, "name": f"c{n}"} for n in categories}
    index = SimpleNamespace(cats=cats, catToImgs={n: [1] for n in used})
    return SimpleNamespace(dataset=SimpleNamespace(coco=index))


def test_a_parent_category_at_0_without_annotations_is_no_class() -> None:
    loader = coco([0, 1, 2], used=[1, 2])
    taken = classes_of(loader, None, model=two_stage(), background=True)
    assert taken == {1: "c1", 2: "c2"}
    with pytest.raises(ValueError, match="label 0 is 'c0'"):
        classes_of(coco([0, 1], used=[0, 1]), None, model=two_stage(), background=True)
    taken = classes_of(coco([0, 1], used=[0, 1]), None, model=None, background=False)
    assert taken == {0: "c0", 1: "c1"}


def test_labels_that_the_data_set_remaps_are_named_by_its_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    loader = coco([3, 7], used=[3, 7])
    loader.dataset.label_of_category = {3: 1, 7: 2}
    taken = classes_of(loader, None, model=two_stage(), background=True)
    assert taken == {1: loader.dataset.coco.cats[3]["name"], 2: loader.dataset.coco.cats[7]["name"]}
    assert "(from the test set's COCO categories)" in capsys.readouterr().err


def test_classes_of_a_model_inside_a_module() -> None:
    inner = network(Around(mine=segformer()))
    assert classes_of(None, None, model=inner, background=False) == {0: "LABEL_0", 1: "LABEL_1"}


def test_unknown_classes_are_asked_for() -> None:
    with pytest.raises(ValueError, match=r"classes: unknown; pass .* classes=\{1: 'cat"):
        classes_of(None, None, model=fcos(), background=True)
