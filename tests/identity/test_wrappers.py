"""The network is found inside what frameworks and users wrap around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from boxscore import Identity
from boxscore.identity.wrappers import infer, lightning_network, network, networks, without_ddp

torch = pytest.importorskip("torch")


def unet(encoder: str = "resnet18") -> Any:
    smp = pytest.importorskip("segmentation_models_pytorch")
    return smp.Unet(encoder, encoder_weights=None, decoder_channels=(8, 8, 8, 8, 8))


def fpn() -> Any:
    smp = pytest.importorskip("segmentation_models_pytorch")
    return smp.FPN("resnet18", encoder_weights=None)


def read(model: Any) -> dict[str, str]:
    return {name: reading.value for name, reading in infer(model).items()}


class Around(torch.nn.Module):  # type: ignore[misc,name-defined]
    """A module of a user's own around others."""

    def __init__(self, **children: Any) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


def lightning(**children: Any) -> Any:
    pytest.importorskip("lightning")
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            for name, child in children.items():
                setattr(self, name, child)

    return Module()


def ddp(model: Any) -> Any:
    wrapped = torch.nn.DataParallel(model)  # holds its model as DistributedDataParallel does
    wrapped.__class__ = torch.nn.parallel.DistributedDataParallel
    return wrapped


def fsdp(model: Any) -> Any:
    wrapped = torch.nn.DataParallel(model)
    wrapped.__class__ = type("FullyShardedDataParallel", (torch.nn.DataParallel,), {})
    return wrapped


WRAPPERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "nothing": (lambda model: model, "model"),
    "ddp": (ddp, "model.module"),
    "data parallel": (torch.nn.DataParallel, "model.module"),
    "fsdp": (fsdp, "model.module"),
    "compile": (torch.compile, "model._orig_mod"),
    "ema": (torch.optim.swa_utils.AveragedModel, "model.module"),
    "own": (lambda model: Around(mine=model), "model.mine"),
    "sequence": (lambda model: torch.nn.Sequential(torch.nn.Identity(), model), "model.1"),
    "list": (lambda model: torch.nn.ModuleList([model]), "model.0"),
    "lightning": (
        lambda model: lightning(
            net=model, loss=torch.nn.CrossEntropyLoss(), probe=torch.nn.Linear(2, 2)
        ),
        "model.net",
    ),
    "lightning, another name": (lambda model: lightning(mine=model), "model.mine"),
    "nested": (
        lambda model: torch.nn.DataParallel(
            torch.compile(lightning(model=Around(inner=ddp(torch.compile(model)))))
        ),
        "model.module._orig_mod.model.inner.module._orig_mod",
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_looked_through(wrapper: str) -> None:
    wrap, path = WRAPPERS[wrapper]
    wrapped = wrap(unet())
    assert type(network(wrapped)).__name__ == "Unet"
    assert list(networks(wrapped)) == [path]
    assert read(wrapped) == {"algorithm": "U-Net", "backbone": "ResNet-18"}
    assert infer(wrapped)["backbone"].source == f"{path}.name"


def test_an_averaged_copy_beside_the_model() -> None:
    model = unet()
    both = Around(model=model, ema=torch.optim.swa_utils.AveragedModel(model))
    assert read(both) == {"algorithm": "U-Net", "backbone": "ResNet-18"}


def test_a_teacher_and_a_student_share_what_they_agree_on() -> None:
    assert read(Around(student=unet(), teacher=unet("resnet34"))) == {"algorithm": "U-Net"}


def test_two_different_networks_are_ambiguous() -> None:
    both = Around(student=unet(), teacher=fpn())
    assert network(both) is both
    assert infer(both) == {"backbone": ("ResNet-18", "model.student.name")}
    with pytest.raises(
        ValueError,
        match=r"Unet at model\.student, FPN at model\.teacher.*Pass identity=Identity\(",
    ):
        Identity.of(both, input_size=64)


def test_a_lightning_module_is_named_by_its_model_and_not_its_teacher() -> None:
    assert read(lightning(model=unet(), teacher=fpn()))["algorithm"] == "U-Net"


def test_a_known_model_inside_a_larger_one_does_not_name_it() -> None:
    larger = Around(one=unet(), two=torch.nn.Linear(2, 2))
    assert infer(larger) == networks(larger) == {}
    assert network(larger) is larger


def test_the_network_that_a_lightning_module_calls() -> None:
    """Not one inside it: a forward in between may prepare the input."""
    inner = Around(mine=unet())
    assert lightning_network(lightning(model=inner)) is inner
    assert lightning_network(inner) is inner


def test_the_module_to_evaluate_is_without_ddp() -> None:
    model = unet()
    assert without_ddp(ddp(model)) is without_ddp(torch.compile(ddp(model))) is model
    parallel = torch.nn.DataParallel(model)
    assert without_ddp(parallel) is parallel
    assert without_ddp(model) is model
