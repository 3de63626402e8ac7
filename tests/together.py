"""Several real processes in one gloo group, forked from one that has torch loaded already.

Starting Python with torch takes seconds; a fork of a server that has it, a hundredth of one.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed

T = TypeVar("T")
ROOT = Path(__file__).parents[1]

LOADED = ("torch", "torchvision", "accelerate", "boxscore.callbacks.loop", "tests.tiny")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(list(LOADED))


def together(
    size: int, work: Callable[..., T], *given: Any, seconds: float = 60, gone: bool = False
) -> list[T]:
    """What ``work(*given)`` returns in each of ``size`` processes that train together, by rank.

    Args:
        size: 1 is one process without a group, in this very process.
        work: a module's own function: processes find it by its name.
        given: its arguments.
        seconds: after which all are ended.
        gone: whether a process may end without a word; its result is then None.

    Raises:
        AssertionError: with the trace of what ``work`` raised, or if time is over.
    """
    if size == 1:
        return [work(*given)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ends, processes = [], []
    for rank in range(size):
        mine, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_join, args=(theirs, (rank, size, port), work, given))
        process.start()
        theirs.close()
        ends.append(mine)
        processes.append(process)
    try:
        results = _heard(ends, time.monotonic() + seconds)
    finally:
        for end, process in zip(ends, processes, strict=True):
            end.close()
            process.kill()
            process.join()
    for rank, (told, what) in enumerate(results):
        if told == "error" or (told == "gone" and not gone):
            raise AssertionError(f"rank {rank} of {size}: {what}")
    return [what if told == "done" else None for told, what in results]  # type: ignore[misc]


def torchrun(
    size: int, *arguments: object, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    """What torchrun, given a script or ``-m`` module and its arguments, printed and ended with."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--nproc-per-node", str(size), *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds, env=environment, check=False,
    )  # fmt: skip


def _heard(ends: list[Connection], until: float) -> list[tuple[str, Any]]:
    """The one message of each process."""
    heard: dict[int, tuple[str, Any]] = {}
    while len(heard) < len(ends):
        open_ends = [end for rank, end in enumerate(ends) if rank not in heard]
        ready = wait(open_ends, max(0, until - time.monotonic()))
        if not ready:
            missing = sorted(set(range(len(ends))) - set(heard))
            raise AssertionError(f"ranks {missing} hang; the others: {heard}")
        for end in ready:
            rank = ends.index(end)  # type: ignore[arg-type]
            try:
                heard[rank] = ends[rank].recv()
            except EOFError:
                heard[rank] = ("gone", "ended without a word")
    return [heard[rank] for rank in range(len(ends))]


def _join(
    end: Connection, place: tuple[int, int, int], work: Callable[..., Any], given: Any
) -> None:
    rank, size, port = place
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo")
    try:
        end.send(("done", work(*given)))
        end.poll(None)  # until all are done: the others may need what this process holds
    except BaseException:
        end.send(("error", traceback.format_exc()))
    os._exit(0)
