"""The losses of a Keras model: sums since an epoch began, and those of one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np


def sums(model: Any) -> dict[str, Any]:
    """Of each loss the sum over the images and their number, (2,), since the epoch began."""
    import keras

    means = [m for m in model.metrics if isinstance(m, keras.metrics.Mean)]
    return {
        m.name: np.array([number(m.total), number(m.count)])
        for m in means
        if m.name.endswith("loss")
    }


def parts(model: Any, means: Mapping[str, float]) -> dict[str, float]:
    """The parts of the objective, weighted as in it, and the layers' regularization.

    Args:
        model: compiled.
        means: ``loss``, the objective, and where there are several outputs the loss of each.
    """
    compiled = model._compile_loss
    several = zip(compiled.metrics, compiled._flat_losses, strict=False) if compiled else ()
    weights = {metric.name: loss.loss_weights for metric, loss in several}
    named = {
        name: value if weights.get(name) is None else value * float(weights[name])
        for name, value in means.items()
        if name != "loss"
    }
    objective = means.get("loss")
    if objective is None or not (own := sum(map(number, model.losses))):
        return {**named, **({} if objective is None else {"loss": objective})}
    regularization = objective - sum(named.values()) if named else own
    return {**named, "loss": objective - regularization, "regularization": regularization}


def decay(model: Any) -> float:
    """½ Σ weight_decay·‖w‖² of the optimizer, nominal: Keras' optimizers apply it decoupled."""
    optimizer = model.optimizer
    if not optimizer.weight_decay:
        return 0.0
    decayed = [v for v in model.trainable_variables if optimizer._use_weight_decay(v)]
    squares = sum(float((array(v).astype(np.float64) ** 2).sum()) for v in decayed)
    return 0.5 * float(optimizer.weight_decay) * squares


def of_batch(model: Any, images: Any, targets: Any) -> dict[str, float]:
    """The losses of a batch that is not trained on; within `kept`."""
    model.test_on_batch(images, targets)
    means = {name: total / count for name, (total, count) in sums(model).items() if count}
    return parts(model, means)


@contextmanager
def seen(model: Any, see: Callable[[Any, Any, Any], None]) -> Iterator[None]:
    """Call ``see`` with ``x``, ``y`` and ``y_pred`` of each batch whose loss ``model`` computes."""
    before, compute = vars(model).get("compute_loss"), model.compute_loss

    def computed(x: Any = None, y: Any = None, y_pred: Any = None, *more: Any, **named: Any) -> Any:
        see(x, y, y_pred)
        return compute(x, y, y_pred, *more, **named)

    model.compute_loss = computed
    try:
        yield
    finally:
        if vars(model).get("compute_loss") is computed:  # and no wrapper of it
            del model.compute_loss
            if before is not None:
                model.compute_loss = before


@contextmanager
def kept(model: Any) -> Iterator[None]:
    """Leave the model's metrics, its modes and random numbers as they are found."""
    import keras

    saved = [(v, array(v).copy()) for v in model.metrics_variables]
    try:
        with ExitStack() as stack:
            if keras.backend.backend() == "torch":
                from boxscore.callbacks.sharding import random_numbers_kept
                from boxscore.losses import modes_kept

                stack.enter_context(random_numbers_kept())
                stack.enter_context(modes_kept(model))
                model.eval()
            yield
    finally:
        for variable, value in saved:
            variable.assign(value)


def array(value: Any) -> Any:
    """A variable or tensor of any backend as an array."""
    import keras

    value = value.value if hasattr(value, "value") else value
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    return keras.ops.convert_to_numpy(value)


def number(value: Any) -> float:
    """A variable or tensor of one element as a number."""
    return float(array(value))
