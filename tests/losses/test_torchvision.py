from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from boxscore.losses import regularization_kind, regularization_loss, test_losses

Build = Callable[..., nn.Module]
COMMON: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": 3}
SMALL = {"min_size": 96, "max_size": 96}
DETECTORS: dict[str, tuple[Build, dict[str, Any]]] = {
    "RetinaNet": (detection.retinanet_resnet50_fpn, SMALL),
    "RetinaNet v2": (detection.retinanet_resnet50_fpn_v2, SMALL),
    "FCOS": (detection.fcos_resnet50_fpn, SMALL),
    "SSDlite": (detection.ssdlite320_mobilenet_v3_large, {}),
    "Faster R-CNN": (detection.fasterrcnn_mobilenet_v3_large_320_fpn, SMALL),
    "Mask R-CNN": (detection.maskrcnn_resnet50_fpn, SMALL),
    "Keypoint R-CNN": (
        detection.keypointrcnn_resnet50_fpn,
        SMALL | {"num_classes": 2, "num_keypoints": 3},
    ),
}


def batch(*, objects: tuple[int, ...] = (2, 1)) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, 80, 64, generator=generator) for _ in objects]
    targets = []
    for n, count in enumerate(objects):
        corner = torch.rand(count, 2, generator=generator) * 30
        masks = torch.zeros(count, 80, 64, dtype=torch.uint8)
        masks[:, 10:40, 10:40] = 1
        keypoints = torch.full((count, 3, 3), 20.0)
        targets.append({
            "boxes": torch.cat([corner, corner + 20], 1),
            "labels": torch.ones(count, dtype=torch.int64),
            "masks": masks,
            "keypoints": keypoints,
            "image_id": torch.tensor(n),
        })  # fmt: skip
    return images, targets


def model(name: str) -> Any:
    build, options = DETECTORS[name]
    torch.manual_seed(0)
    return build(**COMMON | options)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n == "Keypoint R-CNN" else n for n in DETECTORS],
)
def test_losses_and_detections_leave_no_trace(name: str) -> None:
    """Repeatable; weights, buffers, modes, random numbers and the backbone stay as they were."""
    detector = model(name).train()
    frozen = next(module for module in detector.modules() if isinstance(module, nn.BatchNorm2d))
    frozen.eval()
    modes = [module.training for module in detector.modules()]
    state = {key: value.clone() for key, value in detector.state_dict().items()}
    numbers = torch.get_rng_state()
    images, targets = batch()

    losses, detections = test_losses(detector, images, targets)
    torch.manual_seed(5)
    again, _ = test_losses(detector, images, targets)
    torch.set_rng_state(numbers)

    assert len(detections) == 2
    assert losses
    assert all(torch.equal(losses[key], again[key]) for key in losses)
    assert all(not value.requires_grad for value in losses.values())
    assert [module.training for module in detector.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in detector.state_dict().items())
    assert "forward" not in vars(detector.backbone)


def test_random_numbers_go_on_as_if_nothing_had_happened() -> None:
    detector, (images, targets) = model("Faster R-CNN"), batch()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    test_losses(detector, images, targets)
    assert torch.equal(before, torch.get_rng_state())


def test_detections_are_those_of_eval_mode() -> None:
    detector, (images, targets) = model("Faster R-CNN"), batch()
    detector.roi_heads.score_thresh = 0.0
    _, detections = test_losses(detector.train(), images, targets)
    with torch.no_grad():
        alone = detector.eval()(images)
    assert len(detections[0]["boxes"]) > 0
    for one, other in zip(detections, alone, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in other)


def test_one_backbone_pass_serves_both() -> None:
    detector, (images, targets) = model("RetinaNet"), batch()
    passes = []
    detector.backbone.body.register_forward_hook(lambda *_: passes.append(1))
    test_losses(detector, images, targets)
    assert len(passes) == 1


def test_losses_are_those_of_train_mode_where_nothing_is_random() -> None:
    """FCOS samples nothing; with batch norm in eval, train mode gives the very same losses."""
    detector, (images, targets) = model("FCOS"), batch()
    losses, _ = test_losses(detector, images, targets)
    detector.train()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    expected = detector(images, targets)
    assert {key: value.item() for key, value in losses.items()} == {
        key: value.item() for key, value in expected.items()
    }


@pytest.mark.parametrize("name", ["RetinaNet", "Faster R-CNN", "SSDlite", "FCOS"])
def test_images_without_objects_and_empty_boxes_are_fine(name: str) -> None:
    images, targets = batch(objects=(0, 1))
    targets[1]["boxes"] = torch.cat([targets[1]["boxes"], torch.tensor([[5.0, 5.0, 5.0, 9.0]])])
    targets[1]["labels"] = torch.tensor([1, 2])
    del targets[1]["masks"], targets[1]["keypoints"], targets[0]["masks"], targets[0]["keypoints"]
    losses, _ = test_losses(model(name), images, targets)
    assert all(torch.isfinite(value) for value in losses.values())
    assert len(targets[1]["boxes"]) == 2


def test_other_models_are_told_what_to_pass() -> None:
    with pytest.raises(TypeError, match="predict="):
        test_losses(nn.Linear(2, 2), [], [])


def test_regularization_is_what_the_optimizer_adds_to_the_gradient() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    groups = [
        {"params": net[0].parameters(), "weight_decay": 0.1},
        {"params": net[1].parameters(), "weight_decay": 0.01},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    before = [p.detach().clone() for p in net.parameters()]
    by_hand = sum(
        0.5 * decay * float((p.detach().double() ** 2).sum())
        for layer, decay in ((net[0], 0.1), (net[1], 0.01))
        for p in layer.parameters()
    )
    assert regularization_loss(optimizer).item() == pytest.approx(by_hand, rel=1e-6)
    optimizer.step()
    for parameter, old, decay in zip(net.parameters(), before, [0.1, 0.1, 0.01, 0.01], strict=True):
        assert torch.allclose(old - parameter, decay * old)


def test_frozen_weights_and_groups_without_decay_weigh_nothing() -> None:
    net = nn.Linear(4, 3)
    net.weight.requires_grad = False
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, weight_decay=0.1)
    assert regularization_loss(optimizer).item() == pytest.approx(
        0.05 * float((net.bias.detach() ** 2).sum()), rel=1e-6
    )
    assert regularization_loss(torch.optim.SGD(net.parameters(), lr=1.0)).item() == 0


@pytest.mark.parametrize(
    ("kind", "optimizer", "decay"),
    [
        ("l2", torch.optim.SGD, 0.1),
        ("l2", torch.optim.Adam, 0.1),
        ("decoupled", torch.optim.AdamW, 0.1),
        ("none", torch.optim.SGD, 0.0),
        ("none", torch.optim.AdamW, 0.0),
    ],
)
def test_how_an_optimizer_decays(kind: str, optimizer: Any, decay: float) -> None:
    weights = [torch.ones(3, requires_grad=True)]
    assert regularization_kind(optimizer(weights, lr=0.1, weight_decay=decay)) == kind
