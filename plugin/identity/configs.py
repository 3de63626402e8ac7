"""The identity in a configuration: Transformers' objects and OpenMMLab's dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import backbone_structure
from .algorithms import OVERRIDES, algorithm
from .backbones import backbone

Fields = dict[str, tuple[str, str]]
"""The value of each field and the entry of the configuration that holds it."""


def pixels(size: Any) -> str:
    """A number, or a pair (height, width) or more, as ``"<height>x<width>"``; else ""."""
    sides = [size] if isinstance(size, int) else list(size or ())
    return f"{sides[0]}x{sides[-1]}" if sides and all(sides) else ""


def processed(processor: Any) -> str:
    """The limits that an image processor of Transformers resizes within; "" where it has none.

    The one size of another processor is only a setting: the first batch has it where it acts.

    >>> class Processor:
    ...     do_resize, size = True, {"shortest_edge": 800, "longest_edge": 1333}
    >>> processed(Processor())
    '800x1333'
    """
    processor = getattr(processor, "image_processor", processor)
    size = getattr(processor, "size", None) if getattr(processor, "do_resize", None) else None
    if size is None or getattr(processor, "do_center_crop", None):
        return ""
    named = size if isinstance(size, Mapping) else vars(size)
    return pixels([named.get("shortest_edge"), named.get("longest_edge")])


HEADS = {"mobilevit": "DeepLabV3", "mobilevitv2": "DeepLabV3", "mobilenet_v2": "DeepLabV3+"}
"""The algorithm of models that Transformers names by their backbone."""

FIXED = {"eomt"}
"""Models that take their ``image_size`` only; others interpolate position embeddings."""


def transformers(config: Any) -> Fields:
    """The fields in the configuration of a Transformers model."""
    kind = str(config.model_type)
    fields = {"algorithm": (HEADS.get(kind) or algorithm(kind), "config.model_type")}
    if kind in FIXED:
        fields["input_size"] = (pixels(config.image_size), "config.image_size")
    described = getattr(config, "backbone_config", None)
    named = getattr(config, "backbone", None)
    if isinstance(named, str):
        fields["backbone"] = (backbone(named) or named, "config.backbone")
    elif described is not None:
        fields["backbone"] = (backbone_structure.hugging_face(described), "config.backbone_config")
    else:
        fields["backbone"] = (backbone_structure.hugging_face(config), "config")
    return fields


def open_mmlab(config: Mapping[str, Any]) -> Fields:
    """The fields in an MMEngine configuration, of a whole training or of its model alone."""
    model = config.get("model", config)
    fields = {
        "algorithm": (_detector(model), "the config's model"),
        "input_size": (_trained_at(config, model), "the config's pipeline"),
    }
    if isinstance(model.get("backbone"), Mapping):
        named = backbone_structure.open_mmlab(model["backbone"])
        fields["backbone"] = (named, "the config's model.backbone")
    return fields


def _detector(model: Mapping[str, Any]) -> str:
    """The algorithm, by the model's type, else by its heads and backbone."""
    name = algorithm(_kind(model))
    if name == "Cascade R-CNN" and "mask_head" in (model.get("roi_head") or {}):
        return "Cascade Mask R-CNN"
    if name:
        return name
    parts = [model.get(part) for part in ("decode_head", "bbox_head", "mask_head", "panoptic_head")]
    last = [part[-1] if isinstance(part, list) else part for part in parts if part]
    named = {_headed(_kind(part)) for part in last} - {""}
    network = algorithm(_kind(model.get("backbone") or {}))
    if network and named <= OVERRIDES.get(network, set()):
        return network
    return named.pop() if len(named) == 1 else ""


def _kind(part: Mapping[str, Any]) -> str:
    """The ``type`` of a part, a class or its name with or without the package."""
    kind = part.get("type", "")
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _headed(kind: str) -> str:
    """The algorithm of a head: ``RetinaHead``, ``FCNHead``, ``OCRHead``."""
    bare = kind.removesuffix("Head")
    return algorithm(kind) or algorithm(bare) or algorithm(f"{bare}Net")


def _trained_at(config: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The crop in training, else the size that images are resized to for the evaluation."""
    crop = (model.get("data_preprocessor") or {}).get("size") or config.get("crop_size")
    if crop:
        return pixels(crop)
    for stage, step, sides in (
        ("train", "RandomCrop", "crop_size"),
        ("test", "Resize", "scale"),
        ("val", "Resize", "scale"),
        ("train", "Resize", "scale"),
    ):
        for entry in _pipeline(config, stage):
            if _kind(entry) == step and isinstance(entry.get(sides), Iterable):
                size = list(entry[sides])
                if len(size) != 2 or not all(isinstance(side, int) for side in size):
                    return ""
                if step == "Resize":  # (width, height), or the two limits in any order
                    size = sorted(size) if entry.get("keep_ratio") else size[::-1]
                return pixels(size)
    return ""


def _pipeline(config: Mapping[str, Any], stage: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a data pipeline, also inside nested data sets."""
    data = (config.get(f"{stage}_dataloader") or {}).get("dataset") or {}
    while "pipeline" not in data and isinstance(data.get("dataset"), Mapping):
        data = data["dataset"]
    for step in data.get("pipeline") or config.get(f"{stage}_pipeline") or ():
        if isinstance(step, Mapping):
            yield step
