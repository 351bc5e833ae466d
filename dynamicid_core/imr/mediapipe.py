"""The host's FACE_LANDMARKS (MediaPipe's 478 points and 52 blendshapes) as a face that can drive another.

Numbers are those of MediaPipe's canonical face mesh; "left" is the image's left, so the subject's right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ..identity.faces import Face
from ..inputs import as_number, kind_of
from .landmarks import CONTOUR, FRAME, IBUG68, Points

# The outline of the face from the eye's height down to the chin.
_LEFT_OUTLINE = (127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152)
_RIGHT_OUTLINE = (356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152)
_MESH = {  # which of the 106: the mesh points whose mean it is
    33: (145,), 34: (159, 145), 35: (33,), 36: (144,), 37: (153,), 38: (468,), 39: (133,), 40: (159,), 41: (160,),
    42: (158,), 43: (70, 46), 44: (53,), 45: (52,), 46: (55,), 47: (65,), 48: (63,), 49: (105,), 50: (107,), 51: (66,),
    52: (61,), 53: (17,), 54: (178,), 55: (91,), 56: (84,), 57: (402,), 58: (321,), 59: (314,), 60: (14,), 61: (291,),
    62: (13,), 63: (37,), 64: (40,), 65: (78,), 66: (81,), 67: (267,), 68: (270,), 69: (308,), 70: (311,), 71: (0,),
    72: (168,), 73: (197,), 74: (5,), 75: (193,), 76: (198,), 77: (129,), 78: (98,), 79: (97,), 80: (2,), 81: (417,),
    82: (420,), 83: (358,), 84: (327,), 85: (326,), 86: (4,), 87: (374,), 88: (386, 374), 89: (362,), 90: (380,),
    91: (373,), 92: (473,), 93: (263,), 94: (386,), 95: (385,), 96: (387,), 97: (285,), 98: (295,), 99: (282,),
    100: (283,), 101: (300, 276), 102: (336,), 103: (296,), 104: (334,), 105: (293,),
}  # fmt: skip
POINTS = 478
_CONNECT = "Connect Detect Face Landmarks (MediaPipe)."

# An expression's score is the mean of these blendshapes' (of both sides).
_BLENDSHAPES = {
    "happy": ("mouthSmileLeft", "mouthSmileRight"),
    "sad": ("mouthFrownLeft", "mouthFrownRight", "browInnerUp"),
    "anger": ("browDownLeft", "browDownRight"),
    "surprise": ("jawOpen", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "disgust": ("noseSneerLeft", "noseSneerRight"),
    "fear": ("eyeWideLeft", "eyeWideRight", "mouthStretchLeft", "mouthStretchRight"),
}
_MIN_SCORE = 0.35  # below which a face is neutral


def face_from(landmarks: Mapping[str, Any], index: int = 0) -> Face:
    """Return the first frame's face of this index, with landmarks, 3-D points and pose.

    Raises ValueError when there is no such face, or when these are not 478 points.
    """
    raw = _raw_face(landmarks, index)
    flat, mesh = _numbers(raw, "landmarks_xy", (POINTS, 2)), _numbers(raw, "landmarks_3d", (POINTS, 3))
    height, width = _numbers(landmarks, "image_size", (2,))
    if not (height >= 1 and width >= 1):
        raise ValueError(f"Expected a picture's size of MediaPipe, got {height:g} x {width:g} pixels. {_CONNECT}")
    # Depth comes in the mesh's own unit, away from the viewer; its x and y say what that is in pixels.
    unit = np.linalg.norm(flat.std(0)) / max(float(np.linalg.norm(mesh[:, :2].std(0))), 1e-9)
    points = to_106(np.column_stack([flat, -mesh[:, 2] * unit]))
    return Face(
        landmarks=torch.from_numpy(points[:, :2] * [FRAME / width, FRAME / height]).float(),
        points68=torch.from_numpy(points[list(IBUG68)]).float(),
        pose=_pose(_numbers(raw, "transformation_matrix", (4, 4))),
        size=(int(height), int(width)),
        score=float(_numbers({"score": 1.0} | dict(raw), "score", ())),
    )


def _raw_face(landmarks: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """Return MediaPipe's values of a face of the first frame. Raises ValueError when there is no such face."""
    frames = landmarks.get("frames", ()) if isinstance(landmarks, Mapping) else None
    faces = frames[0] if isinstance(frames, Sequence) and frames else frames
    if not isinstance(faces, Sequence) or not all(isinstance(face, Mapping) for face in faces):
        raise ValueError(f"Expected MediaPipe's frames of faces, got {kind_of(landmarks)}. {_CONNECT}")
    if index >= len(faces):
        raise ValueError(
            f"Expected landmarks of face number {index}, but {len(faces)} faces were found in the first picture. "
            "Take a picture in which the face is larger and seen from the front."
        )
    raw: Mapping[str, Any] = faces[index]
    return raw


