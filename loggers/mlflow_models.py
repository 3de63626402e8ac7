"""What MLflow ranks models by: evaluated sets as datasets, the best evaluation as a model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from boxscore.catalogue import CATALOGUE
from boxscore.keys import FACT, evaluated_set, parse, summary
from boxscore.records import Point, RunStart, Tag

FINGERPRINT = f"{FACT}fingerprint."
"""Begins the tag of an evaluated set; the split follows."""

_DATASET = f"{FACT}dataset"
_LONGEST_DIGEST = 36  # characters
_MAIN = {"detection": "box_AP", "instance-segmentation": "mask_AP", "semantic-segmentation": "IoU"}
_FIGURES = {summary(name) for name, entry in CATALOGUE.items() if entry.kind == "metric"}
_ILLEGAL = re.compile(r"[/:.%\"']")  # in the name of a logged model


@dataclass(frozen=True, slots=True)
class EvaluatedSet:
    """A dataset of MLflow's.

    Attributes:
        name: ``"bccd-test"``.
        digest: the fingerprint, in at most 36 characters.
        split: ``"train"``, ``"test"`` or ``"test-<name>"``.
        in_keys: as the keys of its metrics name it, ``"bccd-test 7f3a2c"``.
    """

    name: str
    digest: str
    split: str
    in_keys: str


def dataset_of(tag: Tag, start: RunStart) -> EvaluatedSet:
    """The set whose fingerprint is in ``tag``."""
    dataset = start.tags.get(_DATASET, "dataset")
    split = tag.name.removeprefix(FINGERPRINT)
    in_keys = evaluated_set(dataset, split, tag.value)
    return EvaluatedSet(f"{dataset}-{split}", _digest(tag.value), split, in_keys)


def _digest(fingerprint: str) -> str:
    """``fingerprint`` in MLflow's 36 characters, injectively: no legal one holds a tilde.

    >>> _digest("7f3a2c000000")
    '7f3a2c000000'
    >>> len(_digest("traffic-validation-set-north-version-2024-11-05-final"))
    36
    """
    if len(fingerprint) <= _LONGEST_DIGEST:
        return fingerprint
    return f"{fingerprint[:23]}~{hashlib.sha256(fingerprint.encode()).hexdigest()[:12]}"


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
        self._set = ""  # of the last metric

    def follow(self, points: Sequence[Point]) -> None:
        """Move the model to the last best evaluation among ``points``, which were logged.

        Raises `Refused` or `OSError` as the client's requests do.
        """
        best = None
        for point in points:  # the metrics of an evaluated set come before their summary
            self._set = _set_in_key(point) or self._set
            if point.key == self._best:
                best = point.step, self._set
        known = {one.in_keys: one for one in self._evaluated_sets()} if best else {}
        if best and best[1] in known:
            figures = {p.key: p for p in points if p.step == best[0] and p.key in _FIGURES}
            self._log(figures, known[best[1]])

    def _evaluated_sets(self) -> list[EvaluatedSet]:
        tags = self._client.get_run(self._run).data.tags
        prints = [Tag(*tag) for tag in tags.items() if tag[0].startswith(FINGERPRINT)]
        return [dataset_of(tag, self._start) for tag in prints]

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
