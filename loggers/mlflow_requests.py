"""Requests to MLflow within limits of time, and what their errors mean."""

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

_FINAL = {
    *("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"),
    *("NOT_IMPLEMENTED", "ENDPOINT_NOT_FOUND", "501"),
}
"""MLflow's error codes that no repetition changes, and HTTP's; of those 4xx as well."""

_FORBIDDEN = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "401", "403", "407"}
_PASSING = {
    *("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED"),
    *("DEADLINE_EXCEEDED", "CANCELLED", "408", "425", "429", "499", "502", "503", "504"),
}
_STATUS = re.compile(r"failed with error code (\d+)|too many (\d+) error responses")
_CAUSE = re.compile(
    r"\[Errno -?\d+\] [\w ]+|too many \d+ error responses|timed out|Remote end closed connection"
)
"""The part of MLflow's HTTP errors that names the cause."""

_REQUEST = "_get_http_response_with_retries"

_limited: ContextVar[bool] = ContextVar("boxscore_limited", default=False)


class Rejected(Refused):
    """The server rejects the request for good.

    Attributes:
        by_mlflow: whether MLflow gives the reason, and no proxy, nor a server without the endpoint.
    """

    def __init__(self, reason: str, *, by_mlflow: bool) -> None:
        super().__init__((), reason)
        self.by_mlflow = by_mlflow


class Unclear(ConnectionError):
    """The server answers with an error that may be of this request, or of all."""


@contextmanager
def mlflow_request(uri: str) -> Iterator[None]:
    """Within this block MLflow's requests are tried once, for `_TIMEOUT`.

    Raises:
        Rejected: the server never accepts this.
        Unclear: an internal error of the server.
        PermissionError: the credentials are missing, wrong or expired.
        ConnectionError: the server cannot be reached.
    """
    _limit_requests()
    token = _limited.set(True)
    try:
        yield
    except (Refused, ConnectionError):
        raise
    except Exception as error:
        # not chained: the original's text may hold credentials
        raise _meaning(error, uri) from None
    finally:
        _limited.reset(token)


def _meaning(error: Exception, uri: str) -> Exception:
    """``error`` as `mlflow_request` raises it."""
    text, line = str(error), _first_line(error, uri)
    status = _STATUS.search(text)  # of an answer without MLflow's JSON
    code = status[1] or status[2] if status else getattr(error, "error_code", "")
    if code in _FORBIDDEN:
        return PermissionError(line)
    if code in _PASSING or (not status and text.startswith("API request to http")):
        return ConnectionError(line)
    # what the client itself cannot encode has no code
    invalid = not code and isinstance(error, TypeError | ValueError)
    if invalid or code in _FINAL or (status and code.startswith("4")):
        return Rejected(line, by_mlflow=not status and code != "ENDPOINT_NOT_FOUND")
    return Unclear(line) if code else ConnectionError(line)


def _first_line(error: Exception, uri: str) -> str:
    """The cause, on one line without credentials."""
    text = str(error)
    if text.startswith("API request"):  # a long chain of HTTP errors
        cause = _CAUSE.search(text)
        if cause:
            return f"{public(uri)}: {cause[0]}"
    lines = without_credentials(text, uri).splitlines() or [type(error).__name__]
    return lines[0][:300]


@functools.cache
def _limit_requests() -> None:
    """Make MLflow's function for HTTP requests observe `_limited`.

    MLflow offers these limits in the environment only, which belongs to the user: their own calls,
    in other threads or outside of the blocks, keep their limits. A later MLflow without this
    function keeps its own limits, and an outage is only noticed later.
    """
    from mlflow.utils import rest_utils

    request = getattr(rest_utils, _REQUEST, None)
    if request is None:
        return

    @functools.wraps(request)
    def limited(method: str, url: str, max_retries: int, *args: Any, **kwargs: Any) -> Any:
        if _limited.get():
            max_retries, kwargs["timeout"] = 0, _TIMEOUT
        return request(method, url, max_retries, *args, **kwargs)

    setattr(rest_utils, _REQUEST, limited)
