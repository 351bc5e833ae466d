"""Whom the pictures show: as the folders say, or as the faces do."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .cluster import same_people
from .examine import Dropped, Seen, from_bytes
from .sources import Unit
from .store import Store

logger = logging.getLogger("DynamicID")


@dataclass(frozen=True)
class Person:
    """A name, and the pictures that may be used."""

    name: str
    seen: list[Seen]


class People:
    """The people of the units whose pictures were examined; what was seen is read from disk when it is asked for.

    Args:
        names: of the units' outcomes in `store`, in the same order.
        apart: None where each unit is a person, else the cosine distance between two people.

    Attributes:
        dropped: (person, picture), the person "" where unknown: what is left out before people are settled.
    """

    def __init__(self, units: Sequence[Unit], store: Store, names: Sequence[str], apart: float | None):
        self._units, self._store, self._names = units, store, names
        self.dropped: list[tuple[str, Dropped]] = []
        embeddings, places, silent = [], [], 0
        for i, unit in enumerate(units):
            seen, dropped = self._read(i)
            self.dropped += [("" if apart is not None else unit.name, picture) for picture in dropped]
            silent += sum(picture.expression_from == "nothing" for picture in seen)
            if apart is not None:
                embeddings += [np.array(picture.embedding, np.float32) for picture in seen]
                places += [(i, place) for place in range(len(seen))]
        if silent:
            logger.warning(
                "DynamicID: nothing says which expression %d pictures show; they count as neutral. Give "
                "--expression-model, sidecars (NAME.txt) or --expression-from name.", silent,
            )  # fmt: skip
        self._groups: list[list[tuple[int, int]]] | None = None
        if apart is not None:
            groups = same_people(np.array(embeddings, np.float32), apart)
            self._groups = [[places[face] for face in person] for person in groups]

    def __len__(self) -> int:
        return len(self._units if self._groups is None else self._groups)

    def __iter__(self) -> Iterator[Person]:
        if self._groups is None:
            for i, unit in enumerate(self._units):
                yield Person(unit.name, self._read(i)[0])
            return
        seen = [self._read(i)[0] for i in range(len(self._units))]
        for number, group in enumerate(self._groups):
            yield Person(f"person-{number:06d}", [seen[i][place] for i, place in group])

    def _read(self, unit: int) -> tuple[list[Seen], list[Dropped]]:
        return from_bytes(self._store.get(self._names[unit]))
