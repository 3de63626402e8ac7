"""Tracking URIs and folders as users give them: resolved, and without credentials."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

_SCHEME = re.compile(r"[A-Za-z][\w+.-]+:/")  # a single letter is a drive
# up to the last @ before a space or slash: a password may itself hold an @
_USER = re.compile(r"://[^\s/'\"]*@")
_QUERY = re.compile(
    r"\?[^\s'\"?=]+=[^\s'\")]*"
)  # a request's path may follow it, or no host lead it
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN")
_SQLITE = "sqlite:///"


def local_folder(path: str | Path, option: str) -> Path:
    """A folder of this machine: ``~`` is expanded, a ``file:`` URI is read.

    Args:
        path: as the user gives it.
        option: its name, for the message.

    Raises:
        ValueError: it has another scheme, such as ``s3:``, or another host.

    >>> str(local_folder("file:///data/my%20runs", "log_dir"))
    '/data/my runs'
    """
    text = str(path)
    if not _SCHEME.match(text):
        return Path(os.path.expanduser(text))
    uri = urlsplit(text)
    if uri.scheme.lower() == "file" and uri.netloc in ("", "localhost") and uri.path:
        return Path(unquote(uri.path))
    raise ValueError(
        f"{option}={public(text)!r} is no folder of this machine; event files and the spool are "
        "written to a local disk: give a local path, and copy the folder to the bucket afterwards, "
        "or mount the bucket and give the mount's path"
    )


def no_folder(uri: str) -> str:
    """``uri``, if it is no folder: MLflow 3 does not write to folders.

    Raises:
        ValueError: it is a path or a ``file:`` URI.
    """
    if uri.startswith("file:") or ("://" not in uri and uri not in ("databricks", "uc")):
        raise ValueError(
            f"tracking_uri={public(uri)!r} is a folder, which MLflow 3 no longer writes to; use a "
            "database such as 'sqlite:///mlflow.db', or a server such as 'http://127.0.0.1:5000'"
        )
    return uri


def absolute(uri: str) -> str:
    """``uri``, with ``~`` expanded and the path of an SQLite file made absolute."""
    path = sqlite_file(uri)
    if path is None:
        return uri
    _, question, query = uri.partition("?")
    return f"{_SQLITE}{path.expanduser().absolute()}{question}{query}"


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite tracker; None of another one."""
    path = uri.removeprefix(_SQLITE).partition("?")[0]
    if not uri.startswith(_SQLITE) or path in ("", ":memory:") or path.startswith("file:"):
        return None
    return Path(path)


def artifacts_beside(uri: str) -> str | None:
    """The folder of an SQLite tracker's artifacts; None leaves it to MLflow.

    MLflow's own default is the current folder, wherever the database lies.
    """
    path = sqlite_file(uri)
    return None if path is None else str(path.parent / "mlartifacts")


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
