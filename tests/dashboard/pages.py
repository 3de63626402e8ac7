"""TensorBoard's own page in a real browser."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import free_port, wait_for

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
TAB = "iframe[src*='plugin_entry.html?name=boxscore']"
LOADERS = {"fast": "--load_fast=true", "slow": "--load_fast=false"}

Open = Callable[..., Any]


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """TensorBoard's address."""
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--reload_interval", "1", *arguments]
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, start_new_session=True, stdout=null, stderr=null)
    address = f"http://127.0.0.1:{port}/"

    def answers() -> bool:
        assert process.poll() is None
        try:
            with urllib.request.urlopen(f"{address}data/runs", timeout=5) as answer:
                return bool(answer.read().strip() != b"[]" or not any(folder.iterdir()))
        except OSError:
            return False

    try:
        wait_for(answers)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
