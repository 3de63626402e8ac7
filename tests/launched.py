"""Processes that torchrun starts, and what each of them tells."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from boxscore import distributed
from boxscore.loggers import MemoryLogger

ROOT = Path(__file__).parents[1]
TIMED = ("progress/images_per_second", "progress/evaluation_seconds")


def launched(
    module: str, size: int, folder: Path, *given: str, seconds: float = 200, fails: bool = False
) -> list[Any]:
    """What each of ``size`` processes told in `tell`, by rank; None of those that told nothing.

    Args:
        module: run as ``python -m module folder given…``, as its users do with torchrun.
        size: how many processes.
        folder: for what they write.
        given: further words for the module.
        seconds: after which all of it hangs.
        fails: whether a process is to fail.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += [str(size), "-m", module, str(folder), *given]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds, cwd=ROOT,
        env=environment,
    )  # fmt: skip
    assert (ended.returncode != 0) == fails, ended.stderr[-8000:]
    files = [folder / f"rank{rank}.json" for rank in range(size)]
    return [json.loads(file.read_text()) if file.exists() else None for file in files]


def tell(folder: Path, cases: dict[str, Callable[[Path], Any]]) -> None:
    """Go through ``cases``, each with a folder that all processes share; write what they give."""
    told = {}
    for name, case in cases.items():
        shared = folder / name
        shared.mkdir(parents=True, exist_ok=True)
        told[name] = case(shared)
    (folder / f"rank{distributed.rank()}.json").write_text(json.dumps(told))
    if dist.is_initialized():  # gloo's threads abort a process that exits under them
        dist.destroy_process_group()


def differing(one: dict[str, Any], several: dict[str, Any], rel: float = 1e-6) -> list[str]:
    """What several processes logged otherwise than one: figures by a bit, losses by ``rel``.

    Focal, cross-entropy and Dice loss of the train split are of the due batch, which is another.
    """
    points = several["points"]
    wrong = sorted(one["points"].keys() ^ points.keys())
    for key, value in one["points"].items():
        kind, _, name = key.partition("/")
        if key not in points or name.split(".train")[0] in ("focal", "cross_entropy", "dice"):
            continue
        close = math.isclose(
            points[key], value, rel_tol=rel if kind.startswith(("loss", "native")) else 0.0
        )
        if not close:
            wrong.append(f"{key}: {value!r}, of several {points[key]!r}")
    tags = one["tags"].keys() | several["tags"].keys()
    return wrong + [t for t in sorted(tags) if one["tags"].get(t) != several["tags"].get(t)]


def heard(memory: MemoryLogger, score: Any) -> dict[str, Any]:
    """What a process logged and knows, as JSON keeps it; times left out."""
    points = [p for p in memory.points if p.name not in TIMED]
    return {
        "points": {f"{p.key}@{p.step}": p.value for p in points},
        "count": len(points),
        "tags": {k: v for k, v in memory.tags.items() if k != "boxscore.run"},
        "run": score.run.id,
        "status": memory.status if memory.start else None,
        "opened": memory.start is not None,
        "latest": dict(score.latest),
        "best": dict(score.best),
    }


class Witness(MemoryLogger):
    """Writes how the run ended, for those who outlive it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def close(self, status: Any = "FINISHED") -> None:
        """As MemoryLogger, and to the file."""
        super().close(status)
        self.file.write_text(status)
