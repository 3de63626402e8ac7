"""Transformers' Trainer on two and three processes, against one process."""

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
from tests.launched import Witness, differing, fails_launched, gone_through, heard, sized
from tests.tiny_trainer import Pictures, Trainer, callback, detr, segformer, together
from tests.tiny_transformers import tf

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*pin_memory")]
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
        groups = Groups(len(self.train_dataset), self.args.per_device_train_batch_size, self.size)
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
    memory: MemoryLogger | None = None,
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
        memory: where it is logged.
        **options: of the trainer.
    """
    made = model()
    optimizer = torch.optim.SGD(made.parameters(), rate, weight_decay=0.01)
    callbacks = options.pop("callbacks", [])
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "max_steps": 4,
        "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "no", "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant", "report_to": [], "remove_unused_columns": False,
        "use_cpu": True, "disable_tqdm": True,
        "ddp_backend": "gloo" if is_launched() else None,
        "gradient_accumulation_steps": 1 if is_launched() else size,
    }  # fmt: skip
    if not is_launched():
        options = {name: option for name, option in options.items() if "fsdp" not in name}
    memory = memory or MemoryLogger()
    watched = callback(memory, **(score or {}))
    kind = Trainer if is_launched() else type("One", (Alone,), {"size": size})
    fitted = kind(
        made, tf.TrainingArguments(str(folder), **defaults | options), data_collator=together,
        train_dataset=Pictures(task, train), eval_dataset=Pictures(task, test, first=100),
        callbacks=[watched, *callbacks], optimizers=(optimizer, None),
    )  # fmt: skip
    fitted.train(resume_from_checkpoint=resume)
    return heard(memory, watched) | {
        "step": fitted.state.global_step,
        "best_metric": fitted.state.best_metric,
        "best_at": Path(fitted.state.best_model_checkpoint or "").name,
    }


def maps() -> Any:
    """SegFormer, with batch norm whose averages stay as they are."""
    model = segformer()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    return model


def guess(model: Any, batch: Any) -> Any:
    """Boxes beside the true ones, the same for an image at each time."""
    targets, predictions = [], []
    for label in batch["labels"]:
        random = torch.Generator().manual_seed(int(label["image_id"]))
        x, y, width, height = (label["boxes"] * 128).unbind(1)
        boxes = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
        targets.append(
            {"boxes": boxes, "labels": label["class_labels"], "image_id": label["image_id"]}
        )
        beside = boxes + 8 * torch.rand(len(boxes), 4, generator=random)
        scores = torch.rand(len(boxes), generator=random)
        predictions.append({**targets[-1], "boxes": beside, "scores": scores})
    return {}, predictions, targets


# one image a batch: Transformers 5.24 divides DETR's sum over boxes by their mean number and by
# the number of processes (see test_what_transformers_does_to_detr)
BOXES: dict[str, Any] = {
    "model": detr, "task": "boxes", "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
}  # fmt: skip
MAPS: dict[str, Any] = {"model": maps, "task": "semantic"}

EVALUATED: dict[str, dict[str, Any]] = {
    "boxes": BOXES,
    "boxes when asked": {**BOXES, "eval_strategy": "no", "score": {"evaluate_every": 3}},
    "boxes guessed": {**BOXES, "per_device_eval_batch_size": 2, "score": {"predict": guess}},
    "few boxes": {**BOXES, "test": 1},
    "maps": MAPS,
    "maps one by one": {**MAPS, "per_device_eval_batch_size": 1},
    "few maps": {**MAPS, "test": 1},
}

LEARNING: dict[str, Any] = {"rate": 0.01, "max_steps": 6}
TRAINED: dict[str, dict[str, Any]] = {
    "boxes trained": {**BOXES, **LEARNING},
    "maps trained": {**MAPS, **LEARNING, "ddp_find_unused_parameters": False},
    "uneven maps trained": {**MAPS, **LEARNING, "train": 7},
}

FSDP: dict[str, Any] = {"fsdp": True, "fsdp_config": {"version": 2}}  # 1 wants an accelerator
SHARDED: dict[str, dict[str, Any]] = {
    "maps sharded": {**MAPS, **FSDP},
    "maps sharded, asked": {**MAPS, **FSDP, "score": {"evaluate_every": 3}},
    "boxes sharded": {**BOXES, **FSDP},
}
SHARDED_TRAINED = {"maps sharded, trained": {**MAPS, **LEARNING, **FSDP}}


def monitored(folder: Path, size: int) -> dict[str, Any]:
    """The figure stays as it is, so that the first checkpoint is the best."""
    stop = tf.EarlyStoppingCallback(early_stopping_patience=1)
    return trained(
        folder, size, **BOXES, metric_for_best_model="box_AP", max_steps=20,
        save_strategy="steps", save_steps=2, load_best_model_at_end=True, callbacks=[stop],
        score={"predict": guess},
    )  # fmt: skip


def pairs(folder: Path, size: int) -> dict[str, Any]:
    return trained(folder, size, detr, "boxes", test=2 * size)


def resumed(folder: Path, size: int) -> dict[str, Any]:
    """To step 6, from step 4 to 8, against a training without a break."""
    told: dict[str, Any] = {}
    for name, all_steps in (("whole", [8]), ("parts", [6, 8])):
        memory, ids = MemoryLogger(), []
        for steps in all_steps:
            found = folder / name / "checkpoint-4"
            told[name] = trained(
                folder / name, size, **MAPS, rate=0.01, max_steps=steps, save_strategy="steps",
                save_steps=4, memory=memory, resume=str(found) if found.exists() else None,
            )  # fmt: skip
            ids.append(told[name]["run"])
        told[name]["ids"] = ids
    return told


def failing(folder: Path) -> None:
    """The second process is killed after its third step."""

    class Ending(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3 and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)

    witness = Witness(folder / os.environ["RANK"])
    trained(folder, 2, **MAPS, max_steps=8, callbacks=[Ending()], memory=witness)


OF_THREE = {"boxes when asked", "few boxes", "maps one by one", "uneven maps trained"}
"""Cases in which three processes do what two do not: no image for two, unequal shares."""


def cases(size: int) -> dict[str, Callable[[Path], Any]]:
    special = {"monitored": monitored, "pairs": pairs, "resumed": resumed}
    plain, last = EVALUATED | TRAINED, SHARDED | SHARDED_TRAINED
    made: dict[str, Callable[[Path], Any]] = {
        **{name: functools.partial(trained, size=size, **case) for name, case in plain.items()},
        **{name: functools.partial(case, size=size) for name, case in special.items()},
        # Accelerate's environment variables are left behind by these
        **{name: functools.partial(trained, size=size, **case) for name, case in last.items()},
    }
    return {name: case for name, case in made.items() if size == 2 or name in OF_THREE}


sizes = functools.partial(sized, OF_THREE)


Told = Callable[[int], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What each rank of so many processes told of all cases."""

    @functools.cache
    def of(size: int) -> list[dict[str, Any]]:
        return gone_through(size, cases, tmp_path_factory.mktemp(f"of{size}"))

    return of


