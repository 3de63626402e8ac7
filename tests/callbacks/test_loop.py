import math
import signal
import threading
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN

from boxscore import CATALOGUE, Every, Identity, Point
from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger
from boxscore.losses import cross_entropy_loss
from tests.tiny import CLASSES, collate, fcos, loader, train_step, two_stage
from tests.warned import warnings_logged, warns, warns_not

IDENTITY = Identity("FCOS", "64x64")
BOX = [m for m in CATALOGUE if m.startswith("box_")]


def train(steps: int = 6, model: Any = None, **options: Any) -> tuple[MemoryLogger, Any]:
    """A training of ``steps`` steps, four images each, and what was logged of it."""
    memory = MemoryLogger()
    model = model or fcos()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-3)
    train_loader = options.pop("train_loader") if "train_loader" in options else loader(8)
    defaults: dict[str, Any] = {
        "train_loader": train_loader,
        "dataset": "boxes",
        "classes": CLASSES,
        "loggers": [memory],
        "log_every": 2,
        "evaluate_every": 3,
        "on_error": "raise",
        "pictures": False,
    }
    test_loader = options.pop("test_loader") if "test_loader" in options else loader(6, first=100)
    with LoopCallback(model, optimizer, test_loader, **defaults | options) as score:
        done = 0
        while done < steps:
            for batch in train_loader:
                score.step(train_step(model, optimizer, batch))
                done += 1
    return memory, score


def series(memory: MemoryLogger, name: str, split: str) -> dict[int, float]:
    return {p.step: p.value for p in memory.points if (p.name, p.split) == (name, split)}


def scopes(memory: MemoryLogger, name: str, split: str = "test") -> set[str]:
    return {p.scope for p in memory.points if (p.name, p.split) == (name, split)}


def test_every_loss_and_metric_at_the_promised_steps() -> None:
    memory, score = train(steps=8)
    for name in ("classification", "localization", "centerness", "regularization", "total"):
        assert list(series(memory, name, "train")) == [2, 4, 6, 8]
        assert list(series(memory, name, "test")) == [3, 6, 8]
    for name in ("box_AP", "box_AP50", "box_AR100"):
        assert list(series(memory, name, "test")) == [3, 6, 8]
        assert list(series(memory, name, "train")) == [2, 4, 6, 8]
    assert memory.status == "FINISHED"
    assert score.latest["total"] == series(memory, "total", "test")[8]
    assert score.best["total"] == min(series(memory, "total", "test").values())


def test_the_identity_is_inferred_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    memory, score = train(steps=2)
    assert score.run.identity.group == "FCOS 64x64"
    assert "FCOS 64x64" in capsys.readouterr().err
    assert scopes(memory, "total") == {"loss FCOS 64x64"}


def test_train_losses_equal_a_computation_by_hand() -> None:
    memory, _ = train(steps=4)
    model = fcos()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-3)
    batches = list(loader(8)) * 2
    losses = []
    for batch in batches:
        losses.append(
            {k: float(v.detach()) for k, v in train_step(model, optimizer, batch).items()}
        )
    for step in (2, 4):
        window = losses[step - 2 : step]
        for native, name in (
            ("classification", "classification"),
            ("bbox_regression", "localization"),
            ("bbox_ctrness", "centerness"),
        ):
            mean = sum(row[native] for row in window) / 2
            assert series(memory, name, "train")[step] == pytest.approx(mean, rel=1e-6)
    by_hand = sum(
        0.5 * 1e-3 * float(p.detach().double().square().sum()) for p in model.parameters()
    )
    assert series(memory, "regularization", "train")[4] == pytest.approx(by_hand, rel=1e-6)


def test_total_is_the_sum_of_its_parts_on_both_splits() -> None:
    memory, _ = train()
    for split in ("train", "test"):
        for step, total in series(memory, "total", split).items():
            parts = [
                p.value
                for p in memory.points
                if p.step == step
                and p.split == split
                and p.scope.startswith("loss")
                and CATALOGUE[p.name].part
            ]
            assert total == pytest.approx(sum(parts), rel=1e-12)


