"""Live models of every framework, small and with random weights, say what they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from boxscore import Identity
from boxscore.identity.models import infer

torch = pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("YOLO_OFFLINE", "true")


def said(model: Any) -> tuple[str, str, str]:
    """What a model says: algorithm, input size, backbone."""
    found = {name: value for name, (value, _) in infer(model).items()}
    return found.get("algorithm", ""), found.get("input_size", ""), found.get("backbone", "")


# torchvision

DETECTORS = [
    ("retinanet_resnet50_fpn", "RetinaNet", "800x1333", "ResNet-50"),
    ("retinanet_resnet50_fpn_v2", "RetinaNet", "800x1333", "ResNet-50"),
    ("fcos_resnet50_fpn", "FCOS", "800x1333", "ResNet-50"),
    ("fasterrcnn_mobilenet_v3_large_320_fpn", "Faster R-CNN", "320x640", "MobileNetV3-Large"),
    ("maskrcnn_resnet50_fpn", "Mask R-CNN", "800x1333", "ResNet-50"),
    ("keypointrcnn_resnet50_fpn", "Keypoint R-CNN", "800x1333", "ResNet-50"),
    ("ssd300_vgg16", "SSD", "300x300", "VGG-16"),
    ("ssdlite320_mobilenet_v3_large", "SSDLite", "320x320", "MobileNetV3-Large"),
]


@pytest.mark.parametrize(("builder", "algorithm", "size", "backbone"), DETECTORS)
def test_torchvision_detectors(builder: str, algorithm: str, size: str, backbone: str) -> None:
    detection = pytest.importorskip("torchvision.models.detection")
    with torch.device("meta"):
        model = getattr(detection, builder)(weights=None, weights_backbone=None)
    assert said(model) == (algorithm, size, backbone)
    assert Identity.of(model) == Identity(algorithm, size, backbone)


@pytest.mark.parametrize(
    ("builder", "algorithm", "backbone"),
    [
        ("fcn_resnet101", "FCN", "ResNet-101"),
        ("deeplabv3_mobilenet_v3_large", "DeepLabV3", "MobileNetV3-Large"),
        ("lraspp_mobilenet_v3_large", "LR-ASPP", "MobileNetV3-Large"),
    ],
)
def test_torchvision_segmentation_takes_any_size(
    builder: str, algorithm: str, backbone: str
) -> None:
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    with torch.device("meta"):
        model = getattr(segmentation, builder)(weights=None, weights_backbone=None)
    assert said(model) == (algorithm, "", backbone)


@pytest.mark.parametrize(
    ("network", "backbone"),
    [
        ("resnet18", "ResNet-18"),
        ("resnet34", "ResNet-34"),
        ("resnet152", "ResNet-152"),
        ("resnext101_32x8d", "ResNeXt-101 32x8d"),
        ("wide_resnet50_2", "Wide-ResNet-50-2"),
    ],
)
def test_a_residual_backbone_is_told_from_its_blocks(network: str, backbone: str) -> None:
    pytest.importorskip("torchvision")
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    with torch.device("meta"):
        body = resnet_fpn_backbone(backbone_name=network, weights=None)
        model = FasterRCNN(body, 2, min_size=480, max_size=640)
    assert said(model) == ("Faster R-CNN", "480x640", backbone)


def test_a_residual_backbone_of_no_known_depth_has_no_name() -> None:
    pytest.importorskip("torchvision")
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.resnet import BasicBlock, ResNet

    with torch.device("meta"):
        body = _resnet_fpn_extractor(ResNet(BasicBlock, [1, 1, 1, 1]), 5)
        model = RetinaNet(body, 2, min_size=64, max_size=64)
    assert said(model) == ("RetinaNet", "64x64", "")


def test_of_several_short_sides_the_one_that_is_evaluated_counts() -> None:
    detection = pytest.importorskip("torchvision.models.detection")
    with torch.device("meta"):
        model = detection.retinanet_resnet50_fpn(
            weights=None, weights_backbone=None, min_size=(640, 672, 800), max_size=1333
        )
    assert said(model)[1] == "800x1333"


def test_a_fixed_size_is_height_by_width() -> None:
    detection = pytest.importorskip("torchvision.models.detection")
    with torch.device("meta"):
        model = detection.ssd300_vgg16(weights=None, weights_backbone=None)
    model.transform.fixed_size = (640, 480)  # torchvision writes width, height
    made, _ = model.transform([torch.zeros(3, 100, 100)])
    height, width = made.tensors.shape[-2:]
    assert said(model)[1] == f"{height}x{width}" == "480x640"


def test_a_subclass_is_what_it_derives_from() -> None:
    detection = pytest.importorskip("torchvision.models.detection")

    class Mine(detection.FCOS):  # type: ignore[misc,name-defined]
        pass

    with torch.device("meta"):
        model = detection.fcos_resnet50_fpn(weights=None, weights_backbone=None)
    model.__class__ = Mine
    assert said(model)[0] == "FCOS"


# wrappers


def unet() -> Any:
    smp = pytest.importorskip("segmentation_models_pytorch")
    return smp.Unet("resnet18", encoder_weights=None, decoder_channels=(8, 8, 8, 8, 8))


def distributed(model: Any) -> Any:
    wrapped = torch.nn.DataParallel(model)  # holds its model as DistributedDataParallel does
    wrapped.__class__ = torch.nn.parallel.DistributedDataParallel
    return wrapped


@pytest.mark.parametrize(
    ("wrap", "inside"),
    [
        (distributed, "model.module.name"),
        (torch.compile, "model._orig_mod.name"),
        (torch.optim.swa_utils.AveragedModel, "model.module.name"),
    ],
    ids=["ddp", "compile", "ema"],
)
def test_wrappers_are_looked_through(wrap: Callable[[Any], Any], inside: str) -> None:
    wrapped = wrap(unet())
    assert said(wrapped) == ("U-Net", "", "ResNet-18")
    assert infer(wrapped)["backbone"].source == inside


@pytest.mark.slow
def test_wrappers_nest() -> None:
    pytest.importorskip("lightning")
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.compile(unet())
            self.loss = torch.nn.CrossEntropyLoss()
            self.probe = torch.nn.Linear(2, 2)

    assert said(Module()) == ("U-Net", "", "ResNet-18")


def test_lightning_with_a_child_of_another_name() -> None:
    pytest.importorskip("lightning")
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.student = unet()

    assert said(Module()) == ("U-Net", "", "ResNet-18")


class Pair(torch.nn.Module):  # type: ignore[misc,name-defined]
    """Two models side by side."""

    def __init__(self, one: Any, other: Any) -> None:
        super().__init__()
        self.one, self.other = one, other


def test_a_teacher_and_a_student_share_what_they_agree_on() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    teacher = smp.Unet("resnet34", encoder_weights=None)
    assert said(Pair(unet(), teacher)) == ("U-Net", "", "")


def test_two_different_models_are_ambiguous() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    assert said(Pair(unet(), smp.FPN("resnet18", encoder_weights=None)))[0] == ""


def test_a_known_model_inside_a_larger_one_does_not_name_it() -> None:
    assert infer(Pair(unet(), torch.nn.Linear(2, 2))) == {}


def test_an_own_class_is_what_it_is_called() -> None:
    class UNet(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2, 3)

    assert infer(UNet()) == {"algorithm": ("U-Net", "class UNet")}


@pytest.mark.parametrize("model", [None, 7, "model", object(), {}, {"model": {}}, [1]])
def test_what_is_no_model_says_nothing(model: Any) -> None:
    assert infer(model) == {}


# segmentation-models-pytorch

ARCHITECTURES = {
    "unet": "U-Net",
    "unetplusplus": "U-Net++",
    "manet": "MA-Net",
    "linknet": "LinkNet",
    "fpn": "Semantic FPN",
    "pspnet": "PSPNet",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3+",
    "pan": "PAN",
    "upernet": "UPerNet",
    "segformer": "SegFormer",
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_segmentation_models(architecture: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = smp.create_model(architecture, "resnet18", encoder_weights=None)
    assert said(model) == (ARCHITECTURES[architecture], "", "ResNet-18")


@pytest.mark.parametrize(
    ("encoder", "backbone"),
    [
        ("mit_b0", "MiT-B0"),
        ("efficientnet-b0", "EfficientNet-B0"),
        ("tu-tf_efficientnet_lite0", "EfficientNet-Lite0"),
        ("tu-convnext_atto", "ConvNeXt-Atto"),
        ("mobilenet_v2", "MobileNetV2"),
    ],
)
def test_encoders_of_segmentation_models(encoder: str, backbone: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = smp.FPN(encoder, encoder_weights=None)
    assert said(model)[2] == backbone


# Ultralytics


@pytest.mark.parametrize(
    ("file", "algorithm", "scale"),
    [
        ("yolo11n.yaml", "YOLO11", "n"),
        ("yolov8s-seg.yaml", "YOLOv8", "s"),
        ("yolo12n.yaml", "YOLO12", "n"),
        ("yolo26n.yaml", "YOLO26", "n"),
        ("yolov5n.yaml", "YOLOv5", "n"),
        ("yolov10n.yaml", "YOLOv10", "n"),
        ("yolov9t.yaml", "YOLOv9", "t"),
        ("yolov3-tiny.yaml", "YOLOv3", "tiny"),
        ("yolov8.yaml", "YOLOv8", ""),
    ],
)
def test_ultralytics_yolo(file: str, algorithm: str, scale: str) -> None:
    ultralytics = pytest.importorskip("ultralytics")
    model = ultralytics.YOLO(file)
    assert said(model) == said(model.model) == (algorithm, "640x640", scale)


def test_ultralytics_rt_detr() -> None:
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    with torch.device("meta"):
        model = tasks.RTDETRDetectionModel("rtdetr-l.yaml", verbose=False)
    assert said(model) == ("RT-DETR", "", "l")


def test_ultralytics_in_training_has_its_setting() -> None:
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    utils = pytest.importorskip("ultralytics.utils")
    model = tasks.DetectionModel("yolo11n.yaml", verbose=False)
    model.args = utils.IterableSimpleNamespace(imgsz=320)
    assert said(model)[1] == "320x320"


# Keras


def test_keras_by_name_and_shape() -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((64, 96, 3))
    outputs = keras.layers.Conv2D(1, 3)(inputs)
    model = keras.Model(inputs, outputs, name="unet_resnet50")
    assert said(model) == ("U-Net", "64x96", "ResNet-50")


def test_keras_by_class() -> None:
    keras = pytest.importorskip("keras")

    class RetinaNetObjectDetector(keras.Model):  # type: ignore[misc,name-defined]
        pass

    assert said(RetinaNetObjectDetector(name="mine")) == ("RetinaNet", "", "")


def test_keras_without_a_telling_name() -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(1, 3)(inputs))
    assert infer(model) == {}
