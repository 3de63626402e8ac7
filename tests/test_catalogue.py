from boxscore import CATALOGUE, canonical
from boxscore.catalogue import TASKS, documented

COCO = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def test_every_documented_measure_is_there() -> None:
    detection = {m.name for m in documented("detection")}
    instances = {m.name for m in documented("instance-segmentation")}
    semantic = {m.name for m in documented("semantic-segmentation")}
    assert {"total", "classification", "localization", "regularization"} <= detection
    assert {f"box_{name}" for name in COCO} <= detection
    assert {"mask", "rpn_localization", "rpn_objectness"} <= instances
    assert {f"{kind}_{name}" for name in COCO for kind in ("box", "mask")} <= instances
    assert {"total", "classification", "regularization"} <= semantic
    assert {"focal", "cross_entropy", "dice"} <= semantic
    assert {"AP", "AR", "IoU", "pixel_accuracy", "F1"} <= semantic
    assert "localization" not in semantic


def test_losses_compare_within_a_group_and_metrics_within_a_set() -> None:
    for measure in CATALOGUE.values():
        loss = measure.kind == "loss"
        assert measure.better == ("lower" if loss else "higher")
        assert measure.scope == ("group" if loss else "fingerprint")


def test_every_entry_says_what_it_is() -> None:
    for name, measure in CATALOGUE.items():
        assert measure.name == name
        assert measure.definition.endswith(".")
        assert measure.source
        assert measure.unit
        assert measure.range[0] < measure.range[1]
        assert set(measure.tasks) <= set(TASKS)


def test_losses_mean_themselves() -> None:
    for name, measure in CATALOGUE.items():
        if measure.kind == "loss":
            assert canonical(name) == name