def test_a_training_is_not_changed_by_being_watched() -> None:
    """Bit for bit the same weights, with a shuffled loader and a sampler that draws numbers."""

    def weights(*, watched: bool) -> dict[str, torch.Tensor]:
        model = two_stage()
        torch.manual_seed(7)
        batches = loader(8, shuffle=True)
        if watched:
            train(steps=6, model=model, train_loader=batches, evaluate_every=2)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=1e-3)
            for _ in range(3):
                for batch in batches:
                    train_step(model, optimizer, batch)
        state: dict[str, torch.Tensor] = model.state_dict()
        return state

    one, other = weights(watched=True), weights(watched=False)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_evaluating_twice_gives_the_same() -> None:
    memory = MemoryLogger()
    model = two_stage()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options: dict[str, Any] = {"classes": CLASSES, "loggers": [memory], "on_error": "raise"}
    with LoopCallback(model, optimizer, loader(6), dataset="boxes", **options) as score:
        score.evaluate()
        torch.rand(3)
        score.evaluate()
    measured = [(p.key, p.value) for p in memory.points if p.scope]
    half = len(measured) // 2
    assert half > 12
    assert measured[:half] == measured[half:]


def test_one_set_has_one_fingerprint() -> None:
    """Two batch sizes, two orders, two resizes by the data set and two by the model."""
    digests = set()
    for test_loader, model in (
        (loader(6, 100), fcos()),
        (loader(6, 100, batch_size=2, shuffle=True), fcos()),
        (loader(6, 100, scale=2), fcos()),
        (list(loader(6, 100, scale=3)), fcos(96)),
    ):
        memory, _ = train(steps=2, test_loader=test_loader, model=model)
        digests.add(memory.tags["boxscore.fingerprint.test"])
    assert len(digests) == 1
    memory, _ = train(steps=2, test_loader=loader(5, 100))
    assert memory.tags["boxscore.fingerprint.test"] not in digests


def test_a_resize_by_the_data_set_does_not_change_what_is_small() -> None:
    plain, _ = train(steps=2, evaluate_every=2)
    resized, _ = train(steps=2, evaluate_every=2, test_loader=loader(6, 100, scale=4))
    areas = [
        {n for n in BOX if n.endswith(("small", "medium", "large")) and series(memory, n, "test")}
        for memory in (plain, resized)
    ]
    assert areas[0] == areas[1] == {"box_AP_small", "box_AR_small"}


def test_epochs_and_images_are_counted() -> None:
    memory, _ = train(steps=8)
    assert series(memory, "progress/epoch", "train") == {2: 1.0, 4: 2.0, 6: 3.0, 8: 4.0}
    assert series(memory, "progress/images_seen", "train") == {2: 8, 4: 16, 6: 24, 8: 32}


def test_with_accumulation_a_step_is_an_optimizer_step() -> None:
    memory, model = MemoryLogger(), fcos()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batches = loader(8, batch_size=1)
    options: dict[str, Any] = {"loggers": [memory], "classes": CLASSES, "on_error": "raise"}
    with LoopCallback(
        model,
        optimizer,
        loader(2, 100),
        train_loader=batches,
        dataset="boxes",
        log_every=1,
        **options,
    ) as score:
        model.train()
        for number, batch in enumerate(batches, 1):
            losses = model(*batch)
            (sum(losses.values()) / 4).backward()
            if number % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()
                score.step(losses)
    assert series(memory, "progress/images_seen", "train") == {1: 4, 2: 8}
    assert series(memory, "progress/epoch", "train") == {1: 0.5, 2: 1.0}
    assert list(series(memory, "total", "train")) == [1, 2]


def test_several_test_sets() -> None:
    loaders = {"test": loader(4, 100), "night": loader(2, 200)}
    memory, score = train(steps=3, test_loader=loaders)
    (day,), (night,) = scopes(memory, "box_AP"), scopes(memory, "box_AP", "test-night")
    assert day.startswith("metric boxes-test ")
    assert night.startswith("metric boxes-test-night ")
    assert series(memory, "total", "test-night")
    assert score.latest["total"] == series(memory, "total", "test")[4]


