"""What a live model says of its identity: one small reader per framework.

Frameworks are recognised by the modules that the model's classes come from; none is imported here,
because a model of a framework cannot exist without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .backbones import backbone
from .families import algorithm
from .layers import trunk


class Found(NamedTuple):
    """One field of an identity and where it was read, ``("640x640", "model.transform")``."""

    value: str
    source: str


Reading = dict[str, Found]
"""``algorithm``, ``input_size``, ``backbone``: those that the model says."""


def infer(model: Any) -> Reading:
    """Every field of the identity that the model says, with its source.

    What is missing is unknown or ambiguous; nothing is guessed.
    """
    return _read(model, "model")


def _read(model: Any, path: str) -> Reading:
    model, path = _unwrapped(model, path)
    for root in _roots(model):
        if root in READERS:
            return {name: found for name, found in READERS[root](model, path) if found.value}
    return _of_the_only_child(model, path)


def _roots(model: Any) -> list[str]:
    """The top packages of the model's classes, nearest first."""
    return [cls.__module__.partition(".")[0] for cls in type(model).__mro__]


def _unwrapped(model: Any, path: str) -> tuple[Any, str]:
    """The model inside DistributedDataParallel, torch.compile, AveragedModel and kin."""
    while True:
        for name, package in (("_orig_mod", "torch._dynamo"), ("module", "torch")):
            inner = (
                vars(model).get("_modules", {}).get(name) if hasattr(model, "__dict__") else None
            )
            if inner is not None and type(model).__module__.startswith(package):
                model, path = inner, f"{path}.{name}"
                break
        else:
            return model, path


def _of_the_only_child(model: Any, path: str) -> Reading:
    """Of a module around a model: what its children say, where they do not contradict."""
    readings = [
        reading
        for name, child in getattr(model, "named_children", dict)()
        if "algorithm" in (reading := _read(child, f"{path}.{name}"))
    ]
    if len({str(sorted((k, v.value) for k, v in reading.items())) for reading in readings}) == 1:
        return readings[0]
    return {}


Fields = Iterator[tuple[str, Found]]


def _class_named(model: Any, package: str) -> tuple[str, str]:
    """The algorithm that the nearest class of the package names, and the class."""
    for cls in type(model).__mro__:
        if cls.__module__.partition(".")[0] == package and algorithm(cls.__name__):
            return algorithm(cls.__name__), cls.__name__
    return "", ""


def _torchvision(model: Any, path: str) -> Fields:
    """Detection and segmentation models; the size where a transform inside the model makes it."""
    name, cls = _class_named(model, "torchvision")
    if name == "SSD" and type(model.head).__name__ == "SSDLiteHead":
        name = "SSDLite"
    yield "algorithm", Found(name, f"torchvision's {cls}")
    transform = getattr(model, "transform", None)
    if transform is not None:
        yield "input_size", Found(_resized(transform), f"{path}.transform")
    if hasattr(model, "backbone"):
        yield "backbone", Found(trunk(model.backbone), f"{path}.backbone")


def _resized(transform: Any) -> str:
    """The size that a GeneralizedRCNNTransform makes.

    Of several short sides the last, which torchvision evaluates at; the others are scale jitter, an
    augmentation as flips are.
    """
    if transform.fixed_size:
        width, height = transform.fixed_size
        return f"{height}x{width}"
    return f"{transform.min_size[-1]}x{transform.max_size}"


def _smp(model: Any, path: str) -> Fields:
    """segmentation-models-pytorch; ``model.name`` is "<decoder>-<encoder>"."""
    name, cls = _class_named(model, "segmentation_models_pytorch")
    yield "algorithm", Found(name, f"segmentation_models_pytorch's {cls}")
    encoder = str(getattr(model, "name", "")).partition("-")[2]
    bare = encoder.removeprefix("tu-").removeprefix("timm-")
    yield "backbone", Found(backbone(bare) or bare, f"{path}.name")


READERS: Mapping[str, Callable[[Any, str], Fields]] = {
    "torchvision": _torchvision,
    "segmentation_models_pytorch": _smp,
}
