"""What is measured of pictures, each in a function of its own: arrays and words in, numbers out.

Boxes are (x0, y0, x1, y1); embeddings (d,) need not be of length 1. The first four measures are those that the paper
reports (DynamicID, section 4); it doesn't print their formulas, so those here are ours.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..image_inputs import Image
from ..imr.motion import pose_words

Vector = NDArray[np.floating]
Pose = tuple[float, float]
"""(pitch, yaw) in degrees, as insightface has them."""

NEAR = 10.0  # degrees within which a pose is the asked one
MOST_PSNR = 100.0  # dB: what equal pictures have


def clip_t(image: Vector, text: Vector) -> float:
    """CLIP-T: cosine of a picture's and its prompt's CLIP embedding; -1 to 1, higher is better."""
    return _cosine(image, text)


def face_similarity(reference: Vector, face: Vector) -> float:
    """FaceSim: cosine of the ArcFace embeddings of the reference's face and of the face found; -1 to 1."""
    return _cosine(reference, face)


def expression_share(asked: Sequence[str], shown: Sequence[str | None]) -> float:
    """Expr: (faces whose expression is the asked one) / (faces asked for); 0 to 1, a face not found (None) is wrong."""
    return _share([one == other for one, other in zip(asked, shown, strict=True)])


def pose_share(asked: Sequence[Pose], shown: Sequence[Pose | None]) -> float:
    """Pose: (faces whose pose has the asked pose's words) / (faces asked for); 0 to 1, a face not found is wrong.

    The words are a face prompt's (the release's), which don't tell left from right: `pose_error` does.
    """
    same = [
        face is not None and pose_words(*face) == pose_words(*pose) for pose, face in zip(asked, shown, strict=True)
    ]
    return _share(same)


def pose_error(asked: Pose, shown: Pose) -> float:
    """(|pitch asked - shown| + |yaw asked - shown|) / 2 in degrees; 0 is best."""
    return (abs(asked[0] - shown[0]) + abs(asked[1] - shown[1])) / 2


def pose_near_share(asked: Sequence[Pose], shown: Sequence[Pose | None], degrees: float = NEAR) -> float:
    """Pose near: (faces whose pitch and yaw are each within `degrees` of the asked ones) / (faces asked for); 0 to 1.

    A face not found (None) is wrong.
    """
    return _share([
        face is not None and max(abs(a - b) for a, b in zip(pose, face, strict=True)) <= degrees
        for pose, face in zip(asked, shown, strict=True)
    ])  # fmt: skip


def identified_share(own: Sequence[float | None], others: Sequence[float]) -> float:
    """Identified: (faces more like their own person than like anybody else) / (people asked for); 0 to 1.

    Args:
        own: likeness (cosine) of each person's face to that person; None where no face is found, which is wrong.
        others: likeness of the same face to the nearest of all others who are known.
    """
    return _share([like is not None and like > other for like, other in zip(own, others, strict=True)])


def assignment_share(similarity: NDArray[np.floating]) -> float:
    """Assignment: (regions in which the face is most similar to the region's own person) / (regions); 0 to 1.

    Args:
        similarity: (n, n), of the face in region i to person j; a row of NaN where region i shows no face, which is
            wrong.
    """
    return _share([not np.isnan(row[i]) and int(row.argmax()) == i for i, row in enumerate(similarity)])


def other_similarity(similarity: NDArray[np.floating]) -> float | None:
    """Mean over regions of max over j != i of similarity[i, j]: the face in region i to the nearest wrong person.

    -1 to 1, lower is better; None when no region shows a face. `similarity` as in `assignment_share`.
    """
    return _mean([_nearest_other(row, i) for i, row in enumerate(similarity)])


def bleed(similarity: NDArray[np.floating]) -> float | None:
    """Mean over regions of (similarity to the nearest wrong person) - (similarity to the right one).

    -2 to 2: below 0 the right person prevails; None when no region shows a face. `similarity` as in
    `assignment_share`.
    """
    return _mean([_nearest_other(row, i) - float(row[i]) for i, row in enumerate(similarity)])


def count_share(asked: Sequence[int], shown: Sequence[int]) -> float:
    """Count: (pictures that show as many faces as people are asked for) / (pictures); 0 to 1."""
    return _share([one == other for one, other in zip(asked, shown, strict=True)])


def background_difference(one: Image, other: Image, outside: NDArray[np.bool_]) -> float | None:
    """Mean of |one - other| over the channels of the pixels outside; 0 to 255, 0 is best; None when all is inside."""
    apart = _apart(one, other, outside)
    return float(np.abs(apart).mean()) if apart.size else None


def background_psnr(one: Image, other: Image, outside: NDArray[np.bool_]) -> float | None:
    """10 log10(255^2 / mean of (one - other)^2) over the pixels outside, in dB; at most MOST_PSNR, higher is better."""
    apart = _apart(one, other, outside)
    if not apart.size:
        return None
    error = float(np.square(apart).mean())
    return MOST_PSNR if error == 0 else min(MOST_PSNR, 10 * math.log10(255**2 / error))


def apartness(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Diversity by picture: mean of 1 - cosine to each of the others; 0 to 2, its mean is the mean over all pairs.

    Args:
        vectors: (n, d) embeddings of pictures that differ in their seeds alone.

    Raises ValueError for fewer than two, which are no pair.
    """
    if len(vectors) < 2:
        raise ValueError(f"Expected at least two pictures to tell apart, got {len(vectors)}. Give more seeds.")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    apart = 1 - unit.astype(np.float64) @ unit.astype(np.float64).T
    np.fill_diagonal(apart, 0)
    return np.asarray(apart.sum(1) / (len(vectors) - 1), np.float64)


def _cosine(one: Vector, other: Vector) -> float:
    if one.shape != other.shape:
        raise ValueError(f"Expected two embeddings of one model, got shapes {one.shape} and {other.shape}.")
    return float(np.dot(one, other) / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))


def _share(right: Sequence[bool]) -> float:
    if not right:
        raise ValueError("Expected at least one face to be asked for, got none.")
    return sum(right) / len(right)


def _nearest_other(row: NDArray[np.floating], own: int) -> float:
    return float(np.delete(row, own).max())


def _mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def _apart(one: Image, other: Image, outside: NDArray[np.bool_]) -> NDArray[np.float64]:
    if one.shape != other.shape or outside.shape != one.shape[:2]:
        raise ValueError(
            "Expected two pictures of one size and a mask of that size, "
            f"got {one.shape}, {other.shape} and {outside.shape}."
        )
    return one[outside].astype(np.float64) - other[outside]