def test_a_stable_subset_is_evaluated() -> None:
    digests = set()
    for test_loader in (loader(12, 100), loader(12, 100, shuffle=True), list(loader(12, 100))):
        memory, score = train(steps=2, test_loader=test_loader, evaluate_images=5)
        digests.add(memory.tags["boxscore.fingerprint.test"])
        assert score.run.metric("test").images == 5
    assert len(digests) == 1


def test_the_train_split_is_measured_on_a_stable_subset_no_larger_than_the_test_set() -> None:
    memory, score = train(steps=6, train_loader=loader(12), test_loader=loader(4, 100))
    assert list(series(memory, "box_AP", "train")) == [3, 6]
    assert len(scopes(memory, "box_AP", "train")) == 1
    assert score.run.metric("train").images == 4
    batches = list(loader(4, 100, batch_size=2))
    _, score = train(steps=6, train_loader=loader(12), test_loader=batches)
    assert score.run.metric("train").images == 4


def test_what_was_trained_on_is_known_after_the_first_epoch() -> None:
    one, _ = train(train_loader=loader(8, shuffle=True))
    other, _ = train(train_loader=loader(8, batch_size=2))
    less, _ = train(train_loader=loader(4))
    tags = [memory.tags["boxscore.fingerprint.train"] for memory in (one, other, less)]
    assert tags[0] == tags[1] != tags[2]


def test_images_in_both_sets_are_a_leak() -> None:
    with warns("2 images are in both the train and test set"):
        memory, _ = train(test_loader=loader(4, 6), on_error="warn")
    assert memory.tags["boxscore.leak"] == "2 images"
    with warns_not():
        train()


def test_mask_rcnn_has_its_three_losses_and_all_figures_on_both_splits() -> None:
    memory, _ = train(steps=3, model=two_stage(MaskRCNN))
    for split in ("train", "test"):
        for name in ("mask", "rpn_localization", "rpn_objectness", "classification"):
            assert series(memory, name, split), (name, split)
    figures = {p.name for p in memory.points if p.scope.startswith("metric boxes-test")}
    assert {"mask_AP", "mask_AR100", "box_AP"} <= figures


def test_somebody_elses_handler_keeps_its_say() -> None:
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with LoopCallback(
            fcos(), None, loader(2), dataset="d", classes=CLASSES, loggers=[MemoryLogger()]
        ):
            signal.raise_signal(signal.SIGTERM)
        assert heard == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_it_works_off_the_main_thread() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(train(steps=2)))
    thread.start()
    thread.join()
    assert found[0][0].status == "FINISHED"


def test_trouble_in_measuring_does_not_end_the_training() -> None:
    def predict(model: Any, batch: Any) -> Any:
        images, targets = batch
        boxes = torch.tensor([[0.0, 0.0, float("nan"), 1.0]])
        wrong = {"boxes": boxes, "scores": torch.ones(1), "labels": torch.ones(1).long()}
        return {"loss_cls": torch.tensor(1.0)}, [wrong] * len(images), targets

    with warnings_logged() as told:
        memory, score = train(predict=predict, on_error="warn", identity=IDENTITY, task="detection")
    assert memory.status == "FINISHED"
    assert any("evaluation of the test split" in w and "nan" in w for w in told)
    assert any("times in this run" in w for w in told)
    assert "nan" in memory.tags["boxscore.evaluation_failed"]
    assert math.isnan(score.latest["box_AP"])
    assert series(memory, "classification", "test") == {3: 1.0, 6: 1.0}
    assert not series(memory, "box_AP", "test")
    assert sum("nan" in w for w in told) == 2  # a first per split


