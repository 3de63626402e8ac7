"""Transformers' Trainer on two and three processes that torchrun starts, against one process."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from boxscore.loggers import MemoryLogger
from tests.callbacks.test_transformers import Pictures, Trainer, callback, detr, segformer, together
from tests.launched import Witness, differing, heard, launched, tell
from tests.tiny_transformers import tf

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*pin_memory")]
SIZES = pytest.mark.parametrize("size", [2, 3])
MODULE = "tests.callbacks.test_transformers_processes"


def is_launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


class Groups(torch.utils.data.Sampler[list[int]]):
    """Batches of so many, in the order of the data; at the end from its beginning again."""

    def __init__(self, count: int, few: int, size: int) -> None:
        self.batch_size, self.drop_last = few, False
        long = -(-count // (few * size)) * few * size
        order = [n % count for n in range(long)]
        self.groups = [order[start : start + few] for start in range(0, long, few)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)


class Alone(Trainer):
    """One process that trains on what several train on, repeats and all."""

    size = 1

    def get_train_dataloader(self) -> Any:
        groups = Groups(len(self.train_dataset), 2, self.size)
        return torch.utils.data.DataLoader(
            self.train_dataset, batch_sampler=groups, collate_fn=self.data_collator
        )


def trained(
    folder: Path,
    size: int,
    model: Callable[[], Any],
    task: str,
    *,
    test: int = 7,
    train: int = 12,
    rate: float = 0.0,
    score: dict[str, Any] | None = None,
    resume: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """A training on all processes, or on one that goes through the batches of ``size``.

    Args:
        folder: that the processes share.
        size: of how many processes the batches are.
        model: makes what is trained.
        task: for the pictures.
        test: how many images are measured.
        train: how many images an epoch has.
        rate: at which weights are learned; none, so that all steps have the same weights.
        score: options of the callback.
        resume: the checkpoint's folder.
        **options: of the trainer.
    """
    made = model()
    options.setdefault("optimizer", torch.optim.SGD(made.parameters(), rate, weight_decay=0.01))
    optimizer = options.pop("optimizer")
    callbacks = options.pop("callbacks", [])
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "max_steps": 4,
        "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "no", "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant", "report_to": [], "remove_unused_columns": False,
        "use_cpu": True, "disable_tqdm": True,
        "ddp_backend": "gloo" if is_launched() else None,
        "gradient_accumulation_steps": 1 if is_launched() else size,
    }  # fmt: skip
    memory = MemoryLogger()
    watched = callback(memory, **(score or {}))
    kind = Trainer if is_launched() else type("One", (Alone,), {"size": size})
    fitted = kind(
        made, tf.TrainingArguments(str(folder), **defaults | options), data_collator=together,
        train_dataset=Pictures(task, train), eval_dataset=Pictures(task, test, first=100),
        callbacks=[watched, *callbacks], optimizers=(optimizer, None),
    )  # fmt: skip
    fitted.train(resume_from_checkpoint=resume)
    logs = [{k: v for k, v in log.items() if "box_AP" in k} for log in fitted.state.log_history]
    return heard(memory, watched) | {
        "step": fitted.state.global_step,
        "offered": [log for log in logs if log],
        "best_metric": fitted.state.best_metric,
        "best_at": Path(fitted.state.best_model_checkpoint or "").name,
    }


EVALUATED: dict[str, dict[str, Any]] = {
    "boxes": {"model": detr, "task": "boxes"},
    "boxes one by one": {"model": detr, "task": "boxes", "per_device_eval_batch_size": 1},
    "boxes when asked": {
        "model": detr, "task": "boxes", "eval_strategy": "no", "score": {"evaluate_every": 3},
    },
    "maps": {"model": segformer, "task": "semantic"},
    "maps one by one": {
        "model": segformer, "task": "semantic", "per_device_eval_batch_size": 1,
    },
    "few boxes": {"model": detr, "task": "boxes", "test": 1},
    "few maps": {"model": segformer, "task": "semantic", "test": 1},
    "some maps": {"model": segformer, "task": "semantic", "score": {"evaluate_images": 3}},
}  # fmt: skip

TRAINED: dict[str, dict[str, Any]] = {
    "boxes trained": {"model": detr, "task": "boxes", "rate": 0.01, "max_steps": 6},
    "maps trained": {"model": segformer, "task": "semantic", "rate": 0.01, "max_steps": 6},
    "uneven maps trained": {
        "model": segformer, "task": "semantic", "rate": 0.01, "max_steps": 6, "train": 7,
    },
}  # fmt: skip


def monitored(folder: Path, size: int) -> dict[str, Any]:
    stop = tf.EarlyStoppingCallback(early_stopping_patience=1)
    return trained(
        folder, size, detr, "boxes", rate=0.01, metric_for_best_model="box_AP", max_steps=20,
        save_strategy="steps", save_steps=2, load_best_model_at_end=True, callbacks=[stop],
    )  # fmt: skip


def resumed(folder: Path, size: int) -> dict[str, Any]:
    """To step 6, from step 4 to 8, against a training without a break."""
    told: dict[str, Any] = {}
    for name, all_steps in (("whole", [8]), ("parts", [6, 8])):
        memory, ids = MemoryLogger(), []
        for steps in all_steps:
            found = folder / name / "checkpoint-4"
            found_path = str(found) if found.exists() else None
            told[name] = trained(
                folder / name, size, detr, "boxes", rate=0.01, max_steps=steps, resume=found_path,
                save_strategy="steps", save_steps=4, score={"loggers": [memory]},
            )  # fmt: skip
            ids.append(told[name]["run"])
        told[name] |= heard_of(memory) | {"ids": ids}
    return told


def heard_of(memory: MemoryLogger) -> dict[str, Any]:
    class Nobody:
        class run:  # noqa: N801
            id = ""

        latest: dict[str, float] = {}
        best: dict[str, float] = {}

    return {k: heard(memory, Nobody)[k] for k in ("points", "count", "tags", "status", "opened")}


def cases(size: int) -> dict[str, Callable[[Path], Any]]:
    plain: dict[str, Callable[[Path], Any]] = {
        name: functools.partial(trained, size=size, **case)
        for name, case in (EVALUATED | TRAINED).items()
    }
    return plain | {
        "monitored": functools.partial(monitored, size=size),
        "resumed": functools.partial(resumed, size=size),
    }


if __name__ == "__main__":
    tell(Path(sys.argv[1]), cases(int(os.environ["WORLD_SIZE"])))
