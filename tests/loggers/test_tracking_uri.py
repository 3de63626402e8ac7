"""Tracking URIs without their secrets."""

from __future__ import annotations

import doctest

import pytest

from boxscore.loggers import tracking_uri
from boxscore.loggers.tracking_uri import public, without_credentials

SECRET = "s3cret"


def test_the_examples_hold() -> None:
    tried = doctest.testmod(tracking_uri)
    assert (tried.failed, tried.attempted > 0) == (0, True)


@pytest.mark.parametrize(
    "given",
    [
        "http://ann:s3cret@host:5000",
        "http://s3cret@host:5000",
        "https://ann:s3cret@host:5000/mlflow?token=s3cret",
        "postgresql+psycopg2://ann:s3cret@host:5432/db?password=s3cret&sslmode=require",
        "mysql://ann:a/s3cret@host/db",
        "postgresql://ann:a@s3cret@host/db",
    ],
)
def test_no_secret_of_a_uri_is_left(given: str) -> None:
    assert SECRET not in public(given)
    assert "host" in public(given)
    assert SECRET not in without_credentials(f"cannot reach {given}/api: refused", given)


@pytest.mark.parametrize("given", ["http://host:5000", "sqlite:////a/b?timeout=5", "databricks"])
def test_a_uri_without_secrets_stays(given: str) -> None:
    assert public(given) == given


def test_secrets_of_the_environment_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    assert SECRET not in without_credentials(f"header Bearer {SECRET} was not accepted")
