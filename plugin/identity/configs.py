"""What a configuration says of an identity: Transformers' objects and OpenMMLab's dictionaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import backbone_structure
from .algorithms import OVERRIDES, algorithm
from .backbones import backbone

Said = dict[str, tuple[str, str]]
"""Field by field the value, and the entry that says it."""


def pixels(size: Any) -> str:
    """A size in pixels as ``"<height>x<width>"``; "" where none is set.

    Args:
        size: a number, a pair (height, width), or a mapping or object with ``height`` and ``width``
            or ``shortest_edge`` and ``longest_edge``, as image processors have it.
    """
    if size is None:
        return ""
    if isinstance(size, int):
        return f"{size}x{size}"
    if isinstance(size, Sequence):
        sides = [size[0], size[-1]] if size else [None]
    else:
        named = size if isinstance(size, Mapping) else vars(size)
        sides = [named.get("height"), named.get("width")]
        if not all(sides):
            sides = [named.get("shortest_edge"), named.get("longest_edge")]
    return "x".join(str(side) for side in sides) if all(sides) else ""


def processed(processor: Any) -> str:
    """The size that an image processor of Transformers makes; "" where it makes none.

    >>> class Processor:
    ...     do_resize, size = True, {"shortest_edge": 800, "longest_edge": 1333}
    >>> processed(Processor())
    '800x1333'
    """
    processor = getattr(processor, "image_processor", processor)
    if getattr(processor, "do_center_crop", None):
        return pixels(getattr(processor, "crop_size", None))
    return pixels(getattr(processor, "size", None)) if getattr(processor, "do_resize", None) else ""


HEADS = {"mobilevit": "DeepLabV3", "mobilevitv2": "DeepLabV3", "mobilenet_v2": "DeepLabV3+"}
"""Transformers names these by their trunk; what they segment with."""

FIXED = {"eomt"}
"""Those that take nothing but their ``image_size``; the others stretch their positions from it."""


def transformers(config: Any) -> Said:
    """What the configuration of a Transformers model says."""
    kind = str(config.model_type)
    said = {"algorithm": (HEADS.get(kind) or algorithm(kind), "config.model_type")}
    if kind in FIXED:
        said["input_size"] = (pixels(config.image_size), "config.image_size")
    described = getattr(config, "backbone_config", None)
    named = getattr(config, "backbone", None)
    if isinstance(named, str):
        said["backbone"] = (backbone(named) or named, "config.backbone")
    elif described is not None:
        said["backbone"] = (backbone_structure.hugging_face(described), "config.backbone_config")
    else:
        said["backbone"] = (backbone_structure.hugging_face(config), "config")
    return said


def open_mmlab(config: Mapping[str, Any]) -> Said:
    """What an MMEngine configuration says, of a whole training or of its model alone."""
    model = config.get("model", config)
    said = {
        "algorithm": (_detector(model), "the config's model"),
        "input_size": (_trained_at(config, model), "the config's pipeline"),
    }
    if isinstance(model.get("backbone"), Mapping):
        said["backbone"] = (
            backbone_structure.open_mmlab(model["backbone"]),
            "the config's model.backbone",
        )
    return said


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
    """The crop that is trained on, else the size that images are resized to for the evaluation."""
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
                size = entry[sides]
                return _limits(size, entry) if step == "Resize" else pixels(size)
    return ""


def _limits(scale: Any, resize: Mapping[str, Any]) -> str:
    """OpenMMLab writes (width, height); with the ratio kept, the two limits in any order."""
    sides = list(scale)
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        return ""
    return pixels(sorted(sides) if resize.get("keep_ratio") else sides[::-1])


def _pipeline(config: Mapping[str, Any], stage: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a data pipeline, also inside nested data sets."""
    data = (config.get(f"{stage}_dataloader") or {}).get("dataset") or {}
    while "pipeline" not in data and isinstance(data.get("dataset"), Mapping):
        data = data["dataset"]
    for step in data.get("pipeline") or config.get(f"{stage}_pipeline") or ():
        if isinstance(step, Mapping):
            yield step
