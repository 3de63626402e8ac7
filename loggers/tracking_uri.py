"""Tracking URIs: made absolute for other processes, and without what must never be written down."""

from __future__ import annotations

import os
import re
from pathlib import Path

# up to the last @ before a space or slash: a password may itself hold an @
_USER = re.compile(r"://[^\s/'\"]*@")
_QUERY = re.compile(
    r"\?[^\s'\"?=]+=[^\s'\")]*"
)  # a request's path may follow it, or no host lead it
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")
_SQLITE = "sqlite:///"


def no_folder(uri: str) -> str:
    """``uri``, if it is no folder: MLflow no longer writes to those.

    Raises:
        ValueError: if it is a path or a ``file:`` URI.
    """
    if uri.startswith("file:") or ("://" not in uri and uri not in ("databricks", "uc")):
        raise ValueError(
            f"tracking_uri={public(uri)!r} is a folder, which MLflow 3 no longer writes to; use a "
            "database such as 'sqlite:///mlflow.db', or a server such as 'http://127.0.0.1:5000'"
        )
    return uri


def absolute(uri: str) -> str:
    """``uri``, with the path of an SQLite file made absolute."""
    path, question, query = uri.removeprefix(_SQLITE).partition("?")
    if not uri.startswith(_SQLITE) or path in ("", ":memory:"):
        return uri
    return f"{_SQLITE}{Path(path).absolute()}{question}{query}"


def artifacts_beside(uri: str) -> str | None:
    """Where the files of an SQLite tracker belong; None leaves it to MLflow.

    MLflow itself would put them under the current folder, wherever the database lies.
    """
    if not uri.startswith(_SQLITE):
        return None
    return str(Path(uri.removeprefix(_SQLITE).partition("?")[0]).parent / "mlartifacts")


def public(uri: str) -> str:
    """``uri`` without user, password and query.

    >>> public("postgresql://ann:s3/cr@t@db:5432/mlflow?sslmode=require")
    'postgresql://db:5432/mlflow'
    >>> public("sqlite:////data/m@runs/mlflow.db")
    'sqlite:////data/m@runs/mlflow.db'
    """
    scheme, divider, rest = uri.partition("://")
    if not divider or scheme.startswith("sqlite"):
        return uri
    return f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}"


def without_credentials(text: str, uri: str = "") -> str:
    """``text`` less the secrets of ``uri``, of any other URI in it, and of the environment.

    >>> without_credentials("GET https://ann:s3cret@host/api?token=42 failed")
    'GET https://host/api failed'
    """
    if uri:
        text = text.replace(uri, public(uri))
    for secret in (os.environ.get(name) for name in _SECRETS):
        if secret:
            text = text.replace(secret, "***")
    return _QUERY.sub("", _USER.sub("://", text))
