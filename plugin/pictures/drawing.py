"""The thread that draws pictures and writes reports, so that the training never waits for them."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from boxscore.keys import picture_name
from boxscore.warn import Warnings

from .draw import draw
from .samples import Samples

_QUALITY = 85  # of WebP, of 100
_PATIENCE = 30.0  # seconds that `close` waits

Work = Callable[[Path], None]


class DrawingThread:
    """Does one work after the other. While one is done the next waits; a later takes its place.

    Args:
        warnings: where errors are counted.
    """

    def __init__(self, warnings: Warnings) -> None:
        self._warnings = warnings
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._next: Work | None = None
        self._is_working = False
        self._folder: Path | None = None

    def submit(self, work: Work, step: int) -> None:
        """Do ``work``, in its own time.

        Args:
            work: takes a folder for files, which are removed when the next work begins.
            step: that the work is of.
        """
        with self._lock:
            is_late, self._next = self._next is not None, work
            if not self._is_working:
                self._is_working = True
                self._thread = threading.Thread(
                    target=self._run, name="boxscore-pictures", daemon=True
                )
                self._thread.start()
        if is_late:
            text = f"those of an evaluation before step {step} are left out: drawing takes longer"
            self._warnings.count_error("pictures", text)

    def wait(self) -> None:
        """Wait for the works in progress."""
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def close(self) -> None:
        """Wait for the works in progress, and remove their files from this machine's disk."""
        self.wait()
        self._thread = None
        self._remove()

    def _run(self) -> None:
        while True:
            with self._lock:
                work, self._next = self._next, None
                self._is_working = work is not None
            if work is None:
                return
            try:
                self._remove()
                self._folder = Path(tempfile.mkdtemp(prefix="boxscore-pictures-"))
                work(self._folder)
            except Exception as error:
                self._warnings.count_error("pictures", error)

    def _remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def drawn(
    samples: Samples, scope: str, names: Mapping[int, str], confidence: float, folder: Path
) -> list[tuple[str, Path]]:
    """Draw ``samples`` into ``folder``; returns the names by which trackers keep them, and files.

    Args:
        samples: of one evaluation.
        scope: of the evaluated set (`keys.pictures_scope`).
        names: of the classes by label.
        confidence: below which detections are not drawn.
        folder: exists.
    """
    fixed, worst = samples.chosen()
    named = [(picture_name(scope, one.image_id), one) for one in fixed]
    named += [(picture_name(scope, f"worst {n}"), one) for n, one in enumerate(worst, 1)]
    files = []
    for place, (name, sample) in enumerate(named):
        path = folder / f"{place}.webp"
        draw(sample, names, confidence).save(path, "WEBP", quality=_QUALITY)
        files.append((name, path))
    return files
