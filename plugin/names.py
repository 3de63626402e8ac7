"""What comes from users is made legal in both trackers, here and nowhere else.

MLflow allows word characters, space and ``/ - . :`` in a key of up to 250 characters; a slash
divides sections in both trackers, so that a user's text may not hold one. Two texts do not meet in
one name: where something was lost, four hex digits of a digest of the original are appended.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .identity import Identity

LONGEST = 70
"""Characters; three of them and the fixed words stay under MLflow's 250."""

_ILLEGAL = re.compile(r"[^\w\- .]")
_MARKED = re.compile(r" [0-9a-f]{4}$")


def legal(text: str) -> str:
    """``text`` as a piece of a name that MLflow, TensorBoard and a folder accept.

    >>> legal("red blood cell")
    'red blood cell'
    >>> legal("a/b") != legal("a b") != legal("a|b")
    True
    """
    clean = " ".join(_ILLEGAL.sub(" ", text).split()).strip(". ")
    clean = re.sub(r"\.{2,}", ".", clean)
    # a text that looks as if it had been marked is marked too, or it could meet another's mark
    if clean == text and len(text) <= LONGEST and clean and not _MARKED.search(text):
        return clean
    mark = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:4]
    return f"{clean[: LONGEST - 5].rstrip('. ')} {mark}".strip()


def originals(texts: Iterable[str]) -> dict[str, str]:
    """Tags that keep the ``texts`` that could not stay as they are."""
    return {f"boxscore.original.{legal(text)}": text for text in texts if legal(text) != text}


def folder(dataset: str, identity: Identity, run_id: str) -> str:
    """Where TensorBoard's files of a run lie: ``<dataset>/<algorithm>/<HxW>/<backbone>-<id>``."""
    algorithm, backbone = legal(identity.algorithm), legal(identity.backbone or "model")
    return f"{legal(dataset)}/{algorithm}/{identity.input_size}/{backbone}-{run_id[:8]}"
