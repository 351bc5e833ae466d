"""Whom the images show: as the folders say, or as the faces do."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .analysis import FaceRecord, Rejected, read_analysis
from .clustering import cluster_faces
from .sources import Unit

logger = logging.getLogger("DynamicID")


@dataclass(frozen=True)
class Person:
    """A name, and the images that may be used."""

    name: str
    records: list[FaceRecord]


class People:
    """The people of units whose images were analyzed; analyses are read from disk when they are needed.

    Args:
        files: of the units' analyses, in the same order.
        merge_distance: None where each unit is a person, else the cosine distance between two people.

    Attributes:
        rejected: (person, image), the person "" where unknown: what the analysis left out.
    """

    def __init__(self, units: Sequence[Unit], files: Sequence[Path], merge_distance: float | None):
        self._units, self._files = units, files
        self.rejected: list[tuple[str, Rejected]] = []
        embeddings, places, unlabeled = [], [], 0
        for i, unit in enumerate(units):
            records, rejected = self._read(i)
            self.rejected += [("" if merge_distance is not None else unit.name, image) for image in rejected]
            unlabeled += sum(record.expression_from == "nothing" for record in records)
            if merge_distance is not None:
                embeddings += [np.array(record.embedding, np.float32) for record in records]
                places += [(i, k) for k in range(len(records))]
        if unlabeled:
            logger.warning(
                "DynamicID: nothing says which expression %d pictures show; they count as neutral. Give "
                "--expression-model, sidecars (NAME.txt) or --expression-from name.", unlabeled,
            )  # fmt: skip
        self._groups: list[list[tuple[int, int]]] | None = None
        if merge_distance is not None:
            clusters = cluster_faces(np.array(embeddings, np.float32), merge_distance)
            self._groups = [[places[face] for face in faces] for faces in clusters]

    def __len__(self) -> int:
        return len(self._units if self._groups is None else self._groups)

    def __iter__(self) -> Iterator[Person]:
        if self._groups is None:
            for i, unit in enumerate(self._units):
                yield Person(unit.name, self._read(i)[0])
            return
        records = [self._read(i)[0] for i in range(len(self._units))]
        for number, group in enumerate(self._groups):
            yield Person(f"person-{number:06d}", [records[i][k] for i, k in group])

    def _read(self, unit: int) -> tuple[list[FaceRecord], list[Rejected]]:
        return read_analysis(self._files[unit].read_bytes())
