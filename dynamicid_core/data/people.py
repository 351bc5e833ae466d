"""Group images by person: by their folders, or by clustering their faces."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
        self._files, self._unsorted = files, merge_distance is not None
        self.rejected: list[tuple[str, Rejected]] = []
        self._people: list[tuple[str, list[tuple[int, int]]]] = []  # name; unit and place of each record
        embeddings, places, unlabeled = [], [], 0
        for i, unit in enumerate(units):
            records, rejected = self._read(i)
            self.rejected += [("" if self._unsorted else unit.name, image) for image in rejected]
            self._people.append((unit.name, [(i, k) for k in range(len(records))]))
            unlabeled += sum(record.expression_from == "nothing" for record in records)
            if self._unsorted:
                embeddings += [np.array(record.embedding, np.float32) for record in records]
                places += self._people[-1][1]
        if merge_distance is not None:
            clusters = cluster_faces(np.array(embeddings, np.float32), merge_distance)
            self._people = [(f"person-{n:06d}", [places[face] for face in faces]) for n, faces in enumerate(clusters)]
        if unlabeled:
            logger.warning(
                "DynamicID: nothing says which expression %d pictures show; they count as neutral. Give "
                "--expression-model, sidecars (NAME.txt) or --expression-from name.", unlabeled,
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self._people)

    def __iter__(self) -> Iterator[Person]:
        read = lru_cache(None if self._unsorted else 1)(self._read)
        for name, places in self._people:
            yield Person(name, [read(i)[0][k] for i, k in places])

    def _read(self, unit: int) -> tuple[list[FaceRecord], list[Rejected]]:
        return read_analysis(self._files[unit].read_bytes())
