"""Image files and label maps: found by the names in a list, read in their annotations' frame."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps

LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
"""Pillow's modes of one channel of whole numbers; a palette image (P) stores indices."""


class ImageFolder:
    """The image files below a folder, found by name.

    A name may hold folders, a drive, backslashes and any case, and lack the extension. A file is
    found where its path below the folder ends the name, or the name ends its path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: defaultdict[str, list[PurePosixPath]] = defaultdict(list)
        extensions = Image.registered_extensions()
        for parent, _, names in os.walk(folder, followlinks=True):
            for name in sorted(names):
                path = PurePosixPath(Path(parent, name).relative_to(folder).as_posix())
                if path.suffix.lower() in extensions and not name.startswith("."):
                    for key in {_folded(name), _folded(path.stem)}:
                        self._files[key].append(path)

    def find(self, name: str, split: str) -> Path:
        """The file of that name; of equal ones that in a sub-folder ``split…``.

        Raises:
            ValueError: no file or several files have the name.
        """
        wanted = PurePosixPath(name.replace("\\", "/"))
        ranks: defaultdict[tuple[Any, ...], list[PurePosixPath]] = defaultdict(list)
        for path in self._files[_folded(wanted.name)]:
            common = min(len(path.parts), len(wanted.parts))
            ends = ([_folded(part) for part in p.parts[-common:-1]] for p in (path, wanted))
            if next(ends) == next(ends):
                is_whole = len(path.parts) == len(wanted.parts)
                is_exact = wanted.name in (path.name, path.stem)
                is_of_split = any(part.startswith(split) for part in path.parts[:-1])
                ranks[is_whole, common, is_exact, is_of_split].append(path)
        found = ranks[max(ranks)] if ranks else []
        if len(found) == 1:
            return self.folder / found[0]
        held = f"several: {', '.join(map(str, found[:3]))}" if found else "no such image"
        raise ValueError(f"{name!r}: {self.folder} holds {held}")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def read_image(file: Path, size: tuple[int, ...] | None) -> Image.Image:
    """The image in RGB, 8 bits a channel.

    Args:
        file: of any mode: grey, palette, CMYK, alpha (dropped), 16-bit grey (the high byte).
        size: (height, width) that the annotations state. An image with an EXIF orientation is
            turned, as viewers show it, unless only the stored frame has this size.

    Raises:
        ValueError: the sizes differ, or the file is no readable image.
    """
    with _opened(file) as image:
        swaps = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        turned = image.size[::-1] if swaps else image.size
        stated = turned if size is None else (size[1], size[0])
        if stated not in (turned, image.size):
            raise ValueError(
                "{} is {}x{} pixels (width x height), its annotations are for {}x{}; use the "
                "images that were annotated".format(file, *turned, *stated)
            )
        shown: Image.Image = ImageOps.exif_transpose(image) if stated == turned else image
        if shown.mode.startswith("I"):  # convert() would clip at 255
            values = np.asarray(shown)
            if values.min() < 0 or values.max() > 0xFFFF:
                raise ValueError(f"{file}: grey values beyond 16 bits; store 8 or 16 bits")
            shown = Image.fromarray((values >> 8).astype(np.uint8))
        elif shown.mode == "F":
            raise ValueError(f"{file}: floating-point pixels of unknown range; store 8 or 16 bits")
        return shown.convert("RGB")


def read_label_map(file: Path) -> np.ndarray[Any, Any]:
    """The label of each pixel (H, W), as stored.

    Raises:
        ValueError: the file is no readable image, has colours for labels, or lossy compression.
    """
    with _opened(file) as image:
        if image.mode not in LABEL_MODES or image.format in ("JPEG", "WEBP"):
            raise ValueError(
                f"{file}: {image.format} with {image.mode} pixels is not a label map; store a grey "
                "or palette PNG, whose one channel holds each pixel's label"
            )
        return np.array(image)


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    # a library that replaces Image.open may look for a plug-in of its own
    except (OSError, SyntaxError, EOFError, ImportError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: cannot be read as an image: {error}") from None