def test_predict_adapts_any_model() -> None:
    def predict(model: Any, batch: Any) -> Any:
        targets = batch[1]
        perfect = [{**t, "scores": torch.ones(len(t["labels"]))} for t in targets]
        return {"loss_cls": 0.5}, perfect, targets

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: Any, targets: Any) -> dict[str, torch.Tensor]:
            return {"loss_cls": self.weight.sum()}

    memory, _ = train(
        model=Mine(), predict=predict, identity=Identity("Mine", 64), task="detection"
    )
    assert series(memory, "box_AP", "test") == {3: pytest.approx(1.0), 6: pytest.approx(1.0)}
    assert series(memory, "classification", "test") == {3: 0.5, 6: 0.5}


def test_what_is_unknown_is_asked_for_before_training() -> None:
    linear = nn.Linear(2, 2)
    options: dict[str, Any] = {"loggers": [MemoryLogger()], "dataset": "d", "classes": CLASSES}
    for missing, given in (("task=", {}), ("predict=", {"task": "detection"})):
        score = LoopCallback(linear, None, loader(2), identity=IDENTITY, **options | given)
        with pytest.raises(ValueError, match=missing), score:
            pass


def test_without_a_block_it_is_asked_for_before_the_first_step() -> None:
    model = nn.Conv2d(3, 2, 1)
    LoopCallback(model, None, None, loggers=[], dataset="d", classes=CLASSES)
    with pytest.raises(ValueError, match="algorithm"):
        model(torch.rand(2, 3, 8, 8))


def test_a_list_of_classes_says_where_the_background_is() -> None:
    with pytest.raises(ValueError, match=r"\['__background__', 'disc', 'square'\] or \{1: 'disc'"):
        train(classes=["disc", "square"])
    memory, _ = train(classes=["__background__", "disc", "square"])
    assert series(memory, "box_AP", "test")


def test_classes_of_the_data_set_are_found() -> None:
    test_loader = loader(4, 100)
    test_loader.dataset.classes = CLASSES
    _, score = train(test_loader=test_loader, classes=None, dataset=None)
    assert score.run.names == CLASSES
    assert score.run.dataset == "Pictures"


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="loggers= excludes"):
        LoopCallback(fcos(), None, loggers=[], tracking_uri="sqlite:///x.db")


def test_intervals_in_epochs() -> None:
    memory, _ = train(steps=8, evaluate_every=Every(epochs=2), evaluate_train_every=None)
    assert list(series(memory, "total", "test")) == [4, 8]
    assert not series(memory, "box_AP", "train")


# semantic segmentation


def semantic_loader(count: int = 6) -> Any:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, 12, 10, generator=generator)
    targets = (images[:, 0] > 0.5).long()
    targets[:, 0] = 255
    pairs = torch.utils.data.TensorDataset(images, targets)
    return torch.utils.data.DataLoader(pairs, batch_size=4)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out, self.aux = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.out(images), "aux": self.aux(images)}


def train_semantic(model: nn.Module, *, steps: int = 4) -> tuple[MemoryLogger, Any]:
    memory = MemoryLogger()
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=1e-3)
    batches = semantic_loader()
    score = LoopCallback(
        model,
        optimizer,
        semantic_loader(5),
        train_loader=batches,
        criterion=cross_entropy_loss,
        task="semantic-segmentation",
        dataset="dots",
        classes=["ground", "dot"],
        loggers=[memory],
        identity=Identity("FCN", "12x10") if isinstance(model, TwoHeads) else None,
        log_every=2,
        evaluate_every=2,
        on_error="raise",
    )
    with score:
        done = 0
        while done < steps:
            for images, targets in batches:
                outputs = model(images)
                if isinstance(outputs, dict):
                    losses: Any = {
                        "classification": cross_entropy_loss(outputs["out"], targets),
                        "auxiliary": 0.5 * cross_entropy_loss(outputs["aux"], targets),
                    }
                    total = sum(losses.values())
                else:
                    losses = total = cross_entropy_loss(outputs, targets)
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
                score.step(losses, outputs=outputs, targets=targets)
                done += 1
    return memory, score


