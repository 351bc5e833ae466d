"""The measures of identity that benchmarks of several people use: embeddings or their cosines in, numbers out.

A similarity is (people, faces): the cosine of each reference's embedding, or of each face in a true picture, and each
face of the image. Faces are matched by `identity.assignment.best_assignment`, as everywhere here. A ground truth is a
true picture of what was requested: the same people in other motion. Formulas are the benchmarks' own; where their code
leaves pictures out, ours counts them, and says so.
"""

import math

import numpy as np
from numpy.typing import NDArray

from ..identity.assignment import best_assignment
from .measures import Pose, Vector, pose_error

SAME_ANGLE = 1e-6  # radians between two embeddings below which they are one
SAME_POSE = 5.0  # degrees (see `measures.pose_error`) within which a requested pose is the reference's own


def matched_similarity(similarity: NDArray[np.floating]) -> float | None:
    """Return Sim(Ref) or Sim(GT): mean cosine of the faces and the references, or the true picture's faces; -1 to 1.

    mean of similarity[i, face of i] over the matched pairs; None when there is no pair. A picture with too many or too
    few faces counts with those that are matched, so read it beside Count and Multi-ID similarity. Of references it is
    FaceSim. Source: Sim(Ref) and Sim(GT) of MultiID-Bench (WithAnyone, arXiv 2510.14975), `metrics/arcface_metric.py`.
    """
    matches = _matches(similarity)
    return sum(matches) / len(matches) if matches else None


def multi_id_similarity(similarity: NDArray[np.floating]) -> float:
    """Return Multi-ID similarity: (sum of the matched faces' cosines) / (people requested); -1 to 1.

    A missing face counts 0. Source: the ID similarity of MultiHuman-Testbench (arXiv 2506.20879),
    `benchmarking/compute_scores.py`.

    Raises ValueError when no person is requested.
    """
    if not len(similarity):
        raise ValueError("Expected the similarity of at least one person, got none.")
    return sum(_matches(similarity)) / len(similarity)


def id_conf(similarity: NDArray[np.floating]) -> float | None:
    """Return ID-Conf: 100 times how much more a reference is like its nearest face than like the second; 0 to 100.

    mean over references of min(1, (s1 - s2) / s1) where s1 > 0, else 0; s1 >= s2 are the reference's two highest
    similarities. 100: no other face looks like them. 0: two faces look like one person. None when there are fewer than
    two faces. Source: UMO (arXiv 2509.06818), `eval/id_conf_xversebench.py`.
    """
    if similarity.shape[1] < 2:
        return None
    best, second = np.sort(similarity.astype(np.float64), axis=1)[:, :-3:-1].T
    gaps = [min(1.0, (s1 - s2) / s1) if s1 > 0 else 0.0 for s1, s2 in zip(best, second, strict=True)]
    return 100 * sum(gaps) / len(gaps)


def copy_paste(face: Vector, truth: Vector, reference: Vector) -> float:
    """Return Copy-Paste: (angle(face, truth) - angle(face, reference)) / angle(truth, reference); -1 to 1.

    1: the face is the reference's, copied; -1: it is the true picture's. angle(a, b) = arccos of the cosine of two
    embeddings (d,); 0 where truth and reference are one (SAME_ANGLE). Source: MultiID-Bench (WithAnyone, arXiv
    2510.14975), `metrics/arcface_metric.py`. Its code leaves out pictures with a wrong number of faces; ours counts
    their matched faces.
    """
    between = _angle(truth, reference)
    if between < SAME_ANGLE:
        return 0.0
    return (_angle(face, truth) - _angle(face, reference)) / between


def is_own_pose(requested: Pose, reference: Pose) -> bool:
    """Whether the requested pose is the reference's own, of which Motion Copy-Paste says nothing (SAME_POSE)."""
    return pose_error(requested, reference) <= SAME_POSE


def pose_copy_paste(requested: Pose, reference: Pose, detected: Pose) -> float:
    """Return Motion Copy-Paste (pose): (d(face, requested) - d(face, reference)) / d(requested, reference); -1 to 1.

    1: the face keeps the reference's pose; -1: it shows the requested one. d is `measures.pose_error`, over pitch and
    yaw in degrees. Source: ours, after Copy-Paste.

    Raises ValueError where the reference's own pose is requested, see `is_own_pose`.
    """
    if is_own_pose(requested, reference):
        raise ValueError(f"Expected another pose than the reference's {reference}, got {requested}. Leave it out.")
    kept = pose_error(requested, detected) - pose_error(reference, detected)
    return kept / pose_error(requested, reference)


def expression_copy_paste(requested: str, reference: str, detected: str) -> float:
    """Return Motion Copy-Paste (expression): d(face, requested) - d(face, reference); -1, 0 or 1.

    1: the face keeps the reference's expression; -1: it shows the requested one; 0: another. d is 0 for the same
    expression, else 1. Source: ours, after Copy-Paste.

    Raises ValueError where the reference's own expression is requested.
    """
    if requested == reference:
        raise ValueError(f"Expected another expression than the reference's {reference!r}. Leave it out.")
    return float(detected != requested) - float(detected != reference)


def _matches(similarity: NDArray[np.floating]) -> list[float]:
    face_of = best_assignment(similarity)
    return [float(similarity[person, face]) for person, face in enumerate(face_of) if face is not None]


def _angle(one: Vector, other: Vector) -> float:
    """Return the angle in radians between two embeddings; in float64, where equal ones are 0 to 1e-7."""
    a, b = (vector.astype(np.float64) / max(float(np.linalg.norm(vector)), 1e-12) for vector in (one, other))
    # 2 arcsin(|a - b| / 2) is arccos(a . b), and exact for small angles, where the arccos is not.
    return 2 * math.asin(min(1.0, float(np.linalg.norm(a - b)) / 2))
