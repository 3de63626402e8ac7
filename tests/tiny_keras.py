"""Tiny trainings with Keras 3, on whatever backend it has."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def maps(count: int, first: int = 0) -> list[Any]:
    """Batches of two images (16, 16, 3) and label maps, of three classes, that they tell of."""
    images = [
        np.random.default_rng(n).random((16, 16, 3), "float32") for n in range(first, first + count)
    ]
    labels = [(image[..., 0] * 3).astype("int64") for image in images]
    return [(np.stack(images[n : n + 2]), np.stack(labels[n : n + 2])) for n in range(0, count, 2)]


def segmenter(*, decay: Any = None, layers: Any = "l2", accumulate: Any = None) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(8, 3, padding="same", kernel_regularizer=layers),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Conv2D(3, 1),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(
        0.01, weight_decay=decay, gradient_accumulation_steps=accumulate
    )
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index]


def detector() -> Any:
    """Two outputs and a ``predict`` that gives KerasHub's mapping, padded, at four to an image."""
    keras.utils.set_random_seed(0)

    class Detector(keras.Model):  # type: ignore[misc]
        bounding_box_format = "yxyx"

        def predict_step(self, *given: Any) -> Any:
            outputs = super().predict_step(*given)
            found = {
                "boxes": [[8.0, 4, 24, 20], [1, 2, 3, 4], [-1, -1, -1, -1]],
                "confidence": [0.9, 0.8, -1.0],
                "classes": [0, 1, -1],
                "num_detections": 2,
            }
            decoded = {n: keras.ops.convert_to_tensor([v] * 2) for n, v in found.items()}
            return (decoded, outputs[1]) if keras.backend.backend() == "jax" else decoded

        def compute_loss(self, x: Any, y: Any, y_pred: Any, *more: Any, **named: Any) -> Any:
            targets = {"box": y["boxes"][:, 0], "cls": y["classes"][:, :1]}
            return super().compute_loss(x, targets, y_pred, *more, **named)

    entry = keras.Input((32, 32, 3))
    features = keras.layers.GlobalAveragePooling2D()(entry)
    outputs = {
        "box": keras.layers.Dense(4, name="box", kernel_regularizer="l2")(features),
        "cls": keras.layers.Dense(1, name="cls")(features),
    }
    model = Detector(entry, outputs)
    model.compile("sgd", loss={"box": "mae", "cls": "mse"}, loss_weights={"box": 2.0, "cls": 1.0})
    return model


def boxed(count: int) -> list[Any]:
    boxes = np.array([[[8, 4, 24, 20], [-1, -1, -1, -1]]] * 2, "float32")
    classes = np.array([[0, -1]] * 2, "float32")
    draw = np.random.default_rng(0)
    return [
        (draw.random((2, 32, 32, 3), "float32"), {"boxes": boxes, "classes": classes})
        for _ in range(count)
    ]