def _numbers(raw: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Points:
    """Return an entry as an array of this shape. Raises ValueError when it is missing, or not finite numbers."""
    try:
        values = np.asarray(raw[name], np.float64)
    except KeyError:
        raise ValueError(f"MediaPipe's landmarks lack {name}. {_CONNECT}") from None
    except (TypeError, ValueError):
        raise ValueError(f"Expected numbers as MediaPipe's {name}, got {kind_of(raw[name])}. {_CONNECT}") from None
    if values.shape != shape or not np.isfinite(values).all():
        count = " x ".join(map(str, shape))
        raise ValueError(f"Expected MediaPipe's {count} finite numbers as {name}, got {values.shape}. {_CONNECT}")
    return values


def to_106(mesh: Points) -> Points:
    """Return the 106 landmarks (106, k) of mesh points (478, k)."""
    points = np.empty((106, mesh.shape[1]))
    points[list(CONTOUR[:17])] = _along(mesh[list(_LEFT_OUTLINE)], 17)
    points[list(CONTOUR[:15:-1])] = _along(mesh[list(_RIGHT_OUTLINE)], 17)
    for point, others in _MESH.items():
        points[point] = mesh[list(others)].mean(0)
    return points


def _along(line: Points, count: int) -> Points:
    """Return `count` points evenly along a line of points, both ends among them."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line[:, :2], axis=0), axis=1))])
    at = np.linspace(0, lengths[-1], count)
    return np.column_stack([np.interp(at, lengths, column) for column in line.T])


def _pose(matrix: Points) -> tuple[float, float, float]:
    """Return (pitch, yaw, roll) in degrees of MediaPipe's facial transformation (4, 4), whose y points up."""
    if np.linalg.det(matrix[:3, :3]) <= 0:
        raise ValueError(f"MediaPipe's transformation_matrix is no turn of a head. {_CONNECT}")
    turn = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    down = np.diag([1.0, -1.0, 1.0])
    pitch, yaw, roll = Rotation.from_matrix(down @ turn @ down).as_euler("xyz", degrees=True)
    return float(pitch), float(yaw), float(roll)


def expression_from(landmarks: Mapping[str, Any], index: int = 0) -> str:
    """Return the expression of the first frame's face of this index, by its blendshapes.

    Raises ValueError when there is no such face.
    """
    blendshapes = _raw_face(landmarks, index).get("blendshapes") or {}
    if not isinstance(blendshapes, Mapping):
        raise ValueError(f"Expected MediaPipe's blendshapes by name, got {kind_of(blendshapes)}. {_CONNECT}")
    return expression_of({name: as_number(value, "A blendshape") for name, value in blendshapes.items()})


def expression_of(blendshapes: Mapping[str, float]) -> str:
    """Return the expression that MediaPipe's blendshapes (0..1, by name) show most; neutral when they show none."""
    scores = {
        name: sum(blendshapes.get(shape, 0.0) for shape in shapes) / len(shapes)
        for name, shapes in _BLENDSHAPES.items()
    }
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= _MIN_SCORE else "neutral"
