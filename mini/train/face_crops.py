"""Faces cropped from pictures as insightface crops them, with the truth where its networks are to say it.

Truth counts from a picture's corner, so that it scales with the picture; OpenCV counts from the first pixel's middle.
insightface gives back what a network says through the crop's own matrix, so a network is to say M p for a truth p,
while p is seen at M (p - 1/2) when the picture is used as it is, and nearer to M p when it was enlarged before.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32] | NDArray[np.float64]

# Where insightface puts the five keypoints in a recognition crop of 112 x 112.
ALIGNED = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])


def warp(image: NDArray[np.uint8], matrix: Floats, size: int) -> NDArray[np.uint8]:
    """Return an image (size, size, 3), or (size, size), warped by a (2, 3) matrix, black beyond its edges."""
    return cv2.warpAffine(image, np.asarray(matrix, np.float64), (size, size)).astype(np.uint8, copy=False)


def to_crop_coords(points: Floats, matrix: Floats) -> NDArray[np.float64]:
    """Return points (..., 2) mapped by a (2, 3) matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def similarity(points: Floats, target: Floats) -> NDArray[np.float64]:
    """(2, 3): turn, scale and shift that bring (n, 2) points nearest to the target's (least squares)."""
    p, t = points.mean(0), target.mean(0)
    a, b = points - p, target - t
    cosine, sine = (a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()
    turn = np.array([[cosine, -sine], [sine, cosine]]) / np.square(a).sum()
    return np.column_stack([turn, t - turn @ p])


def enlarged(matrix: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """The matrix for a picture as it is, so that it shows what the crop of a `factor` times larger one would show."""
    shift = 0.5 * (1 - 1 / factor) * matrix[:, :2].sum(1)
    return np.column_stack([matrix[:, :2], matrix[:, 2] + shift])


def around_box(box: Floats, size: int, stretch: float = 1.0) -> NDArray[np.float64]:
    """(2, 3): insightface's landmark crop, 1.5 times the box's longer side; `stretch` makes everything taller first."""
    tall = np.array([1.0, stretch])
    low, high = box[:2] * tall, box[2:] * tall
    scale = size / (1.5 * (high - low).max())
    return np.column_stack([np.diag(scale * tall), size / 2 - scale * (low + high) / 2])
