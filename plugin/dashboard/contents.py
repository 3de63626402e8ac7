"""Runs, groups and evaluated sets of a log folder, as TensorBoard's data provider has them."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tensorboard.data.provider import DataProvider, RunTagFilter

from boxscore import keys
from boxscore.catalogue import CATALOGUE
from boxscore.keys import Key

ALL_POINTS = 1_000_000_000
"""More than any curve has: a provider that is asked for fewer draws them at random."""

_FACT = "tags/"  # TensorBoardLogger's prefix of tags and params
_BY_NAME = {name: index for index, name in enumerate(CATALOGUE)}


@dataclass(frozen=True)
class Source:
    """A log folder behind TensorBoard's data provider, for one request.

    Attributes:
        provider: TensorBoard's.
        context: of the request.
        experiment: TensorBoard's id of the log folder, mostly ``""``.
    """

    provider: DataProvider
    context: Any
    experiment: str

    def runs(self) -> list[Any]:
        """TensorBoard's runs: a folder of event files each, of one split of a training."""
        return list(self.provider.list_runs(self.context, experiment_id=self.experiment))

    def list_scalars(self) -> Mapping[str, Mapping[str, Any]]:
        """Last steps and times by run and tag."""
        return self._ask(self.provider.list_scalars, "scalars")

    def read_scalars(
        self, tags: Iterable[str], runs: Iterable[str] | None = None
    ) -> Mapping[str, Mapping[str, Any]]:
        """Every point by run and tag."""
        which = RunTagFilter(runs=runs, tags=tags)
        return self._ask(
            self.provider.read_scalars, "scalars", downsample=ALL_POINTS, run_tag_filter=which
        )

    def list_pictures(self) -> Mapping[str, Mapping[str, Any]]:
        """Last steps and times by run and tag; no picture is read."""
        return self._ask(self.provider.list_blob_sequences, "images")

    def read_pictures(
        self, tags: Iterable[str], runs: Iterable[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Steps, and what `read_blob` takes, by run and tag; no picture is read."""
        which = RunTagFilter(runs=runs, tags=tags)
        question = self.provider.read_blob_sequences
        return self._ask(question, "images", downsample=ALL_POINTS, run_tag_filter=which)

    def read_blob(self, reference: Any) -> bytes:
        """The content that a reference stands for."""
        content: bytes = self.provider.read_blob(self.context, blob_key=reference.blob_key)
        return content

    def list_tables(self) -> Mapping[str, Mapping[str, Any]]:
        """Last steps and times of tables of curves by run and tag."""
        return self._ask(self.provider.list_tensors, "boxscore")

    def read_tables(
        self, tags: Iterable[str], runs: Iterable[str]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Tables of curves by run and tag."""
        which = RunTagFilter(runs=runs, tags=tags)
        question = self.provider.read_tensors
        return self._ask(question, "boxscore", downsample=ALL_POINTS, run_tag_filter=which)

    def facts(self) -> dict[str, dict[str, str]]:
        """Tags and params by folder of a training that boxscore watched."""
        listed = self._ask(self.provider.list_tensors, "text")
        tags = {tag for of_run in listed.values() for tag in of_run if tag.startswith(_FACT)}
        if not tags:
            return {}
        which = RunTagFilter(tags=tags)
        read = self._ask(
            self.provider.read_tensors, "text", downsample=ALL_POINTS, run_tag_filter=which
        )
        found: dict[str, dict[str, str]] = {}
        for name, of_run in read.items():
            facts = found.setdefault(split_of(name)[0], {})
            for tag, data in of_run.items():
                if data:
                    facts[tag.removeprefix(_FACT)] = _text(data[-1].numpy)
        return {
            folder: facts
            for folder, facts in found.items()
            if any(name.startswith(keys.FACT) for name in facts)
        }

    def _ask(self, question: Any, plugin: str, **more: Any) -> Mapping[str, Mapping[str, Any]]:
        answer: Mapping[str, Mapping[str, Any]] = question(
            self.context, experiment_id=self.experiment, plugin_name=plugin, **more
        )
        return answer


def split_of(name: str) -> tuple[str, str]:
    """Folder of a training and split of TensorBoard's run ``name``.

    >>> split_of("bccd/FCOS/128x128/ResNet-18-b242c927/test")
    ('bccd/FCOS/128x128/ResNet-18-b242c927', 'test')
    """
    folder, _, split = name.replace("\\", "/").rpartition("/")
    return folder or ".", split


def run_id(folder: str) -> str:
    """A short name of a training for links: eight hex digits."""
    return hashlib.sha256(folder.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _text(array: Any) -> str:
    value = array.item() if array.size == 1 else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: a tag in the folder of one split of a training.

    Attributes:
        folder: of the training.
        name: TensorBoard's, of the split's folder.
        tag: TensorBoard's.
        key: what the tag says.
        last: last step and last time.
    """

    folder: str
    name: str
    tag: str
    key: Key
    last: tuple[int, float]


@dataclass
class Contents:
    """What a log folder holds.

    Attributes:
        series: every curve that boxscore named.
        evaluations: every image of an evaluated set, and its curves, over the steps.
        facts: tags and params by folder of a training.
        started: seconds since the epoch by folder of a training.
        foreign: TensorBoard's run and tag of the curves that boxscore did not name.
    """

    series: list[Series] = field(default_factory=list)
    evaluations: list[Series] = field(default_factory=list)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    foreign: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source) -> Contents:
        """Read what ``source`` lists; no curve and no picture is read."""
        found = cls(facts=source.facts(), evaluations=series_by_step(source))
        for name, of_run in source.list_scalars().items():
            folder, split = split_of(name)
            for tag, listed in of_run.items():
                try:
                    key = keys.parse(keys.key_of_tag(tag, split))
                except ValueError:
                    found.foreign.append((name, tag))
                    continue
                last = (listed.max_step or 0, listed.max_wall_time or 0.0)
                found.series.append(Series(folder, name, tag, key, last))
        ours = {series.folder for series in found.series} | set(found.facts)
        for run in source.runs():
            folder, _ = split_of(run.run_name)
            if folder in ours and run.start_time is not None:
                started = found.started.get(folder, run.start_time)
                found.started[folder] = min(started, run.start_time)
        return found

    def of_set(self, evaluated_set: str, kind: str = "metric") -> list[Series]:
        """The curves of metrics, or with ``"per class"`` of classes, on ``evaluated_set``."""
        return [
            series
            for series in self.series
            if series.key.kind == kind and series.key.evaluated_set == evaluated_set
        ]

    def overview(self) -> dict[str, Any]:
        """What the page is laid out by, in plain JSON types."""
        folders = sorted({*self.facts, *(series.folder for series in self.series)})
        names = {series.key.measure for series in self.series}
        own: dict[str, list[Series]] = {folder: [] for folder in folders}
        for series in self.series:
            own[series.folder].append(series)
        runs = [self._run(folder, own[folder]) for folder in folders]
        return {
            "runs": sorted(runs, key=lambda run: (run["group"], run["started"] or 0)),
            "groups": list(self._groups()),
            "sets": list(self._sets()),
            "evaluations": list(self._evaluations()),
            "measures": {name: _measure(name) for name in in_order(names)},
            "originals": dict(self._originals()),
            "foreign": {"tags": len(self.foreign), "runs": len({run for run, _ in self.foreign})},
        }

    def _run(self, folder: str, own: list[Series]) -> dict[str, Any]:
        facts = self.facts.get(folder, {})
        parts = folder.split("/")
        backbone, _, short = parts[-1].rpartition("-")
        group = " ".join(parts[-3:-1])
        return {
            "id": run_id(folder),
            "folder": folder,
            "group": facts.get(f"{keys.FACT}group")
            or next((series.key.group for series in own if series.key.group), group),
            "dataset": self._dataset(folder),
            "backbone": facts.get(f"{keys.FACT}backbone") or backbone or parts[-1],
            "short": short,
            "started": self.started.get(folder),
            "status": facts.get(f"{keys.FACT}status", ""),  # of older versions not known
            "last_step": max((series.last[0] for series in own), default=None),
            "params": {
                name: value for name, value in facts.items() if not name.startswith(keys.FACT)
            },
        }

    def _dataset(self, folder: str) -> str:
        named = self.facts.get(folder, {}).get(f"{keys.FACT}dataset")
        return named or "/".join(folder.split("/")[:-3])

    def _groups(self) -> Iterator[dict[str, Any]]:
        """Losses compare within a group, and within a dataset."""
        found: dict[tuple[str, str], list[Series]] = {}
        for series in self.series:
            if series.key.group:
                place = self._dataset(series.folder), series.key.group
                found.setdefault(place, []).append(series)
        for (dataset, group), of_group in sorted(found.items()):
            yield {
                "dataset": dataset,
                "group": group,
                "losses": _tags(of_group, "loss"),
                "native": _tags(of_group, "native"),
                **_together(of_group),
            }

    def _sets(self) -> Iterator[dict[str, Any]]:
        found: dict[str, list[Series]] = {}
        for series in self.series:
            if series.key.fingerprint:
                found.setdefault(series.key.evaluated_set, []).append(series)
        for evaluated_set, of_set in sorted(found.items()):
            key = of_set[0].key
            metrics = _tags(of_set, "metric")
            if not metrics:
                continue
            by_class = {series.key.measure for series in of_set if series.key.class_name}
            yield {
                "set": evaluated_set,
                "dataset": key.dataset,
                "split": key.split,
                "fingerprint": key.fingerprint,
                "metrics": metrics,
                "per_class": in_order(by_class),
                **_together(of_set),
            }

    def _evaluations(self) -> Iterator[dict[str, Any]]:
        """What is shown of the evaluations of a set, step by step."""
        found: dict[str, list[Series]] = {}
        for series in self.evaluations:
            found.setdefault(series.key.evaluated_set, []).append(series)
        for evaluated_set, of_set in sorted(found.items()):
            key = of_set[0].key
            yield {
                "set": evaluated_set,
                "dataset": key.dataset,
                "split": key.split,
                "fingerprint": key.fingerprint,
                "images": sorted(
                    {one.key.measure for one in of_set if one.key.kind == "pictures"},
                    key=_worst_last,
                ),
                "curves": any(one.key.kind == "curves" for one in of_set),
                **_together(of_set),
            }

    def _originals(self) -> Iterator[tuple[str, str]]:
        """The texts of users by their legal form."""
        prefix = f"{keys.FACT}original."
        for facts in self.facts.values():
            for name, value in facts.items():
                if name.startswith(prefix):
                    yield name.removeprefix(prefix), value


def series_by_step(source: Source) -> list[Series]:
    """The images of evaluated sets that ``source`` lists, and their curves, over the steps."""
    found = []
    for name, of_run in chain(source.list_pictures().items(), source.list_tables().items()):
        folder, split = split_of(name)
        for tag, listed in of_run.items():
            with suppress(ValueError):  # another's
                key = keys.parse(keys.key_of_tag(tag, split))
                if key.kind in ("pictures", "curves"):
                    last = (listed.max_step or 0, listed.max_wall_time or 0.0)
                    found.append(Series(folder, name, tag, key, last))
    return found


def _worst_last(image: str) -> tuple[bool, list[tuple[bool, int, str]]]:
    """The numbers in names count as such, and those of the worst images come last."""
    pieces = [piece for piece in re.split(r"(\d+)", image) if piece]
    parts = [(False, int(p), "") if p.isdecimal() else (True, 0, p) for p in pieces]
    return image.startswith("worst "), parts


def in_order(names: Iterable[str]) -> list[str]:
    """Measures in the order of the catalogue, others after them by name."""
    return sorted(names, key=lambda name: (_BY_NAME.get(name, len(_BY_NAME)), name))


def _tags(series: Iterable[Series], kind: str) -> dict[str, str]:
    tags = {one.key.measure: one.tag for one in series if one.key.kind == kind}
    return {name: tags[name] for name in in_order(tags)}


def _together(series: Iterable[Series]) -> dict[str, Any]:
    """The trainings, and a number that changes with any of the curves."""
    listed = sorted((one.name, one.tag, one.last) for one in series)
    ids = {run_id(split_of(name)[0]) for name, _, _ in listed}
    return {"runs": sorted(ids), "version": zlib.crc32(repr(listed).encode())}


def _measure(name: str) -> dict[str, Any]:
    """What the catalogue says; a metric that it lacks, such as ``box_AR300``, is better higher."""
    entry = CATALOGUE.get(name)
    return {
        "definition": entry.definition if entry else "",
        "better": entry.better if entry else "higher",
        "unit": entry.unit if entry else "",
    }
