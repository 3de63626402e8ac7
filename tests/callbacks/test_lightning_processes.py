"""Lightning's trainings on two and three processes, against one process."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.models.detection import MaskRCNN

from boxscore.loggers import MemoryLogger
from tests.callbacks.test_lightning import OWN, SEMANTIC, Detector, Own, Segmenter, callback, pixels
from tests.callbacks.test_lightning import trainer as one_trainer
from tests.launched import Witness, differing, fails_launched, gone_through, heard, sized
from tests.tiny import Pictures, collate, fcos, two_stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no"),
]
MODULE = "tests.callbacks.test_lightning_processes"


class Turns(torch.utils.data.Sampler[list[int]]):
    """All processes' batches for one: in turn, as they go through them, and nothing twice."""

    def __init__(self, count: int, size: int, few: int, *, train: bool) -> None:
        self.batch_size, self.train, self.epoch = few, train, 0
        indices: Any = range(count)
        self.samplers: list[Any] = [
            DistributedSampler(indices, size, rank, shuffle=train) for rank in range(size)
        ]

    def __iter__(self) -> Iterator[list[int]]:
        shares = [self.share(sampler) for sampler in self.samplers]
        self.epoch += 1
        for start in range(0, max(map(len, shares)), self.batch_size):
            for share in shares:
                if part := share[start : start + self.batch_size]:
                    yield part

    def share(self, sampler: Any) -> list[int]:
        """One process's: what is trained on twice is trained on twice."""
        sampler.set_epoch(self.epoch)
        count, whole = len(sampler.dataset), list(sampler)
        own = count // sampler.num_replicas + (sampler.rank < count % sampler.num_replicas)
        return whole if self.train else whole[:own]

    def __len__(self) -> int:
        long = max(map(len, self.samplers)) if self.train else 0
        return len(self.samplers) * math.ceil(long / self.batch_size) or len(list(iter(self)))


def loader(data: Any, few: int, size: int, put: Any, *, train: bool) -> Any:
    """Lightning's own where there are several processes; else what these go through."""
    if is_launched():
        return DataLoader(data, batch_size=few, collate_fn=put)
    turns = Turns(len(data), size, few, train=train)
    return DataLoader(data, batch_sampler=turns, collate_fn=put)


def is_launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def trained(
    folder: Path,
    size: int,
    module: Callable[[], Any],
    *,
    test: int = 7,
    few: int = 2,
    train: int = 12,
    score: dict[str, Any] | None = None,
    steps: int = 4,
    **options: Any,
) -> dict[str, Any]:
    """A training on all processes, or on one that goes through the batches of ``size``.

    Args:
        folder: that the processes share.
        size: of how many processes the batches are.
        module: makes what is trained.
        test: how many images are measured.
        few: images in a batch.
        train: how many images an epoch has.
        score: options of the callback.
        steps: of the optimizer.
        **options: of the trainer.
    """
    semantic = score is not None and score.get("task", "").startswith("semantic")
    put = None if semantic else collate
    of_train: Any = pixels(train).dataset if semantic else Pictures(train)
    of_test: Any = pixels(test).dataset if semantic else Pictures(test, 100)
    loaders = (
        loader(of_train, 2, size, put, train=True), loader(of_test, few, size, put, train=False),
    )  # fmt: skip
    if is_launched():
        options = {"strategy": "ddp", "devices": size} | options
    else:
        options |= {"accumulate_grad_batches": size}
    memory = MemoryLogger()
    watched = callback(memory, **(score or {}))
    fitted = one_trainer(
        [watched, *options.pop("callbacks", [])], max_steps=steps,
        default_root_dir=folder, **options,
    )  # fmt: skip
    fitted.fit(module(), *loaders)
    offered = {k: float(v) for k, v in fitted.callback_metrics.items() if k != "seen"}
    return heard(memory, watched) | {"offered": offered, "step": fitted.global_step}


def mask_rcnn() -> Any:
    """Its proposals are sampled: alike in each forward of a training."""
    made = two_stage(MaskRCNN)
    made.register_forward_pre_hook(lambda *_: torch.manual_seed(7) and None)
    return made


