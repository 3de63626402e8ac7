"""Tiny trainings with Transformers' Trainer, of random weights on boxes, masks or label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from boxscore.callbacks.transformers import BoxscoreCallback
from boxscore.loggers import MemoryLogger
from tests.tiny_batches import built
from tests.tiny_transformers import tf


def segformer() -> Any:
    return built("segformer", drop_path_rate=0.0, classifier_dropout_prob=0.0)


def detr() -> Any:
    return built("detr", auxiliary_loss=True, dropout=0.0)


class Pictures(torch.utils.data.Dataset[dict[str, Any]]):
    """Noise, with one bright box each, labelled for ``task``."""

    def __init__(self, task: str, count: int, first: int = 0, fails_at: int = -1) -> None:
        self.task, self.count, self.first, self.fails_at = task, count, first, fails_at

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.fails_at:
            raise ZeroDivisionError("a broken picture")
        number = self.first + index
        image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(number)) * 0.3
        left, top, label = 8 * (number % 4), 8 * (number % 3), number % 3
        mask = torch.zeros(64, 64)
        mask[top : top + 24, left : left + 32] = 1
        picture = {"pixel_values": image + 0.5 * mask}
        if self.task == "semantic":
            return {**picture, "labels": (mask * label).long()}
        if self.task == "masks":
            return {**picture, "mask_labels": mask[None], "class_labels": torch.tensor([label])}
        box = torch.tensor([[left + 16, top + 12, 32, 24]]) / 64
        labels = {"class_labels": torch.tensor([label]), "boxes": box}
        known = {"image_id": torch.tensor([number]), "orig_size": torch.tensor([128, 128])}
        return {**picture, "labels": labels | known}


class Unlabelled(Pictures):
    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": super().__getitem__(index)["pixel_values"]}


def together(batch: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for name in batch[0]:
        values = [one[name] for one in batch]
        stacks = name == "pixel_values" or (name == "labels" and not isinstance(values[0], dict))
        joined[name] = torch.stack(values) if stacks else values
    return joined


class Trainer(tf.Trainer):  # type: ignore[misc]
    """In the order of the data, so that a loop can do the same."""

    def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def trainer(
    folder: Path, model: Any, task: str, score: Any, kind: type[Trainer] = Trainer, **options: Any
) -> Trainer:
    data = {
        "train_dataset": options.pop("train_dataset", Pictures(task, 8)),
        "eval_dataset": options.pop("eval_dataset", Pictures(task, 5, first=100)),
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.01)
    callbacks = [score, *options.pop("callbacks", [])]
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "max_steps": 8,
        "eval_strategy": "steps", "eval_steps": 4, "save_strategy": "no", "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "report_to": [], "remove_unused_columns": False, "use_cpu": True, "disable_tqdm": True,
    }  # fmt: skip
    names = ("compute_metrics", "processing_class")
    more = {name: options.pop(name, None) for name in names}
    args = tf.TrainingArguments(str(folder), **defaults | options)
    return kind(
        model, args, **data, data_collator=together, callbacks=callbacks,
        optimizers=(optimizer, None), **more,
    )  # fmt: skip


def callback(memory: MemoryLogger, **options: Any) -> BoxscoreCallback:
    defaults: dict[str, Any] = {"dataset": "boxes", "loggers": [memory], "log_every": 2}
    return BoxscoreCallback(**defaults | {"on_error": "raise", "pictures": False} | options)


def series(memory: MemoryLogger, name: str, split: str) -> dict[int, float]:
    return {p.step: p.value for p in memory.points if (p.name, p.split) == (name, split)}


def measured(memory: MemoryLogger) -> dict[tuple[str, str, int], float]:
    """All but what tells of time."""
    timed = ("progress/images_per_second", "progress/evaluation_seconds")
    return {(p.key, p.split, p.step): p.value for p in memory.points if p.name not in timed}


def fit(folder: Path, model: Any, task: str, **options: Any) -> tuple[MemoryLogger, Any]:
    memory = MemoryLogger()
    score = callback(memory, **options.pop("score", {}))
    fitted = trainer(folder, model, task, score, **options)
    fitted.train()
    return memory, fitted
