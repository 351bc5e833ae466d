"""Who is which of a picture's faces."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from .faces import Detection, FaceAnalyser, Image, in_order
from .identity import Identity
from .regions import Region
from .who import who_is_who

CASTINGS = ("left to right", "largest first", "most similar")


def cast(people: Sequence[Identity | None], image: Image, how: str, analyser: FaceAnalyser) -> list[Detection]:
    """The face that each person is to have, of a picture (H, W, 3) RGB.

    Args:
        people: None is someone who was skipped; they have a face all the same, so that the others keep theirs.
        how: one of CASTINGS. Most similar: the assignment under which people and faces are most alike in all.

    Raises:
        ValueError: fewer faces than people, or someone of whom no face is known is to be compared.
    """
    found = analyser.detect(image)
    if len(found) < len(people):
        raise ValueError(
            f"The picture shows {len(found)} faces for {len(people)} people. Take a picture in which the faces are "
            "larger and seen from the front, or connect fewer people."
        )
    size = (image.shape[0], image.shape[1])
    if how == "left to right":
        largest = in_order(found, "largest", size)[: len(people)]
        return in_order(largest, "left to right", size)
    if how == "largest first":
        return in_order(found, "largest", size)[: len(people)]
    if how != "most similar":
        raise ValueError(f"Faces can be given to people by {', '.join(CASTINGS)}, got {how!r}.")
    wanted = {number: embedding_of(person, number) for number, person in enumerate(people) if person is not None}
    shown = [embedding for face in found if (embedding := analyser.describe(image, face).embedding) is not None]
    chosen = who_is_who(list(wanted.values()), shown).face_of
    own = {number: found[face] for number, face in zip(wanted, chosen, strict=True) if face is not None}
    free = iter([face for number, face in enumerate(found) if number not in chosen])
    return [own[number] if number in own else next(free) for number in range(len(people))]


def region_of(face: Detection, height: int, width: int) -> Region:
    """A face's box as a region of a height x width picture, as far as it lies within."""
    x0, y0, x1, y1 = (float(edge) for edge in face.box / np.array([width, height, width, height]))
    return Region(box=(max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)))


def embedding_of(person: Identity, number: int) -> Tensor:
    """(512,) of a person's reference. Raises ValueError, naming the `number`th, when they remember none."""
    embedding = None if person.face is None else person.face.embedding
    if embedding is None:
        raise ValueError(
            f"Person {number + 1} ({person.name or 'without a name'}) remembers no face to compare with. Encode them "
            "again from a photograph."
        )
    return embedding