def still(net: Any) -> Any:
    """The ``net`` with batch norm whose averages stay as they are."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    return net


class Steady(Detector):
    """Learns nothing, so that all steps have the same weights."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0, weight_decay=self.decay)


class Guessing(Steady):
    """Says boxes beside the true ones, the same for an image each time."""

    def validation_step(self, batch: Any, index: int) -> Any:
        predictions = []
        for target in batch[1]:
            random = torch.Generator().manual_seed(int(target["image_id"]))
            boxes = target["boxes"] + 3 * torch.rand(target["boxes"].shape, generator=random)
            scores = torch.rand(len(boxes), generator=random)
            predictions.append({**target, "boxes": boxes, "scores": scores})
        ids = [float(target["image_id"]) for target in batch[1]]
        losses = {"classification": torch.tensor(sum(ids) / len(ids))}
        return {"losses": losses, "predictions": predictions, "targets": batch[1]}


class Seeded(Segmenter):
    """Learns nothing either."""

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.0, weight_decay=0.01)


EVALUATED: dict[str, dict[str, Any]] = {
    "boxes": {"module": lambda: Steady(still(fcos()))},
    "boxes on its own": {"module": lambda: Steady(still(fcos())), "score": {"evaluate_every": 3}},
    "some boxes": {
        "module": lambda: Steady(still(fcos())),
        "score": {"evaluate_every": 2, "evaluate_images": 3},
    },
    "boxes returned": {"module": lambda: Guessing(still(fcos())), "few": 1},
    "masks": {"module": lambda: Steady(still(mask_rcnn())), "steps": 2},
    "maps": {"module": Seeded, "score": SEMANTIC},
    "maps on their own": {"module": Seeded, "score": {**SEMANTIC, "evaluate_every": 3}},
    "maps returned": {"module": lambda: Seeded("all"), "score": SEMANTIC, "few": 1},
    "maps returned with repeats": {"module": lambda: Seeded("all"), "score": SEMANTIC},
    "few boxes": {"module": lambda: Steady(still(fcos())), "test": 1},
    "few boxes on its own": {
        "module": lambda: Steady(still(fcos())), "test": 1, "score": {"evaluate_every": 3},
    },
    "few maps": {"module": Seeded, "score": SEMANTIC, "test": 1},
}  # fmt: skip

TRAINED: dict[str, dict[str, Any]] = {
    "boxes trained": {"module": lambda: Detector(still(fcos())), "steps": 6},
    "uneven boxes trained": {"module": lambda: Detector(still(fcos())), "steps": 6, "train": 7},
    "maps trained": {"module": Segmenter, "steps": 6, "score": SEMANTIC},
}


def monitored(folder: Path, size: int) -> dict[str, Any]:
    """Callbacks that watch a figure: it cannot become better than 1."""
    best = ModelCheckpoint(folder, monitor="box_AP", mode="max", filename="{step}-{box_AP:.2f}")
    stop = EarlyStopping("box_AP", mode="max", patience=1)
    found = trained(
        folder, size, Own, score=OWN, steps=20, callbacks=[best, stop], enable_checkpointing=True
    )
    return found | {"best_path": Path(best.best_model_path).name}


def resumed(folder: Path, size: int) -> dict[str, Any]:
    """To step 6, from step 4 to 8, and from step 4 to 10, against a training without a break."""
    told: dict[str, Any] = {}
    for name, all_steps in (("whole", [10]), ("parts", [6, 8, 10])):
        memory, ids = MemoryLogger(), []
        for steps in all_steps:
            save = ModelCheckpoint(
                folder / name, every_n_train_steps=4, save_top_k=-1, filename="{step}"
            )
            score = callback(memory)
            found = folder / name / "step=4.ckpt"
            torch.manual_seed(0)
            fitted = one_trainer(
                [score, save], max_steps=steps, enable_checkpointing=True, strategy="ddp",
                devices=size,
            )  # fmt: skip
            fitted.fit(
                Detector(fcos()), DataLoader(Pictures(4 * size), 2, collate_fn=collate),
                DataLoader(Pictures(5, 100), 2, collate_fn=collate),
                ckpt_path=found if found.exists() else None,
            )  # fmt: skip
            ids.append(score.run.id)
        told[name] = heard(memory, score) | {"ids": ids}
    return told


