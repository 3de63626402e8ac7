"""How fast a training is, evaluations left out."""

from __future__ import annotations

import time


class Speed:
    """Images per second between two points."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, images: int) -> None:
        """Begin with ``images`` that an earlier process trained on."""
        self._last = time.perf_counter(), images

    def pause(self, seconds: float) -> None:
        """Leave out ``seconds`` of an evaluation."""
        self._last = self._last[0] + seconds, self._last[1]

    def values(self, images: int) -> dict[str, float]:
        """``images_seen`` and ``images_per_second``, of ``images`` so far."""
        before, seen = self._last
        self.restart(images)
        rate = (images - seen) / max(self._last[0] - before, 1e-9)
        return {"images_seen": float(images), "images_per_second": rate}
