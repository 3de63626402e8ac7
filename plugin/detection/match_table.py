"""What an evaluated set of images leaves behind: small, exact, and mergeable image by image.

A detection leaves its score, its class and the area ranges that it is not in: six bytes. The tenth
of them that matched leaves two words more (see `matching`). Ground truth leaves its class and the
area ranges that it does not count in. Nothing else is needed for every figure and curve, so that
sets merge, images repeat or drop out, and detectors are compared, without matching again.

The rows of an image lie together, by class and then by falling score; the images lie in the order
of their ids, which decides between equal scores as it does in pycocotools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .batch import Array, ImageId
from .matching import Indices

Table = dict[str, Array]

IMAGE, DETECTION, TRUTH = "image", "detection", "truth"
"""The tables that are complete; every other table is sparse and points at detections by ``row``."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Tables of columns; the rows of one table have one length.

    Attributes:
        ids: of the images.
        tables: ``image``: how many ``detections`` and ``truths`` each has. ``detection``:
            ``score``, ``label`` (the class's place) and, for each kind of region,
            ``box_outside`` or ``mask_outside`` (area bits). ``truth``: ``label`` and likewise.
            ``box`` and ``mask``: the matches, ``row``, ``counted``, ``ignored``. ``confusion``:
            the class-agnostic matches, ``row`` and ``truth`` (the place of the object's class).
    """

    ids: list[ImageId]
    tables: Mapping[str, Table]

    @property
    def nbytes(self) -> int:
        """The size of the columns, in bytes, with eight bytes for each id."""
        return 8 * len(self.ids) + sum(
            column.nbytes for table in self.tables.values() for column in table.values()
        )

    def take(self, images: Sequence[int] | Indices) -> Tally:
        """The images at these places, in this order, each at most once."""
        places = np.asarray(images, np.int64)
        counts = self.tables[IMAGE]
        rows = {
            IMAGE: places,
            DETECTION: _rows(counts["detections"], places),
            TRUTH: _rows(counts["truths"], places),
        }
        tables: dict[str, Table] = {
            name: {column: values[rows[name]] for column, values in self.tables[name].items()}
            for name in rows
        }
        new = np.full(len(self.tables[DETECTION]["score"]), -1, np.int64)
        new[rows[DETECTION]] = np.arange(len(rows[DETECTION]))
        for name in self.tables.keys() - rows.keys():
            row = new[self.tables[name]["row"]]
            kept = {column: values[row >= 0] for column, values in self.tables[name].items()}
            tables[name] = kept | {"row": row[row >= 0].astype(np.uint32)}
        return Tally([self.ids[place] for place in places.tolist()], tables)

    def columns(self) -> dict[str, Array]:
        """The columns as ``table.column``."""
        return {
            f"{name}.{column}": values
            for name, table in self.tables.items()
            for column, values in table.items()
        }

    @classmethod
    def of(cls, ids: list[ImageId], columns: Mapping[str, Array], like: Tally) -> Tally:
        """Put together what `columns` took apart, in the shape of ``like``.

        Raises:
            KeyError: if a column is missing.
            ValueError: if types or lengths do not fit.
        """
        tables = {
            name: {column: columns[f"{name}.{column}"] for column in table}
            for name, table in like.tables.items()
        }
        rows = {
            IMAGE: len(ids),
            DETECTION: int(tables[IMAGE]["detections"].sum()),
            TRUTH: int(tables[IMAGE]["truths"].sum()),
        }
        for name, table in tables.items():
            length = rows.get(name, table["row"].size if "row" in table else 0)
            for column, values in table.items():
                kind = like.tables[name][column].dtype.kind
                if values.shape != (length,) or values.dtype.kind != kind:
                    raise ValueError(f"the column {name}.{column} does not fit")
            if "row" in table and table["row"].size and table["row"].max() >= rows[DETECTION]:
                raise ValueError(f"{name} points at detections that are not there")
        return cls(ids, tables)

    def in_order(self) -> Tally:
        """By ascending image id: numbers, then texts, then images without one as they came."""
        order = sorted(range(len(self.ids)), key=lambda place: _order(self.ids[place]))
        return self if order == list(range(len(order))) else self.take(order)


def joined(tallies: Sequence[Tally]) -> Tally:
    """The images of all of them, one after the other."""
    if len(tallies) == 1:
        return tallies[0]
    sizes = [len(tally.tables[DETECTION]["score"]) for tally in tallies]
    starts = np.cumsum([0, *sizes[:-1]], dtype=np.uint32)
    tables: dict[str, Table] = {}
    for name, table in tallies[0].tables.items():
        tables[name] = {
            column: np.concatenate([tally.tables[name][column] for tally in tallies])
            for column in table
        }
        if "row" in table:
            lengths = [len(tally.tables[name]["row"]) for tally in tallies]
            tables[name]["row"] += np.repeat(starts, lengths)
    return Tally([image_id for tally in tallies for image_id in tally.ids], tables)


def _order(image_id: ImageId) -> tuple[int, int, str]:
    match image_id:
        case int():
            return 0, image_id, ""
        case str():
            return 1, 0, image_id
    return 2, 0, ""


def _rows(counts: Array, places: Indices) -> Indices:
    """The rows of the images at ``places``, where image after image has ``counts`` rows."""
    sizes = counts.astype(np.int64)
    starts = (np.cumsum(sizes) - sizes)[places]
    wanted = sizes[places]
    shift = starts - (np.cumsum(wanted) - wanted)
    rows: Indices = np.arange(wanted.sum()) + np.repeat(shift, wanted)
    return rows
