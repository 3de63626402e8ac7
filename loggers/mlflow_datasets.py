"""Evaluated sets as MLflow's datasets: the digest of one is its fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from boxscore.keys import FACT, Key, legal, short
from boxscore.records import RunStart, Tag

FINGERPRINT = f"{FACT}fingerprint."
"""Begins the tag of an evaluated set; the split follows."""

_DATASET = f"{FACT}dataset"
_LONGEST_DIGEST = 36  # characters


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


def evaluated_set(tag: Tag, start: RunStart) -> EvaluatedSet:
    """The set whose fingerprint is in ``tag``."""
    dataset = start.tags.get(_DATASET, "dataset")
    split = tag.name.removeprefix(FINGERPRINT)
    parts = Key("metric", "", dataset=legal(dataset), split=split, fingerprint=short(tag.value))
    return EvaluatedSet(f"{dataset}-{split}", _digest(tag.value), split, parts.evaluated_set)


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