def agreed(ranks: list[dict[str, Any]], name: str) -> Any:
    """What the first process told, and that the others know as much but log nothing."""
    first, *others = [rank[name] for rank in ranks]
    assert (first["opened"], first["status"]) == (True, "FINISHED")
    assert first["count"] == len(first["points"])  # none twice
    for other in others:
        assert not other["opened"]
        assert not other["points"]
        for same in ("latest", "best", "step", "best_metric", "best_at"):
            assert other[same] == first[same], same
    return first


@sizes(EVALUATED, SHARDED)
def test_the_same_weights_have_the_same_figures(
    told: Told, tmp_path: Path, name: str, size: int
) -> None:
    """To the bit, under the same fingerprint; and the losses of the same images."""
    one = trained(tmp_path, size, **(EVALUATED | SHARDED)[name])
    several = agreed(told(size), name)
    assert len(one["points"]) > 80
    wrong = differing(one, several)
    if "maps" in name and "one by one" not in name:
        # the last batch is filled up with images of the first, and the model's loss is of these too
        wrong = differing(one, several, 1e-4)
    assert wrong == []


@sizes(TRAINED, SHARDED_TRAINED)
def test_a_training_has_the_losses_of_one_process_that_accumulates(
    told: Told, tmp_path: Path, name: str, size: int
) -> None:
    one, several = (
        trained(tmp_path, size, **(TRAINED | SHARDED_TRAINED)[name]),
        agreed(told(size), name),
    )

    def losses(run: dict[str, Any]) -> dict[str, Any]:
        train = {k: v for k, v in run["points"].items() if ".train@" in k}
        return {**run, "points": train}

    assert differing(losses(one), losses(several), 1e-4) == []
    seen = {k: v for k, v in several["points"].items() if "images_seen" in k}
    assert seen
    assert seen == {k: v for k, v in one["points"].items() if "images_seen" in k}
    assert several["step"] == 6


def test_a_figure_chooses_the_checkpoint_on_all_ranks(told: Told) -> None:
    first = agreed(told(2), "monitored")
    assert (first["step"], first["best_at"]) == (4, "checkpoint-2")
    assert 0 < first["best_metric"] < 1
    assert first["best_metric"] == first["latest"]["box_AP"]


def test_a_checkpoint_continues_the_run_without_a_point_twice(told: Told) -> None:
    whole, parts = (told(2)[0]["resumed"][name] for name in ("whole", "parts"))
    assert len(set(parts["ids"])) == 1
    assert parts["count"] == len(parts["points"])
    # (Transformers 5.24 does not load all of a SegFormer's weights again: the values differ)
    best = "summary/best"
    assert {k for k in parts["points"] if not k.startswith(best)} == {
        k for k in whole["points"] if not k.startswith(best)
    }
    assert parts["status"] == "FINISHED"


def test_what_transformers_does_to_detr(told: Told, tmp_path: Path) -> None:
    """Its own losses of boxes grow with the processes; it is they that are trained on and logged.

    ``num_boxes`` is reduced to the mean and then divided by the number of processes, 1 at least.
    """
    one, several = pairs(tmp_path, 2), agreed(told(2), "pairs")
    for split in ("train", "test"):
        key = f"loss DETR 64x64/localization.{split}@2"
        assert several["points"][key] == pytest.approx(2 * one["points"][key], rel=1e-5)


def test_a_killed_rank_fails_the_run(tmp_path: Path) -> None:
    """And nothing hangs: torchrun ends what is left."""
    fails_launched(MODULE, 2, tmp_path)
    assert (tmp_path / "0").read_text() == "FAILED"
    assert not (tmp_path / "1").exists()  # it has no loggers


if __name__ == "__main__":
    failing(Path(sys.argv[1]))
