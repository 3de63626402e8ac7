"""What travels from a run to its loggers: points, tags and files, and the start that precedes them.

All of them are plain values that survive JSON, so that a spool can keep them and any process can
deliver them later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import keys


@dataclass(frozen=True, slots=True)
class Point:
    """One observed value.

    Attributes:
        name: the measure (``"classification"``, ``"box_AP"``); without a scope the whole key
            (``"progress/epoch"``, ``"summary/box_AP"``).
        value: any float; NaN is news and is kept.
        step: optimizer steps so far.
        split: ``"train"``, ``"test"`` or ``"test-<name>"``; ``""`` where no split applies.
        time: seconds since the epoch.
        scope: with whom it may be compared: ``"loss RetinaNet 640x640"``,
            ``"metric bccd-test 7f3a2c"``, ``"per class bccd-test 7f3a2c"``.
    """

    name: str
    value: float
    step: int
    split: str = "train"
    time: float = field(default_factory=time.time)
    scope: str = ""

    @property
    def tag(self) -> str:
        """The name inside one split's folder, as TensorBoard wants it.

        >>> Point("classification", 0.7, 50, "test", scope="loss RetinaNet 640x640").tag
        'loss RetinaNet 640x640/classification'
        """
        return keys.tag(self.scope, self.name)

    @property
    def key(self) -> str:
        """The name that is unique within a run, as MLflow wants it.

        >>> Point("classification", 0.7, 50, "test", scope="loss RetinaNet 640x640").key
        'loss RetinaNet 640x640/classification.test'
        >>> Point("box_AP", 0.3, 50, "test", scope="metric bccd-test 7f3a2c").key
        'metric bccd-test 7f3a2c/box_AP'
        """
        return keys.key(self.scope, self.name, self.split)


@dataclass(frozen=True, slots=True)
class Tag:
    """A fact about the run that is known late, or changes: the fingerprint, a NaN's first step."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class File:
    """A file to keep with the run: a picture, a report, an evaluation's state.

    Attributes:
        name: its path among the run's artifacts, with forward slashes and no ``..``.
        path: where it lies now; the logger reads it when it delivers.
        step: optimizer steps so far.
        split: as in `Point`.
        time: seconds since the epoch.
    """

    name: str
    path: str
    step: int = 0
    split: str = ""
    time: float = field(default_factory=time.time)


Item = Point | Tag | File


@dataclass(frozen=True, slots=True)
class RunStart:
    """What every logger is told first. RunStart twice with one ``id`` continues the same run.

    Attributes:
        id: 32 hex digits, drawn when the training first started; resuming keeps it.
        name: ``"RetinaNet 640x640 ResNet-50"``.
        experiment: the shelf on which comparable runs meet, by default the dataset's name.
        folder: ``"<dataset>/<algorithm>/<HxW>/<backbone>-<short id>"``, each part legal in a path.
        tags: ``boxscore.*`` facts.
        params: the facts that can never change, by MLflow's rule that params are immutable.
        time: seconds since the epoch.
        resumed: whether this continues a run from a checkpoint, so that steps may be repeated.
    """

    id: str
    name: str
    experiment: str
    folder: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    time: float = field(default_factory=time.time)
    resumed: bool = False
