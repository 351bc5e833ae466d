"""The measures, each in a function of its own: arrays and words in, numbers out.

Embeddings (d,) need not be of length 1. CLIP-T, FaceSim, Expr and Pose are those that the paper reports (DynamicID,
arXiv 2503.06505, section 4). It doesn't print their formulas, so those here are ours.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..box import Box
from ..image_inputs import Image
from ..imr.motion import pose_words

Vector = NDArray[np.floating]
Pose = tuple[float, float]
"""(pitch, yaw) in degrees, as insightface has them."""

NEAR = 10.0  # degrees within which a pose is the requested one
MAX_PSNR = 100.0  # dB: what equal images have


def clip_t(image: Vector, text: Vector) -> float:
    """Return CLIP-T: cosine of an image's and its prompt's CLIP embedding; -1 to 1, higher is better.

    Source: the paper's CLIP-T.
    """
    return _cosine(image, text)


def face_similarity(reference: Vector, face: Vector) -> float:
    """Return FaceSim: cosine of the ArcFace embeddings of the reference's face and of the image's; -1 to 1.

    Source: the paper's FaceSim, on embeddings of ArcFace (arXiv 1801.07698).
    """
    return _cosine(reference, face)


def expression_share(requested: Sequence[str], detected: Sequence[str | None]) -> float:
    """Return Expr: (faces whose expression is the requested one) / (faces requested); 0 to 1.

    A face that is missing (None) is wrong. Source: the paper's Expr.
    """
    return _share([one == other for one, other in zip(requested, detected, strict=True)])


def pose_share(requested: Sequence[Pose], detected: Sequence[Pose | None]) -> float:
    """Return Pose: (faces whose pose has the requested pose's words) / (faces requested); 0 to 1.

    A face that is missing (None) is wrong. The words are a face prompt's (the release's), which don't tell left from
    right: `pose_error` does. Source: the paper's Pose.
    """
    pairs = zip(requested, detected, strict=True)
    return _share([face is not None and pose_words(*face) == pose_words(*pose) for pose, face in pairs])


def pose_error(requested: Pose, detected: Pose) -> float:
    """Return Pose error: (|pitch requested - detected| + |yaw requested - detected|) / 2 in degrees; 0 is best.

    Source: ours.
    """
    return (abs(requested[0] - detected[0]) + abs(requested[1] - detected[1])) / 2


def pose_near_share(requested: Sequence[Pose], detected: Sequence[Pose | None], degrees: float = NEAR) -> float:
    """Return Pose near: (faces whose pitch and yaw are each within `degrees` of the requested) / (faces requested).

    0 to 1; a face that is missing (None) is wrong. Source: ours.
    """
    return _share([
        face is not None and max(abs(a - b) for a, b in zip(pose, face, strict=True)) <= degrees
        for pose, face in zip(requested, detected, strict=True)
    ])  # fmt: skip


def identified_share(own: Sequence[float | None], others: Sequence[float]) -> float:
    """Return Identified: (faces more similar to their own person than to anybody else) / (people requested); 0 to 1.

    Source: ours; rank-1 identification among the gallery.

    Args:
        own: similarity (cosine) of each person's face to that person; None where the face is missing, which is wrong.
        others: similarity of the same face to the nearest of all others in the sample and the gallery.
    """
    return _share([mine is not None and mine > other for mine, other in zip(own, others, strict=True)])


def assignment_share(similarity: NDArray[np.floating]) -> float:
    """Return Assignment: (regions in which the face is most similar to the region's own person) / (regions); 0 to 1.

    Source: ours.

    Args:
        similarity: (n, n), of the face in region i to person j; a row of NaN where region i shows no face, which is
            wrong.
    """
    return _share([not np.isnan(row[i]) and int(row.argmax()) == i for i, row in enumerate(similarity)])


def other_similarity(similarity: NDArray[np.floating]) -> float | None:
    """Return Similarity to others: mean over regions i of max over j != i of similarity[i, j].

    It is that of the face in region i to the nearest wrong person: -1 to 1, lower is better; None when no region shows
    a face. `similarity` as in `assignment_share`. Source: ours.
    """
    return _mean([_nearest_other(row, i) for i, row in enumerate(similarity)])


def bleed(similarity: NDArray[np.floating]) -> float | None:
    """Return Bleed: mean over regions of (similarity to the nearest wrong person) - (similarity to the right one).

    -2 to 2: below 0 the right person prevails; None when no region shows a face. `similarity` as in
    `assignment_share`. Source: ours.
    """
    return _mean([_nearest_other(row, i) - float(row[i]) for i, row in enumerate(similarity)])


def count_share(requested: Sequence[int], detected: Sequence[int]) -> float:
    """Return Count: (images that show as many faces as people are requested) / (images); 0 to 1. Source: ours."""
    return _share([one == other for one, other in zip(requested, detected, strict=True)])


def all_alike_share(similarity: Sequence[Sequence[float | None]], alike_from: float) -> float:
    """Return All alike or All alike (node): (images in which everybody is alike) / (images); 0 to 1.

    Alike is a face whose similarity (cosine) to its person is at least the benchmark's `alike_from`. All alike is by
    the judge, All alike (node) by whom nodes asked while they made the images. Source: ours.

    Args:
        similarity: of everybody's face by image; None where the face is missing, which is not alike.
    """
    return _share([all(one is not None and one >= alike_from for one in image) for image in similarity])


def background_mask(size: tuple[int, int], faces: Sequence[Box], margin: float) -> NDArray[np.bool_]:
    """Return a mask (height, width), True outside all boxes, each grown by `margin` of its longer side on each side.

    Args:
        size: (height, width) in pixels, as the boxes are.
    """
    mask = np.ones(size, bool)
    for box in faces:
        x0, y0, x1, y1 = box.grown(margin * box.longer_side, margin * box.longer_side)
        edges = (math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1))
        left, top, right, bottom = (max(0, edge) for edge in edges)
        mask[top:bottom, left:right] = False
    return mask


def background_difference(one: Image, other: Image, mask: NDArray[np.bool_]) -> float | None:
    """Return Background difference: mean of |one - other| over the channels of the mask's pixels; 0 to 255, 0 is best.

    None when the mask is empty. Source: ours.
    """
    difference = _difference(one, other, mask)
    return float(np.abs(difference).mean()) if difference.size else None


def background_psnr(one: Image, other: Image, mask: NDArray[np.bool_]) -> float | None:
    """Return Background PSNR: 10 log10(255^2 / mean of (one - other)^2) over the mask's pixels, in dB.

    At most MAX_PSNR, higher is better; None when the mask is empty. Source: the peak signal-to-noise ratio.
    """
    difference = _difference(one, other, mask)
    if not difference.size:
        return None
    error = float(np.square(difference).mean())
    return MAX_PSNR if error == 0 else min(MAX_PSNR, 10 * math.log10(255**2 / error))


def diversity(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return Diversity (n,) by image: mean of 1 - cosine to each of the others; 0 to 2.

    Its mean over the images is the mean over all pairs. Source: ours.

    Args:
        vectors: (n, d) CLIP embeddings of images that differ in their seeds alone.

    Raises ValueError for fewer than two, which are no pair.
    """
    if len(vectors) < 2:
        raise ValueError(f"Expected at least two pictures to tell apart, got {len(vectors)}. Give more seeds.")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    distance = 1 - unit.astype(np.float64) @ unit.astype(np.float64).T
    np.fill_diagonal(distance, 0)
    return np.asarray(distance.sum(1) / (len(vectors) - 1), np.float64)


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
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else None


def _difference(one: Image, other: Image, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    if one.shape != other.shape or mask.shape != one.shape[:2]:
        raise ValueError(
            f"Expected two pictures of one size and a mask of that size, got {one.shape}, {other.shape} and "
            f"{mask.shape}."
        )
    return one[mask].astype(np.float64) - other[mask]
