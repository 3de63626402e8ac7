"""How a run ends without a ``with`` block: as its process does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, signal, sys
import torch
from boxscore import Identity
from boxscore.callbacks.loop import LoopCallback
from boxscore.loggers import MemoryLogger


class Told(MemoryLogger):
    def close(self, status):
        steps = [p.step for p in self.points if (p.name, p.split) == ("IoU", "test")]
        print(json.dumps([status, steps]), flush=True)


def main(end):
    model = torch.nn.Conv2d(3, 2, 1)
    batch = torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8).long()
    score = LoopCallback(
        model, torch.optim.SGD(model.parameters(), 0.1), [batch], train_loader=[batch],
        criterion=torch.nn.CrossEntropyLoss(), task="semantic-segmentation", dataset="d",
        classes=["a", "b"], loggers=[Told()], evaluate_every=2,
        identity=Identity("U-Net", 8),
    )
    for step in range(3):
        score.step(model(batch[0]).mean())
    exec(end)


main(sys.argv[1])
"""

CAUGHT = "try:\n 1 / 0\nexcept ZeroDivisionError:\n "
ENDS = {
    "pass": ["FINISHED", [2, 3]],
    "score.close()": ["FINISHED", [2, 3]],
    "sys.exit()": ["FINISHED", [2, 3]],
    "sys.exit(1)": ["FAILED", [2]],
    "sys.exit('loss is nan')": ["FAILED", [2]],
    "1 / 0": ["FAILED", [2]],
    "raise KeyboardInterrupt": ["KILLED", [2]],
    "signal.raise_signal(signal.SIGTERM)": ["KILLED", [2]],
    "sys.excepthook = lambda *_: signal.raise_signal(signal.SIGTERM)\n1 / 0": ["FAILED", [2]],
    f"{CAUGHT}score.close()": ["FAILED", [2]],
    f"{CAUGHT}pass\nscore.close()": ["FINISHED", [2, 3]],
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_the_run_ends_as_the_process_does(end: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), end]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [ENDS[end]], done.stderr
