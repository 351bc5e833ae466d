"""Which face is whose by its place, and what lies outside all faces."""

import math
from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from ..box import Box


def in_regions(boxes: Sequence[Box], regions: Sequence[Box]) -> list[int | None]:
    """Return for each region the index of the largest face that stands in it; None where none does.

    A face stands in the region that holds its middle; of several in the one whose own middle is nearest.
    """
    faces: list[int | None] = [None] * len(regions)
    for face in sorted(range(len(boxes)), key=lambda i: -boxes[i].area):
        center = boxes[face].center
        around = [i for i, region in enumerate(regions) if region.contains(*center)]
        nearest = min(around, key=lambda i: math.dist(regions[i].center, center), default=None)
        if nearest is not None and faces[nearest] is None:
            faces[nearest] = face
    return faces


def outside(size: tuple[int, int], boxes: Sequence[Box], margin: float) -> NDArray[np.bool_]:
    """Return a mask (height, width), True outside all boxes, each grown by `margin` of its longer side on each side.

    Args:
        size: (height, width) in pixels, as the boxes are.
    """
    mask = np.ones(size, bool)
    for box in boxes:
        x0, y0, x1, y1 = box.grown(margin * box.longer_side, margin * box.longer_side)
        left, top, right, bottom = (max(0, edge) for edge in (floor(x0), floor(y0), ceil(x1), ceil(y1)))
        mask[top:bottom, left:right] = False
    return mask
