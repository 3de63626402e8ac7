"""Lightning's trainings on two and three processes that torchrun starts, against one process."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models.detection import MaskRCNN

from boxscore import ranks
from boxscore.loggers import MemoryLogger
from tests.callbacks.test_lightning import OWN, SEMANTIC, Detector, Own, Segmenter, callback, pixels
from tests.callbacks.test_lightning import trainer as one_trainer
from tests.launched import Witness, heard, launched, tell
from tests.tiny import Pictures, collate, fcos, two_stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no"),
]
SIZES = pytest.mark.parametrize("size", [2, 3])
MODULE = "tests.callbacks.test_lightning_processes"


def share_of(count: int, size: int, rank: int) -> list[int]:
    """The indices that Lightning's sampler gives one process, less what it repeats."""
    return list(range(rank, count, size))


def partition(count: int, size: int, few: int, *, repeats: bool = False) -> list[list[int]]:
    """All processes' batches, for one process: in turn, as they go through them."""
    shares = [share_of(count, size, rank) for rank in range(size)]
    if repeats:  # from the beginning
        long = math.ceil(count / size)
        shares = [s if len(s) == long else [*s, (count + n) % count] for n, s in enumerate(shares)]
        shares = [[i % count for i in range(rank, long * size, size)] for rank in range(size)]
    long = max(map(len, shares))
    parts = [share[start : start + few] for start in range(0, long, few) for share in shares]
    return [part for part in parts if part]


def loader(data: Any, few: int, parts: Sequence[Sequence[int]] | None, put: Any) -> Any:
    if parts is None:
        return DataLoader(data, batch_size=few, collate_fn=put)
    return DataLoader(data, batch_sampler=parts, collate_fn=put)


def trained(
    folder: Path,
    size: int,
    module: Callable[[], Any],
    *,
    test: int = 7,
    few: int = 2,
    train: int = 4,
    repeats: bool = False,
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
        train: how many images each process trains on in an epoch.
        repeats: whether one process goes through what the sampler repeats, too.
        score: options of the callback.
        steps: of the optimizer.
        **options: of the trainer.
    """
    alone = ranks.size() == 1 and not torch.distributed.is_torchelastic_launched()
    semantic = score is not None and score.get("task", "").startswith("semantic")
    put = None if semantic else collate
    of_train: Any = pixels(train * size).dataset if semantic else Pictures(train * size)
    of_test: Any = pixels(test).dataset if semantic else Pictures(test, 100)
    parts = partition(train * size, size, 2) if alone else None
    loaders = (
        loader(of_train, 2, parts, put),
        loader(
            of_test, few, partition(test, size, few, repeats=repeats) if alone else None, put
        ),
    )
    if alone:
        options |= {"accumulate_grad_batches": size}
    else:
        options = {"strategy": "ddp", "devices": size} | options
    memory, watched = MemoryLogger(), callback(MemoryLogger(), **(score or {}))
    watched = callback(memory, **(score or {}))
    fitted = one_trainer(
        [watched, *options.pop("callbacks", [])], max_steps=steps,
        default_root_dir=folder, **options,
    )  # fmt: skip
    made = module()
    fitted.fit(made, *loaders)
    offered = {k: float(v) for k, v in fitted.callback_metrics.items() if k != "seen"}
    return heard(memory, watched) | {"offered": offered, "step": fitted.global_step}


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
    "masks": {"module": lambda: Steady(still(two_stage(MaskRCNN))), "steps": 2},
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
    "uneven boxes trained": {"module": lambda: Detector(still(fcos())), "steps": 6, "train": 3},
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


def cases(size: int) -> dict[str, Callable[[Path], Any]]:
    plain: dict[str, Callable[[Path], Any]] = {
        name: functools.partial(trained, size=size, **case)
        for name, case in (EVALUATED | TRAINED).items()
    }
    return plain | {
        "monitored": functools.partial(monitored, size=size),
        "resumed": functools.partial(resumed, size=size),
    }


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[dict[str, Any]]]:
    """What each rank of so many processes told of all cases."""

    @functools.cache
    def of(size: int) -> list[dict[str, Any]]:
        return launched(MODULE, size, tmp_path_factory.mktemp(f"of{size}"), "cases", seconds=240)

    return of


if __name__ == "__main__":
    tell(Path(sys.argv[1]), cases(int(__import__("os").environ["WORLD_SIZE"])))
