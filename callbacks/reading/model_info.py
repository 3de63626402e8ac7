"""The facts of a training that its model and its loaders state: identity, task, classes, splits."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from boxscore import Identity, distributed
from boxscore.catalogue import Task
from boxscore.identity.models import Reading, sources
from boxscore.identity.wrappers import infer, networks, unwrapped, without_ddp
from boxscore.metric import NO_CLASS, Classes, class_names

TASKS: dict[str, Task] = {
    "ForObjectDetection": "detection",
    "ForInstanceSegmentation": "instance-segmentation",
    "ForSemanticSegmentation": "semantic-segmentation",
}
"""The task by the end of a Transformers model's class; a universal model does not state it."""

EITHER = "MaskFormer"
"""A class named for instance segmentation that is trained on label maps as well."""

LEARN_LABEL_0 = {"RetinaNet", "FCOS"}
"""torchvision's detectors that predict label 0 where objects have it; the others drop it."""


@contextmanager
def buffers_of_the_first(model: Any) -> Iterator[None]:
    """Measure with rank 0's buffers, such as batch norm's averages, in all processes.

    Each process has its own until DistributedDataParallel broadcasts those of rank 0 at the next
    forward in training; checkpoints hold those of rank 0.
    """
    inner = without_ddp(model)
    if distributed.size() == 1 or inner is model or not getattr(model, "broadcast_buffers", True):
        yield
        return
    buffers = list(inner.buffers())
    own = [buffer.clone() for buffer in buffers]
    distributed.copy_from_rank0(buffers)
    try:
        yield
    finally:
        for buffer, value in zip(buffers, own, strict=True):
            buffer.copy_(value)


def has_fixed_input_size(model: Any) -> bool:
    """Whether the model resizes its input itself, or takes one size only."""
    return "input_size" in infer(model)


def inferred(model: Any, size: Reading | None) -> Identity:
    """The identity of ``model``, logged in one line with the sources of its fields.

    Args:
        model: wrapped or not.
        size: the input size and its source, for models that take any size.

    Raises:
        ValueError: for what is unknown or ambiguous, with what to pass.
    """
    readings = infer(model)
    if size is not None:
        readings.setdefault("input_size", size)
    identity = Identity.of(model, **{name: reading.value for name, reading in readings.items()})
    if distributed.rank() == 0:
        print(f"boxscore: {identity} ({sources(readings)})", file=sys.stderr)
    return identity


def size_of(images: Any) -> Reading | None:
    """The size of the first batch's ``images``, where they share one.

    Args:
        images: (N, C, H, W), a list of images (C, H, W), or a mapping that holds such a batch.
    """
    sizes = set(_sizes(images))
    return Reading("{}x{}".format(*sizes.pop()), "the first batch") if len(sizes) == 1 else None


def _sizes(images: Any) -> Iterator[tuple[int, int]]:
    if isinstance(images, Mapping):
        for value in images.values():
            if getattr(value, "ndim", 0) == 4:
                yield from _sizes(value)
    elif isinstance(images, list | tuple):
        for image in images:
            if getattr(image, "ndim", 0) == 3:
                yield tuple(image.shape[-2:])
    elif getattr(images, "ndim", 0) == 4:
        yield tuple(images.shape[-2:])


def task_of(model: Any, given: Task | None) -> Task:
    """The task that ``model`` is made for, unless the user names it.

    Args:
        model: wrapped or not; of several networks, the task that they share.
        given: the user's.

    Raises:
        ValueError: where the model does not state it.
    """
    if given is not None:
        return given
    tasks = {_task(network) for network in networks(model).values()} or {_task(unwrapped(model))}
    if len(tasks) == 1 and (task := tasks.pop()):
        return task
    raise ValueError(
        f"task: {type(unwrapped(model)).__name__} states none; pass task='detection', "
        "task='instance-segmentation' or task='semantic-segmentation'"
    )


def _task(network: Any) -> Task | None:
    for kind in type(network).__mro__:
        module, name = kind.__module__, kind.__name__
        if module.startswith("torchvision.models.detection"):
            return "instance-segmentation" if name == "MaskRCNN" else "detection"
        if module.startswith(("torchvision.models.segmentation", "segmentation_models_pytorch")):
            return "semantic-segmentation"
        if module.partition(".")[0] in ("transformers", "transformers_modules"):
            for ending, task in TASKS.items():
                if name.endswith(ending) and not name.startswith(EITHER):
                    return task
    return None


def classes_of(loader: Any, given: Classes | None, *, model: Any, background: bool) -> Classes:
    """The user's classes, else those that the test set or the model's config names.

    Args:
        loader: of the test set.
        given: the user's.
        model: whose ``config.id2label`` may name them, as Transformers' do.
        background: whether the model keeps label 0 for the background.

    Raises:
        ValueError: where no classes are named, or one has label 0 and the model never predicts it.
    """
    data: Any = getattr(loader, "dataset", None)
    while type(data).__name__ == "Subset":
        data = data.dataset
    config = getattr(model, "config", None)
    found = {
        "classes=": given,
        "the test set's classes": getattr(data, "classes", None),
        "the test set's COCO categories": _categories(data),
        "model.config.id2label": getattr(config, "id2label", None),
    }
    source, classes = next(((s, c) for s, c in found.items() if c is not None), ("", None))
    if classes is None:
        raise ValueError("classes: unknown; pass names by label, classes={1: 'cat', 2: 'dog'}")
    if given is None and distributed.rank() == 0:
        listed = classes if isinstance(classes, Mapping) else dict(enumerate(classes))
        few = ", ".join(f"{label} {name}" for label, name in [*listed.items()][:5])
        more = f", … ({len(listed)})" if len(listed) > 5 else ""
        print(f"boxscore: classes {few}{more} (from {source})", file=sys.stderr)
    if background:
        _check_label_0(classes, model)
    return classes


def _categories(data: Any) -> dict[int, str] | None:
    """The categories of a data set on COCO's API, by the labels that it gives them."""
    if (coco := getattr(data, "coco", None)) is None:
        return None
    used = getattr(coco, "catToImgs", coco.cats)  # a parent category may have no annotation
    names = {n: entry["name"] for n, entry in coco.cats.items() if n or n in used}
    for table in vars(data).values():  # from category to label, such as contiguous ones
        is_label = isinstance(table, Mapping) and table.keys() >= names.keys()
        if is_label and all(isinstance(table[n], int) for n in names):
            return {table[n]: name for n, name in names.items()}
    return names


def _check_label_0(classes: Classes, model: Any) -> None:
    names = class_names(classes, without=NO_CLASS)
    learns = hasattr(classes, "items") and any(
        kind.__name__ in LEARN_LABEL_0 for kind in type(model).__mro__
    )
    if 0 not in names or learns:
        return
    shifted = {label + 1: name for label, name in names.items()}
    listed = ["__background__", *(shifted.get(n, "N/A") for n in range(1, max(shifted) + 1))]
    raise ValueError(
        f"classes: label 0 is {names[0]!r}, and {type(model).__name__} keeps label 0 for the "
        f"background; count labels from 1, in the targets too, and pass classes={listed!r} or "
        f"{shifted!r}"
    )
