"""Which face is whose by its place, and what lies outside all faces."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..box import Box


def in_regions(boxes: Sequence[Box], regions: Sequence[Box]) -> list[int | None]:
    """For each region the largest face that stands in it; None where none does.

    A face stands in the region that holds its middle; of several in the one whose own middle is nearest.
    """
    found: list[int | None] = [None] * len(regions)
    for face in sorted(range(len(boxes)), key=lambda i: -_area(boxes[i])):
        x, y = _middle(boxes[face])
        around = [i for i, (x0, y0, x1, y1) in enumerate(regions) if x0 <= x <= x1 and y0 <= y <= y1]
        if around:
            nearest = min(around, key=lambda i: np.hypot(_middle(regions[i])[0] - x, _middle(regions[i])[1] - y))
            if found[nearest] is None:
                found[nearest] = face
    return found


def outside(size: tuple[int, int], boxes: Sequence[Box], margin: float) -> NDArray[np.bool_]:
    """(height, width) True where no face is: none of the boxes, grown on each side by `margin` of its longer side.

    Args:
        size: (height, width) in pixels, as the boxes are.
    """
    mask = np.ones(size, bool)
    for x0, y0, x1, y1 in boxes:
        grown = margin * max(x1 - x0, y1 - y0)
        left, top = (max(0, int(np.floor(side - grown))) for side in (x0, y0))
        right, bottom = (max(0, int(np.ceil(side + grown))) for side in (x1, y1))
        mask[top:bottom, left:right] = False
    return mask


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
