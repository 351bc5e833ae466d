"""Facial motion in the words and points that IMR takes: a reference's own, and the target instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..identity.faces import Face
from .landmarks import FRAME, Frame, Points, transfer_expression, with_depth

EXPRESSIONS = ("neutral", "happy", "sad", "anger", "surprise", "disgust", "fear")
NEUTRAL = EXPRESSIONS[0]
EXPRESSION_WORDS: Mapping[str, str] = {name: name for name in EXPRESSIONS} | {
    "happiness": "happy", "sadness": "sad", "angry": "anger", "surprised": "surprise", "disgusted": "disgust",
    "afraid": "fear", "fearful": "fear",
}  # fmt: skip
"""Expressions as data sets call them -> EXPRESSIONS."""
Expression = str | Mapping[str, float]
"""One of EXPRESSIONS (or any words), or the shares of several, adding up to 1."""
_FRONT, _LEVEL = 10.0, 10.0  # degrees, within which a face counts as seen from the front, and as level


@dataclass(frozen=True, eq=False)
class FacialMotion:
    """An expression and head pose.

    Attributes:
        prompt: a face prompt, for SD1.5's text encoder.
        landmarks: (106, 2) in the image squashed to 512 x 512; None where there is no face.
        shares: of a mixture, the face prompts that the text encoder reads in place of `prompt`, and how much of the
            state of each IMR reads; they add up to 1. Empty: `prompt` alone.
        expression: the one of EXPRESSIONS that the prompt names; "" for several, or words of one's own.
    """

    prompt: str
    landmarks: Points | None = field(repr=False)
    shares: tuple[tuple[str, float], ...] = ()
    expression: str = ""

    @property
    def texts(self) -> tuple[tuple[str, float], ...]:
        """The prompts that the text encoder reads, and the share of each."""
        return self.shares or ((self.prompt, 1.0),)


def face_prompt(expression: str, pitch: float, yaw: float) -> str:
    """Return the release's words for an expression (one of EXPRESSIONS, or any words) and a pose in degrees."""
    return f"in a {expression} expression, {pose_words(pitch, yaw)}"


def pose_words(pitch: float, yaw: float) -> str:
    """Return the release's words for a pose in degrees: one of six."""
    tilt = "facing up, " if pitch > _LEVEL else "facing down, " if pitch < -_LEVEL else ""
    view = "in front view" if abs(yaw) < _FRONT else "in side view"
    return f"{tilt}{view}"


def source_motion(face: Face | None, expression: str = NEUTRAL, prompt: str = "") -> FacialMotion:
    """Return the motion that a reference shows: its landmarks and pose, and the expression given for it.

    Args:
        prompt: taken instead of what expression and pose would say.
    """
    pitch, yaw, _ = _pose(face)
    landmarks = None if face is None or face.landmarks is None else face.landmarks.numpy().astype(np.float64)
    if prompt:
        return FacialMotion(prompt, landmarks)
    return FacialMotion(face_prompt(expression, pitch, yaw), landmarks, expression=_known(expression))


def target_motion(
    face: Face | None,
    expression: Expression = NEUTRAL,
    yaw: float = 0.0,
    pitch: float = 0.0,
    prompt: str = "",
    driver: Face | None = None,
    strength: float = 1.0,
    roll: float = 0.0,
) -> FacialMotion:
    """Return the motion that a face is to show.

    Args:
        expression: one, or the shares of several. Keypoints don't follow it: words alone tell of expressions.
        yaw, pitch, roll: degrees to turn further than the reference, or the driver, does. No words tell of roll.
        prompt: taken instead of what expression and pose would say.
        driver: a face whose expression and pose are carried over to this face's proportions and place.
        strength: how far towards the driver's, 0 to 1.

    Without 3-D points the landmarks stay as they are, and the words alone tell the pose.
    """
    if strength <= 0:
        driver = None
    pose, turn = np.array(_pose(face)), np.array([pitch, yaw, roll])
    if driver is not None:
        pose = pose + strength * (np.array(_pose(driver)) - pose)
    pose = pose + turn
    landmarks = source_motion(face).landmarks
    if (driver is not None or turn.any()) and face is not None and _has_depth(face):
        landmarks = _move(face, driver, strength, pose)
    if prompt:
        return FacialMotion(prompt, landmarks)
    shares = {expression: 1.0} if isinstance(expression, str) else expression
    prompts = tuple((face_prompt(name, float(pose[0]), float(pose[1])), share) for name, share in shares.items())
    if len(prompts) == 1 and prompts[0][1] == 1:
        return FacialMotion(prompts[0][0], landmarks, expression=_known(next(iter(shares))))
    words = " + ".join(f"{share:.2g} {name}" for name, share in shares.items())
    return FacialMotion(face_prompt(words, float(pose[0]), float(pose[1])), landmarks, prompts)


def _known(expression: str) -> str:
    return expression if expression in EXPRESSIONS else ""


def turnable(face: Face | None, driver: Face | None = None) -> dict[str, Any] | None:
    """Return a face in plain numbers, from which the page moves keypoints as `target_motion` does: web/keypoints.js.

    None without 3-D points. `points` (106, 3) in the head's space; `scale` (pixels a unit), `pivot` (3,) and `pose` put
    them into the image; `squash` (2,) makes its pixels those of the squashed one. `driven`: None, or a driver's `pose`,
    and the face's `points` with the driver's expression.
    """
    if face is None or not _has_depth(face):
        return None
    frame, points = _head(face)
    driven = None
    if driver is not None and _has_depth(driver):
        moved = transfer_expression(_head(driver)[1], points)
        driven = {"points": moved.round(6).tolist(), "pose": list(_pose(driver))}
    return {
        "points": points.round(6).tolist(),
        "scale": frame.scale,
        "pivot": frame.pivot.tolist(),
        "pose": list(_pose(face)),
        "squash": _squash(face).tolist(),
        "driven": driven,
    }


def _move(face: Face, driver: Face | None, strength: float, pose: Points) -> Points:
    """Return this face's landmarks (106, 2), squashed, with the driver's expression and the head turned to `pose`."""
    frame, points = _head(face)
    if driver is not None:
        if not _has_depth(driver):
            raise ValueError(
                "The driving face has no 3-D points: take it from a picture, by Load DynamicID's face pack."
            )
        points = points + strength * (transfer_expression(_head(driver)[1], points) - points)
    pitch, yaw, roll = (float(angle) for angle in pose)
    return frame.outward(points, (pitch, yaw, roll))[:, :2] * _squash(face)


def _head(face: Face) -> tuple[Frame, Points]:
    """Return a face's frame, and its landmarks (106, 3) in it."""
    assert face.landmarks is not None and face.points68 is not None
    points68 = face.points68.numpy().astype(np.float64)
    frame = Frame(points68, _pose(face))
    return frame, frame.inward(with_depth(face.landmarks.numpy() / _squash(face), points68))


def _squash(face: Face) -> Points:
    """Return (2,): the factors from pixels of the image to those of the squashed one."""
    assert face.size is not None
    return np.array([FRAME / face.size[1], FRAME / face.size[0]])


def _has_depth(face: Face) -> bool:
    return all(value is not None for value in (face.landmarks, face.points68, face.pose, face.size))


def _pose(face: Face | None) -> tuple[float, float, float]:
    return (0.0, 0.0, 0.0) if face is None or face.pose is None else face.pose
