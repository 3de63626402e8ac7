"""Transformers models and OpenMMLab configurations say what they are."""

from __future__ import annotations

from typing import Any

import pytest

from boxscore.identity.configs import processed
from boxscore.identity.wrappers import infer

torch = pytest.importorskip("torch")


def said(model: Any) -> tuple[str, str, str]:
    """What a model says: algorithm, input size, backbone."""
    found = {name: value for name, (value, _) in infer(model).items()}
    return found.get("algorithm", ""), found.get("input_size", ""), found.get("backbone", "")


# Transformers: the backbone's real configuration, around a network of a few channels


def detr(kind: str, **more: Any) -> Any:
    """A model of the DETR family over a small timm backbone."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("timm")
    config = transformers.CONFIG_MAPPING[kind](
        backbone_config=transformers.TimmBackboneConfig(backbone="resnet18", out_indices=(2, 3, 4)),
        num_queries=4,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        **more,
    )
    with torch.device("meta"):
        return transformers.AutoModelForObjectDetection.from_config(config)


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("detr", "DETR"),
        ("conditional_detr", "Conditional DETR"),
        ("deformable_detr", "Deformable DETR"),
        ("table-transformer", "Table Transformer"),
    ],
)
def test_the_detr_family(kind: str, algorithm: str) -> None:
    assert said(detr(kind)) == (algorithm, "", "ResNet-18")


@pytest.mark.parametrize(
    ("kind", "algorithm", "size", "backbone"),
    [
        ("rt_detr", "RT-DETR", "", "ResNet-50-vd"),
        ("rt_detr_v2", "RT-DETRv2", "", "ResNet-50-vd"),
        ("d_fine", "D-FINE", "", "HGNetv2"),
        ("yolos", "YOLOS", "", "DeiT-Base"),
        ("mask2former", "Mask2Former", "", "Swin-Small"),
        ("maskformer", "MaskFormer", "", "Swin-Base"),
        ("segformer", "SegFormer", "", "MiT-B0"),
        ("upernet", "UPerNet", "", "ResNet-50"),
        ("dpt", "DPT", "", "ViT-Base"),
        ("mobilevit", "DeepLabV3", "", "MobileViT-Small"),
        ("mobilenet_v2", "DeepLabV3+", "", "MobileNetV2"),
        ("eomt", "EoMT", "640x640", "ViT-Large"),
    ],
)
def test_transformers(kind: str, algorithm: str, size: str, backbone: str) -> None:
    transformers = pytest.importorskip("transformers")
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    config = transformers.CONFIG_MAPPING[kind]()
    for mapping in (
        auto.MODEL_FOR_OBJECT_DETECTION_MAPPING,
        auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
        auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    ):
        if type(config) in mapping:
            with torch.device("meta"):
                model = mapping[type(config)](config)
            break
    assert said(model) == (algorithm, size, backbone)


def test_oneformer() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.OneFormerConfig(is_training=True)
    with torch.device("meta"):
        model = transformers.OneFormerForUniversalSegmentation(config)
    assert said(model) == ("OneFormer", "", "Swin-Tiny")


def test_beit() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BeitConfig(out_indices=[3, 5, 7, 11])
    with torch.device("meta"):
        model = transformers.BeitForSemanticSegmentation(config)
    assert said(model) == ("BEiT", "", "BEiT-Base")


def tiny_eomt(size: int) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.EomtConfig(
        image_size=size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_queries=4, num_blocks=1, patch_size=16,
    )  # fmt: skip
    return transformers.EomtForUniversalSegmentation(config).eval()


def test_an_image_size_is_believed_where_the_model_takes_no_other() -> None:
    model = tiny_eomt(64)
    assert said(model) == ("EoMT", "64x64", "")
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 3, 96, 96))


@pytest.mark.parametrize("name", ["Segformer", "Mask2Former"])
def test_a_model_without_a_head_is_none_of_the_family(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")()
    with torch.device("meta"):
        model = getattr(transformers, f"{name}Model")(config)
    assert infer(model) == {}


def test_a_subclass_of_a_model_is_one_of_the_family() -> None:
    transformers = pytest.importorskip("transformers")

    class Mine(transformers.SegformerForSemanticSegmentation):  # type: ignore[misc,name-defined]
        pass

    with torch.device("meta"):
        model = Mine(transformers.SegformerConfig())
    assert said(model) == ("SegFormer", "", "MiT-B0")
    assert said(torch.nn.Sequential(model)) == said(model)


def test_the_limits_of_an_image_processor() -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchvision")
    assert processed(transformers.DetrImageProcessor()) == "800x1333"
    assert processed(transformers.SegformerImageProcessor(size=(480, 640))) == ""  # a setting
    assert processed(transformers.RTDetrImageProcessor(do_resize=False)) == ""
    assert processed(None) == ""


# MMEngine

CONFIGS = [
    ({"type": "RetinaNet", "backbone": {"type": "ResNet", "depth": 50}}, "RetinaNet", "ResNet-50"),
    (
        {"type": "FasterRCNN", "backbone": {"type": "ResNeXt", "depth": 101, "groups": 64}},
        "Faster R-CNN",
        "ResNeXt-101 64x4d",
    ),
    ({"type": "CascadeRCNN", "roi_head": {"mask_head": {}}}, "Cascade Mask R-CNN", ""),
    ({"type": "mmdet.CascadeRCNN", "roi_head": {"bbox_head": []}}, "Cascade R-CNN", ""),
    (
        {"type": "SingleStageDetector", "bbox_head": {"type": "SSDHead"},
         "backbone": {"type": "SSDVGG", "depth": 16}},
        "SSD",
        "VGG-16",
    ),
    ({"type": "YOLODetector", "bbox_head": {"type": "YOLOv8Head"}}, "YOLOv8", ""),
    ({"type": "YOLOX", "backbone": {"type": "CSPDarknet"}}, "YOLOX", "CSPDarknet"),
    ({"type": "RTMDet", "backbone": {"type": "CSPNeXt"}}, "RTMDet", "CSPNeXt"),
    ({"type": "DeformableDETR"}, "Deformable DETR", ""),
    (
        {"type": "Mask2Former",
         "backbone": {"type": "SwinTransformer", "embed_dims": 96, "depths": [2, 2, 6, 2]}},
        "Mask2Former",
        "Swin-Tiny",
    ),
    (
        {"type": "EncoderDecoder", "decode_head": {"type": "PSPHead"},
         "auxiliary_head": {"type": "FCNHead"}, "backbone": {"type": "ResNetV1c", "depth": 18}},
        "PSPNet",
        "ResNet-18",
    ),
    ({"type": "EncoderDecoder", "decode_head": {"type": "ASPPHead"}}, "DeepLabV3", ""),
    (
        {"type": "EncoderDecoder", "decode_head": {"type": "DepthwiseSeparableASPPHead"}},
        "DeepLabV3+",
        "",
    ),
    (
        {"type": "EncoderDecoder", "decode_head": {"type": "SegformerHead"},
         "backbone": {"type": "MixVisionTransformer", "embed_dims": 32,
                      "num_layers": [2, 2, 2, 2]}},
        "SegFormer",
        "MiT-B0",
    ),
    ({"type": "EncoderDecoder", "decode_head": {"type": "UPerHead"}}, "UPerNet", ""),
    (
        {"type": "EncoderDecoder", "decode_head": {"type": "FCNHead"},
         "backbone": {"type": "UNet"}},
        "U-Net",
        "",
    ),
    (
        {"type": "CascadeEncoderDecoder",
         "decode_head": [{"type": "FCNHead"}, {"type": "OCRHead"}]},
        "OCRNet",
        "",
    ),
    ({"type": "TwoStageDetector"}, "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("config", "algorithm", "backbone"), CONFIGS)
def test_open_mmlab_configurations(config: dict[str, Any], algorithm: str, backbone: str) -> None:
    mmengine = pytest.importorskip("mmengine")
    whole = mmengine.Config({"model": config})
    assert said(config) == said(whole) == (algorithm, "", backbone)


def trained(train: list[dict[str, Any]], test: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A configuration with the pipelines of two stages."""
    return {
        "model": {"type": "RetinaNet"},
        "train_dataloader": {"dataset": {"type": "Repeat", "dataset": {"pipeline": train}}},
        "test_dataloader": {"dataset": {"pipeline": test}},
        **more,
    }


RESIZE = {"type": "Resize", "scale": (1333, 800), "keep_ratio": True}
SQUEEZE = {"type": "mmdet.Resize", "scale": (640, 480), "keep_ratio": False}
CROP = {"type": "RandomCrop", "crop_size": (512, 1024)}


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (trained([RESIZE], [RESIZE]), "800x1333"),
        (trained([], [SQUEEZE]), "480x640"),
        (trained([RESIZE, CROP], [RESIZE]), "512x1024"),
        (trained([RESIZE], [RESIZE], crop_size=(512, 512)), "512x512"),
        (trained([{"type": "RandomFlip"}], []), ""),
    ],
)
def test_the_size_in_a_pipeline(config: dict[str, Any], size: str) -> None:
    mmengine = pytest.importorskip("mmengine")
    assert said(config)[1] == said(mmengine.Config(config))[1] == size
