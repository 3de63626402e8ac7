"""Chooses the images of an evaluation that are drawn, and hands them to the thread that draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from boxscore import Run, distributed
from boxscore.evaluation import Evaluation, Results
from boxscore.fingerprint import identifier
from boxscore.keys import pictures_scope
from boxscore.pictures import DrawingThread, Samples, counts_of

from .reading.batches import BatchReader, ids_of


class Pictures:
    """The pictures of a run's evaluations. An error of theirs costs pictures only.

    Args:
        run: logs them.
        reader: gives an image of a batch.
        pictures: as the option of this name.
    """

    def __init__(
        self, run: Run, reader: BatchReader, pictures: bool | int | tuple[int, int] = False
    ) -> None:
        self._run, self._reader = run, reader
        self._counts = counts_of(pictures)
        self._thread = DrawingThread(run.log, run.warnings)

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
        with self._run.warnings.catch("pictures"):
            names = self._names(batch, targets, samples.images)
            samples.images += len(names)
            errors, make = self._measured(evaluation, predictions, targets)
            for place in samples.wanted(names, errors):
                image, frame = self._reader.image(batch, place)
                samples.add(make(place, names[place], errors[place], image, frame))

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

    def _measured(
        self, evaluation: Evaluation, predictions: Any, targets: Any
    ) -> tuple[Sequence[float], Callable[..., Any]]:
        """The error of each image, and what makes a sample of one."""
        from boxscore.pictures import capture

        if self._run.task == "semantic-segmentation":
            index = evaluation.ignore_index
            errors = capture.map_errors(predictions, targets, index)
            return errors, lambda n, name, error, image, frame: capture.sample_of_maps(  # noqa: ARG005
                name, error, image, target=targets[n], logits=predictions[n], ignore_index=index
            )
        metric = evaluation.share.task_metric
        errors = metric.image_errors() if hasattr(metric, "image_errors") else [0.0] * len(targets)
        return errors, lambda n, name, error, image, frame: capture.sample_of_objects(
            name, error, image, frame=frame, target=targets[n], detection=predictions[n]
        )

    def finish(self, results: Results, evaluation: Evaluation) -> None:
        """Draw what was chosen of ``evaluation``, which was recorded."""
        samples, split = evaluation.share.samples, evaluation.split
        fingerprint = self._run.tagged(f"fingerprint.{split}")
        if samples is None or not fingerprint or distributed.rank() or not results.metrics:
            return
        best = results.best_f1.get("")
        self._thread.submit(
            samples,
            pictures_scope(self._run.dataset, split, fingerprint),
            self._run.names,
            confidence=0.5 if best is None else best["confidence"],
            step=evaluation.step,
            split=split,
        )

    def close(self) -> None:
        """Wait for the pictures in progress."""
        self._thread.close()
