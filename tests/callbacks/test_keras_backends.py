"""Keras on backends other than torch; skipped where these are not installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = """
import json

import numpy as np
from boxscore import Identity
from boxscore.callbacks.keras import BoxscoreCallback
from boxscore.loggers import MemoryLogger
from tests.tiny_keras import Batches, boxed, detector

def weights(*callbacks):
    model = detector()
    model.fit(Batches(boxed(2)), epochs=2, callbacks=[*callbacks], verbose=0, shuffle=False)
    return model.get_weights()

memory, data = MemoryLogger(), boxed(2)
score = BoxscoreCallback(
    data, train_data=data, task="detection", classes={0: "disc", 1: "square"}, dataset="boxes",
    identity=Identity("Net", "32x32"), loggers=[memory], log_every=1, evaluate_every=2,
    on_error="raise",
)
same = [bool(np.array_equal(a, b)) for a, b in zip(weights(score), weights(), strict=True)]
points = [(p.name, p.split, p.step, p.value) for p in memory.points]
print(json.dumps({"points": points, "status": memory.status, "same": same}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_a_detector(backend: str) -> None:
    """Every loss and metric on both splits, and the weights that it has without boxscore."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRAINING], capture_output=True, text=True,
        check=False, cwd=Path(__file__).parents[2], env=os.environ | {"KERAS_BACKEND": backend},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    values = {(name, split, step): value for name, split, step, value in told["points"]}
    parts = ("classification", "localization", "regularization")
    for split, steps in (("train", (1, 2, 3, 4)), ("test", (2, 4))):
        for step in steps:
            total = sum(values[name, split, step] for name in parts)
            assert values["total", split, step] == pytest.approx(total, rel=1e-6)
    assert values["box_AP", "test", 4] == values["box_AP", "train", 4] == pytest.approx(1.0)
    assert told["status"] == "FINISHED"
    assert all(told["same"])