def test_semantic_losses_and_metrics_on_both_splits() -> None:
    memory, _ = train_semantic(TwoHeads())
    losses = "classification auxiliary regularization focal cross_entropy dice total"
    for name in losses.split():
        assert list(series(memory, name, "train")) == [2, 4], name
        assert list(series(memory, name, "test")) == [2, 4], name
    for name in ("AP", "AR", "IoU", "pixel_accuracy", "F1"):
        assert list(series(memory, name, "test")) == [2, 4]
        assert list(series(memory, name, "train")) == [2, 4]
    step = 4
    test = {p.name: p.value for p in memory.points if (p.step, p.split) == (step, "test")}
    assert test["total"] == pytest.approx(
        test["classification"] + test["auxiliary"] + test["regularization"]
    )
    assert test["cross_entropy"] == pytest.approx(test["classification"])


def test_semantic_test_losses_are_over_all_valid_pixels() -> None:
    model = TwoHeads()
    memory, _ = train_semantic(model)
    images, targets = zip(*semantic_loader(5).dataset, strict=True)
    logits = model(torch.stack(images))["out"].detach()
    whole = nn.functional.cross_entropy(logits, torch.stack(targets), ignore_index=255)
    assert series(memory, "cross_entropy", "test")[4] == pytest.approx(float(whole), rel=1e-6)


def test_the_input_size_is_learned_from_the_first_batch() -> None:
    torch.manual_seed(0)
    import segmentation_models_pytorch as smp

    model = smp.Unet("resnet18", encoder_weights=None, classes=2, encoder_depth=3,
                     decoder_channels=(16, 8, 8))  # fmt: skip
    memory = MemoryLogger()
    with LoopCallback(
        model,
        None,
        dataset="d",
        classes=["a", "b"],
        loggers=[memory],
        on_error="raise",
        log_every=1,
    ) as score:
        images, targets = torch.rand(2, 3, 32, 40), torch.zeros(2, 32, 40).long()
        logits = model(images)
        score.step(cross_entropy_loss(logits, targets), logits, targets)
    assert score.run is not None
    assert score.run.identity == Identity("U-Net", "32x40", "ResNet-18")
    assert {p.name for p in memory.points} >= {"focal", "dice", "cross_entropy", "classification"}


def test_points_are_points() -> None:
    memory, _ = train(steps=2)
    assert all(isinstance(point, Point) for point in memory.points)


def test_a_wrapped_model_is_known_by_what_it_wraps() -> None:
    memory, score = train(steps=2, model=nn.DataParallel(fcos()))
    assert score.run.identity.group == "FCOS 64x64"
    assert series(memory, "box_AP", "test")
    assert series(memory, "progress/images_seen", "train") == {2: 8}


def test_a_batch_that_is_not_understood_is_told_with_what_to_pass() -> None:
    images, targets = next(iter(loader(2, 100)))
    with warns(r"a batch of the loader is a dict.*pass predict="):
        memory, _ = train(
            steps=2,
            test_loader=[{"pictures": images, "truth": targets}],
            evaluate_train_every=None,
            on_error="warn",
        )
    assert memory.status == "FINISHED"
    assert series(memory, "total", "train") != {}


