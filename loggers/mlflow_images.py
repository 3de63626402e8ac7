"""How MLflow stores pictures, so that its image grid shows them with a slider over steps."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

from boxscore.records import File

LOGGED_IMAGES = "mlflow.loggedImages"
"""The tag of runs whose pictures the chart page shows."""

_SHOWN = (".webp", ".png")
_ILLEGAL = re.compile(r"[^\w\-. ]", re.ASCII)


def image_key(name: str) -> str:
    """The key of a picture on the chart page: its name without an ending, in ASCII."""
    scope, _, image = str(PurePosixPath(name).with_suffix("")).rpartition("/")
    parts = [_ILLEGAL.sub("_", part) for part in (scope, image)]
    if parts != [scope, image]:
        parts[1] += f" {hashlib.sha256(name.encode()).hexdigest()[:4]}"
    return "/".join(parts)


def image_paths(file: File) -> list[PurePosixPath]:
    """Where MLflow's page looks for a picture, in full and as a thumbnail; none for other files.

    The names are those of `MlflowClient.log_image`, and the same when a picture is sent again.
    """
    name = PurePosixPath(file.name)
    if name.suffix.lower() not in _SHOWN or not str(name).startswith("pictures "):
        return []
    key = image_key(file.name).replace("/", "~")
    mark = hashlib.sha256(f"{file.name} {file.step} {file.time}".encode()).hexdigest()[:32]
    stem = f"{key}+step+{file.step}+timestamp+{int(file.time * 1000)}+{mark}"
    return [PurePosixPath("images", f"{stem}{end}{name.suffix}") for end in ("", "+compressed")]