class Sharded(Segmenter):
    """Its weights are spread over the processes."""

    def configure_model(self) -> None:
        if self.trainer.world_size > 1:
            mesh: Any = self.device_mesh
            fully_shard(self.model, mesh=mesh["data_parallel"])

    def on_train_batch_start(self, *_: Any) -> None:
        weights = self.trainer.optimizers[0].param_groups[0]["params"]
        assert all(hasattr(weight, "to_local") for weight in weights) == is_launched()


def sharded(folder: Path, size: int, **options: Any) -> dict[str, Any]:
    """FSDP2; that of old wants an accelerator."""
    if is_launched():
        strategy = ModelParallelStrategy(data_parallel_size=size, tensor_parallel_size=1)
        options["strategy"] = strategy
    return trained(folder, size, **options)


class Gathering(nn.Module):
    """As FSDP's wrapper: only in its forward are the weights of what is inside there."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module, self.inside = module, False
        module.model.register_forward_pre_hook(self.check)

    def check(self, *_: Any) -> None:
        assert self.inside, "the weights are not here"

    def forward(self, *given: Any, **named: Any) -> Any:
        self.inside = True
        try:
            return self.module(*given, **named)
        finally:
            self.inside = False


class GatheringStrategy(DDPStrategy):
    """Instead of Lightning's FSDPStrategy, which refuses to run on a CPU."""

    def _setup_model(self, model: Any) -> Any:
        return Gathering(model)


def gathered(folder: Path, size: int, **options: Any) -> dict[str, Any]:
    if is_launched():
        options["strategy"] = GatheringStrategy()
    return trained(folder, size, **options)


def saved(folder: Path, size: int) -> dict[str, Any]:
    """Batch norm's averages differ between the processes; a checkpoint holds the first one's."""
    save = ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    told = trained(
        folder, size, lambda: Detector(fcos()), train=8 * size, steps=3,
        score={"evaluate_every": 3}, callbacks=[save], enable_checkpointing=True,
    )  # fmt: skip
    return told | {"file": str(folder / "step=3.ckpt")}


def failing(folder: Path) -> None:
    """The second process raises in its fourth step."""

    class Ending(Detector):
        def training_step(self, batch: Any, index: int) -> Any:
            if self.global_step == 3 and self.global_rank == 1:
                raise ZeroDivisionError
            return super().training_step(batch, index)

    rank = os.environ["RANK"]
    fitted = one_trainer([callback(Witness(folder / rank))], strategy="ddp", devices=2)
    data = DataLoader(Pictures(16), 2, collate_fn=collate)
    fitted.fit(Ending(fcos()), data, DataLoader(Pictures(2, 100), 2, collate_fn=collate))


SHARDED: dict[str, dict[str, Any]] = {
    "maps sharded": {"module": lambda: Sharded("all"), "score": SEMANTIC, "few": 1},
    "maps sharded on their own": {
        "module": Sharded, "score": {**SEMANTIC, "evaluate_every": 2}, "steps": 6,
    },
}  # fmt: skip

GATHERED: dict[str, dict[str, Any]] = {
    "maps gathered": {"module": Seeded, "score": SEMANTIC},
    "maps gathered on their own": {
        "module": lambda: Seeded("all"), "score": {**SEMANTIC, "evaluate_every": 3},
    },
}  # fmt: skip


OF_THREE = {"boxes", "some boxes", "few boxes on its own", "uneven boxes trained"}
"""Cases in which three processes do what two do not: no image for two, unequal shares."""


