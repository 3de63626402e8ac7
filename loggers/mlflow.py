"""Items to an MLflow run: one request for up to 1000 points, and never a second run or point.

Only `MlflowClient` with an explicit run is used: the user's active run, tracking URI and
environment stay as they are. Values: NaN is kept; an infinite value is kept as the largest double
of its sign, as MLflow's SQL stores do, and so can be told from NaN.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from time import time as now
from typing import Any, TypeVar

from boxscore.logger import Refused, Status
from boxscore.records import File, Item, Point, RunStart, Tag

from .mlflow_requests import requesting
from .tracking_uri import absolute, artifacts_beside, no_folder, public

BATCH = 1000
"""Metrics in one request: MLflow's limit."""

FINGERPRINT = "boxscore.fingerprint."
"""A tag of this name and a split is an evaluated set: MLflow hears of it as a dataset input too."""

_T = TypeVar("_T", Point, Tag)
_Refusals = list[tuple[Item, str]]


class MLflowLogger:
    """One MLflow run, found again by its tag ``boxscore.run``.

    Args:
        tracking_uri: None is what MLflow itself would use where and when the run is opened.
        experiment: by default the start's.
        run: ``"active"`` or an id joins an MLflow run that somebody else started; it gets the
            points and tags, and is never ended here.

    Raises:
        ValueError: if ``tracking_uri`` is a folder or a ``file:`` store.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        experiment: str | None = None,
        run: str | None = None,
    ) -> None:
        self._given = None if tracking_uri is None else no_folder(str(tracking_uri))
        self._experiment, self._join = experiment, run
        self._uri = self._run = ""
        self._client: Any = None
        self._dataset = "dataset"
        self._refused: _Refusals = []

    def __reduce__(self) -> tuple[Callable[[], MLflowLogger], tuple[()]]:
        """A copy in another process is unopened."""
        settings = {"experiment": self._experiment, "run": self._join}
        return functools.partial(MLflowLogger, self._given, **settings), ()

    def place(self) -> dict[str, str | None]:
        """Where this logger writes, without credentials: `at` goes on from it in any process.

        What "MLflow's default" and "the active run" mean is settled here, in the thread and the
        folder of the training. MLflow is imported here too, and not by whoever delivers: a
        process that is forked while another thread imports could never import the same modules.

        Raises:
            ValueError: if MLflow's default is a folder, or no run is active.
        """
        import mlflow

        if not self._uri:
            self._uri = absolute(no_folder(self._given or mlflow.get_tracking_uri()))
        if self._join == "active":
            active = mlflow.active_run()
            if active is None:
                raise ValueError(
                    "run='active', but no MLflow run is active in this thread: call "
                    "mlflow.start_run() first, or pass the run's id"
                )
            self._join = str(active.info.run_id)
        return {
            "tracking_uri": public(self._uri),
            "credentials": "withheld" if self._uri != public(self._uri) else None,
            "experiment": self._experiment,
            "run": self._join,
        }

    @classmethod
    def at(cls, place: Mapping[str, str | None], tracking_uri: str | None = None) -> MLflowLogger:
        """The logger of a `place`; credentials come from ``tracking_uri`` or the environment.

        Raises:
            ValueError: if the place was reached with credentials and none are given.
        """
        import mlflow

        known, around = str(place["tracking_uri"]), mlflow.get_tracking_uri()
        uri = tracking_uri or (around if public(around) == known else known)
        if place.get("credentials") and uri == known:
            raise ValueError(
                f"credentials are missing for {known}, as they are never written to a spool: give "
                "the whole URI with --tracking-uri or in MLFLOW_TRACKING_URI"
            )
        return cls(uri, experiment=place.get("experiment"), run=place.get("run"))

    def open(self, start: RunStart) -> None:
        """Find or create the run of ``start.id``, set it to RUNNING, write its tags and params.

        Tags and params that MLflow will not take are named by the next `log`, which raises
        `Refused` for them too: they do not keep the run from being opened.

        Raises:
            ConnectionError: if MLflow cannot be reached.
            ValueError: if there is no such run to join, or the experiment was deleted.
        """
        self.place()
        from mlflow import MlflowClient

        try:
            with requesting(self._uri):
                self._client = MlflowClient(self._uri)
                self._run = self._joined_run() if self._join else self._own_run(start)
        except Refused as refusal:
            raise ValueError(f"MLflow does not open the run: {refusal.reason}") from None
        self._dataset = start.tags.get("boxscore.dataset", self._dataset)
        tags = {"boxscore.run": start.id, **start.tags}
        params = [Tag(*param) for param in start.params.items()]
        self._refused = self._written([Tag(*tag) for tag in tags.items()], self._set_tags)
        self._refused += self._written(params, self._set_params)

    def log(self, items: Sequence[Item]) -> None:
        """Write ``items``; what MLflow has already, it does not keep twice.

        Raises:
            Refused: naming what MLflow will never take; all else was written.
            ConnectionError: if MLflow cannot be reached; the same call is worth repeating.
        """
        if not self._run:
            raise RuntimeError("MLflowLogger: open() comes before log()")
        points = [item for item in items if isinstance(item, Point)]
        tags = [item for item in items if isinstance(item, Tag)]
        refused, self._refused = self._refused, []
        for start in range(0, len(points), BATCH):
            refused += self._written(points[start : start + BATCH], self._log_points)
        refused += self._written(tags, self._set_tags)
        for file in (item for item in items if isinstance(item, File)):
            refused += self._stored(file)
        if refused:
            reasons = dict.fromkeys(reason for _, reason in refused)
            raise Refused([item for item, _ in refused], "; ".join(reasons))

    def recorded(self) -> dict[str, int]:
        """The last step of each series that the server holds, in one request.

        Raises:
            ConnectionError: if MLflow cannot be reached.
        """
        if not self._run:
            return {}
        with requesting(self._uri):
            latest = self._client.get_run(self._run).data.to_proto().metrics
        # MLflow's latest metric of a key is that of the largest step
        return {metric.key: int(metric.step) for metric in latest}

    def close(self, status: Status = "FINISHED", *, time: float | None = None) -> None:
        """End the run, if it is ours, at ``time`` (seconds since the epoch, by default now)."""
        if self._run and not self._join:
            from mlflow.entities import RunStatus

            ended = int((time or now()) * 1000)
            with requesting(self._uri):
                # not set_terminated(), which prints the tracking URI, credentials and all
                self._client._tracking_client.store.update_run_info(
                    self._run, RunStatus.from_string(status), ended, None
                )
        self._run, self._client = "", None

    def _joined_run(self) -> str:
        return str(self._client.get_run(self._join).info.run_id)

    def _own_run(self, start: RunStart) -> str:
        """The id of the one run that bears ``start.id``."""
        client = self._client
        shelf = _shelf(client, self._experiment or start.experiment, artifacts_beside(self._uri))
        search = functools.partial(
            client.search_runs, [shelf], f"tags.`boxscore.run` = '{start.id}'"
        )
        found = search()
        if not found:
            began, tags = int(start.time * 1000), {"boxscore.run": start.id}
            client.create_run(shelf, start_time=began, tags=tags, run_name=start.name)
            found = search()
        # a server that answers too late may have made the run twice: the empty one goes
        run, *twins = sorted(found, key=lambda run: (not run.data.metrics, run.info.run_id))
        for twin in twins:
            if not twin.data.metrics:
                client.delete_run(twin.info.run_id)
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)

    def _written(self, things: Sequence[_T], write: Callable[[Sequence[_T]], None]) -> _Refusals:
        """Write all; where one name spoils the request, halve it until that name is found."""
        if not things:
            return []
        try:
            with requesting(self._uri):
                write(things)
            return []
        except Refused as refusal:
            names = sorted({_name(thing) for thing in things})
            gone = self._gone()
            if gone or len(names) == 1:
                return [(thing, gone or refusal.reason) for thing in things]
            half = set(names[: len(names) // 2])
        first = [thing for thing in things if _name(thing) in half]
        second = [thing for thing in things if _name(thing) not in half]
        return self._written(first, write) + self._written(second, write)

    def _gone(self) -> str:
        """Why the run takes nothing any more; ``""`` while it is there."""
        try:
            with requesting(self._uri):
                run = self._client.get_run(self._run)
        except Refused as refusal:
            return refusal.reason
        return "" if run.info.lifecycle_stage == "active" else "the MLflow run was deleted"

    def _log_points(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(p.key, float(p.value), int(p.time * 1000), p.step) for p in points]
        self._client.log_batch(self._run, metrics=metrics)

    def _set_params(self, params: Sequence[Tag]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(self._run, params=[Param(p.name, p.value) for p in params])

    def _set_tags(self, tags: Sequence[Tag]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, RunTag

        self._client.log_batch(self._run, tags=[RunTag(tag.name, tag.value) for tag in tags])
        for tag in (tag for tag in tags if tag.name.startswith(FINGERPRINT)):
            split = tag.name.removeprefix(FINGERPRINT)
            name = f"{self._dataset}-{split}"
            dataset = Dataset(name, digest=tag.value, source_type="boxscore", source=name)
            context = InputTag("mlflow.data.context", split)
            self._client.log_inputs(self._run, datasets=[DatasetInput(dataset, [context])])

    def _stored(self, file: File) -> _Refusals:
        """Store ``file``. Trouble that is the file's own or the artifact store's is a refusal.

        Often the tracking server is well and its artifact store is not: that must not hold up
        every point that comes after.
        """
        name = PurePosixPath(file.name)
        if name.is_absolute() or ".." in name.parts or not name.name:
            return [(file, "its name leaves the run's folder")]
        folder = str(name.parent) if name.parent.parts else None
        try:
            with requesting(self._uri), _bearing(name.name, Path(file.path)) as path:
                self._client.log_artifact(self._run, str(path), folder)
            return []
        except Refused as refusal:
            return [(file, self._gone() or refusal.reason)]
        except ConnectionError as trouble:
            return [(file, self._gone() or str(trouble))]


@contextmanager
def _bearing(name: str, path: Path) -> Iterator[Path]:
    """A file of ``path``'s content called ``name``: MLflow stores files under their own names."""
    if path.name == name:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copy(path, Path(folder) / name))


def _shelf(client: Any, name: str, artifacts: str | None) -> str:
    """The id of the experiment called ``name``."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # another process was faster, or it is a real error
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise ValueError(f"the experiment {name!r} was deleted; restore it or name another")
    return str(found.experiment_id)


def _name(thing: Point | Tag) -> str:
    return thing.key if isinstance(thing, Point) else thing.name
