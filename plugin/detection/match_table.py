"""The state of an evaluated set: small, exact, and mergeable image by image.

A detection has a score, a class and the area ranges in which it does not lie: six bytes. If it
matched, about one in ten, it has two more words (see `matching`). An object has a class and the
area ranges in which it does not count, an image the digests of its ground truth. Every metric and
curve is computed from these, without matching again.

The rows of an image are contiguous, by class and then by falling score. Images are ordered by id,
which decides between equal scores as in pycocotools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .inputs import Array, ImageId
from .matching import Indices

Table = dict[str, Array]

IMAGE, DETECTION, TRUTH = "image", "detection", "truth"
"""The tables with all rows; every other table is sparse, its ``row`` an index of detections."""


@dataclass(frozen=True, slots=True)
class MatchTable:
    """Tables of columns; the rows of one table have one length.

    Attributes:
        ids: of the images.
        tables: ``image``: the number of ``detections`` and ``truths``, of ``ignored`` predictions,
            and what `truth_digests` gives. ``detection``: ``score``, ``label`` (the class's index)
            and, for each kind of region, ``box_outside`` or ``mask_outside`` (area bits).
            ``truth``: ``label`` and likewise. ``box`` and ``mask``: the matches, ``row``,
            ``counted``, ``ignored``. ``confusion``: the class-agnostic matches, ``row`` and
            ``truth`` (the index of the object's class).
    """

    ids: list[ImageId]
    tables: Mapping[str, Table]

    @property
    def nbytes(self) -> int:
        """The size of the columns, in bytes, with eight bytes for each id."""
        return 8 * len(self.ids) + sum(column.nbytes for column in self.columns().values())

    def take(self, images: Sequence[int] | Indices) -> MatchTable:
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
        return MatchTable([self.ids[place] for place in places.tolist()], tables)

    def columns(self) -> dict[str, Array]:
        """The columns as ``table.column``."""
        return {
            f"{name}.{column}": values
            for name, table in self.tables.items()
            for column, values in table.items()
        }

    @classmethod
    def of(cls, ids: list[ImageId], columns: Mapping[str, Array], like: MatchTable) -> MatchTable:
        """The table with these `columns`, with the tables of ``like``.

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
                raise ValueError(f"{name}.row is the index of a detection that does not exist")
        return cls(ids, tables)

    def in_order(self) -> MatchTable:
        """By ascending image id: numbers, texts, none; among equal ids as the images came.

        Texts of digits are numbers, unless all ids are texts.
        """
        are_texts = all(isinstance(one, str) for one in self.ids if one is not None)

        def key(place: int) -> tuple[int, int, str]:
            image_id = self.ids[place]
            if image_id is None:
                return 2, 0, ""
            if isinstance(image_id, int) or (not are_texts and _is_number(image_id)):
                return 0, int(image_id), ""
            return 1, 0, image_id

        order = sorted(range(len(self.ids)), key=key)
        return self if order == list(range(len(order))) else self.take(order)


def joined(tables: Sequence[MatchTable]) -> MatchTable:
    """The images of all of them, one after the other."""
    if len(tables) == 1:
        return tables[0]
    sizes = [len(one.tables[DETECTION]["score"]) for one in tables]
    starts = np.cumsum([0, *sizes[:-1]], dtype=np.uint32)
    whole: dict[str, Table] = {}
    for name, table in tables[0].tables.items():
        whole[name] = {
            column: np.concatenate([one.tables[name][column] for one in tables]) for column in table
        }
        if "row" in table:
            lengths = [len(one.tables[name]["row"]) for one in tables]
            whole[name]["row"] += np.repeat(starts, lengths)
    return MatchTable([image_id for one in tables for image_id in one.ids], whole)


def _is_number(image_id: str) -> bool:
    return len(image_id) < 19 and image_id.isdecimal() and str(int(image_id)) == image_id


def _rows(counts: Array, places: Indices) -> Indices:
    """The rows of the images at ``places``, where image after image has ``counts`` rows."""
    sizes = counts.astype(np.int64)
    starts = (np.cumsum(sizes) - sizes)[places]
    wanted = sizes[places]
    shift = starts - (np.cumsum(wanted) - wanted)
    rows: Indices = np.arange(wanted.sum()) + np.repeat(shift, wanted)
    return rows
