"""Which images are trained on: two folds or versions never share a section, a leak is one image."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from boxscore.callbacks.loop import LoopCallback
from boxscore.callbacks.reading.data_info import (
    dataset_name,
    image_names,
    in_both,
    is_deterministic,
    train_fingerprint,
)
from boxscore.loggers import MemoryLogger
from tests.tiny import CLASSES, Pictures, collate, fcos, loader, train_step
from tests.warned import warnings_logged


class Files(Dataset[Any]):
    def __init__(self, *files: str | Path | tuple[str, int]) -> None:
        self.images = list(files)

    def __len__(self) -> int:
        return len(self.images)


def coco(root: str, **files: str) -> Any:
    images = {name: {"file_name": file} for name, file in files.items()}
    return SimpleNamespace(coco=SimpleNamespace(imgs=images), ids=list(files), root=root)


PLAIN = TensorDataset(torch.zeros(6, 3, 4, 4), torch.zeros(6, 4, 4).long())


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (Files("a/train/1.jpg", Path("b/2.jpg")), ["train/1.jpg", "b/2.jpg"]),
        (Files(("c/3.jpg", 0)), ["c/3.jpg"]),
        (Subset(Files("a/1.jpg", "a/2.jpg"), [1]), ["a/2.jpg"]),
        (ConcatDataset([Files("a/1.jpg"), Files("b/1.jpg")]), ["a/1.jpg", "b/1.jpg"]),
        (Subset(PLAIN, [4, 2]), ["4", "2"]),
        (Subset(Subset(PLAIN, [4, 2]), [1]), ["1"]),
        (coco("data/train", a="1.jpg"), ["train/1.jpg"]),
        (PLAIN, []),
        (None, []),
    ],
)
def test_names_that_tell_images_apart_on_any_machine(data: Any, names: list[str]) -> None:
    assert image_names(data) == names


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Files("a/1.jpg", "a/2.jpg"), Files("a/2.jpg"), ["a/2.jpg"]),
        (Files("train/1.jpg"), Files("test/1.jpg"), []),
        (Subset(PLAIN, [0, 1, 2]), Subset(PLAIN, [2, 3]), ["2"]),
        (Subset(PLAIN, [0, 1]), Subset(PLAIN, [2, 3]), []),
        (PLAIN, Subset(PLAIN, [5]), ["5"]),
        (Subset(PLAIN, [0]), Subset(TensorDataset(torch.zeros(1)), [0]), []),
        (coco("x", a="1.jpg"), coco("x", b="1.jpg"), ["x/1.jpg"]),
        (coco("train", a="1.jpg"), coco("test", a="1.jpg"), []),
    ],
)
def test_an_image_in_both_sets_is_one_file_or_one_index(one: Any, other: Any, both: Any) -> None:
    assert in_both(one, other) == both


def test_the_name_of_a_subset_is_that_of_its_data() -> None:
    assert dataset_name(DataLoader(Subset(PLAIN, [0]))) == "TensorDataset"
    assert dataset_name(None) == "dataset"


class Augmented(Pictures):
    def __getitem__(self, index: int) -> Any:
        image, target = super().__getitem__(index)
        return image, {**target, "boxes": target["boxes"] + torch.rand(1)}


def test_a_data_set_that_augments_is_seen() -> None:
    assert is_deterministic(loader(4))
    assert not is_deterministic(DataLoader(Augmented(4, 0), collate_fn=collate))
    assert not is_deterministic([1, 2])


def test_names_number_and_content_each_make_another_fingerprint() -> None:
    given = [(["a"], 1, ""), (["b"], 1, ""), (["a"], 2, ""), (["a"], 1, "7f3a2c0b11d4")]
    assert len({train_fingerprint(*one) for one in given}) == 4
    assert train_fingerprint(["a", "b"], 1, "") == train_fingerprint(["b", "a"], 1, "")


def trained(train: Any, test: Any, **options: Any) -> tuple[MemoryLogger, list[str]]:
    """Two steps and an evaluation of both sets: what was logged, and warned of."""
    memory, model = MemoryLogger(), fcos()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loaders = [
        data if isinstance(data, DataLoader) else DataLoader(data, 4, collate_fn=collate)
        for data in (train, test)
    ]
    with warnings_logged() as texts:
        score = LoopCallback(
            model,
            optimizer,
            loaders[1],
            train_loader=loaders[0],
            classes=CLASSES,
            dataset="d",
            loggers=[memory],
            log_every=1,
            **options,
        )
        with score:
            for batch in loaders[0]:
                score.step(train_step(model, optimizer, batch))
    return memory, texts


def key(memory: MemoryLogger, split: str) -> str:
    return next(p.key for p in memory.points if p.name == "box_AP" and p.split == split)


def test_key_and_tag_of_the_train_split_agree_and_folds_differ() -> None:
    data, test = Pictures(12, 0), Pictures(4, 100)
    keys = []
    for fold in (range(8), range(4, 12)):
        for _ in range(2):
            memory, _ = trained(Subset(data, list(fold)), test, evaluate_train_every=1)
            keys.append(key(memory, "train"))
            tag = memory.tags["boxscore.fingerprint.train"]
            assert keys[-1] == f"metric d-train {tag[:6]}/box_AP"
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_an_equal_number_is_no_leak() -> None:
    class Renumbered(Pictures):
        def __getitem__(self, index: int) -> Any:
            image, target = super().__getitem__(index)
            return image, {**target, "image_id": torch.tensor(index)}

    memory, texts = trained(Pictures(4, 0), Renumbered(4, 100))
    assert "boxscore.leak" not in memory.tags
    assert not [text for text in texts if "both the train and test set" in text]
    memory, texts = trained(Pictures(8, 0), Pictures(4, 6))
    assert memory.tags["boxscore.leak"] == "2 images"
    assert [text for text in texts if "such as 6, 7" in text]
