"""Models of Transformers outside of its Trainer: in a LightningModule, and in a loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from boxscore.callbacks.huggingface import losses_of
from boxscore.callbacks.lightning import BoxscoreCallback
from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger
from tests.tiny_batches import batch_of, built

MODELS = {
    "detr": "detection",
    "segformer": "semantic-segmentation",
    "mask2former": "instance-segmentation",
}


class Batches:
    """A loader, which Lightning does not take for several."""

    def __init__(self, batches: list[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class Module(LightningModule):
    """As the notebooks write it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Any, _: int) -> Any:
        return self.model(**batch).loss

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("own_loss", self.model(**batch).loss, batch_size=2)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.0)


def in_lightning(model: Any, batch: Any, memory: MemoryLogger, **options: Any) -> float:
    score = BoxscoreCallback(loggers=[memory], on_error="raise", **options)
    trainer = Trainer(
        max_steps=2, callbacks=[score], logger=False, accelerator="cpu",
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(model), Batches([batch] * 2), Batches([batch]))
    return float(trainer.callback_metrics["own_loss"])


def in_a_loop(model: Any, batch: Any, memory: MemoryLogger, **options: Any) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    score = LoopCallback(model, optimizer, [batch], loggers=[memory], on_error="raise", **options)
    for _ in range(2):
        outputs = model(**batch)
        score.step(outputs.loss)
    score.close()
    return float(model.eval()(**batch).loss.detach())


@pytest.mark.parametrize("train", [in_lightning, in_a_loop])
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_metrics_are_the_models_own(name: str, train: Any) -> None:
    model, batch, memory = built(name), batch_of(name), MemoryLogger()
    own = train(
        model, batch, memory, task=MODELS[name], dataset="d", log_every=1,
        classes={0: "a", 1: "b", 2: "c"}, evaluate_train_every=None,
    )  # fmt: skip
    points = {(p.name, p.split): p.value for p in memory.points if p.scope.startswith("loss")}
    assert "other" not in {name for name, _ in points}
    if name != "mask2former":  # whose losses are of points that each forward draws anew
        assert points["total", "test"] == pytest.approx(own, rel=1e-4)
    parts = set(losses_of(model.train(), model(**batch))) - {"loss"}
    if parts:
        assert {"classification", "localization"} & {name for name, _ in points}
    measured = {p.name for p in memory.points if p.scope.startswith("metric")}
    main = {"detection": "box_AP", "instance-segmentation": "mask_AP"}.get(MODELS[name], "IoU")
    assert main in measured
    if MODELS[name] == "semantic-segmentation":
        assert ("cross_entropy", "train") in points


@pytest.mark.parametrize("train", [in_lightning, in_a_loop])
def test_the_label_that_is_ignored_is_that_of_the_callback(train: Any) -> None:
    model, batch, memory = built("mask2former"), batch_of("mask2former"), MemoryLogger()
    for masks in batch["mask_labels"]:
        masks[:, :8] = 0  # pixels of no mask
    train(
        model, batch, memory, task="semantic-segmentation", dataset="d", ignore_index=0,
        classes={0: "a", 1: "b", 2: "c"}, evaluate_train_every=None,
    )  # fmt: skip
    assert "IoU" in {p.name for p in memory.points if p.scope.startswith("metric")}
