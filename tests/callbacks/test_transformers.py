"""Real tiny trainings with Transformers' Trainer, of random weights."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from boxscore import Identity
from boxscore.callbacks.huggingface import ignored_label
from boxscore.callbacks.loop import LoopCallback
from boxscore.keys import further_split
from boxscore.loggers import MemoryLogger
from boxscore.losses import cross_entropy_loss
from tests.tiny_batches import built
from tests.tiny_trainer import (
    Pictures,
    Unlabelled,
    callback,
    detr,
    fit,
    measured,
    segformer,
    series,
    together,
    trainer,
)  # fmt: skip
from tests.tiny_transformers import tf
from tests.warned import warnings_logged, warns

PREFIX_TEST = further_split("test")
pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory")


def test_segformer_in_a_loop_and_in_the_trainer_gives_the_same_points(tmp_path: Path) -> None:
    by_trainer, _ = fit(tmp_path, segformer(), "semantic")
    memory, model = MemoryLogger(), segformer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.01)

    def loader(count: int, first: int = 0) -> Any:
        data = Pictures("semantic", count, first)
        return torch.utils.data.DataLoader(
            data, 2, collate_fn=lambda b: tuple(together(b).values())
        )

    with LoopCallback(
        model, optimizer, loader(5, 100), train_loader=loader(8), dataset="boxes",
        classes=dict(model.config.id2label), criterion=cross_entropy_loss, loggers=[memory],
        log_every=2, evaluate_every=4, on_error="raise",
    ) as score:  # fmt: skip
        for _ in range(2):
            for images, targets in loader(8):
                model.train()
                outputs = model(pixel_values=images, labels=targets)
                optimizer.zero_grad()
                outputs.loss.backward()
                optimizer.step()
                score.step(outputs.loss, outputs=outputs.logits, targets=targets)
    assert measured(by_trainer) == pytest.approx(measured(memory), rel=1e-5)
    assert by_trainer.tags["boxscore.fingerprint.test"] == memory.tags["boxscore.fingerprint.test"]
    assert by_trainer.tags["boxscore.group"] == "SegFormer 64x64"
    for name in ("total", "classification", "focal", "cross_entropy", "dice", "regularization"):
        assert list(series(by_trainer, name, "train")) == [2, 4, 6, 8]
        assert list(series(by_trainer, name, "test")) == [4, 8]
    for name in ("AP", "AR", "IoU", "pixel_accuracy", "F1"):
        for split in ("train", "test"):
            assert list(series(by_trainer, name, split)) == [4, 8]


def test_detr_by_hand(tmp_path: Path) -> None:
    """Parts are weighted as in the objective, on both splits; figures in the original frame."""
    score = {"log_every": 1, "evaluate_train_every": 2}
    memory, _ = fit(tmp_path, detr(), "boxes", max_steps=2, eval_steps=1, score=score)
    model, data = detr(), Pictures("boxes", 8)
    model.train()
    found = model(**together([data[0], data[1]]))
    parts = {name: float(value.detach()) for name, value in found.loss_dict.items()}
    assert series(memory, "classification", "train")[1] == pytest.approx(parts["loss_ce"], rel=1e-5)
    boxes = 5 * parts["loss_bbox"] + 2 * parts["loss_giou"]
    assert series(memory, "localization", "train")[1] == pytest.approx(boxes, rel=1e-5)
    decay = series(memory, "regularization", "train")[1]
    assert series(memory, "total", "train")[1] - decay == pytest.approx(
        float(found.loss.detach()), rel=1e-5
    )
    assert not series(memory, "other", "train")
    for split in ("train", "test"):
        assert series(memory, "box_AP", split)
        names = {p.name for p in memory.points if p.split == split and p.scope.startswith("metric")}
        assert "box_AR_medium" in names  # 64 x 48 pixels in the original image
        assert "box_AR_small" not in names
    loss = sum(
        float(p.value) for p in memory.points if (p.name, p.split, p.step) == ("total", "test", 1)
    )
    assert loss > 0


@pytest.mark.parametrize("task", ["instance-segmentation", "semantic-segmentation"])
def test_mask2former(tmp_path: Path, task: Any) -> None:
    """Losses of points drawn at random are drawn alike each time in an evaluation."""
    runs = [
        fit(tmp_path, built("mask2former"), "masks", max_steps=4, score={"task": task})[0]
        for _ in range(2)
    ]
    memory = runs[0]
    names = (
        ("mask", "classification") if task.startswith("instance") else ("classification", "dice")
    )
    for name in (*names, "total"):
        assert list(series(memory, name, "train")) == [2, 4], name
        assert list(series(memory, name, "test")) == [4], name
    figures = ("mask_AP", "box_AP") if task.startswith("instance") else ("IoU", "AP")
    for name in figures:
        assert list(series(memory, name, "test")) == [4]
        assert list(series(memory, name, "train")) == [4]
    assert series(runs[0], "total", "test") == series(runs[1], "total", "test")


def test_accumulation(tmp_path: Path) -> None:
    memory, _ = fit(
        tmp_path, segformer(), "semantic", gradient_accumulation_steps=4, max_steps=4, eval_steps=2,
        per_device_train_batch_size=1, score={"log_every": 1},
    )  # fmt: skip
    assert list(series(memory, "total", "train")) == [1, 2, 3, 4]
    assert series(memory, "progress/images_seen", "train") == {1: 4, 2: 8, 3: 12, 4: 16}
    assert series(memory, "progress/epoch", "train")[2] == 1.0
    model, data = segformer(), Pictures("semantic", 8)
    model.train()
    losses = [float(model(**together([data[n]])).loss.detach()) for n in range(4)]
    assert series(memory, "classification", "train")[1] == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_mixed_precision(tmp_path: Path) -> None:
    memory, _ = fit(tmp_path, segformer(), "semantic", bf16=True, max_steps=4)
    exact, _ = fit(tmp_path, segformer(), "semantic", max_steps=4)
    assert series(memory, "total", "test") == pytest.approx(
        series(exact, "total", "test"), rel=0.02
    )
    assert list(series(memory, "IoU", "test")) == [4]


def test_the_trainer_is_asked_to_evaluate(tmp_path: Path) -> None:
    memory, fitted = fit(
        tmp_path, segformer(), "semantic", eval_strategy="no", max_steps=5,
        score={"evaluate_every": 2},
    )  # fmt: skip
    assert list(series(memory, "IoU", "test")) == [2, 4, 5]
    assert [log["step"] for log in fitted.state.log_history if "eval_loss" in log] == [2, 4, 5]


def test_several_sets_and_figures_that_choose_the_best_checkpoint(tmp_path: Path) -> None:
    sets = {"day": Pictures("semantic", 4, 100), "night": Pictures("semantic", 2, 200)}
    stop = tf.EarlyStoppingCallback(early_stopping_patience=1)
    memory, fitted = fit(
        tmp_path, segformer(), "semantic", eval_dataset=sets, eval_steps=2, save_steps=2,
        save_strategy="steps", metric_for_best_model="day_IoU", callbacks=[stop],
        load_best_model_at_end=True, max_steps=40,
    )  # fmt: skip
    for split in ("test-day", "test-night"):
        assert 2 in series(memory, "IoU", split)
        assert 2 in series(memory, "cross_entropy", split)
    assert fitted.state.best_metric == max(series(memory, "IoU", "test-day").values())
    assert 2 <= fitted.state.global_step < 40
    assert series(memory, "summary/best_IoU", "")


def test_a_prediction_in_the_training_is_a_set_of_its_own(tmp_path: Path) -> None:
    memory = MemoryLogger()
    found: dict[str, Any] = {}

    class Predicting(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 1:
                found["with"] = fitted.predict(Pictures("semantic", 3, 300)).metrics
                found["without"] = fitted.predict(Unlabelled("semantic", 3, 300)).metrics

    fitted = trainer(
        tmp_path, segformer(), "semantic", callback(memory), max_steps=4, callbacks=[Predicting()]
    )
    fitted.train()
    assert list(series(memory, "IoU", "test")) == [4]
    assert series(memory, "IoU", PREFIX_TEST) == {1: found["with"]["test_IoU"]}
    assert "test_IoU" not in found["without"]


def test_what_is_not_understood_is_told_once_and_the_rest_is_logged(tmp_path: Path) -> None:
    with warnings_logged() as told:
        memory, _ = fit(
            tmp_path, segformer(), "semantic", max_steps=4, eval_steps=2,
            score={"task": "detection", "on_error": "warn"},
        )  # fmt: skip
    (about,) = [line for line in told if "test split" in line and "times in this run" not in line]
    assert "predict=" in about
    assert list(series(memory, "total", "train")) == [2, 4]
    assert memory.status == "FINISHED"


def test_predict_adapts_any_model(tmp_path: Path) -> None:
    def predict(model: Any, batch: Any) -> Any:
        targets = [
            {"boxes": torch.tensor([[0.0, 0.0, 9.0, 9.0]]), "labels": torch.tensor([1])}
            for _ in batch["pixel_values"]
        ]
        perfect = [{**t, "scores": torch.ones(1)} for t in targets]
        return {"loss_ce": 0.25}, perfect, targets

    memory, _ = fit(
        tmp_path, segformer(), "semantic", max_steps=4,
        score={"task": "detection", "predict": predict},
    )  # fmt: skip
    assert series(memory, "classification", "test") == {4: 0.25}
    assert series(memory, "box_AP", "test") == {4: pytest.approx(1.0)}


def by_hand(model: Any, data: Any, ignored: int = 255) -> float:
    """Mean IoU over the classes in truth or prediction."""
    images, labels = together([data[n] for n in range(len(data))]).values()
    with torch.no_grad():
        logits = model.eval()(pixel_values=images).logits
    found = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear").argmax(1)
    valid = labels != ignored
    each = [
        ((labels == n) & (found == n) & valid).sum() / either
        for n in range(3)
        if (either := (((labels == n) | (found == n)) & valid).sum())
    ]
    return float(sum(each) / len(each))


def test_evaluations_after_the_training_are_of_its_run(tmp_path: Path) -> None:
    memory, fitted = fit(tmp_path, segformer(), "semantic", max_steps=4, eval_steps=3)
    assert memory.start is not None
    run, points, main = memory.start.id, len(memory.points), series(memory, "IoU", "test")
    again = fitted.evaluate()
    assert again["eval_IoU"] == main[4]
    others = [Pictures("semantic", count, 300) for count in (3, 4, 6)]
    with warns("logged as 'test-2'"):
        unnamed = fitted.evaluate(others[0])
    named = fitted.evaluate(others[1], metric_key_prefix="test")
    predicted = fitted.predict(others[2], metric_key_prefix="night").metrics
    fitted.predict(Unlabelled("semantic", 3, 300))
    values = (unnamed["eval_IoU"], named["test_IoU"], predicted["night_IoU"])
    for split, data, value in zip(
        ("test-2", PREFIX_TEST, "test-night"), others, values, strict=True
    ):
        assert series(memory, "IoU", split) == {4: pytest.approx(value)}
        assert value == pytest.approx(by_hand(fitted.model, data), abs=1e-6)
    assert (memory.start.id, memory.status) == (run, "FINISHED")
    assert series(memory, "IoU", "test").keys() == main.keys()
    assert len({p.step for p in memory.points[points:]}) == 1
    assert not fitted.model._forward_hooks


def test_evaluations_before_the_training_are_returned(tmp_path: Path) -> None:
    memory = MemoryLogger()
    fitted = trainer(tmp_path, segformer(), "semantic", callback(memory), max_steps=4)
    with warns("before train"):
        found = fitted.evaluate()
    assert found["eval_IoU"] == pytest.approx(by_hand(fitted.model, fitted.eval_dataset), abs=1e-6)
    fitted.evaluate(Pictures("semantic", 3, 300), metric_key_prefix="test")
    assert not memory.points
    fitted.train()
    assert list(series(memory, "IoU", "test")) == [4]
    assert not series(memory, "IoU", PREFIX_TEST)


@pytest.mark.parametrize("own", ["F1", "dice"])
def test_what_compute_metrics_gives_stays(tmp_path: Path, own: str) -> None:
    with warns(f"eval_{own}: the values of compute_metrics stay"):
        memory, fitted = fit(
            tmp_path, segformer(), "semantic", max_steps=4, compute_metrics=lambda _: {own: 0.75},
            score={"on_error": "warn"},
        )  # fmt: skip
    logged = fitted.evaluate()
    assert logged[f"eval_{own}"] == 0.75
    assert series(memory, own, "test")[4] != 0.75


def test_a_figure_that_is_undefined_ends_no_training(tmp_path: Path) -> None:
    def predict(model: Any, batch: Any) -> Any:
        wrong = {"boxes": torch.full((1, 4), torch.nan), "labels": torch.tensor([1])}
        targets = [{**wrong, "boxes": torch.zeros(1, 4)} for _ in batch["pixel_values"]]
        return {}, [{**wrong, "scores": torch.ones(1)} for _ in targets], targets

    memory, _ = fit(
        tmp_path, segformer(), "semantic", max_steps=4, metric_for_best_model="box_AP",
        score={"task": "detection", "predict": predict, "on_error": "warn"},
    )  # fmt: skip
    assert memory.status == "FINISHED"
    assert not series(memory, "box_AP", "test")


def test_a_beginning_that_fails_leaves_nothing_on_the_model(tmp_path: Path) -> None:
    model = built("mask2former")  # does not tell its task
    first = trainer(tmp_path, model, "masks", callback(MemoryLogger()), max_steps=2)
    with pytest.raises(ValueError, match="task: Mask2Former"):
        first.train()
    assert not model._forward_hooks
    memory = MemoryLogger()
    again = callback(memory, task="instance-segmentation")
    trainer(tmp_path, model, "masks", again, max_steps=2).train()
    assert memory.status == "FINISHED"


def test_another_callback_ends_what_an_interrupted_training_left(tmp_path: Path) -> None:
    model, left = segformer(), MemoryLogger()
    broken = Pictures("semantic", 8, fails_at=7)
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, model, "semantic", callback(left), train_dataset=broken).train()
    assert left.status is None
    trainer(tmp_path, model, "semantic", callback(MemoryLogger()), max_steps=2).train()
    assert left.status == "FAILED"
    assert not model._forward_hooks


def test_without_an_evaluation_it_says_so(tmp_path: Path) -> None:
    with warns("nothing is evaluated"):
        fit(tmp_path, segformer(), "semantic", max_steps=2, eval_strategy="no",
            score={"on_error": "warn"})  # fmt: skip


# ignored labels


@pytest.mark.parametrize(
    ("name", "option"),
    [("segformer", "semantic_loss_ignore_index"), ("upernet", "loss_ignore_index")],
)
def test_the_label_that_the_criterion_ignores_counts_nowhere(
    tmp_path: Path, name: str, option: str
) -> None:
    model = built(name, **{option: 0})
    score: dict[str, Any] = {"identity": Identity("Net", "64x64"), "evaluate_train_every": None}
    memory, fitted = fit(tmp_path, model, "semantic", max_steps=2, eval_steps=2, score=score)
    expected = by_hand(model, fitted.eval_dataset, ignored=0)
    assert series(memory, "IoU", "test")[2] == pytest.approx(expected, abs=1e-6)
    score = score | {"ignore_index": 255}  # the user's word comes first
    memory, fitted = fit(tmp_path, model, "semantic", max_steps=2, eval_steps=2, score=score)
    expected = by_hand(model, fitted.eval_dataset)
    assert series(memory, "IoU", "test")[2] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("config", "processor", "expected"),
    [
        ({"semantic_loss_ignore_index": 0}, {}, 0),
        ({"loss_ignore_index": -100}, {"do_reduce_labels": True}, -100),
        ({}, {"do_reduce_labels": True}, 255),
        ({}, {"image_processor": SimpleNamespace(do_reduce_labels=True)}, 255),
        ({}, {"do_reduce_labels": False}, None),
    ],
)
def test_the_ignored_label(config: Any, processor: Any, expected: int | None) -> None:
    model = SimpleNamespace(config=SimpleNamespace(**config))
    assert ignored_label(model, SimpleNamespace(**processor)) == expected


# checkpoints


def resume(folder: Path, memory: MemoryLogger, steps: int, **options: Any) -> Any:
    """Train on from the checkpoint of step 4, if there is one."""
    found = folder / "checkpoint-4"
    score = callback(memory, **options.pop("score", {}))
    fitted = trainer(
        folder, segformer(), "semantic", score, max_steps=steps, eval_steps=2, save_steps=4,
        save_strategy="steps", **options,
    )  # fmt: skip
    fitted.train(resume_from_checkpoint=str(found) if found.exists() else None)
    return score


@pytest.mark.filterwarnings("ignore:.*max_steps")
@pytest.mark.parametrize("restore", [False, True])
def test_a_checkpoint_continues_the_run_without_a_point_twice(
    tmp_path: Path, restore: bool
) -> None:
    """The training went on to step 6, and goes back to step 4 twice; then all is as if never."""
    whole, parts = MemoryLogger(), MemoryLogger()
    options = {"restore_callback_states_from_checkpoint": restore}
    resume(tmp_path / "whole", whole, 10)
    ids = {resume(tmp_path / "parts", parts, steps, **options).run.id for steps in (6, 8, 10)}
    assert len(ids) == 1
    assert parts.status == "FINISHED"
    # (Transformers 5.24 does not load all of a SegFormer's weights again: the values differ)
    assert measured(parts).keys() == measured(whole).keys()
    assert len(parts.points) == len({(p.key, p.step) for p in parts.points})
    state = json.loads((tmp_path / "parts" / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["boxscore"]["run"]["step"] == 4


@pytest.mark.filterwarnings("ignore:.*max_steps")
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    first = resume(tmp_path, MemoryLogger(), 4)
    with pytest.raises(ValueError, match=r"its dataset is 'boxes', here it is 'other'.*run='new'"):
        resume(tmp_path, MemoryLogger(), 6, score={"dataset": "other"})
    other = MemoryLogger()
    again = resume(tmp_path, other, 6, score={"dataset": "other", "run": "new"})
    assert again.run.id != first.run.id
    assert list(series(other, "total", "train")) == [6]


def test_the_next_training_ends_what_an_exception_left(tmp_path: Path) -> None:
    memory, broken = MemoryLogger(), Pictures("semantic", 8, fails_at=7)
    score = callback(memory)
    with pytest.raises(ZeroDivisionError):
        trainer(tmp_path, segformer(), "semantic", score, train_dataset=broken).train()
    failed = score.run
    assert failed is not None
    trainer(tmp_path, segformer(), "semantic", score, max_steps=2).train()
    assert not failed.is_open
    assert score.run is not failed
    assert memory.status == "FINISHED"


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job's is not
from tests.callbacks import test_transformers as here
from boxscore.loggers import MemoryLogger

class Witness(MemoryLogger):
    def close(self, status="FINISHED"):
        Path(sys.argv[2], "status").write_text(status)

class Ending(here.TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == 2:
            if sys.argv[3] == "error":
                raise ZeroDivisionError
            os.kill(os.getpid(), getattr(signal, sys.argv[3]))

score = here.callback(Witness())
folder = Path(sys.argv[2])
here.trainer(folder, here.segformer(), "semantic", score, callbacks=[Ending()]).train()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "status"), [("error", "FAILED"), ("SIGTERM", "KILLED"), ("SIGINT", "KILLED")]
)
def test_how_the_process_ended_is_told(tmp_path: Path, end: str, status: str) -> None:
    """The Trainer tells its callbacks of none of these."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT, str(root), str(tmp_path), end]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode != 0
    assert (tmp_path / "status").read_text() == status, ended.stderr
