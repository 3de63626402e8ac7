"""Requests to MLflow within our own limits of time, their errors in our own words."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from boxscore.logger import Refused

from .tracking_uri import public, without_credentials

_TIMEOUT = (5.0, 30.0)
"""Seconds to connect and to wait for an answer; MLflow's own defaults try for four minutes."""

_FINAL = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}
"""MLflow's error codes that no repetition changes."""

_TROUBLE = re.compile(
    r"\[Errno -?\d+\] [\w ]+|too many \d+ error responses|timed out|Remote end closed connection"
)
"""The part of MLflow's HTTP errors that tells what happened."""

_DOOR = "_get_http_response_with_retries"

_ours: ContextVar[bool] = ContextVar("boxscore_requesting", default=False)


@contextmanager
def requesting(uri: str) -> Iterator[None]:
    """MLflow's requests within this block are tried once and not for long.

    Raises:
        Refused: without items, where the server says that it will never take this.
        ConnectionError: for any other trouble.
    """
    _limit()
    token = _ours.set(True)
    try:
        yield
    except (Refused, ConnectionError):
        raise
    except Exception as error:
        code = getattr(error, "error_code", None)
        # what the client itself cannot encode has no code
        final = code in _FINAL or (code is None and isinstance(error, TypeError | ValueError))
        # not chained: the original's text may hold credentials
        if final:
            raise Refused((), _line(error, uri)) from None
        raise ConnectionError(_line(error, uri)) from None
    finally:
        _ours.reset(token)


def _line(error: Exception, uri: str) -> str:
    """What happened, on one line without credentials."""
    text = str(error)
    if text.startswith("API request"):  # a long chain of HTTP errors
        trouble = _TROUBLE.search(text)
        if trouble:
            return f"{public(uri)}: {trouble[0]}"
    lines = without_credentials(text, uri).splitlines() or [type(error).__name__]
    return lines[0][:300]


@functools.cache
def _limit() -> None:
    """Let MLflow's one door to HTTP heed `_ours`.

    MLflow has no way but the environment to set these limits, and that is the user's: their own
    calls, in other threads or outside our blocks, keep what they asked for. A later MLflow
    without this door keeps its own limits, and an outage only takes longer to notice.
    """
    from mlflow.utils import rest_utils

    door = getattr(rest_utils, _DOOR, None)
    if door is None:
        return

    @functools.wraps(door)
    def limited(method: str, url: str, max_retries: int, *args: Any, **kwargs: Any) -> Any:
        if _ours.get():
            max_retries, kwargs["timeout"] = 0, _TIMEOUT
        return door(method, url, max_retries, *args, **kwargs)

    setattr(rest_utils, _DOOR, limited)