class Endless(torch.utils.data.IterableDataset[Any]):
    """Pictures without a length."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Any:
        return iter(loader(8, self.first).dataset[n] for n in range(8))


def test_loaders_without_a_length() -> None:
    one, other = (
        torch.utils.data.DataLoader(Endless(first), batch_size=4, collate_fn=collate)
        for first in (0, 100)
    )
    memory, _ = train(steps=4, train_loader=one, test_loader=other, on_error="warn")
    assert list(series(memory, "total", "train")) == [2, 4]
    assert series(memory, "box_AP", "test")
    assert series(memory, "progress/images_seen", "train") == {2: 8, 4: 16}


def test_several_test_sets_without_a_plain_one_are_led_by_the_first() -> None:
    loaders = {"a/b": loader(2, 100), "night": loader(2, 200)}
    memory, score = train(steps=2, test_loader=loaders)
    splits = {p.split for p in memory.points if p.name == "box_AP"}
    assert len(splits) == 3
    assert all(point.key.count("/") == 1 for point in memory.points)
    assert "a/b" in memory.tags.values()
    assert score.latest["box_AP"] >= 0
    assert any(p.name == "summary/box_AP" for p in memory.points)


def test_a_step_after_the_end_is_told_and_not_logged() -> None:
    memory, score = train(steps=2)
    before = len(memory.points)
    with warns("the run is closed"):
        for _ in range(4):
            score.step({"loss_cls": torch.tensor(1.0)})
    assert len(memory.points) == before
    assert memory.status == "FINISHED"


@pytest.mark.parametrize("name", ["background", "BG", "__background__", "_background_"])
def test_the_background_under_another_name(name: str) -> None:
    _, score = train(steps=1, classes=[name, "disc", "square"])
    assert score.run.names == {1: "disc", 2: "square"}


def test_without_a_criterion_regularization_alone_is_no_total() -> None:
    model, memory = TwoHeads(), MemoryLogger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    options: dict[str, Any] = {"classes": ["a", "b"], "loggers": [memory], "ignore_index": None}
    score = LoopCallback(
        model,
        optimizer,
        [(torch.rand(1, 3, 4, 4), torch.zeros(1, 4, 4).long())],
        task="semantic-segmentation",
        dataset="d",
        identity=IDENTITY,
        **options,
    )
    with warns("without criterion="), score:
        score.evaluate()
    assert not series(memory, "total", "test")
    assert series(memory, "cross_entropy", "test")
    assert series(memory, "IoU", "test")


def test_used_again_it_is_another_training() -> None:
    memory = MemoryLogger()
    model = fcos()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options: dict[str, Any] = {"loggers": [memory], "classes": CLASSES, "on_error": "raise"}
    score = LoopCallback(
        model, optimizer, loader(2, 100), train_loader=loader(8), dataset="boxes", log_every=1,
        **options,
    )  # fmt: skip
    ids = []
    for _ in range(2):
        with score:
            for batch in loader(8):
                score.step(train_step(model, optimizer, batch))
        assert score.run is not None
        ids.append(score.run.id)
    assert len(set(ids)) == 2
    assert [p.step for p in memory.points if p.key.endswith("/total.train")] == [1, 2, 1, 2]


def test_a_test_loss_that_is_no_number_costs_no_figures() -> None:
    def predict(model: Any, batch: Any) -> Any:
        perfect = [{**t, "scores": torch.ones(len(t["labels"]))} for t in batch[1]]
        losses = {"loss_cls": torch.tensor([0.5, 1.0]), "loss_bbox": "none"}
        return losses, perfect, batch[1]

    with warns("no number.*'loss_bbox': 'str'"):
        memory, _ = train(
            steps=2, predict=predict, on_error="warn", identity=IDENTITY, task="detection"
        )
    assert series(memory, "classification", "test") == {2: 0.75}
    assert series(memory, "box_AP", "test")


def test_accumulated_batches_are_one_step() -> None:
    """Each call is a batch; what is logged is the mean of the step's undivided losses."""
    model, memory = fcos(), MemoryLogger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    own, batches = [], loader(12)
    score = LoopCallback(
        model, optimizer, None, train_loader=batches, accumulate=3, dataset="d", classes=CLASSES,
        loggers=[memory], log_every=1,
    )  # fmt: skip
    for batch in batches:
        losses = train_step(model, optimizer, batch)
        own.append(sum(float(loss.detach()) for loss in losses.values()))
        score.step(losses)
    score.close()
    assert len(own) == 3
    assert series(memory, "total", "train") == {1: pytest.approx(sum(own) / 3)}
    assert series(memory, "progress/images_seen", "train") == {1: 12.0}
    assert memory.start is not None
    assert memory.start.params["batch_size"] == "12"
    with pytest.raises(ValueError, match="accumulate: 0 is less than one batch"):
        LoopCallback(model, optimizer, accumulate=0)


