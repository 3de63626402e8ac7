"""Writing to the end of a file, whole or not at all."""

from __future__ import annotations

import os


def append(descriptor: int, data: bytes, size: int) -> int:
    """Write ``data`` at the end of a file of ``size`` bytes; return its size afterwards.

    Raises:
        OSError: if the disk does not take all of it; then the file is as it was.
    """
    written = os.write(descriptor, data)
    if written < len(data):
        os.ftruncate(descriptor, size)
        raise OSError(f"the disk took {written} of {len(data)} bytes")
    return size + written
