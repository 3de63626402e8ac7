"""Trainings on two and three processes against one: the same figures, losses, names and steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchvision.models.detection import MaskRCNN

from boxscore import Identity, distributed
from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger
from boxscore.losses import cross_entropy_loss
from tests.tiny import CLASSES, Pictures, collate, fcos, two_stage
from tests.together import together

pytestmark = pytest.mark.slow

SIZES = pytest.mark.parametrize("size", [2, 3])


def semantic() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


MODELS: dict[str, Callable[[], Any]] = {
    "fcos": fcos,
    "mask": lambda: two_stage(MaskRCNN),
    "semantic": semantic,
}


def maps(count: int) -> TensorDataset:
    """Images without ids, and label maps with pixels that do not count."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, 12, 10, generator=generator)
    targets = (images[:, 0] > 0.5).long()
    targets[:, 0] = 255
    return TensorDataset(images, targets)


def given_set(kind: str, model: str, size: int) -> Any:
    """A test set of seven images, or of two, as the processes' loaders give it."""
    count = 2 if kind == "few" else 7
    data: Any = maps(count) if model == "semantic" else Pictures(count, 100)
    options: Any = {"batch_size": 2, "collate_fn": None if model == "semantic" else collate}
    plain = DataLoader(data, **options)
    if kind == "list":
        return list(plain)
    if kind == "several":
        return {"test": plain, "night": DataLoader(Pictures(3, 200), **options)}
    if kind == "sampler":
        return DataLoader(data, sampler=DistributedSampler(data, shuffle=False), **options)
    if kind.startswith("accelerate"):
        from accelerate import Accelerator, DataLoaderConfiguration

        split, even = "split" in kind, "uneven" not in kind
        if split:
            plain = DataLoader(data, **options | {"batch_size": 2 * size})
        config = DataLoaderConfiguration(split_batches=split, even_batches=even)
        return Accelerator(cpu=True, dataloader_config=config).prepare(plain)
    return plain


def partition(kind: str, model: str, size: int) -> Any:
    """The same batches for one process, whatever process has them; nothing twice."""
    if kind not in ("sampler", "accelerate", "accelerate split", "accelerate uneven"):
        return given_set(kind, model, 1)
    data: Any = maps(7) if model == "semantic" else Pictures(7, 100)
    put_together = torch.utils.data.default_collate if model == "semantic" else collate
    parts = [list(range(start, min(start + 2, 7))) for start in range(0, 7, 2)]
    if kind == "sampler":
        shares = [list(range(rank, 7, size)) for rank in range(size)]
        parts = [share[start : start + 2] for share in shares for start in (0, 2) if share[start:]]
    return [put_together([data[index] for index in part]) for part in parts]


def scored(model: Any, of: str, loaders: Any, memory: MemoryLogger, **options: Any) -> LoopCallback:
    """The callback of a ``model`` of the kind ``of``."""
    more: dict[str, Any] = {"classes": CLASSES, "dataset": "boxes"}
    if of == "semantic":
        more = {"classes": ["ground", "dot"], "dataset": "dots", "criterion": cross_entropy_loss}
        more |= {"task": "semantic-segmentation", "identity": Identity("FCN", "12x10")}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-3)
    more |= {"loggers": [memory], "log_every": 2, "evaluate_every": 3, "on_error": "raise"}
    return LoopCallback(model, optimizer, loaders, **more | options)


def told(memory: MemoryLogger, score: LoopCallback) -> dict[str, Any]:
    return {
        "points": {(p.key, p.step): p.value for p in memory.points if "_second" not in p.key},
        "tags": {k: v for k, v in memory.tags.items() if k != "boxscore.run"},
        "status": memory.status,
        "latest": dict(score.latest),
        "best": dict(score.best),
    }


# the evaluation of the same weights