def cases(size: int) -> dict[str, Callable[[Path], Any]]:
    plain = EVALUATED | TRAINED
    special = {"monitored": monitored, "saved": saved, "resumed": resumed}
    made: dict[str, Callable[[Path], Any]] = {
        **{n: functools.partial(trained, size=size, **case) for n, case in plain.items()},
        **{n: functools.partial(case, size=size) for n, case in special.items()},
        **{n: functools.partial(sharded, size=size, **case) for n, case in SHARDED.items()},
        **{n: functools.partial(gathered, size=size, **case) for n, case in GATHERED.items()},
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


@functools.cache
def alone(name: str, size: int, folder: Path) -> dict[str, Any]:
    return trained(folder, size, **(EVALUATED | TRAINED | SHARDED | GATHERED)[name])


def agreed(ranks: list[dict[str, Any]], name: str) -> Any:
    """What the first process told, and that the others know as much but log nothing."""
    first, *others = [rank[name] for rank in ranks]
    assert (first["opened"], first["status"]) == (True, "FINISHED")
    assert first["count"] == len(first["points"])  # none twice
    for other in others:
        assert not other["opened"]
        assert not other["points"]
        for same in ("latest", "best", "offered", "step"):
            assert other[same] == first[same], same
    return first


@sizes(EVALUATED, GATHERED)
def test_the_same_weights_have_the_same_figures(
    told: Told, tmp_path: Path, name: str, size: int
) -> None:
    """To the bit, under the same fingerprint; and the losses of the same batches."""
    one, several = alone(name, size, tmp_path), agreed(told(size), name)
    assert len(one["points"]) > 80
    # of what the module returns for a batch with repeats, the losses are of these too
    assert differing(one, several, 2e-3 if "repeats" in name else 1e-6) == []


@sizes(TRAINED, SHARDED)
def test_a_training_has_the_losses_of_one_process_that_accumulates(
    told: Told, tmp_path: Path, name: str, size: int
) -> None:
    """With the weights spread over the processes too; images are counted that are repeated."""
    one, several = alone(name, size, tmp_path), agreed(told(size), name)
    losses = {
        k: v for k, v in several["points"].items() if not k.startswith(("metric", "per class"))
    }
    wanted = {k: v for k, v in one["points"].items() if not k.startswith(("metric", "per class"))}
    losses, wanted = (
        {k: v for k, v in d.items() if not k.startswith("summary")} for d in (losses, wanted)
    )
    assert differing({**one, "points": wanted}, {**several, "points": losses}, 1e-4) == []
    seen = {k.split("@")[1]: v for k, v in several["points"].items() if "images_seen" in k}
    of_rank = 4 if name != "uneven boxes trained" else None
    if of_rank:
        assert seen["2"] == 4 * size
    else:  # seven images: the last batch of an epoch has what is left, and repeats
        long = math.ceil(7 / size)
        assert seen["2"] == size * min(4, long)


def test_callbacks_that_watch_a_figure_agree_on_all_ranks(told: Told) -> None:
    first = agreed(told(2), "monitored")
    assert first["step"] == 6  # after two epochs: it could not become better than 1
    assert first["offered"]["box_AP"] == pytest.approx(1.0)
    assert {rank["monitored"]["best_path"] for rank in told(2)} == {"step=3-box_AP=1.00.ckpt"}


def test_a_checkpoint_continues_the_run_without_a_point_twice(told: Told) -> None:
    whole, parts = (told(2)[0]["resumed"][name] for name in ("whole", "parts"))
    assert len(set(parts["ids"])) == 1
    assert parts["count"] == len(parts["points"])
    assert differing(whole, parts, 1e-4) == []
    assert parts["status"] == "FINISHED"


def test_the_figures_are_those_of_the_weights_that_are_saved(told: Told, tmp_path: Path) -> None:
    several = agreed(told(2), "saved")
    state = torch.load(several["file"], weights_only=True)["state_dict"]

    class Loaded(Steady):
        def on_after_backward(self) -> None:  # which comes before it is measured
            self.load_state_dict(state)

    one = trained(
        tmp_path, 2, lambda: Loaded(fcos()), train=16, steps=3, score={"evaluate_every": 3}
    )
    measured = {k: v for k, v in one["points"].items() if ".test@" in k}
    assert len(measured) > 3
    assert {k: several["points"].get(k) for k in measured} == pytest.approx(measured, rel=1e-6)


def test_a_rank_that_raises_fails_the_run(tmp_path: Path) -> None:
    """And nothing hangs: torchrun ends what is left."""
    fails_launched(MODULE, 2, tmp_path)
    assert (tmp_path / "0").read_text() == "FAILED"
    assert not (tmp_path / "1").exists()  # it has no loggers


if __name__ == "__main__":
    failing(Path(sys.argv[1]))
