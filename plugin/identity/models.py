"""What a live model says of its identity: one small reader per framework.

Frameworks are recognised by the modules that a model's classes come from; none is imported here,
because a model of a framework cannot exist without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from .algorithms import algorithm, scales
from .backbone_structure import trunk
from .backbones import backbone
from .configs import open_mmlab, pixels, transformers
from .parse import parse


class Found(NamedTuple):
    """One field of an identity and where it was read: ``("640x640", "model.transform")``."""

    value: str
    source: str


Reading = dict[str, Found]
Fields = Iterator[tuple[str, Found]]


def infer(model: Any) -> Reading:
    """Every field of the identity that the model says, with its source.

    What is missing is unknown or ambiguous; nothing is guessed.

    Args:
        model: a model, a module around one, or an MMEngine configuration (of the whole training or
            of its model alone).

    Returns:
        ``algorithm``, ``input_size`` and ``backbone``, those that the model says, in this order.
    """
    found = _read(model, "model")
    return {name: found[name] for name in ("algorithm", "input_size", "backbone") if name in found}


def network(model: Any) -> Any:
    """The network inside a Lightning module, where it bears a usual name; else ``model`` itself."""
    roots = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    if not LIGHTNING.isdisjoint(roots):
        children = dict(model.named_children())
        return next((children[name] for name in CHILDREN if name in children), model)
    return model


def sources(reading: Reading) -> str:
    """Where each field was read, for the line that a training begins with.

    >>> sources({"algorithm": Found("FCN", "class FCN"), "input_size": Found("64x64", "imgsz")})
    'algorithm from class FCN, input size from imgsz'
    """
    return ", ".join(f"{name.replace('_', ' ')} from {at}" for name, (_, at) in reading.items())


def _read(model: Any, path: str) -> Reading:
    if isinstance(model, Mapping):
        return {name: Found(*pair) for name, pair in open_mmlab(model).items() if pair[0]}
    if type(model).__module__.startswith("mmengine.config"):
        return _read(model.to_dict(), path)
    roots = [cls.__module__.partition(".")[0] for cls in type(model).__mro__]
    reader = next((READERS[root] for root in roots if root in READERS), None)
    reading = {name: found for name, found in reader(model, path) if found.value} if reader else {}
    return reading or _of_children(model, path, roots) or _of_class(model)


def _of_children(model: Any, path: str, roots: list[str]) -> Reading:
    """Of a module around a model (DDP, torch.compile, EMA, Lightning): what its children agree on.

    A wrapper adds no parameters of its own: every child that has some must be a known model. A
    Lightning module keeps losses and metrics beside its model, so that there the model's usual
    names decide.
    """
    children = dict(getattr(model, "named_children", dict)())
    if not LIGHTNING.isdisjoint(roots):
        children = {name: children[name] for name in CHILDREN if name in children} or children
    agreed: Reading | None = None
    for name, child in children.items():
        if next(child.parameters(), None) is None:
            continue
        reading = _read(child, f"{path}.{name}")
        if "algorithm" not in reading:
            return {}
        agreed = reading if agreed is None else _agreed(agreed, reading)
    return agreed or {}


def _agreed(one: Reading, other: Reading) -> Reading:
    """The fields that two models share, as a teacher and its student."""
    return {
        name: found
        for name, found in one.items()
        if name in other and other[name].value == found.value
    }


def _of_class(model: Any) -> Reading:
    """Of an own model, whose class is called as an algorithm: ``class UNet(nn.Module)``."""
    for cls in type(model).__mro__:
        name = algorithm(cls.__name__)
        if name and cls.__module__.partition(".")[0] != "torch":
            reading = {"algorithm": Found(name, f"class {cls.__name__}")}
            named = trunk(model.backbone) if hasattr(model, "backbone") else ""
            return {**reading, "backbone": Found(named, "model.backbone")} if named else reading
    return {}


def _class_of(model: Any, package: str) -> tuple[str, str]:
    """The algorithm that the nearest class of the package names, and the class."""
    for cls in type(model).__mro__:
        if cls.__module__.partition(".")[0] == package and algorithm(cls.__name__):
            return algorithm(cls.__name__), cls.__name__
    return "", ""


def _torchvision(model: Any, path: str) -> Fields:
    """Detection and segmentation; the size where a transform inside the model makes it."""
    name, cls = _class_of(model, "torchvision")
    if not name:
        return
    if name == "SSD" and type(model.head).__name__ == "SSDLiteHead":
        name, cls = "SSDLite", "SSD with an SSDLiteHead"
    yield "algorithm", Found(name, f"torchvision's {cls}")
    if hasattr(model, "transform"):
        yield "input_size", Found(_resized(model.transform), f"{path}.transform")
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


def _segmentation_models(model: Any, path: str) -> Fields:
    """segmentation-models-pytorch, where ``model.name`` is "<decoder>-<encoder>"."""
    name, cls = _class_of(model, "segmentation_models_pytorch")
    if not name:
        return
    yield "algorithm", Found(name, f"segmentation_models_pytorch's {cls}")
    encoder = str(model.name).partition("-")[2].removeprefix("tu-").removeprefix("timm-")
    named = backbone(encoder) or parse(encoder)["backbone"] or encoder
    yield "backbone", Found(named, f"{path}.name")


def _transformers(model: Any, path: str) -> Fields:
    """Hugging Face, where the configuration names the architecture.

    A model without a head ("DetrModel") has no loss, and may be the trunk of another.
    """
    if "For" not in type(model).__name__:
        return
    for name, (value, source) in transformers(model.config).items():
        yield name, Found(value, f"{path}.{source}")


def _ultralytics(model: Any, path: str) -> Fields:
    """YOLO and kin, by the file that describes the network, its scale and the setting imgsz."""
    described = getattr(model, "yaml", None)
    if not isinstance(described, Mapping):
        return
    file = PurePath(str(described.get("yaml_file", ""))).stem
    said = parse(file)
    name = _class_of(model, "ultralytics")[0] or said["algorithm"]
    yield "algorithm", Found(name, f"{path}.yaml, {file}")
    scale = str(described.get("scale") or "")
    if name and not said["backbone"]:
        said["backbone"] = scales(name).get(scale, scale)
    yield "backbone", Found(said["backbone"], f"{path}.yaml, {file}")
    settings = getattr(model, "args", {})
    settings = settings if isinstance(settings, Mapping) else vars(settings)
    yield "input_size", Found(pixels(settings.get("imgsz")), "imgsz")


def _keras(model: Any, path: str) -> Fields:
    """Keras models, by their name, else by their class ("RetinaNetObjectDetector")."""
    said = parse(str(model.name))
    cls = type(model).__name__
    task = next((task for task in KERAS_TASKS if cls.endswith(task)), "")
    for source, name in (
        (f"{path}.name", said["algorithm"]),
        (cls, algorithm(cls.removesuffix(task))),
    ):
        if name:
            yield "algorithm", Found(name, source)
            break
    yield "backbone", Found(said["backbone"], f"{path}.name")
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and len(shape) == 4:
        sides = shape[2:] if shape[1] in {1, 3, 4} else shape[1:3]  # channels first or last
        yield "input_size", Found(pixels(sides), f"{path}.input_shape")


LIGHTNING = {"lightning", "pytorch_lightning"}
CHILDREN = ("model", "net", "network", "module", "detector", "segmentor")
KERAS_TASKS = ("ObjectDetector", "ImageSegmenter", "Detector", "Segmenter")

READERS: Mapping[str, Callable[[Any, str], Fields]] = {
    "torchvision": _torchvision,
    "segmentation_models_pytorch": _segmentation_models,
    "transformers": _transformers,
    "ultralytics": _ultralytics,
    "keras": _keras,
    "keras_hub": _keras,
    "keras_cv": _keras,
}
"""By the top package of a model's class."""
