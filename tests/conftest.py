"""Two cores are shared by everything that runs here: one thread each keeps timings sane."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.servers import Server, postgres_binaries, postgres_cluster, wait_for

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Wait for a condition."""
    return wait_for


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An MLflow server on SQLite; a test that kills it starts it again."""
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder, f"sqlite:///{folder}/mlflow.db")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URI of a database in a PostgreSQL cluster of this session's own."""
    pytest.importorskip("psycopg2")
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server binaries are not installed")
    with postgres_cluster(binaries) as uri:
        yield uri
