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
from ..saa.regions import Region
from .analyzer import FaceAnalyzer
from .encoding import Encoding
from .faces import Detection, in_order
from .identity import Identity

MOST_SIMILAR = "most similar"
RULES = ("left to right", "largest first", MOST_SIMILAR)
NO_MATCH = -1.0
"""A person's similarity where no face is left for them: the least that there is."""
MIN_SIMILARITY = 0.25
"""Of two faces' embeddings, below which they are two people's."""


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
    if rule != MOST_SIMILAR:
        raise ValueError(f"Faces can be given to people by {', '.join(RULES)}, got {rule!r}.")
    references = {i: reference_embedding(person, i) for i, person in enumerate(people) if person is not None}
    embeddings = [analyzer.embed(image, detection) for detection in detections]
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


def embedded_otherwise(people: Sequence[Identity | None], encoding: Encoding) -> str:
    """Return a word about people whose faces were embedded in another channel order; "" for nobody.

    Args:
        encoding: what the faces that they are compared with are embedded for.
    """
    others = [person for person in people if person is not None and person.encoding.channels != encoding.channels]
    if not others:
        return ""
    names = ", ".join(person.name or "somebody without a name" for person in others)
    theirs = others[0].encoding
    return (
        f"{names}: encoded for {theirs.kind} ({theirs.channels}), compared as for {encoding.kind} "
        f"({encoding.channels}), which reads less alike. Encode them again with these weights."
    )


def region_at(x: float, y: float, regions: Sequence[Region]) -> int | None:
    """Return the index of the region that a point (in fractions of the image) stands in, or None outside all regions.

    It is the one that covers the point most; of several the one whose own center is nearest.
    """
    covers = [region.covers(x, y) for region in regions]
    most = max(covers, default=0.0)
    around = [i for i, part in enumerate(covers) if part == most > 0]
    return min(around, key=lambda i: math.dist(regions[i].center, (x, y)), default=None)


def faces_in_regions(boxes: Sequence[Box], regions: Sequence[Region]) -> list[int | None]:
    """Return for each region the index of the largest face whose center stands in it; None where none does.

    Args:
        boxes: the faces', in fractions of the image.
    """
    faces: list[int | None] = [None] * len(regions)
    for face in sorted(range(len(boxes)), key=lambda i: -boxes[i].area):
        region = region_at(*boxes[face].center, regions)
        if region is not None and faces[region] is None:
            faces[region] = face
    return faces


def assign_people(
    regions: Sequence[Region | None], similarity: NDArray[np.floating], boxes: Sequence[Box]
) -> list[int | None]:
    """Return each person's face: by region, else by likeness, else by order; None for those left without one.

    Who has a region gets the largest face that stands in it, and no other. Of the others, whoever is like a face that
    is left, by MIN_SIMILARITY or more, gets it, such that the sum of these similarities is largest. The rest get the
    largest faces that are left, in their order from left to right.

    Args:
        regions: each person's; None, or the whole image, where they have no place of their own.
        similarity: (people, faces); a row of NaN for somebody who can't be compared.
        boxes: (faces) in fractions of the image.
    """
    face_of: list[int | None] = [None] * len(regions)
    placed = {i: region for i, region in enumerate(regions) if region is not None and not region.is_whole}
    for person, face in zip(placed, faces_in_regions(boxes, [*placed.values()]), strict=True):
        face_of[person] = face
    people = [i for i in range(len(regions)) if i not in placed]
    faces = [face for face in range(len(boxes)) if face not in face_of]
    alike = similarity[np.ix_(people, faces)]
    alike = np.where(alike >= MIN_SIMILARITY, alike, 0.0)  # NaN too is no likeness
    for person, column in zip(people, best_assignment(alike), strict=True):
        if column is not None and alike[people.index(person), column] > 0:
            face_of[person] = faces[column]
    rest = [person for person in people if face_of[person] is None]
    left = sorted((face for face in faces if face not in face_of), key=lambda face: -boxes[face].area)[: len(rest)]
    for person, face in zip(rest, sorted(left, key=lambda face: boxes[face].center[0]), strict=False):
        face_of[person] = face
    return face_of


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
