"""The thread that draws pictures, so that the training never waits for them."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from PIL.Image import Image

from boxscore.keys import picture_name
from boxscore.records import File
from boxscore.warn import Warnings

from .draw import draw
from .samples import Sample, Samples

_QUALITY = 85  # of WebP, of 100
_PATIENCE = 30.0  # seconds that `close` waits


class DrawingThread:
    """Draws the samples of evaluations and logs the pictures, one evaluation at a time.

    While one is drawn the next one waits; a later one takes its place, with a warning.

    Args:
        log: takes the files of an evaluation.
        warnings: where errors are counted.
    """

    def __init__(self, log: Callable[[list[File]], None], warnings: Warnings) -> None:
        self._log, self._warnings = log, warnings
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._next: Callable[[], None] | None = None
        self._is_drawing = False
        self._folder: Path | None = None

    def submit(
        self,
        samples: Samples,
        scope: str,
        names: Mapping[int, str],
        *,
        confidence: float,
        step: int,
        split: str,
    ) -> None:
        """Draw ``samples``, in their own time.

        Args:
            samples: of one evaluation.
            scope: of the evaluated set (`keys.pictures_scope`).
            names: of the classes by label.
            confidence: below which detections are not drawn.
            step: optimizer steps so far.
            split: ``"test"`` or ``"test-<name>"``.
        """
        make = partial(draw, names=dict(names), confidence=confidence)
        work = partial(self._draw, samples, scope, make, step=step, split=split)
        with self._lock:
            is_late, self._next = self._next is not None, work
            if not self._is_drawing:
                self._is_drawing = True
                self._thread = threading.Thread(
                    target=self._run, name="boxscore-pictures", daemon=True
                )
                self._thread.start()
        if is_late:
            text = f"those of an evaluation before step {step} are left out: drawing takes longer"
            self._warnings.count_error("pictures", text)

    def close(self) -> None:
        """Wait for the pictures in progress, and remove them from this machine's disk."""
        if self._thread is not None:
            self._thread.join(_PATIENCE)
            self._thread = None
        self._remove()

    def _remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _run(self) -> None:
        while True:
            with self._lock:
                work, self._next = self._next, None
                self._is_drawing = work is not None
            if work is None:
                return
            work()

    def _draw(
        self,
        samples: Samples,
        scope: str,
        make: Callable[[Sample], Image],
        *,
        step: int,
        split: str,
    ) -> None:
        try:
            self._remove()  # the last evaluation's, which were read
            self._folder = Path(tempfile.mkdtemp(prefix="boxscore-pictures-"))
            fixed, worst = samples.chosen()
            named = [(picture_name(scope, one.image_id), one) for one in fixed]
            named += [(picture_name(scope, f"worst {n}"), one) for n, one in enumerate(worst, 1)]
            files = []
            for place, (name, sample) in enumerate(named):
                path = self._folder / f"{step}-{split}-{place}.webp"
                make(sample).save(path, "WEBP", quality=_QUALITY)
                files.append(File(name, str(path), step, split))
            self._log(files)
        except Exception as error:
            self._warnings.count_error("pictures", error)
