"""MLflow's evaluator ``boxscore``: the documented metrics through ``mlflow.models.evaluate``."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models.evaluation import EvaluationResult, ModelEvaluator

from boxscore.catalogue import TASKS, Task
from boxscore.evaluation import Evaluation, Results
from boxscore.fingerprint import identifier
from boxscore.keys import FACT, pictures_scope
from boxscore.loggers import MLflowLogger
from boxscore.metric import NO_CLASS, Measures, class_names
from boxscore.pictures import Samples, capture, counts_of, drawn
from boxscore.records import File, Item, RunStart, Tag
from boxscore.warn import Warnings

Names = Mapping[int, str]


class BoxscoreEvaluator(ModelEvaluator):
    """Measures a data frame with a row for each image, and logs to MLflow's run.

    The columns that ``targets=`` and ``predictions=`` name hold, for ``model_type="detection"`` and
    ``"instance-segmentation"``, dicts as `boxscore.detection.DetectionMetrics` takes them; for
    ``"semantic-segmentation"`` label maps (H, W) and logits (C, H, W). A column ``image_id`` names
    the images; a column ``image``, of arrays (3, H, W) or (H, W, 3), is needed for pictures.
    Instead of ``predictions=``, ``model=`` may be a function of the data frame without targets.

    ``evaluator_config`` takes ``classes`` (names by label, required), ``dataset`` (its name, by
    default MLflow's), ``ignore_index`` (255) and ``pictures`` (True, a number, or a pair as the
    option of the callbacks).

    Example:
        ``mlflow.models.evaluate(data=frame, targets="target", predictions="prediction",
        model_type="detection", evaluators="boxscore",
        evaluator_config={"classes": {1: "cat"}, "dataset": "pets"})``
    """

    @classmethod
    def can_evaluate(cls, *, model_type: str, evaluator_config: Any, **_: Any) -> bool:  # noqa: ARG003
        """Whether the task is one of boxscore's."""
        return model_type in TASKS

    def evaluate(
        self,
        *,
        model_type: Task,
        dataset: Any,
        run_id: str,
        evaluator_config: Mapping[str, Any],
        model: Any = None,
        predictions: Any = None,
        **_: Any,
    ) -> EvaluationResult:
        """Measure ``dataset``, and log metrics, the classes' table, curves and pictures.

        Raises:
            ValueError: classes, targets or predictions are missing or not of the form above.
        """
        config = dict(evaluator_config or {})
        if not config.get("classes"):
            raise ValueError(
                "evaluator_config has no classes: pass evaluator_config={'classes': {1: 'cat'}}"
            )
        frame, targets = dataset.features_data, list(dataset.labels_data)
        if predictions is None:
            predictions = dataset.predictions_data if model is None else model.predict(frame)
        if predictions is None:
            raise ValueError("there are no predictions: pass predictions= or model=")
        name = str(config.get("dataset") or dataset.name)
        names = class_names(
            config["classes"], without=() if model_type.startswith("semantic") else NO_CLASS
        )
        index = config.get("ignore_index", 255)
        evaluation = Measures(model_type, names, index, Warnings()).evaluation("test", 0)
        samples = Samples(*counts_of(config.get("pictures", True)))
        _measure(evaluation, samples, frame, targets, list(predictions))
        results = evaluation.finish()
        assert results is not None
        facts = {FACT + "task": model_type, FACT + "dataset": name}
        start = RunStart(uuid.uuid4().hex, name, name, name, facts)
        self._log(run_id, results, samples, start, names)
        return EvaluationResult(results.metrics, {}, run_id)  # type: ignore[no-untyped-call]

    @staticmethod
    def _log(
        run_id: str, results: Results, samples: Samples, start: RunStart, names: Names
    ) -> None:
        name, fingerprint = start.name, results.fingerprint
        items: list[Item] = [
            Tag(f"{FACT}fingerprint.test", fingerprint),
            *results.points(name, "test", fingerprint, 0, per_class=20),
        ]
        logger = MLflowLogger(run=run_id)
        logger.open(start)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder), name, "test", fingerprint, 0
            items += results.write_tables(*place, per_class=20)
            best = results.best_f1.get("", {}).get("confidence", 0.5)
            scope = pictures_scope(name, "test", fingerprint)
            pictures = drawn(samples, scope, names, best, Path(folder))
            items += [File(picture, str(path), 0, "test") for picture, path in pictures]
            logger.log(items)
        logger.close()


def _measure(
    evaluation: Evaluation,
    samples: Samples,
    frame: Any,
    targets: Sequence[Any],
    predictions: Sequence[Any],
) -> None:
    """Update ``evaluation`` image by image, and choose pictures where there are images."""
    columns = getattr(frame, "columns", ())
    ids = list(frame["image_id"]) if "image_id" in columns else [None] * len(targets)
    images = list(frame["image"]) if "image" in columns else []
    for place, (target, prediction) in enumerate(zip(targets, predictions, strict=True)):
        image_id = ids[place]
        if image_id is None and isinstance(target, Mapping):
            image_id = target.get("image_id")
        found: Any = [prediction]
        truth: Any = [target]
        if not isinstance(target, Mapping):
            found, truth = (torch.as_tensor(np.stack(maps)) for maps in (found, truth))
        evaluation.update(found, truth, image_ids=None if image_id is None else [image_id])
        if images:
            name = f"image {place}" if image_id is None else identifier(image_id)
            metric, image = evaluation.share.task_metric, _channels_first(images[place])
            errors, make = capture.of_batch(metric, found, truth, evaluation.ignore_index)
            if samples.wanted([name], errors):
                samples.add(make(0, name, image, image.shape[-2:]))


def _channels_first(image: Any) -> Any:
    pixels = np.asarray(image)
    return pixels.transpose(2, 0, 1) if pixels.shape[-1] in (1, 3, 4) else pixels
