"""What the tests of the loggers share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow puts the files of a database tracker into the current folder."""
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of an SQLite tracker that is written to in-process."""
    return f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/mlflow.db"
