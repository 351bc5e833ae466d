"""Who is which of a picture's faces."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..image_inputs import Image
from ..saa.regions import Region
from .analyzer import FaceAnalyzer
from .faces import Detection, in_order
from .identity import Identity
from .who import who_is_who

Box = NDArray[np.floating]
"""(4,) x0, y0, x1, y1"""

CASTINGS = ("left to right", "largest first", "most similar")


def cast(
    people: Sequence[Identity | None], image: Image, how: str, analyzer: FaceAnalyzer
) -> tuple[list[Detection | None], int]:
    """The face that each person is to have, of a picture (H, W, 3) RGB, and how many faces are nobody's.

    Args:
        people: None is someone who was skipped; in an order they have a face all the same, so that the others keep
            theirs.
        how: one of CASTINGS. Most similar: the assignment under which people and faces are most alike in all.

    Returns:
        A face or, where there are too few, None for each person.

    Raises:
        ValueError: someone of whom no face is known is to be compared.
    """
    found = analyzer.detect(image)
    size, spare = (image.shape[0], image.shape[1]), max(0, len(found) - len(people))
    chosen: list[Detection | None]
    if how in ("left to right", "largest first"):
        largest = in_order(found, "largest", size)[: len(people)]
        chosen = [*(in_order(largest, "left to right", size) if how == "left to right" else largest)]
        return chosen + [None] * (len(people) - len(chosen)), spare
    if how != "most similar":
        raise ValueError(f"Faces can be given to people by {', '.join(CASTINGS)}, got {how!r}.")
    wanted = {number: embedding_of(person, number) for number, person in enumerate(people) if person is not None}
    shown = [embedding for face in found if (embedding := analyzer.describe(image, face).embedding) is not None]
    faces = dict(zip(wanted, who_is_who(list(wanted.values()), shown).face_of, strict=True))
    chosen = [None if (face := faces.get(number)) is None else found[face] for number in range(len(people))]
    return chosen, len(found) - sum(face is not None for face in chosen)


def regions_about(faces: Sequence[Detection | None], height: int, width: int, reach: float) -> list[Region]:
    """A region about each face of a height x width picture, none in another's; an empty one where there is no face.

    Args:
        reach: how far a region goes beyond its face on each side, in faces; neighbours meet in the middle between.
    """
    boxes = {n: np.array(face.box.to_fractions(width, height)) for n, face in enumerate(faces) if face is not None}
    reached = {number: _grown(box, reach) for number, box in boxes.items()}
    for one, other in combinations(boxes, 2):
        _part(boxes[one], boxes[other], reached[one], reached[other])
    nowhere = np.zeros(4)
    return [Region(box=tuple(reached.get(number, nowhere).clip(0, 1).tolist())) for number in range(len(faces))]


def _grown(box: Box, reach: float) -> Box:
    side = np.tile(box[2:] - box[:2], 2)
    return box + side * reach * np.array([-1, -1, 1, 1])


def _part(one: Box, other: Box, reached: Box, others: Box) -> None:
    """Cut two faces' grown boxes where they meet: across the axis along which the faces lie further apart."""
    gaps = np.maximum(one[:2], other[:2]) - np.minimum(one[2:], other[2:])
    axis = int(np.argmax(gaps))
    first, second = (
        (reached, others) if one[axis] + one[axis + 2] <= other[axis] + other[axis + 2] else (others, reached)
    )
    near, far = (one, other) if first is reached else (other, one)
    middle = (near[axis + 2] + far[axis]) / 2
    first[axis + 2], second[axis] = min(first[axis + 2], middle), max(second[axis], middle)


def embedding_of(person: Identity, number: int) -> Tensor:
    """(512,) of a person's reference. Raises ValueError, naming the `number`th, when they remember none."""
    embedding = None if person.face is None else person.face.embedding
    if embedding is None:
        raise ValueError(
            f"Person {number + 1} ({person.name or 'without a name'}) remembers no face to compare with. Encode them "
            "again from a photograph."
        )
    return embedding
