"""The forwards of a Trainer's steps: replicas, several in a step, others' and copies' forwards."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback
from transformers.modeling_outputs import SemanticSegmenterOutput

from boxscore import Identity
from boxscore.loggers import MemoryLogger
from tests.tiny_batches import built
from tests.tiny_trainer import (
    Pictures,
    Trainer,
    callback,
    detr,
    fit,
    measured,
    segformer,
    series,
    together,
    trainer,
)  # fmt: skip
from tests.warned import warns_not

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory")


class Halves(torch.nn.Module):
    """As DataParallel: a forward for each half of the batch, in threads of replicas if asked."""

    def __init__(self, module: Any, threaded: bool) -> None:
        super().__init__()
        self.module, self.threaded = module, threaded

    def forward(self, **inputs: Any) -> Any:
        count = len(inputs["pixel_values"])
        half = (count + 1) // 2
        parts = [
            {
                k: v if getattr(v, "ndim", 1) == 0 else v[start : start + half]
                for k, v in inputs.items()
            }
            for start in range(0, count, half)
        ]
        if self.threaded:
            with ThreadPoolExecutor() as pool:
                outputs = list(pool.map(self._replica, parts))
        else:
            outputs = [self.module(**part) for part in parts]
        logits = torch.cat([one["logits"] for one in outputs])
        return {"loss": torch.stack([one["loss"] for one in outputs]).mean(), "logits": logits}

    def _replica(self, part: dict[str, Any]) -> Any:
        replica = self.module._replicate_for_data_parallel()
        replica.__dict__["_parameters"] = self.module._parameters
        return replica(**part)


def parallel(threaded: bool) -> type[Trainer]:
    class Parallel(Trainer):
        def _wrap_model(self, model: Any, *_: Any, **__: Any) -> Any:
            return Halves(model, threaded)

    return Parallel


class Stray(TrainerCallback):
    """Calls the model with labels in the middle of a training, in both modes."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for mode in (True, False):
            with torch.no_grad():
                kwargs["model"].train(mode)(**together([Pictures("semantic", 1, 500)[0]]))


