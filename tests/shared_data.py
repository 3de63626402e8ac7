"""Where the data beside the repository lies, which tests skip without."""

from pathlib import Path

SHARED = Path(__file__).parents[2] / "shared"
"""Absent in a plain clone."""
