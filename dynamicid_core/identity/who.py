"""Who is who in a picture: references and faces compared, and each person's face found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..saa.regions import Region, rasterize

_GRID = 256  # cells a side, on which regions are looked up
NOBODY = -1.0
"""A person's match where no face is left for them: as unlike as can be."""


@dataclass(frozen=True, eq=False)
class WhoIsWho:
    """People and faces of one picture.

    Attributes:
        similarity: (people, faces) cosines of ArcFace embeddings, -1..1.
        face_of: the face of each person under the assignment that makes people and faces most alike in all; None
            where there are too few faces.
    """

    similarity: NDArray[np.float64]
    face_of: tuple[int | None, ...]

    def match(self, person: int) -> float:
        """How like the person their face is: a cosine, or NOBODY."""
        face = self.face_of[person]
        return NOBODY if face is None else float(self.similarity[person, face])

    def bleed(self, person: int) -> float | None:
        """How like the nearest other person this one's face is: a cosine; None for one alone, or without a face."""
        face = self.face_of[person]
        others = [self.similarity[other, face] for other in range(len(self.face_of)) if other != person]
        return None if face is None or not others else float(max(others))

    @property
    def worst(self) -> float:
        """The least match of all people."""
        return min(self.match(person) for person in range(len(self.face_of)))


def who_is_who(people: Sequence[Tensor], faces: Sequence[Tensor]) -> WhoIsWho:
    """Compare people's embeddings (512,) with those of the faces found; both L2-normalised."""
    table = similarities(people, faces)
    return WhoIsWho(table, tuple(best_assignment(table)))


def best_assignment(similarity: NDArray[np.floating]) -> list[int | None]:
    """Each person's face such that the sum of similarities is largest; None for those who are left without one.

    Args:
        similarity: (people, faces).
    """
    found: list[int | None] = [None] * similarity.shape[0]
    for person, face in zip(*linear_sum_assignment(similarity, maximize=True), strict=True):
        found[int(person)] = int(face)
    return found


def similarities(people: Sequence[Tensor], faces: Sequence[Tensor]) -> NDArray[np.float64]:
    """(people, faces) cosines of L2-normalised embeddings (512,), -1..1."""
    table = [[float(person @ face) for face in faces] for person in people]
    return np.array(table, np.float64).reshape(len(people), len(faces))


def places_of(faces: Sequence[tuple[float, float]], regions: Sequence[Region]) -> list[int | None]:
    """In whose region each face lies: the people's number, or None outside all regions.

    Args:
        faces: their middles, in fractions of the picture.
    """
    masks = rasterize(regions, _GRID, _GRID)
    found: list[int | None] = []
    for x, y in faces:
        here = masks[:, min(int(y * _GRID), _GRID - 1), min(int(x * _GRID), _GRID - 1)]
        found.append(int(here.argmax()) if float(here.max()) > 0 else None)
    return found


def report(names: Sequence[str], found: WhoIsWho, place_of: Sequence[int | None] = ()) -> str:
    """The comparison as text: a row for each person, a column for each face, from the left; [ ] marks whose it is.

    Args:
        place_of: in whose region each face lies, where that is known: people in others' places are told.
    """
    if not found.similarity.shape[1]:
        return "No face was found."
    width = max(len(name) for name in (*names, "bleed"))
    columns = [f"face {number + 1}" for number in range(found.similarity.shape[1])]
    lines = ["  ".join([" " * width, *(f"{column:>8}" for column in columns), f"{'bleed':>8}"])]
    for person, name in enumerate(names):
        cells = [
            f"[{value:.2f}]" if found.face_of[person] == face else f"{value:.2f} "
            for face, value in enumerate(found.similarity[person])
        ]
        bleed = found.bleed(person)
        cells.append("" if bleed is None else f"{bleed:.2f}")
        lines.append("  ".join([f"{name:<{width}}", *(f"{cell:>8}" for cell in cells)]).rstrip())
    missing = [name for person, name in enumerate(names) if found.face_of[person] is None]
    if missing:
        lines.append(f"no face is left for {', '.join(missing)}")
    for person, face in enumerate(found.face_of):
        place = place_of[face] if face is not None and face < len(place_of) else None
        if place is not None and place != person:
            lines.append(f"{names[person]} stands in {names[place]}'s place")
    lines.append(f"worst match {found.worst:.2f}")
    return "\n".join(lines)
