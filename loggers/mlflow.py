"""Items to an MLflow run: one request for up to 1000 points, and no second run or point.

Only `MlflowClient` with an explicit run is used: the user's active run, tracking URI and
environment stay as they are. Values: NaN is kept; an infinite value is kept as the largest double
of its sign, as MLflow's SQL stores do, and so differs from NaN.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from time import time as now
from typing import Any

from boxscore.keys import FACT
from boxscore.logger import Refused, Status
from boxscore.records import File, Item, Point, RunStart, Tag

from .mlflow_images import LOGGED_IMAGES, image_paths
from .mlflow_models import FINGERPRINT, dataset_of
from .mlflow_page import RunPage
from .mlflow_requests import Rejected, Unclear, mlflow_request
from .mlflow_system import system_monitor
from .resume import unrecorded
from .tracking_uri import absolute, artifacts_beside, no_folder, public, sqlite_file

_RUN = f"{FACT}run"
_TRIES = 3  # of a request that meets an internal error of the server

_Refusals = list[tuple[Item, Exception]]


class MLflowLogger:
    """One MLflow run, identified by its tag ``boxscore.run``.

    Args:
        tracking_uri: None is MLflow's own default where and when the run is opened.
        experiment: by default the start's.
        run: ``"active"`` or an id joins an existing MLflow run; it gets the points and tags, and
            is never ended here.

    Raises:
        ValueError: ``tracking_uri`` is a folder or a ``file:`` store.
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
        self._start: RunStart | None = None
        self._created: dict[str, str] = {}  # MLflow's run id by ours
        self._recorded: Mapping[str, int] = {}
        self._refused: _Refusals = []
        self._tries = 0
        self._monitor: Any = None
        self._is_watched = run is None  # whether this is the process of a run of boxscore's
        self._most = {self._log_points: 1000, self._set_tags: 100, self._set_params: 100}

    def __reduce__(self) -> tuple[object, ...]:
        """A copy in another process is unopened."""
        settings = {"experiment": self._experiment, "run": self._join}
        return functools.partial(MLflowLogger, self._given, **settings), ()

    def prepare(self) -> None:
        """Resolve MLflow's default and the active run, which belong to a thread and a folder.

        MLflow is imported here: a process that is forked while another thread imports it could
        never import it.

        Raises:
            ValueError: MLflow's default is a folder, or no run is active.
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

    def place(self) -> dict[str, str | None]:
        """The destination without credentials, from which `at` makes a logger in any process.

        Raises `ValueError` as `prepare`.
        """
        self.prepare()
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
            ValueError: the place needs credentials and there are none.
        """
        import mlflow

        known, default = str(place["tracking_uri"]), mlflow.get_tracking_uri()
        uri = tracking_uri or (default if public(default) == known else known)
        if place.get("credentials") and uri == known:
            raise ValueError(
                f"credentials are missing for {known}, as they are never written to a spool: give "
                "the whole URI with --tracking-uri or in MLFLOW_TRACKING_URI"
            )
        logger = cls(uri, experiment=place.get("experiment"), run=place.get("run"))
        logger._is_watched = False
        return logger

    def open(self, start: RunStart) -> None:
        """Find or create the run of ``start.id``, set it to RUNNING, write its tags and params.

        Tags and params that MLflow rejects are named by the next `log`, which raises `Refused` for
        them too: they do not keep the run from being opened.

        Raises:
            ConnectionError: MLflow cannot be reached.
            PermissionError: MLflow does not accept the credentials.
            ValueError: there is no such run to join, or the experiment was deleted.
        """
        self.prepare()
        from mlflow import MlflowClient

        self._start = start
        try:
            with mlflow_request(self._uri):
                _create_database(self._uri)
                self._client = MlflowClient(self._uri)
                run = self._client.get_run(self._join) if self._join else self._own_run(start)
                self._run = str(run.info.run_id)
                self._recorded = self._last_steps() if start.resumed else {}
        except Refused as refusal:
            raise ValueError(f"MLflow does not open the run: {refusal.reason}") from None
        tags = {_RUN: start.id, **start.tags}
        self._refused = self._written([Tag(*tag) for tag in tags.items()], self._set_tags)
        params = [Tag(*param) for param in start.params.items()]
        self._refused += self._written(params, self._set_params)
        self._repeat_unclear(self._refused, len(tags) + len(params))
        self._page = RunPage(self._client, self._uri, run.info, start)
        if self._is_watched and self._monitor is None:
            self._monitor = system_monitor(self._uri, self._run, resumed=start.resumed)

    def log(self, items: Sequence[Item]) -> None:
        """Write ``items``; MLflow keeps an identical point once.

        Raises:
            Refused: names what MLflow never accepts; all else was written.
            ConnectionError: MLflow cannot be reached, or fails; the same call is worth repeating.
            PermissionError: MLflow does not accept the credentials.
        """
        if not self._run:
            raise RuntimeError("MLflowLogger: open() comes before log()")
        points = [i for i in unrecorded(items, self._recorded) if isinstance(i, Point)]
        tags = [item for item in items if isinstance(item, Tag)]
        files = [item for item in items if isinstance(item, File)]
        refused = self._written(points, self._log_points) + self._written(tags, self._set_tags)
        sets = [tag for tag in tags if tag.name.startswith(FINGERPRINT)]
        refused += self._written(sets, self._add_inputs)
        for file in files:
            refused += self._stored(file)
        self._page.follow([*points, *files])
        self._repeat_unclear(refused, len(points) + len(tags) + len(sets) + len(files))
        refused, self._refused = self._refused + refused, []
        if refused:
            reasons = dict.fromkeys(getattr(error, "reason", str(error)) for _, error in refused)
            raise Refused([item for item, _ in refused], "; ".join(reasons))

    def _repeat_unclear(self, refused: _Refusals, sent: int) -> None:
        """Raise an internal error of the server, which is repeated before it counts as a rejection.

        It never does where the server accepts none of several items.
        """
        unclear = [error for _, error in refused if isinstance(error, Unclear)]
        self._tries = self._tries + 1 if unclear else 0
        if unclear and (self._tries < _TRIES or len(refused) >= sent > 1):
            raise unclear[0]
        self._tries = 0

    def close(self, status: Status = "FINISHED", *, time: float | None = None) -> None:
        """End the run, if it is boxscore's, at ``time`` (seconds since the epoch; None: now)."""
        if self._run:
            self._page.close()
        if self._run and not self._join:
            from mlflow.entities import RunStatus

            ended = int((time or now()) * 1000)
            with mlflow_request(self._uri):
                # not set_terminated(), which prints the tracking URI with its credentials
                self._client._tracking_client.store.update_run_info(
                    self._run, RunStatus.from_string(status), ended, None
                )
        if self._monitor is not None:
            self._monitor.finish()
        self._run, self._client, self._monitor = "", None, None

    def _last_steps(self) -> dict[str, int]:
        # the latest metric of a key is that of the largest step
        metrics = self._client.get_run(self._run).data.to_proto().metrics
        return {metric.key: int(metric.step) for metric in metrics}

    def _own_run(self, start: RunStart) -> Any:
        """The one MLflow run that has ``start.id`` as its tag."""
        client = self._client
        if start.id in self._created:  # a search may lag behind
            run = client.get_run(self._created[start.id])
        else:
            artifacts = artifacts_beside(self._uri)
            experiment = _experiment_id(client, self._experiment or start.experiment, artifacts)
            found = client.search_runs([experiment], f"tags.`{_RUN}` = '{start.id}'")
            if not found:
                began, tags = int(start.time * 1000), {_RUN: start.id}
                found = [client.create_run(experiment, began, tags, run_name=start.name)]
                self._created[start.id] = found[0].info.run_id
            # where the answer to create_run was lost there may be a second run, which is empty
            run, *others = sorted(found, key=lambda run: (not run.data.metrics, run.info.run_id))
            for duplicate in others:
                if not duplicate.data.metrics:
                    client.delete_run(duplicate.info.run_id)
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        return run

    def _written(self, items: Sequence[Any], write: Callable[[Sequence[Any]], None]) -> _Refusals:
        """Write all; a request that is rejected is halved down to single items."""
        refused: _Refusals = []
        position = 0
        while part := items[position : position + self._most.get(write, 1)]:
            refused += self._part_written(part, write)
            position += len(part)
        return refused

    def _part_written(
        self, items: Sequence[Any], write: Callable[[Sequence[Any]], None]
    ) -> _Refusals:
        try:
            with mlflow_request(self._uri):
                write(items)
            return []
        except (Rejected, Unclear) as error:
            rejection: Exception = error
        if gone := self._gone():
            return [(item, gone) for item in items]
        if len(items) == 1:
            return [(items[0], rejection)]
        half = (len(items) + 1) // 2
        refused = self._written(items[:half], write) + self._written(items[half:], write)
        if not refused and isinstance(rejection, Rejected):  # it was too large
            self._most[write] = min(self._most[write], half)
        return refused

    def _gone(self) -> Exception | None:
        """Why MLflow accepts nothing for the run any more; None while it accepts a tag.

        Raises:
            ConnectionError: the server accepts nothing at present.
        """
        assert self._start is not None
        try:
            with mlflow_request(self._uri):
                self._set_tags([Tag(_RUN, self._start.id)])
        except Rejected as rejection:
            if rejection.by_mlflow:
                return rejection
            raise ConnectionError(rejection.reason) from None
        return None

    def _log_points(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(p.key, float(p.value), int(p.time * 1000), p.step) for p in points]
        self._client.log_batch(self._run, metrics=metrics)

    def _set_params(self, params: Sequence[Tag]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(self._run, params=[Param(p.name, p.value) for p in params])

    def _set_tags(self, tags: Sequence[Tag]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self._run, tags=[RunTag(tag.name, tag.value) for tag in tags])

    def _add_inputs(self, fingerprints: Sequence[Tag]) -> None:
        """Add evaluated sets as dataset inputs of the run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        assert self._start is not None
        inputs = []
        for one in (dataset_of(tag, self._start) for tag in fingerprints):
            dataset = Dataset(one.name, one.digest, source_type="boxscore", source=one.name)
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", one.split)]))
        self._client.log_inputs(self._run, datasets=inputs)

    def _stored(self, file: File) -> _Refusals:
        """Store ``file``; an error of the artifact store does not hold up later items."""
        name = PurePosixPath(file.name)
        if name.is_absolute() or ".." in name.parts or not name.name:
            return [(file, ValueError("its name leaves the run's folder"))]
        if not Path(file.path).is_file():
            return [(file, ValueError(f"there is no file {file.path}"))]
        try:
            images = image_paths(file)
            for place in images or [name]:
                folder = str(place.parent) if place.parent.parts else None
                with mlflow_request(self._uri), tempfile.TemporaryDirectory() as copies:
                    copy = shutil.copy(file.path, Path(copies) / place.name)  # its name is kept
                    self._client.log_artifact(self._run, str(copy), folder)
            return self._written([Tag(LOGGED_IMAGES, "True")] if images else [], self._set_tags)
        except Refused as refusal:
            return [(file, self._gone() or refusal)]
        except OSError as error:
            return [(file, self._gone() or Unclear(str(error)))]


def _experiment_id(client: Any, name: str, artifacts: str | None) -> str:
    """The id of the experiment called ``name``, which is created where there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # another process created it, or it is a real error
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise ValueError(f"the experiment {name!r} was deleted; restore it or name another")
    return str(found.experiment_id)


def _create_database(uri: str) -> None:
    """Create a tracker's SQLite file whole, so that a killed process leaves none that is broken.

    MLflow creates it in many transactions, and cannot open one that it did not complete.
    """
    from mlflow import MlflowClient

    path = sqlite_file(uri)
    if path is None or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        MlflowClient(f"sqlite:///{aside}").search_experiments(max_results=1)
        with suppress(FileExistsError):  # another process was faster
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
