"""Runs the cases of public reports in ``../shared/cases``, and prints those that fail.

``uv run python tests/cases.py [NUMBER …]``: all of them, or those whose names begin so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CASES = Path(__file__).parents[2] / "shared" / "cases"
LIMIT = 400
"""Seconds for one case."""


def met(case: Path) -> tuple[str, bool, str]:
    """The name of ``case``, whether its expectation is met, and the last line of its output."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, case.name)
        shutil.copytree(case, copy)
        command = [sys.executable, "run.py"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
        try:
            done = subprocess.run(
                command, check=False, cwd=copy, env=environment, capture_output=True, text=True,
                timeout=LIMIT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return case.name, False, f"still running after {LIMIT} s"
    lines = [*done.stderr.strip().splitlines()[-1:], *done.stdout.strip().splitlines()[-2:]]
    return case.name, done.returncode == 0, " | ".join(lines)


def main(wanted: list[str]) -> int:
    cases = sorted(path.parent for path in CASES.glob("*/run.py"))
    if wanted:
        cases = [case for case in cases if case.name.startswith(tuple(wanted))]
    failed = 0
    with ThreadPoolExecutor(2) as pool:
        for name, is_met, said in pool.map(met, cases):
            failed += not is_met
            if not is_met:
                print(f"{name}: {said[:500]}", flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
