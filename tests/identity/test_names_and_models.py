"""A name that a framework gives a model agrees with the model itself."""

from __future__ import annotations

from typing import Any

import pytest

from boxscore import Identity

torch = pytest.importorskip("torch")
FIELDS = ("algorithm", "input_size", "backbone")


def agree(name: str, model: Any, **fields: str) -> None:
    """Whether each field that the name states is the model's, ``fields`` included."""
    named, known = Identity.parse(name), Identity.of(model, **fields)
    stated = {field: getattr(named, field) for field in FIELDS if getattr(named, field)}
    assert stated
    assert {field: getattr(known, field) for field in stated} == stated


def builders(module: str) -> list[str]:
    torchvision = pytest.importorskip("torchvision")
    names: list[str] = torchvision.models.list_models(getattr(torchvision.models, module))
    return names


def built(name: str) -> Any:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None, weights_backbone=None)


@pytest.mark.parametrize("name", builders("detection"))
def test_torchvision_detection(name: str) -> None:
    agree(name, built(name))
    assert Identity.parse(name).backbone


@pytest.mark.parametrize("name", builders("segmentation"))
def test_torchvision_segmentation(name: str) -> None:
    agree(name, built(name), input_size="520x520")
    assert Identity.parse(name).backbone


def test_a_number_that_is_the_short_limit() -> None:
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    assert Identity.parse(name) == Identity.of(built(name))
    assert Identity.parse(name) == Identity("Faster R-CNN", "320x640", "MobileNetV3-Large")
    assert Identity.parse("FasterRCNN_MobileNet_V3_Large_320_FPN_Weights").input_size == "320x640"
    assert Identity.parse("fasterrcnn_mobilenet_v3_large_320x320").input_size == "320x320"


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        ("unet", "resnet34"),
        ("unetplusplus", "mobilenet_v2"),
        ("fpn", "mit_b0"),
        ("deeplabv3plus", "efficientnet-b0"),
        ("segformer", "resnet18"),
        ("pan", "resnet18"),
    ],
)
def test_segmentation_models(architecture: str, encoder: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = smp.create_model(architecture, encoder, encoder_weights=None)
    agree(f"{architecture}_{encoder}", model, input_size="512x512")
    agree(f"{architecture}-{encoder}-512x512", model, input_size="512x512")


@pytest.mark.parametrize(
    "name", ["yolo11n", "yolov8s-seg", "yolo12n", "yolov5n", "yolov10n", "yolov9t", "yolov3-tiny"]
)
def test_ultralytics(name: str) -> None:
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    build = tasks.SegmentationModel if "seg" in name else tasks.DetectionModel
    model = build(f"{name}.yaml", verbose=False)
    agree(f"{name}.pt", model, input_size="640x640")


@pytest.mark.parametrize(
    ("name", "kind", "task", "changes"),
    [
        ("facebook/detr-resnet-101", "detr", "ObjectDetection", {"backbone": "resnet101"}),
        ("hustvl/yolos-base", "yolos", "ObjectDetection", {}),
        ("nvidia/segformer-b0-finetuned-ade-512-512", "segformer", "SemanticSegmentation", {}),
        ("PekingU/rtdetr_r50vd", "rt_detr", "ObjectDetection", {}),
        ("facebook/mask2former-swin-small-coco", "mask2former", "UniversalSegmentation", {}),
    ],
)
def test_transformers(name: str, kind: str, task: str, changes: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("timm")
    if changes:
        changes = {
            "backbone_config": transformers.TimmBackboneConfig(
                backbone=changes["backbone"], out_indices=(2, 3, 4)
            )
        }
    config = transformers.CONFIG_MAPPING[kind](**changes)
    with torch.device("meta"):
        model = getattr(transformers, f"AutoModelFor{task}").from_config(config)
    agree(name, model, input_size="512x512")
    assert Identity.parse(name).backbone
