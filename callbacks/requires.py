"""One line where a framework is not installed: what to install."""

import importlib.util


def require(module: str, package: str) -> None:
    """Raise `ImportError` that says what to install where ``module`` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'this callback needs {module}: pip install "{package}"')
