"""What a training gave since its last point: losses, images, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from boxscore import distributed
from boxscore.schedule import Every
from boxscore.warn import Warnings

from .window import WeightedSums, Window


class TrainWindow:
    """The steps since the last train point.

    Args:
        log_every: when a point is due.
        warnings: of the run.
    """

    def __init__(self, log_every: Every, warnings: Warnings) -> None:
        self._log_every, self._warnings = log_every, warnings
        self._losses = Window()
        self._step = 0  # of the last row
        self._images = 0  # that this process trained on
        self._last = time.perf_counter(), 0  # time and images of the last point

    def due(self, step: int) -> bool:
        """Whether a point is due after ``step``."""
        return self._log_every.due(step, since=self._step)

    def add(self, values: Mapping[str, Any], step: int, images: int | None) -> bool:
        """Take the losses of ``step``; whether a point is due then."""
        due = self._log_every.due(step, since=self._step)
        self._step = max(self._step, step)
        self._images = images or self._images
        self._losses.add(values, step)
        return due

    def take(
        self, step: int, batch: Callable[[], Mapping[str, Any]] | None
    ) -> tuple[WeightedSums, dict[str, float]]:
        """The sums of all processes since the last point, and how many images they have seen.

        Args:
            step: of the point.
            batch: gives losses that are measured on the last batch alone.
        """
        sums = WeightedSums()  # the other processes wait for it, also after an error
        try:
            if batch is not None:
                self._losses.add(batch(), step)
        except Exception as error:
            self._warnings.handle("measuring the losses of a batch", error)
        try:
            sums = self._losses.take()
        except Exception as error:
            self._warnings.handle("summing the losses of a window", error)
        shares = distributed.gather_at("train", (sums, self._images), step)
        images = sum(count for _, count in shares)
        return WeightedSums.of([share for share, _ in shares]), self._speed(images)

    def _speed(self, images: int) -> dict[str, float]:
        before, seen = self._last
        self._last = time.perf_counter(), images
        rate = (images - seen) / max(self._last[0] - before, 1e-9)
        return {"images_seen": float(images), "images_per_second": rate} if images else {}

    def pause(self, seconds: float) -> None:
        """Leave ``seconds`` of an evaluation out of the images per second."""
        self._last = self._last[0] + seconds, self._last[1]

    def start_at(self, step: int) -> None:
        """Begin at ``step``."""
        self._step = step

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in plain JSON types."""
        images = self._images * distributed.size()
        return {"trained": self._step, "images": images, "window": asdict(self._losses.sums())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, whose losses are those of the first process."""
        self._step = state["trained"]
        self._last = time.perf_counter(), state["images"]
        if distributed.rank() == 0:
            self._losses.restore(WeightedSums(**state["window"]))