class Network(torch.nn.Module):
    """Transformers' own models can be neither pickled nor compiled to one graph (5.24)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, 3, 1)

    def forward(self, pixel_values: Any, labels: Any) -> Any:
        logits = self.layer(pixel_values)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return SemanticSegmenterOutput(loss=loss, logits=logits)


NETWORK: dict[str, Any] = {
    "task": "semantic-segmentation",
    "classes": ["none", "disc", "square"],
    "identity": Identity("Net", "64x64"),
}


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize(
    ("make", "task", "score"), [(detr, "boxes", {}), (Network, "semantic", NETWORK)]
)
def test_replicas_are_measured_as_one_batch(
    tmp_path: Path, make: Any, task: str, score: Any, threaded: bool
) -> None:
    options: dict[str, Any] = {
        "max_steps": 2, "eval_steps": 2, "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4, "score": {"log_every": 1} | score,
    }  # fmt: skip
    one, _ = fit(tmp_path, make(), task, **options)
    several, _ = fit(tmp_path, make(), task, kind=parallel(threaded), **options)
    assert series(several, "progress/images_seen", "train") == {1: 4, 2: 8}
    tag = "boxscore.fingerprint.test"
    assert several.tags[tag] == one.tags[tag]
    assert measured(several) == pytest.approx(measured(one), rel=1e-4)


class Broken(Pictures):
    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = super().__getitem__(index)
        return {**picture, "pixel_values": picture["pixel_values"] * (nan if index == 5 else 1)}


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_nan_of_one_replica_is_logged_and_ends_nothing(tmp_path: Path, accumulated: int) -> None:
    with warns_not("loss"):
        memory, _ = fit(
            tmp_path, segformer(), "semantic", kind=parallel(False), max_steps=4,
            train_dataset=Broken("semantic", 8), eval_strategy="no",
            gradient_accumulation_steps=accumulated,
            score={"log_every": 1, "on_error": "warn"},
        )  # fmt: skip
    first = 3 // accumulated + accumulated - 1  # of the batch with picture 5
    assert memory.tags["boxscore.first_nan"].endswith(f"train at step {first}")
    values = series(memory, "total", "train")
    assert [isnan(value) for value in values.values()] == [step >= first for step in values]
    assert memory.status == "FINISHED"


class SharpnessAware(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        super().compute_loss(model, inputs, *args, **options)
        return super().compute_loss(model, inputs, *args, **options)


class Consistent(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **options)
        if model.training:
            model(**{name: value.flip(-1) for name, value in inputs.items()})
        return loss


class Taught(Trainer):
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        with torch.no_grad():
            model(pixel_values=inputs["pixel_values"].flip(-1))
        return super().compute_loss(model, inputs, *args, **options)


@pytest.mark.parametrize("kind", [SharpnessAware, Consistent, Taught])
def test_two_forwards_are_one_batch(tmp_path: Path, kind: Any) -> None:
    """Also of the last batch of an epoch, which is smaller."""
    options: dict[str, Any] = {"train_dataset": Pictures("semantic", 7), "max_steps": 8}
    one, _ = fit(tmp_path, segformer(), "semantic", **options)
    two, _ = fit(tmp_path, segformer(), "semantic", kind=kind, **options)
    # batch norm sees the other forward, so that the figures after it differ
    assert measured(two).keys() == measured(one).keys()
    for name in ("progress/images_seen", "progress/epoch"):
        assert series(two, name, "train") == series(one, name, "train")
    assert list(series(two, "IoU", "train")) == [4, 8]
    assert two.tags["boxscore.fingerprint.test"] == one.tags["boxscore.fingerprint.test"]


def test_forwards_that_are_not_the_trainers_are_left_out(tmp_path: Path) -> None:
    options: dict[str, Any] = {"score": {"log_every": 1} | NETWORK, "eval_steps": 1, "max_steps": 4}
    one, _ = fit(tmp_path, Network(), "semantic", **options)
    two, _ = fit(tmp_path, Network(), "semantic", callbacks=[Stray()], **options)
    assert measured(two) == measured(one)
    assert two.tags["boxscore.fingerprint.test"] == one.tags["boxscore.fingerprint.test"]


@pytest.mark.parametrize(
    ("name", "task", "score"),
    [("segformer", "semantic", {}), ("mask2former", "masks", {"task": "semantic-segmentation"})],
)
def test_watching_changes_no_training(tmp_path: Path, name: str, task: str, score: Any) -> None:
    """With dropout, batch norm and losses of random points."""
    states = []
    for watched in (True, False):
        model = built(name)
        callbacks = callback(MemoryLogger(), **score, log_every=1) if watched else TrainerCallback()
        trainer(tmp_path, model, task, callbacks, max_steps=3, eval_steps=2).train()
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_watched_model_is_the_users(tmp_path: Path) -> None:
    """In the middle of a training; copies are not watched, and compile to one graph."""
    inputs = together([Pictures("semantic", 1, 500)[0]])
    copies: dict[str, Any] = {}

    class Copying(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step != 3:
                return
            model = kwargs["model"]
            file = io.BytesIO()
            torch.save(model, file)
            file.seek(0)
            copies["saved"] = torch.load(file, weights_only=False)
            copies["pickled"] = pickle.loads(pickle.dumps(model))
            copies["copied"] = copy.deepcopy(model)
            copies["averaged"] = torch.optim.swa_utils.AveragedModel(model)
            copies["loaded"] = Network()
            copies["loaded"].load_state_dict(model.state_dict())
            copies["compiled"] = torch.compile(model, backend="eager", fullgraph=True)
            for one in copies.values():
                for mode in (False, True):
                    one.train(mode)(**inputs)

    options: dict[str, Any] = {"max_steps": 4, "score": NETWORK}
    plain, _ = fit(tmp_path, Network(), "semantic", **options)
    memory, _ = fit(tmp_path, Network(), "semantic", callbacks=[Copying()], **options)
    assert len(copies) == 6
    assert measured(memory) == measured(plain)


def test_a_segformer_is_copied_in_a_training(tmp_path: Path) -> None:
    copies = []

    class Copying(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            copies.append(torch.optim.swa_utils.AveragedModel(kwargs["model"]))
            copies[-1](**together([Pictures("semantic", 1, 500)[0]]))

    memory, _ = fit(tmp_path, segformer(), "semantic", max_steps=4, callbacks=[Copying()])
    assert len(copies) == 4
    assert series(memory, "progress/images_seen", "train") == {2: 4, 4: 8}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_a_compiled_training_is_measured(tmp_path: Path) -> None:
    plain, _ = fit(tmp_path, segformer(), "semantic", max_steps=4)
    memory, _ = fit(
        tmp_path, segformer(), "semantic", max_steps=4, torch_compile=True,
        torch_compile_backend="eager",
    )  # fmt: skip
    assert measured(memory) == pytest.approx(measured(plain), rel=1e-4)
