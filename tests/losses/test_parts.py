import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from boxscore import CATALOGUE
from boxscore.losses import criterion_parts, fold

NATIVE = ["loss_ce", "loss_bbox", "loss_giou", "loss_ce_0", "loss_mask", "weird", "acc", "loss"]


@given(
    st.dictionaries(st.sampled_from(NATIVE), st.floats(-1e6, 1e6)),
    st.sampled_from(["detection", "semantic-segmentation"]),
    st.booleans(),
)
def test_total_is_the_sum_of_the_parts_always(
    values: dict[str, float], task: str, decoupled: bool
) -> None:
    measures = fold(values, task=task, decoupled=decoupled).measures
    parts = [v for n, v in measures.items() if CATALOGUE[n].part]
    assert ("total" in measures) == bool(parts)
    if parts:
        assert measures["total"] == sum(parts)


def test_what_folds_is_kept_under_its_framework_name() -> None:
    losses = fold({"cls_loss": 1.0, "box_loss": 2.0, "dfl_loss": 3.0}, task="detection")
    assert losses.measures == {"classification": 1.0, "localization": 5.0, "total": 6.0}
    assert losses.framework == {"box_loss": 2.0, "dfl_loss": 3.0}


def test_what_the_objective_holds_beyond_the_parts_is_other() -> None:
    losses = fold({"loss": 10.0, "loss_cls": 3.0, "loss_bbox": 4.0}, task="detection")
    assert losses.measures["other"] == pytest.approx(3.0)
    assert losses.measures["total"] == 10.0


def test_an_objective_that_is_the_sum_has_no_other() -> None:
    values = {"loss": 0.1 + 0.2 + 1e-8, "loss_cls": 0.1, "loss_bbox": 0.2}
    assert "other" not in fold(values, task="detection").measures


def test_rounding_of_a_bfloat16_training_is_no_part() -> None:
    """The objective was added up in bfloat16; a part that is missing is still seen."""
    epsilon = torch.finfo(torch.bfloat16).eps
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        parts = (torch.rand(3, generator=generator) * 2).bfloat16()
        names = ("loss_cls", "loss_bbox", "loss_centerness")
        values = dict(zip(names, parts.tolist(), strict=True))
        objective = float(parts[0] + parts[1] + parts[2])
        fine = fold({**values, "loss": objective}, task="detection", epsilon=epsilon)
        assert "other" not in fine.measures
        more = fold({**values, "loss": 1.05 * objective}, task="detection", epsilon=epsilon)
        assert "other" in more.measures


def test_decay_is_no_part_of_the_frameworks_objective() -> None:
    values = {"loss": 1.0, "loss_cls": 1.0, "regularization": 0.5}
    assert fold(values, task="detection").measures == {
        "classification": 1.0,
        "regularization": 0.5,
        "total": 1.5,
    }


def test_decoupled_decay_is_logged_and_not_summed() -> None:
    measures = fold({"loss_cls": 1.0, "regularization": 0.5}, task="detection", decoupled=True)
    assert measures.measures == {"classification": 1.0, "regularization": 0.5, "total": 1.0}


def test_a_semantic_criterion_is_the_classification_however_it_is_made_up() -> None:
    values = {"ce_loss": 0.5, "dice_loss": 0.25, "aux.loss_ce": 0.2}
    measures = fold(values, task="semantic-segmentation").measures
    assert measures == {"classification": 0.75, "auxiliary": 0.2, "total": 0.95}


@pytest.mark.parametrize(
    ("criterion", "parts"),
    [
        (0.5, {"classification": 0.5}),
        ({"loss": 0.5}, {"classification": 0.5}),
        ({"dice": 0.25, "cross_entropy": 0.5, "focal": 1.0}, {"classification": 1.75}),
        ({"loss_ce": 0.5, "loss_dice": 0.25, "loss": 1.0}, {"classification": 0.75, "other": 0.25}),
    ],
)
def test_terms_of_a_criterion_are_parts_and_never_measured_losses(
    criterion: object, parts: dict[str, float]
) -> None:
    named = criterion_parts(criterion)
    measures = fold(named, task="semantic-segmentation").measures
    assert measures == {**parts, "total": sum(parts.values())}


def test_measured_losses_are_no_parts() -> None:
    values = {"classification": 0.5, "focal": 0.1, "cross_entropy": 0.5, "dice": 0.7}
    measures = fold(values, task="semantic-segmentation").measures
    assert measures == {**values, "total": 0.5}


def test_a_nan_part_makes_the_total_nan() -> None:
    measures = fold({"loss_cls": math.nan, "loss_bbox": 1.0}, task="detection").measures
    assert math.isnan(measures["total"])
