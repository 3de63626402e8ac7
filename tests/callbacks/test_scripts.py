"""Training scripts of the kinds that people have: a few added lines, and figures as their own.

Each script in ``scripts/`` marks the lines that were added with ``# boxscore``, and leaves its own
figures in ``own`` (the last of the test set) and ``own_losses`` (of each step in training).
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from boxscore import Every, Identity
from boxscore.loggers import MemoryLogger

SCRIPTS = Path(__file__).parent / "scripts"
ADDED = {
    "detr_lightning": 2,
    "smp_lightning": 2,
    "torchgeo_detection": 2,
    "torchgeo_tasks": 2,
    "monai_loop": 3,
    "smp_loop": 3,
    "torchvision_detection": 3,
    "torchvision_segmentation": 3,
    "transformers_trainer": 2,
    "unet_scaler": 3,
    "yolo_loop": 4,  # with the line of predict=
}


KINDS = {
    "torchgeo_detection": ("boxes", "instances"),
    "transformers_trainer": ("detr", "segformer", "mask2former"),
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in ADDED for kind in KINDS.get(name, ("",))]
)
def test_a_script_of_this_kind(name: str, kind: str, tmp_path: Path) -> None:
    path, memory = SCRIPTS / f"{name}.py", MemoryLogger()
    added = [line for line in path.read_text().splitlines() if line.endswith("# boxscore")]
    assert len(added) == ADDED[name]
    assert not any(line.strip().startswith(("with ", "for ", "if ")) for line in added)
    options: dict[str, Any] = {
        "dataset": "d", "loggers": [memory], "log_every": 1, "evaluate_every": Every(epochs=1),
        "evaluate_train_every": None, "on_error": "raise",
    }  # fmt: skip
    done = runpy.run_path(
        str(path), {"options": options, "Identity": Identity, "kind": kind, "folder": str(tmp_path)}
    )
    score = done["score"]
    for figure, value in done["own"].items():
        assert score.latest[figure] == pytest.approx(value, abs=2e-6), figure
    for measure, values in done["own_losses"].items():
        logged = [p.value for p in memory.points if (p.name, p.split) == (measure, "train")]
        assert logged == pytest.approx(values, rel=1e-5), measure
    if "images_per_step" in done:
        seen = [p.value for p in memory.points if p.name.endswith("images_seen")]
        steps = range(1, len(seen) + 1)
        assert seen == [done["images_per_step"] * step for step in steps]
    if hasattr(score, "close"):
        score.close()  # a script need not: its process ends
    assert memory.status == "FINISHED"
