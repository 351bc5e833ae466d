"""Face assignment: which face of an image is whose, by likeness, by place, or by an order of the faces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..box import Box
from ..image_inputs import Image
from ..saa.regions import Region, rasterize
from .analyzer import FaceAnalyzer
from .faces import Detection, in_order
from .identity import Identity

RULES = ("left to right", "largest first", "most similar")
NO_MATCH = -1.0
"""A person's similarity where no face is left for them: the least that there is."""

_GRID = 256  # cells a side, on which regions are looked up


@dataclass(frozen=True, eq=False)
class FaceAssignment:
    """People and faces of one image, assigned so that the sum of their similarities is largest.

    Attributes:
        similarity: (people, faces) cosines of ArcFace embeddings, -1..1.
        face_of: the face of each person; None where there are too few faces.
    """

    similarity: NDArray[np.float64]
    face_of: tuple[int | None, ...]

    def match(self, person: int) -> float:
        """Return a person's similarity to their face: a cosine, or NO_MATCH."""
        face = self.face_of[person]
        return NO_MATCH if face is None else float(self.similarity[person, face])

    def bleed(self, person: int) -> float | None:
        """Return the similarity of a person's face to the nearest other person; None without a face, or for one alone.

        The face of someone else's likeness tells that identities have run into one another.
        """
        face = self.face_of[person]
        others = [self.similarity[other, face] for other in range(len(self.face_of)) if other != person]
        return None if face is None or not others else float(max(others))

    @property
    def worst(self) -> float:
        """The least match of all people."""
        return min(self.match(person) for person in range(len(self.face_of)))


def assign_faces(people: Sequence[Tensor], faces: Sequence[Tensor]) -> FaceAssignment:
    """Assign faces to people by their embeddings (512,), both L2-normalized."""
    cosines = [[float(person @ face) for face in faces] for person in people]
    similarity = np.array(cosines, np.float64).reshape(len(people), len(faces))
    return FaceAssignment(similarity, tuple(best_assignment(similarity)))


def best_assignment(similarity: NDArray[np.floating]) -> list[int | None]:
    """Return each person's face such that the sum of similarities is largest; None for those left without one.

    Args:
        similarity: (people, faces).
    """
    faces = dict(zip(*linear_sum_assignment(similarity, maximize=True), strict=True))
    return [int(faces[person]) if person in faces else None for person in range(len(similarity))]


def detect_and_assign(
    people: Sequence[Identity | None], image: Image, rule: str, analyzer: FaceAnalyzer
) -> tuple[list[Detection | None], int]:
    """Return the face of an image that each person is to have, and how many faces are left over.

    Args:
        people: None is someone who was skipped. An order gives them a face all the same, so that the others keep
            theirs.
        rule: one of RULES.

    Returns:
        A face or, where there are too few, None for each person.

    Raises:
        ValueError: another rule, or someone without a known face is to be compared.
    """
    detections = analyzer.detect(image)
    size = (image.shape[0], image.shape[1])
    faces: list[Detection | None]
    if rule in ("left to right", "largest first"):
        largest = in_order(detections, "largest", size)[: len(people)]
        faces = [*(in_order(largest, "left to right", size) if rule == "left to right" else largest)]
        return faces + [None] * (len(people) - len(faces)), max(0, len(detections) - len(people))
    if rule != "most similar":
        raise ValueError(f"Faces can be given to people by {', '.join(RULES)}, got {rule!r}.")
    references = {i: reference_embedding(person, i) for i, person in enumerate(people) if person is not None}
    described = [analyzer.describe(image, detection).embedding for detection in detections]
    embeddings = [embedding for embedding in described if embedding is not None]
    face_of = dict(zip(references, assign_faces([*references.values()], embeddings).face_of, strict=True))
    faces = [None if (face := face_of.get(i)) is None else detections[face] for i in range(len(people))]
    return faces, len(detections) - sum(face is not None for face in faces)


def reference_embedding(person: Identity, index: int) -> Tensor:
    """Return the embedding (512,) of a person's reference. Raises ValueError where the identity holds none.

    Args:
        index: of the person among all, for the message.
    """
    embedding = None if person.face is None else person.face.embedding
    if embedding is None:
        raise ValueError(
            f"Person {index + 1} ({person.name or 'without a name'}) remembers no face to compare with. Encode them "
            "again from a photograph."
        )
    return embedding


def regions_of(centers: Sequence[tuple[float, float]], regions: Sequence[Region]) -> list[int | None]:
    """Return the index of the region that each face lies in, or None outside all regions.

    Args:
        centers: (x, y) of the faces, in fractions of the image.
    """
    masks = rasterize(regions, _GRID, _GRID)
    indices: list[int | None] = []
    for x, y in centers:
        covers = masks[:, min(int(y * _GRID), _GRID - 1), min(int(x * _GRID), _GRID - 1)]
        indices.append(int(covers.argmax()) if float(covers.max()) > 0 else None)
    return indices


def faces_in_regions(boxes: Sequence[Box], regions: Sequence[Box]) -> list[int | None]:
    """Return for each region the index of the largest face that stands in it; None where none does.

    A face stands in the region that holds its center; of several in the one whose own center is nearest.
    """
    faces: list[int | None] = [None] * len(regions)
    for face in sorted(range(len(boxes)), key=lambda i: -boxes[i].area):
        center = boxes[face].center
        around = [i for i, region in enumerate(regions) if region.contains(*center)]
        nearest = min(around, key=lambda i: math.dist(regions[i].center, center), default=None)
        if nearest is not None and faces[nearest] is None:
            faces[nearest] = face
    return faces


def report(names: Sequence[str], assignment: FaceAssignment, region_of: Sequence[int | None] = ()) -> str:
    """Return the comparison as text: a row for each person, a column for each face; [ ] marks whose face it is.

    Args:
        region_of: the region of each face, where that is known; the text then tells who stands in another's place.
    """
    similarity, face_of = assignment.similarity, assignment.face_of
    if not similarity.shape[1]:
        return "No face was found."
    width = max(len(name) for name in (*names, "bleed"))
    columns = [f"face {number + 1}" for number in range(similarity.shape[1])]
    lines = ["  ".join([" " * width, *(f"{column:>8}" for column in columns), f"{'bleed':>8}"])]
    for person, name in enumerate(names):
        cells = [
            f"[{value:.2f}]" if face_of[person] == face else f"{value:.2f} "
            for face, value in enumerate(similarity[person])
        ]
        bleed = assignment.bleed(person)
        cells.append("" if bleed is None else f"{bleed:.2f}")
        lines.append("  ".join([f"{name:<{width}}", *(f"{cell:>8}" for cell in cells)]).rstrip())
    missing = [name for person, name in enumerate(names) if face_of[person] is None]
    if missing:
        lines.append(f"no face is left for {', '.join(missing)}")
    for person, face in enumerate(face_of):
        region = region_of[face] if face is not None and face < len(region_of) else None
        if region is not None and region != person:
            lines.append(f"{names[person]} stands in {names[region]}'s place")
    lines.append(f"worst match {assignment.worst:.2f}")
    return "\n".join(lines)