def seldom(model: Any, batch: Any) -> Any:
    """No detection in the images that the second of two processes has; else the ground truth."""
    found = []
    for target in batch[1]:
        none = int(target["image_id"]) in (102, 103, 106)
        boxes, labels = target["boxes"], target["labels"]
        boxes, labels = (boxes[:0], labels[:0]) if none else (boxes, labels)
        found.append({"boxes": boxes, "labels": labels, "scores": torch.ones(len(labels))})
    return {"loss_cls": 1.0}, found, batch[1]


EVALUATIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("fcos", "plain", {"predict": seldom}),
    ("fcos", "plain", {}),
    ("fcos", "list", {}),
    ("fcos", "sampler", {}),
    ("fcos", "few", {}),
    ("fcos", "several", {}),
    ("fcos", "plain", {"evaluate_images": 3}),
    ("fcos", "sampler", {"evaluate_images": 3}),
    ("fcos", "list", {"evaluate_images": 3}),
    ("fcos", "accelerate", {}),
    ("fcos", "accelerate split", {}),
    ("fcos", "accelerate uneven", {}),
    ("mask", "plain", {}),
    ("mask", "few", {}),
    ("semantic", "plain", {}),
    ("semantic", "sampler", {}),
    ("semantic", "few", {}),
    ("semantic", "accelerate", {}),
    ("semantic", "accelerate split", {}),
]


def evaluated_once(of: str, loaders: Any, options: dict[str, Any]) -> dict[str, Any]:
    memory, model = MemoryLogger(), MODELS[of]()
    if distributed.size() > 1:
        model = DistributedDataParallel(model)
    with scored(model, of, loaders, memory, **options) as score:
        score.evaluate()
    return told(memory, score)


def evaluations() -> list[dict[str, Any]]:
    return [
        evaluated_once(of, given_set(kind, of, distributed.size()), options)
        for of, kind, options in EVALUATIONS
    ]


@functools.cache
def evaluations_of(size: int) -> list[list[dict[str, Any]]]:
    return together(size, evaluations, seconds=200)


@SIZES
@pytest.mark.parametrize("case", range(len(EVALUATIONS)), ids=lambda n: "-".join(
    [*EVALUATIONS[n][:2], *EVALUATIONS[n][2]]))  # fmt: skip
def test_the_same_weights_have_the_same_figures(case: int, size: int) -> None:
    """To the bit, under the same fingerprint, as one process has that takes the same batches."""
    of, kind, options = EVALUATIONS[case]
    several = [results[case] for results in evaluations_of(size)]
    # a subset is chosen from the data set, whatever the sampler
    same = "plain" if options and kind == "sampler" else kind
    one = evaluated_once(of, partition(same, of, size), options)
    first, *others = several
    assert len(one["points"]) > 10
    assert first["points"].keys() == one["points"].keys()
    for key, value in one["points"].items():
        assert first["points"][key] == (
            pytest.approx(value, rel=1e-6) if key[0].startswith("loss") else value
        ), key
    assert first["tags"] == one["tags"]
    assert first["status"] == "FINISHED"
    for other in others:
        assert other["points"] == {}
        assert other["status"] != "FINISHED"  # its logger was never opened
        assert (other["latest"], other["best"]) == (first["latest"], first["best"])


# whole trainings


def train_batches(of: str, rank: int, size: int) -> Any:
    """A rank's loader: two batches of two images."""
    count = 4 * size
    data: Any = maps(count) if of == "semantic" else Pictures(count)
    sampler: Any = DistributedSampler(data, num_replicas=size, rank=rank, shuffle=False)
    put_together = None if of == "semantic" else collate
    return DataLoader(data, batch_size=2, sampler=sampler, collate_fn=put_together)


def losses_of(model: Any, of: str, batch: Any) -> Any:
    model.train()
    if of != "semantic":
        torch.manual_seed(int(batch[1][0]["image_id"]))  # for the sampler of proposals
        return model(*batch), None
    logits = model(batch[0])
    return {"classification": cross_entropy_loss(logits, batch[1])}, logits.detach()


