"""Losses, logits and label maps of Transformers models, and what is not understood."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from boxscore.callbacks.huggingface import losses_of, read
from boxscore.losses.parts import fold

tiny = pytest.importorskip("tests.tiny_batches")

LABELS = range(3)

AUXILIARY = {"auxiliary_loss": True}
PLAIN = {"auxiliary_loss": False}
COEFFICIENTS = {"bbox_loss_coefficient": 3, "giou_loss_coefficient": 4}

BOXES = (
    ("detr", COEFFICIENTS),
    ("detr", AUXILIARY | COEFFICIENTS),
    ("table_transformer", AUXILIARY),
    ("conditional_detr", PLAIN),
    ("conditional_detr", AUXILIARY),
    ("dab_detr", PLAIN),
    ("dab_detr", AUXILIARY),
    ("deformable_detr", PLAIN),
    ("deformable_detr", AUXILIARY | COEFFICIENTS),
    ("yolos", COEFFICIENTS),  # its auxiliary loss does not run in Transformers 5.24
    ("rt_detr", PLAIN),
    ("rt_detr", AUXILIARY | {"weight_loss_giou": 0.5}),
    ("rt_detr_v2", AUXILIARY),
    ("d_fine", PLAIN),
    ("d_fine", AUXILIARY),
    ("deimv2", AUXILIARY),
    ("lw_detr", PLAIN),
    ("lw_detr", AUXILIARY | {"class_loss_coefficient": 1.5}),
    ("rf_detr", AUXILIARY),
)
BOXES_AND_MASKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("detr_segmentation", AUXILIARY | {"mask_loss_coefficient": 2}),
    ("rf_detr_segmentation", PLAIN),  # whose objective then leaves the encoder's losses out
    ("rf_detr_segmentation", AUXILIARY),
)
MASKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("mask2former", {}),
    ("maskformer", {}),
    ("oneformer", {"use_auxiliary_loss": True}),
    ("oneformer", {"use_auxiliary_loss": False}),
    ("eomt", {}),
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# losses


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "options"), [*BOXES, *BOXES_AND_MASKS, *MASKS])
def test_the_parts_add_up_to_the_objective_and_are_known(
    name: str, options: dict[str, Any], training: bool
) -> None:
    model = tiny.built(name, **options).train(training)
    outputs, seen = tiny.forward(model, tiny.batch_of(name))
    losses = losses_of(model, outputs, seen)
    assert all(value.shape == () and not value.requires_grad for value in losses.values())
    values = {key: float(value) for key, value in losses.items()}
    objective = values["loss"]
    assert objective == pytest.approx(float(outputs.loss.detach()))
    assert math.fsum(v for k, v in values.items() if k != "loss") == pytest.approx(objective, 3e-6)
    measures = fold(values, task="instance-segmentation").measures
    assert "other" not in measures
    assert measures["total"] == pytest.approx(objective, 3e-6)


@pytest.mark.parametrize("name", tiny.MAPS)
def test_a_semantic_objective_is_the_classification_loss(name: str) -> None:
    model, _, outputs = tiny.evaluated(name)
    losses = losses_of(model, outputs)
    assert losses.keys() == {"loss"}
    measures = fold({"loss": float(losses["loss"])}, task="semantic-segmentation").measures
    assert measures["classification"] == pytest.approx(float(outputs.loss.detach()))


def test_words_are_weighted_by_two() -> None:
    """Grounding DINO's classification weight stands in its code, not in its config."""
    options = {"auxiliary_loss": True, "two_stage": True}
    words = [101, 150, 1012, 151, 1012, 152, 1012, 102]  # three, each with its full stop
    model = tiny.built("grounding_dino", **options)
    outputs = model(**tiny.box_batch(), input_ids=torch.tensor([words] * 2))
    losses = losses_of(model, outputs)
    objective = float(losses.pop("loss"))
    assert float(sum(losses.values())) == pytest.approx(objective, 3e-6)
    assert float(losses["loss_ce"]) == pytest.approx(
        2 * float(outputs.loss_dict["loss_ce"].detach())
    )


def test_a_batch_without_labels_has_no_losses() -> None:
    model, batch, _ = tiny.evaluated("segformer")
    with pytest.raises(ValueError, match="without a loss: the batch has no labels"):
        losses_of(model, model(batch["pixel_values"]))


# label maps


@pytest.mark.parametrize("name", tiny.MAPS)
def test_logits_come_in_the_label_maps_size(name: str) -> None:
    model, batch, outputs = tiny.evaluated(name)
    outputs.logits = outputs.logits.half()
    logits, targets = read(model, batch, outputs, task="semantic-segmentation", labels=LABELS)
    assert logits.shape == (2, 3, 64, 64)
    assert logits.dtype == torch.float32
    assert torch.equal(targets, batch["labels"])
    assert not logits.requires_grad


def test_the_objective_follows_from_the_logits_that_are_measured() -> None:
    model, batch, outputs = tiny.evaluated("segformer")
    logits, targets = read(model, batch, outputs, task="semantic-segmentation", labels=LABELS)
    criterion = torch.nn.functional.cross_entropy(logits, targets)
    assert float(criterion) == pytest.approx(float(outputs.loss.detach()))


# what is not understood


def refused(model: Any, batch: Mapping[str, Any], outputs: Any, task: str = "detection") -> str:
    with pytest.raises(ValueError, match="predict=") as error:
        read(model, batch, outputs, task=task, labels=LABELS)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_not_understood_is_told_with_what_was_found() -> None:
    model, batch, outputs = tiny.evaluated("segformer")
    assert "logits" in refused(model, batch, outputs)
    assert "tuple" in refused(model, batch, (outputs.logits,))
    maps = {**batch, "labels": [1, 2]}
    assert "but list" in refused(model, maps, outputs, "semantic-segmentation")

    model, batch, outputs = tiny.evaluated("detr")
    assert "pred_masks" in refused(model, batch, outputs, "instance-segmentation")
    assert "a tensor (2, 64, 64)" in refused(model, tiny.map_batch(), outputs)
    assert "detects words of a text" in refused(model, {**batch, "input_ids": 0}, outputs)
    model.config.num_labels = 90
    assert "logits of 4 classes from a model that has 90" in refused(model, batch, outputs)

    model, batch, outputs = tiny.evaluated("detr_segmentation")
    for label in batch["labels"]:
        del label["masks"]
    assert "return_segmentation_masks=True" in refused(
        model, batch, outputs, "instance-segmentation"
    )

    model, batch, outputs = tiny.evaluated("mask2former")
    assert "task='detection'" in refused(model, batch, outputs)
    patches = {**batch, "mask_labels": batch["mask_labels"][:1]}
    assert "of 1 images for outputs of 2" in refused(
        model, patches, outputs, "instance-segmentation"
    )
    sizes = {**batch, "mask_labels": [torch.ones(2, 8, 8), torch.ones(1, 9, 8)]}
    assert "(9, 8)" in refused(model, sizes, outputs, "semantic-segmentation")
    without = {"pixel_values": batch["pixel_values"]}
    assert "no mask_labels" in refused(model, without, outputs, "semantic-segmentation")
