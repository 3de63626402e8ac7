"""The identity fields of a live model: one small reader per framework.

A framework is recognised by the modules that define the model's classes; none is imported here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from .algorithms import algorithm, scales
from .backbone_structure import backbone_of
from .backbones import backbone
from .configs import open_mmlab, pixels, transformers
from .parse import parse


class Reading(NamedTuple):
    """One field of an identity and its source: ``("640x640", "model.transform")``."""

    value: str
    source: str


Readings = dict[str, Reading]
Fields = Iterator[tuple[str, Reading]]


def read(model: Any, path: str) -> Readings:
    """The fields that a model of a known framework or an MMEngine configuration states; or none."""
    if type(model).__module__.startswith("mmengine.config"):
        model = model.to_dict()
    if isinstance(model, Mapping):
        fields: Fields = ((name, Reading(*pair)) for name, pair in open_mmlab(model).items())
    else:
        roots = [cls.__module__.partition(".")[0] for cls in type(model).__mro__]
        reader = next((READERS[root] for root in roots if root in READERS), None)
        fields = reader(model, path) if reader else iter(())
    return {name: reading for name, reading in fields if reading.value}


def read_class(model: Any, path: str) -> Readings:
    """The fields of an own model whose class is named as an algorithm: ``class UNet(Module)``."""
    for cls in type(model).__mro__:
        name = algorithm(cls.__name__)
        if name and cls.__module__.partition(".")[0] != "torch":
            readings = {"algorithm": Reading(name, f"class {cls.__name__}")}
            named = backbone_of(model.backbone) if hasattr(model, "backbone") else ""
            return readings | ({"backbone": Reading(named, f"{path}.backbone")} if named else {})
    return {}


def sources(readings: Readings) -> str:
    """Where each field was read, for the line that a training begins with.

    >>> sources({"algorithm": Reading("FCN", "class FCN"), "input_size": Reading("8x8", "config")})
    'algorithm from class FCN, input size from config'
    """
    return ", ".join(f"{name.replace('_', ' ')} from {at}" for name, (_, at) in readings.items())


def _class_of(model: Any, package: str) -> tuple[str, str]:
    """The algorithm that the nearest class of the package names, and the class."""
    names = [cls.__name__ for cls in type(model).__mro__ if cls.__module__.startswith(package)]
    return next(((algorithm(name), name) for name in names if algorithm(name)), ("", ""))


def _torchvision(model: Any, path: str) -> Fields:
    """Detection and segmentation; the size where a transform inside the model makes it."""
    name, cls = _class_of(model, "torchvision")
    if not name:
        return
    if name == "SSD" and type(model.head).__name__ == "SSDLiteHead":
        name, cls = "SSDLite", "SSD with an SSDLiteHead"
    yield "algorithm", Reading(name, f"torchvision's {cls}")
    if hasattr(model, "transform"):
        yield "input_size", Reading(_resized(model.transform), f"{path}.transform")
    if hasattr(model, "backbone"):
        yield "backbone", Reading(backbone_of(model.backbone), f"{path}.backbone")


def _resized(transform: Any) -> str:
    """The size that a GeneralizedRCNNTransform makes; "" where it does not resize in training.

    Of several short sides the last, which torchvision evaluates at; the others are scale jitter, an
    augmentation as flips are.
    """
    methods = [getattr(transform, name, None) for name in ("forward", "resize")]
    is_own = any(not str(getattr(m, "__module__", "")).startswith("torchvision.") for m in methods)
    if is_own or getattr(transform, "_skip_resize", False):
        return ""
    if transform.fixed_size:
        width, height = transform.fixed_size
        return f"{height}x{width}"
    return f"{transform.min_size[-1]}x{transform.max_size}"


def _segmentation_models(model: Any, path: str) -> Fields:
    """segmentation-models-pytorch, where ``model.name`` is "<decoder>-<encoder>"."""
    name, cls = _class_of(model, "segmentation_models_pytorch")
    if not name:
        return
    yield "algorithm", Reading(name, f"segmentation_models_pytorch's {cls}")
    encoder = str(model.name).partition("-")[2].removeprefix("tu-").removeprefix("timm-")
    named = backbone(encoder) or parse(encoder)["backbone"] or encoder
    yield "backbone", Reading(named, f"{path}.name")


def _transformers(model: Any, path: str) -> Fields:
    """Hugging Face, where the configuration names the architecture.

    A model without a head ("DetrModel") has no loss, and may be the backbone of another.
    """
    has_head = any(re.search("For[A-Z]", cls.__name__) for cls in type(model).__mro__)
    if not has_head or not hasattr(model, "config"):
        return
    for name, (value, source) in transformers(model.config).items():
        yield name, Reading(value, f"{path}.{source}")


def _ultralytics(model: Any, path: str) -> Fields:
    """Ultralytics, by the file that describes the network and its scale.

    The setting ``imgsz`` is not the size: the network takes any, and a plain loop ignores it.
    """
    described = getattr(model, "yaml", None)
    if not isinstance(described, Mapping):
        return
    file = PurePath(str(described.get("yaml_file", ""))).stem
    named = parse(file)
    name = _class_of(model, "ultralytics")[0] or named["algorithm"]
    yield "algorithm", Reading(name, f"{path}.yaml, {file}")
    scale = str(described.get("scale") or "")
    if name and not named["backbone"]:
        named["backbone"] = scales(name).get(scale, scale)
    yield "backbone", Reading(named["backbone"], f"{path}.yaml, {file}")


def _keras(model: Any, path: str) -> Fields:
    """Keras models, by their name, else by their class ("RetinaNetObjectDetector")."""
    named = parse(str(model.name))
    cls = type(model).__name__
    task = next((task for task in KERAS_TASKS if cls.endswith(task)), "")
    if named["algorithm"]:
        yield "algorithm", Reading(named["algorithm"], f"{path}.name")
    else:
        yield "algorithm", Reading(algorithm(cls.removesuffix(task)), cls)
    yield "backbone", Reading(named["backbone"], f"{path}.name")
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and len(shape) == 4:
        sides = shape[2:] if shape[1] in {1, 3, 4} else shape[1:3]  # channels first or last
        yield "input_size", Reading(pixels(sides), f"{path}.input_shape")


KERAS_TASKS = ("ObjectDetector", "ImageSegmenter", "Detector", "Segmenter")

READERS: Mapping[str, Callable[[Any, str], Fields]] = {
    "torchvision": _torchvision,
    "segmentation_models_pytorch": _segmentation_models,
    "transformers": _transformers,
    "ultralytics": _ultralytics,
    **dict.fromkeys(("keras", "keras_hub", "keras_cv"), _keras),
}
"""By the top package of a model's class."""
