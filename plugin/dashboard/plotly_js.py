"""The library that draws charts, out of the package plotly: no page asks another host for it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path


def plotly_js() -> bytes:
    """plotly.js, minified.

    Raises:
        FileNotFoundError: the package plotly is not installed, or not whole.
    """
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package plotly is not installed: pip install plotly")
    path = Path(found.origin).parent / "package_data" / "plotly.min.js"
    if not path.is_file():
        raise FileNotFoundError(
            f"plotly {importlib.metadata.version('plotly')} has no plotly.min.js: "
            "pip install --force-reinstall plotly"
        )
    return path.read_bytes()