def test_averaged_weights_are_evaluated_and_the_trained_model_is_named() -> None:
    model, memory = fcos(), MemoryLogger()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    test_loader = loader(4, first=100)
    options: dict[str, Any] = {"dataset": "d", "classes": CLASSES, "evaluate_train_every": None}
    for given in (average, lambda: average):
        memory = MemoryLogger()
        score = LoopCallback(
            model, optimizer, test_loader, evaluate_model=given, loggers=[memory], **options
        )
        score.step(train_step(model, optimizer, next(iter(loader(4)))))
        score.close()
        assert str(score.run.identity) == "FCOS 64x64"  # type: ignore[union-attr]
        by_hand = LoopCallback(average.module, optimizer, test_loader, loggers=[], **options)
        with by_hand:
            by_hand.evaluate()
        assert score.latest == pytest.approx(by_hand.latest)
    assert average.training


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (None, "predict= returned a NoneType"),
        (({}, []), "predict= returned a tuple of 2"),
        ((1.0, [], []), "losses as a float"),
        (({}, torch.zeros(1, 6), []), "predictions as a Tensor, not a list of dicts"),
        (({}, [{}], torch.zeros(1)), "targets as a Tensor, not a list of dicts"),
    ],
)
def test_what_predict_returns_is_checked_with_the_form_that_is_expected(
    found: Any, told: str
) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        train(steps=3, predict=lambda model, batch: found)
    assert "it returns a tuple ({'loss_box': scalar}, [{'boxes': xyxy (K, 4)" in str(raised.value)


def test_the_opening_lines(capsys: pytest.CaptureFixture[str]) -> None:
    model = fcos()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=0.5)
    squares = sum(float((w.detach() ** 2).sum()) for w in model.parameters() if w.requires_grad)
    with LoopCallback(model, optimizer, None, dataset="d", classes=CLASSES, loggers=[]):
        pass
    assert f"‖w‖² = {0.25 * squares:.4g} now" in capsys.readouterr().err
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.5)
    with LoopCallback(model, optimizer, None, dataset="d", classes=CLASSES, loggers=[]):
        pass
    assert "regularization" not in capsys.readouterr().err


def test_an_adapted_batch_whose_images_the_model_takes_alone() -> None:
    model: Any = nn.Conv2d(3, 2, 1)
    batch = {"data": {"x": torch.rand(4, 3, 8, 8), "y": torch.zeros(4, 8, 8).long()}}
    memory = MemoryLogger()
    score = LoopCallback(
        model, torch.optim.SGD(model.parameters(), 0.1), [batch], train_loader=[batch],
        batch=lambda b: (b["data"]["x"], b["data"]["y"]), task="semantic-segmentation",
        dataset="d", classes=["a", "b"], identity=Identity("U-Net", 8), loggers=[memory],
        log_every=1, on_error="raise",
    )  # fmt: skip
    logits = model(batch["data"]["x"])
    score.step(logits.mean(), logits, batch["data"]["y"])
    score.close()
    assert series(memory, "progress/images_seen", "train") == {1: 4.0}
    assert series(memory, "IoU", "test")


def test_a_batch_that_cannot_be_read_never_ends_a_training() -> None:
    model: Any = nn.Conv2d(3, 2, 1)
    forward = model.forward
    model.forward = lambda batch: forward(batch["image"])
    options: dict[str, Any] = {"dataset": "d", "classes": CLASSES, "task": "detection"}
    score = LoopCallback(model, None, identity=IDENTITY, loggers=[MemoryLogger()], **options)
    image = torch.rand(1, 3, 4, 4)
    model({"image": image, "bboxes": [torch.zeros(1, 4)], "labels": [torch.ones(1)]})
    score.step({"loss_cls": 1.0})
    score.close()


def test_a_callback_that_never_began_makes_way_for_the_next() -> None:
    model, memories = fcos(), [MemoryLogger(), MemoryLogger()]
    first, second = (
        LoopCallback(model, None, dataset="d", classes=CLASSES, loggers=[memory], log_every=1)
        for memory in memories
    )
    images, targets = next(iter(loader(4)))
    second.step(model(images, targets))
    second.close()
    assert first.run is None
    assert (memories[0].start, memories[1].status) == (None, "FINISHED")
    with first:
        first.step(model(images, targets))
    assert series(memories[0], "progress/images_seen", "train") == {1: 4.0}
