"""What is measured of a batch: its form, whatever gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Found = tuple[Mapping[str, Any], Any, Any]
"""Losses by native name, predictions, targets: of one batch."""

Predict = Callable[[Any, Any], Found]
"""``predict(model, batch) -> (losses, predictions, targets)``."""

FOUND = {
    "semantic-segmentation": "({'loss': scalar}, logits (N, C, H, W), label maps (N, H, W))",
    "detection": "({'loss_box': scalar}, [{'boxes': xyxy (K, 4), 'scores': (K,), 'labels': (K,)}, "
    "…], [{'boxes': xyxy (M, 4), 'labels': (M,), 'image_id': 7}, …])",
}
"""What ``predict=`` returns, by task."""

ADVICE = "pass predict=, a function of (model, batch) that returns losses, predictions, targets"


def check_found(found: Any, task: str) -> Found:
    """What a ``predict=`` returned, if it is of the form that is measured.

    Raises:
        ValueError: it is not; the message shows the form.
    """
    problem = ""
    if not isinstance(found, tuple) or len(found) != 3:
        size = f" of {len(found)}" if isinstance(found, tuple) else ""
        problem = f"a {type(found).__name__}{size}"
    elif found[0] is not None and not isinstance(found[0], Mapping):
        problem = f"losses as a {type(found[0]).__name__}"
    elif task == "semantic-segmentation":
        if not all(hasattr(one, "shape") for one in found[1:]):
            problem = f"predictions as a {type(found[1]).__name__}"
    else:
        for name, listed in zip(("predictions", "targets"), found[1:], strict=True):
            if not isinstance(listed, Sequence) or not all(isinstance(o, Mapping) for o in listed):
                problem = f"{name} as a {type(listed).__name__}, not a list of dicts"
                break
    if problem:
        form = FOUND.get(task, FOUND["detection"])
        raise ValueError(f"predict= returned {problem}; it returns a tuple {form}")
    return found  # type: ignore[no-any-return]
