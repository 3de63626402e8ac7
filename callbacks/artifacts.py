"""The pictures of an evaluation, and the report of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxscore import Run, distributed
from boxscore.evaluation import Evaluation, Results
from boxscore.fingerprint import identifier
from boxscore.keys import pictures_scope
from boxscore.logger import Logger, Status
from boxscore.pictures import DrawingThread, Samples, counts_of, drawn
from boxscore.records import File

from .reading.batches import BatchReader, ids_of

if TYPE_CHECKING:
    from boxscore.dashboard.history import History
    from boxscore.pictures.drawing import Work


REPORT, REPORT_EVERY = "report.html", 300.0
"""The report's name among the run's artifacts, and the seconds after which it is renewed."""


def history_of(loggers: Sequence[Logger]) -> History | None:
    """What keeps a run's points for its report; None where all ``loggers`` are in memory."""
    if all(getattr(logger, "in_memory", False) for logger in loggers):
        return None
    from boxscore.dashboard.history import History

    return History()


class Artifacts:
    """Chooses images, and has them drawn and the report written on a thread of their own.

    An error costs pictures or the report only.

    Args:
        run: logs them.
        reader: gives an image of a batch.
        pictures: as the option of this name.
        history: is logged to by the run; None for no report.
    """

    def __init__(
        self,
        run: Run,
        reader: BatchReader,
        pictures: bool | int | tuple[int, int],
        history: History | None,
    ) -> None:
        self._run, self._reader, self._history = run, reader, history
        self._counts = counts_of(pictures)
        self._thread = DrawingThread(run.warnings)
        self._reported = -math.inf

    def begin(self, evaluation: Evaluation) -> None:
        """Choose images of ``evaluation``, unless it is of the train split."""
        if any(self._counts) and evaluation.split != "train":
            evaluation.share.samples = Samples(*self._counts)

    def take(self, evaluation: Evaluation, batch: Any, predictions: Any, targets: Any) -> None:
        """Keep the images of a measured batch that belong to the chosen ones.

        Args:
            evaluation: has measured the batch.
            batch: as the framework gives it.
            predictions: as they were measured.
            targets: likewise.
        """
        if (samples := evaluation.share.samples) is None:
            return
        from boxscore.pictures.capture import of_batch

        with self._run.warnings.catch("pictures"):
            names = self._names(batch, targets, samples.images)
            samples.images += len(names)
            metric, ignored = evaluation.share.task_metric, evaluation.ignore_index
            errors, make = of_batch(metric, predictions, targets, ignored)
            for place in samples.wanted(names, errors):
                samples.add(make(place, names[place], *self._reader.image(batch, place)))

    def _names(self, batch: Any, targets: Any, before: int) -> list[str]:
        """The ids of a batch's images; numbers, as they come, of those without."""
        given = [] if hasattr(targets, "shape") else ids_of(targets)
        given = given if any(one is not None for one in given) else self._reader.ids(batch)
        ids = [*given, *[None] * len(targets)][: len(targets)]
        rank = f"{distributed.rank()}." if distributed.size() > 1 else ""
        return [
            f"image {rank}{before + place}" if one is None else identifier(one)
            for place, one in enumerate(ids)
        ]

    def finish(self, results: Results, evaluation: Evaluation) -> None:
        """Draw what was chosen of ``evaluation``, which was recorded, and renew the report."""
        if distributed.rank() or evaluation.split == "train":
            return
        work = self._pictures(results, evaluation)
        if self._history is not None and time.monotonic() - self._reported > REPORT_EVERY:
            self._reported = time.monotonic()
            work.append(partial(self._report, evaluation.step))
        if work:
            self._thread.submit(partial(_in_turn, work), evaluation.step)

    def _pictures(self, results: Results, evaluation: Evaluation) -> list[Work]:
        samples, split, step = evaluation.share.samples, evaluation.split, evaluation.step
        fingerprint = self._run.tagged(f"fingerprint.{split}")
        if samples is None or not fingerprint or not results.metrics:
            return []
        best = results.best_f1.get("")
        confidence = 0.5 if best is None else best["confidence"]
        scope = pictures_scope(self._run.dataset, split, fingerprint)

        def work(folder: Path) -> None:
            files = drawn(samples, scope, self._run.names, confidence, folder)
            self._run.log([File(name, str(path), step, split) for name, path in files])

        return [work]

    def _report(self, step: int, folder: Path) -> None:
        from boxscore.dashboard.report import report

        assert self._history is not None
        path = folder / REPORT
        path.write_text(report(self._history, self._run.warnings.texts), encoding="utf-8")
        self._run.log([File(REPORT, str(path), step)])

    def close(self, status: Status | None) -> None:
        """Write the last report, of a run that ends with ``status``, and wait for the thread."""
        if self._history is not None and self._history.series and not distributed.rank():
            self._thread.wait()  # for the last pictures, whose place the report would take
            self._history.status = status or "FINISHED"
            step = self._run.step
            self._thread.submit(partial(self._report, step), step)
        self._thread.close()


def _in_turn(works: Sequence[Work], folder: Path) -> None:
    for work in works:
        work(folder)
