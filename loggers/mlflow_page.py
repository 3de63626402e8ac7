"""What MLflow's pages show beside a run's curves: a view of the experiment, description, model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from boxscore.logger import Refused
from boxscore.records import File, Point, RunStart

from .mlflow_description import NOTE, Description, is_ours
from .mlflow_images import image_key, image_paths
from .mlflow_models import BestModel
from .mlflow_requests import mlflow_request
from .mlflow_view import first_keys, renew_view, view_fragment
from .tracking_uri import public


class RunPage:
    """Keeps them up to date, and prints the link of the view; no error of it reaches the run.

    Args:
        client: an `MlflowClient`.
        uri: of the server or database.
        info: MLflow's, of the run.
        start: the run's.
    """

    def __init__(self, client: Any, uri: str, info: Any, start: RunStart) -> None:
        self._client, self._uri = client, uri
        self._run, self._experiment = info.run_id, info.experiment_id
        self._keys = set(first_keys(start.tags))
        self._pictures_at = 0
        self._description = Description(start)
        self._model = BestModel(client, info, start)
        self._renew_view()
        if start.resumed:
            return
        self._describe()
        if uri.startswith("http"):
            link = f"{public(uri).rstrip('/')}/{view_fragment(self._experiment)}"
            print(f"boxscore: compare this run with others at {link}", file=sys.stderr)

    def follow(self, items: Sequence[Point | File]) -> None:
        """Show points and pictures that were logged."""
        points = [item for item in items if isinstance(item, Point)]
        pictures = [item for item in items if isinstance(item, File) and image_paths(item)]
        self._pictures_at = max([self._pictures_at, *(picture.step for picture in pictures)])
        keys = {point.key for point in points} | {image_key(one.name) for one in pictures}
        if new := keys - self._keys:
            self._keys |= new
            self._renew_view()
        if self._description.follow(points):
            self._describe()
        with suppress(Refused, OSError), mlflow_request(self._uri):
            self._model.follow(points)

    def close(self) -> None:
        """Renew the view once more: another run may have written it at the same moment."""
        self._renew_view(self._pictures_at or None)

    def _renew_view(self, pictures_at: int | None = None) -> None:
        with suppress(Refused, OSError), mlflow_request(self._uri):
            renew_view(self._client, self._experiment, self._keys, pictures_at)

    def _describe(self) -> None:
        with suppress(Refused, OSError), mlflow_request(self._uri):
            tags = self._client.get_run(self._run).data.tags
            if is_ours(tags.get(NOTE, "")):
                self._client.set_tag(self._run, NOTE, self._description.markdown())
