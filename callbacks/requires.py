"""What to install, where a framework is not installed."""

from __future__ import annotations

import importlib.util


def require(module: str, package: str) -> None:
    """Raise `ImportError` that says what to install where ``module`` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'this callback needs {module}: pip install "{package}"')
