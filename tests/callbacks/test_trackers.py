"""A training with the trackers that people have, when these fail."""

import time
from pathlib import Path

import pytest
import torch

from boxscore.callbacks.loop import LoopCallback
from tests.tiny import CLASSES, fcos, loader, train_step
from tests.warned import warnings_logged


@pytest.mark.slow
@pytest.mark.parametrize(
    ("log_dir", "expected"),
    [
        # the spool is in the folder too, so that neither tracker gets a point
        ("file/runs", ["TensorBoardLogger is left out", "DurableLogger is left out"]),
        ("runs", ["cannot be reached"]),
    ],
)
def test_no_tracker_ends_a_training(tmp_path: Path, log_dir: str, expected: list[str]) -> None:
    """An unwritable log_dir, and a server that is not there: told, and the training goes on."""
    (tmp_path / "file").write_text("no folder")
    model, batches = fcos(), loader(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    score = LoopCallback(
        model,
        optimizer,
        loader(2, 100),
        train_loader=batches,
        dataset="boxes",
        classes=CLASSES,
        log_dir=str(tmp_path / log_dir),
        tracking_uri="http://127.0.0.1:9",
        log_every=1,
        evaluate_every=2,
    )
    seconds = []
    with warnings_logged() as texts:
        with score:
            for batch in batches:
                losses = train_step(model, optimizer, batch)
                start = time.perf_counter()
                score.step(losses)
                seconds.append(time.perf_counter() - start)
    assert score.latest["box_AP"] >= 0
    for wanted in expected:
        assert any(wanted in text for text in texts)
    assert all("\n" not in text for text in texts)
    assert len(texts) <= 6
    assert seconds[0] < 5  # MLflow's own defaults would block here for four minutes
