"""A run's best evaluation in MLflow's models tab, so that MLflow ranks models on one test set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from boxscore.catalogue import CATALOGUE
from boxscore.keys import FACT, parse, summary
from boxscore.records import Point, RunStart, Tag

from .mlflow_datasets import FINGERPRINT, EvaluatedSet, evaluated_set

_MAIN = {"detection": "box_AP", "instance-segmentation": "mask_AP", "semantic-segmentation": "IoU"}
_FIGURES = {summary(name): name for name, entry in CATALOGUE.items() if entry.kind == "metric"}
_ILLEGAL = re.compile(r"[/:.%\"']")  # in the name of a logged model


class BestModel:
    """One logged model of a run, without weights, whose metrics are those of the best evaluation.

    An evaluation is the best by ``box_AP``, ``mask_AP`` or ``IoU`` of the main test set. The
    metrics are called ``summary/box_AP`` and so on; their dataset is called ``bccd-test 7f3a2c``,
    and its digest is the fingerprint.

    Args:
        client: an `MlflowClient`.
        info: MLflow's, of the run.
        start: the run's.
    """

    def __init__(self, client: Any, info: Any, start: RunStart) -> None:
        self._client, self._start = client, start
        self._run, self._experiment = info.run_id, info.experiment_id
        self._task = start.tags.get(f"{FACT}task", "")
        self._best = summary(f"best_{_MAIN.get(self._task, '')}")

    def follow(self, points: Sequence[Point]) -> None:
        """Move the model to the last best evaluation among ``points``, which were logged.

        Raises `Refused` or `OSError` as the client's requests do.
        """
        best = [place for place, point in enumerate(points) if point.key == self._best]
        if not best:
            return
        # the metrics of an evaluated set come before their summary
        named = next(filter(None, map(_set_in_key, points[best[-1] :: -1])), "")
        known = {one.in_keys: one for one in self._evaluated_sets()}
        if named in known:
            step = points[best[-1]].step
            figures = {p.key: p for p in points if p.step == step and p.key in _FIGURES}
            self._log(figures, known[named])

    def _evaluated_sets(self) -> list[EvaluatedSet]:
        tags = self._client.get_run(self._run).data.tags
        prints = [Tag(*tag) for tag in tags.items() if tag[0].startswith(FINGERPRINT)]
        return [evaluated_set(tag, self._start) for tag in prints]

    def _log(self, figures: Mapping[str, Point], on: EvaluatedSet) -> None:
        """Replace the model: of several values of a metric, MLflow's page shows the first."""
        from mlflow.entities import LoggedModelStatus, Metric

        client, tag = self._client, f"{FACT}run"
        ours = f"source_run_id = '{self._run}' AND tags.`{tag}` = '{self._start.id}'"
        before = client.search_logged_models([self._experiment], ours)
        model = client.create_logged_model(
            self._experiment,
            name=_ILLEGAL.sub("_", self._start.name),
            source_run_id=self._run,
            tags={tag: self._start.id},
            params=dict(self._start.params),
            model_type=self._task,
        ).model_id
        # the page tells sets apart by their names alone
        dataset = {"dataset_name": on.in_keys, "dataset_digest": on.digest}
        metrics = [  # the run has them already
            Metric(
                key, float(p.value), int(p.time * 1000), p.step, model, run_id=self._run, **dataset
            )
            for key, p in figures.items()
        ]
        client.log_batch(self._run, metrics=metrics)
        client.finalize_logged_model(model, LoggedModelStatus.READY)
        for one in before:
            client.delete_logged_model(one.model_id)


def _set_in_key(point: Point) -> str:
    """The evaluated set of a metric; ``""`` of other points."""
    with suppress(ValueError):
        parts = parse(point.key)
        return parts.evaluated_set if parts.kind == "metric" else ""
    return ""
