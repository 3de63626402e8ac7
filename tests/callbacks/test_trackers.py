"""A training with the trackers that people have, when these fail."""

import time
from pathlib import Path

import pytest
import torch

from boxscore.callbacks.loop import LoopCallback
from tests.tiny import CLASSES, fcos, loader, train_step
from tests.warned import warnings_logged


@pytest.mark.slow
def test_no_tracker_ends_a_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An unwritable log_dir and a server that is not there: told, and the training goes on."""
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    model, batches = fcos(), loader(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    score = LoopCallback(
        model,
        optimizer,
        loader(2, 100),
        train_loader=batches,
        dataset="boxes",
        classes=CLASSES,
        log_dir=str(blocked / "runs"),
        tracking_uri="http://127.0.0.1:9",
        log_every=1,
        evaluate_every=2,
    )
    seconds = []
    with warnings_logged() as told:
        with score:
            for batch in batches:
                losses = train_step(model, optimizer, batch)
                start = time.perf_counter()
                score.step(losses)
                seconds.append(time.perf_counter() - start)
    assert score.latest["box_AP"] >= 0
    said = [warning for warning in told] + caplog.messages
    lines = [line for line in said if "boxscore" in line]
    assert any("TensorBoardLogger is left out" in line for line in lines)
    assert any("cannot be reached" in line for line in lines)
    assert all("\n" not in line for line in lines)
    assert len(lines) <= 6
    assert seconds[0] < 5  # MLflow's own defaults would block here for four minutes
