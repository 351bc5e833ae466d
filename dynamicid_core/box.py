"""One box type for faces, regions and crops."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle (x0, y0, x1, y1), x to the right and y down.

    In pixels of an image, or in fractions of its width and height where the holder says so.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def of(cls, edges: Iterable[float]) -> Box:
        """Return four edges, an array's or a list's, as a box of Python floats. Raises TypeError for another count."""
        return cls(*(float(edge) for edge in edges))

    @classmethod
    def from_xywh(cls, x: float, y: float, width: float, height: float) -> Box:
        """Return the box of a corner and a size."""
        return cls(x, y, x + width, y + height)

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def longer_side(self) -> float:
        return max(self.width, self.height)

    @property
    def area(self) -> float:
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        """(x, y)"""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def contains(self, x: float, y: float) -> bool:
        """Return whether a point lies in the box, its edges included."""
        return self.x0 <= x <= self.x1 and self.y0 <= y <= self.y1

    def scaled(self, x: float, y: float) -> Box:
        """Return the box with its x edges times `x` and its y edges times `y`."""
        return Box(self.x0 * x, self.y0 * y, self.x1 * x, self.y1 * y)

    def moved(self, x: float, y: float) -> Box:
        """Return the box so much further right and down."""
        return Box(self.x0 + x, self.y0 + y, self.x1 + x, self.y1 + y)

    def overlap(self, other: Box) -> float:
        """Return the area that two boxes share."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, width) * max(0.0, height)

    def grown(self, x: float, y: float) -> Box:
        """Return the box with `x` more on its left and on its right, and `y` more above and below."""
        return Box(self.x0 - x, self.y0 - y, self.x1 + x, self.y1 + y)

    def clamped(self) -> Box:
        """Return the part of a box in fractions that lies within the image."""
        return Box(*(min(max(edge, 0.0), 1.0) for edge in self))

    def to_fractions(self, width: float, height: float) -> Box:
        """Return a box in pixels of a width x height image in fractions of it."""
        return Box(self.x0 / width, self.y0 / height, self.x1 / width, self.y1 / height)
