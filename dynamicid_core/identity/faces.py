"""Faces in images as values: detections and their order, and the face that an identity was made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..box import Box
from ..image_inputs import CropBox, to_crop_coords

ORDERS = ("largest", "left to right", "centre")


@dataclass(frozen=True, eq=False)
class Face:
    """The face an identity was made from; values that are not known are None. Its repr keeps the face private.

    Attributes:
        embedding: (512,) float32, L2-normalized ArcFace embedding.
        landmarks: (106, 2) float32, insightface's 2-D landmarks, in the image squashed to 512 x 512.
        points68: (68, 3) float32, iBUG's points in pixels of the image, z towards the viewer.
        pose: (pitch, yaw, roll) in degrees, see `landmarks`.
        box: in pixels of the image.
        size: (height, width) of the image.
        score: the detector's, 0..1.
    """

    embedding: Tensor | None = field(default=None, repr=False)
    landmarks: Tensor | None = field(default=None, repr=False)
    points68: Tensor | None = field(default=None, repr=False)
    pose: tuple[float, float, float] | None = field(default=None, repr=False)
    box: Box | None = None
    size: tuple[int, int] | None = None
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Detection:
    """Where a face is: its box and five keypoints (5, 2) in pixels, and the detector's score, 0..1."""

    box: Box
    keypoints: NDArray[np.float32] = field(repr=False)
    score: float

    def moved(self, x: float, y: float) -> Detection:
        """Return the face so much further right and down."""
        return Detection(self.box.moved(x, y), self.keypoints + np.array([x, y], np.float32), self.score)

    def in_crop(self, square: CropBox, size: int) -> Detection:
        """Return where the face is in the `face_crop` of a square."""
        corners = to_crop_coords(np.reshape(self.box, (2, 2)), square, size)
        return Detection(Box.of(corners.ravel()), to_crop_coords(self.keypoints, square, size), self.score)


def without_duplicates(detections: Sequence[Detection]) -> list[Detection]:
    """Return each face once, the highest score first: of boxes that lie in one another by half, the largest.

    A face that a tile cuts off has a smaller box there than in the tile that shows all of it.
    """
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda one: -one.box.area):
        if all(detection.box.overlap(other.box) < 0.5 * detection.box.area for other in kept):
            kept.append(detection)
    return sorted(kept, key=lambda one: -one.score)


def in_order(detections: Sequence[Detection], order: str, size: tuple[int, int]) -> list[Detection]:
    """Return detections in one of ORDERS: by area, from the image's left, or by distance from its center.

    Args:
        size: (height, width) of the image.
    """
    if order not in ORDERS:
        raise ValueError(f"Faces can be ordered by {', '.join(ORDERS)}, got {order!r}.")
    middle = (size[1] / 2, size[0] / 2)
    keys: dict[str, Callable[[Box], float]] = {
        "largest": lambda box: -box.area,
        "left to right": lambda box: box.center[0],
        "centre": lambda box: math.dist(box.center, middle),
    }
    return sorted(detections, key=lambda detection: keys[order](detection.box))