def trained(of: str, epochs: int = 3) -> dict[str, Any]:
    """A training of all processes, and what its weights are in the end."""
    memory, net = MemoryLogger(), MODELS[of]()
    model = DistributedDataParallel(net)
    batches = train_batches(of, distributed.rank(), distributed.size())
    with scored(model, of, given_set("plain", of, 1), memory, train_loader=batches) as score:
        for _ in range(epochs):
            for batch in batches:
                losses, logits = losses_of(model, of, batch)
                sum(losses.values()).backward()
                score._optimizer.step()
                score._optimizer.zero_grad()
                score.step(losses, logits, batch[1] if of == "semantic" else None)
    return told(memory, score) | {"state": net.state_dict()}


def trained_alone(of: str, size: int, epochs: int = 3) -> dict[str, Any]:
    """One process that goes through all ranks' batches before each step."""
    memory, model = MemoryLogger(), MODELS[of]()
    shares = [list(train_batches(of, rank, size)) for rank in range(size)]
    steps = [[share[n] for share in shares] for n in range(2)] * epochs
    whole = DataLoader(maps(4 * size) if of == "semantic" else Pictures(4 * size),
                       batch_size=2, collate_fn=None if of == "semantic" else collate)  # fmt: skip
    options = {"train_loader": whole, "evaluate_train_every": None}
    with scored(model, of, given_set("plain", of, 1), memory, **options) as score:
        for micro in steps:
            parts = []
            for batch in reversed(micro):  # the first's last: it is its buffers that count
                kept = {name: b.clone() for name, b in model.named_buffers()}
                parts.append(losses_of(model, of, batch)[0])
                (sum(parts[-1].values()) / size).backward()
                if batch is not micro[0]:
                    for name, buffer in model.named_buffers():
                        buffer.copy_(kept[name])
            score._optimizer.step()
            score._optimizer.zero_grad()
            losses = {n: torch.stack([p[n] for p in parts]).mean() for n in parts[0]}
            score.step(losses, images=2 * size)
    return told(memory, score)


@functools.cache
def training_of(of: str, size: int) -> list[dict[str, Any]]:
    return together(size, trained, of, seconds=120)


@SIZES
@pytest.mark.parametrize("of", ["fcos", "mask", "semantic"])
def test_a_training_has_the_losses_of_one_process_that_accumulates(of: str, size: int) -> None:
    first, *others = training_of(of, size)
    one = trained_alone(of, size)
    measured = ("focal", "cross_entropy", "dice")  # of the due batch, which is another here
    for (key, step), value in one["points"].items():
        if key.startswith(("metric", "per class", "summary", "progress/epoch")):
            continue
        if key.endswith(".train") and key.split("/")[1].removesuffix(".train") in measured:
            continue
        assert first["points"][key, step] == pytest.approx(value, rel=1e-4, abs=1e-6), (key, step)
    seen = {step: v for (key, step), v in first["points"].items() if "images_seen" in key}
    epochs = {step: v for (key, step), v in first["points"].items() if "/epoch" in key}
    assert seen == {2: 4 * size, 4: 8 * size, 6: 12 * size}
    assert epochs == {2: 1.0, 4: 2.0, 6: 3.0}
    for tags in (first["tags"], one["tags"]):
        tags.pop("boxscore.fingerprint.train", None)  # the one evaluates no train split
    assert first["tags"] == one["tags"]
    for other in others:
        assert (other["latest"], other["best"]) == (first["latest"], first["best"])


@SIZES
@pytest.mark.parametrize("of", ["fcos", "mask", "semantic"])
def test_the_figures_are_those_of_the_weights_that_the_first_would_save(of: str, size: int) -> None:
    """Batch norm's averages differ between processes until the next forward."""
    first = training_of(of, size)[0]
    memory, model = MemoryLogger(), MODELS[of]()
    model.load_state_dict(first["state"])
    with scored(model, of, given_set("plain", of, 1), memory) as score:
        score.evaluate()
    one = told(memory, score)
    assert score.latest.keys() == first["latest"].keys()
    for (key, _), value in one["points"].items():
        if key.startswith(("metric", "per class")):
            assert first["points"][key, 6] == value, key
    for name, value in score.latest.items():
        assert first["latest"][name] == pytest.approx(value, rel=1e-6)
