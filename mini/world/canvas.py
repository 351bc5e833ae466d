"""A canvas for flat illustration: anti-aliased shapes by OpenCV, drawn at twice the size and averaged down.

Points are in pixels of the finished picture, (0, 0) its upper left corner, so a pixel's center lies at a half.
Drawing is in fixed point, so a picture is the same, bit for bit, wherever it is drawn.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
_FINER = 2  # drawn so many times larger
_SHIFT = 4  # fractional bits of a coordinate


def mix(a: Color, b: Color, share: float) -> Color:
    """Return `share` of b in a."""
    red, green, blue = (round(x + share * (y - x)) for x, y in zip(a, b, strict=True))
    return red, green, blue


def hull(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (m, 2) convex outline of (n, 2) points."""
    return cv2.convexHull(points[..., :2].reshape(-1, 2).astype(np.float32))[:, 0].astype(np.float64)


def smooth(points: NDArray[np.float64], rounds: int = 2, closed: bool = True) -> NDArray[np.float64]:
    """Return a polygon or polyline (n, d) with its corners cut (Chaikin's algorithm)."""
    for _ in range(rounds):
        nxt = np.roll(points, -1, axis=0) if closed else points[1:]
        cur = points if closed else points[:-1]
        corners = np.stack([0.75 * cur + 0.25 * nxt, 0.25 * cur + 0.75 * nxt], axis=1).reshape(-1, points.shape[1])
        points = corners if closed else np.concatenate([points[:1], corners, points[-1:]])
    return points


def ellipse(x: float, y: float, rx: float, ry: float, steps: int = 20) -> NDArray[np.float64]:
    """Return the (steps, 2) outline of an ellipse about (x, y)."""
    turn = np.linspace(0, 2 * np.pi, steps, endpoint=False)
    return np.column_stack([np.cos(turn), np.sin(turn)]) * (rx, ry) + (x, y)


class Canvas:
    """`pixels` (2 H, 2 W, 3) uint8 RGB; `owners` (2 H, 2 W) uint8, whose shape is seen where: 0 nobody's."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.pixels = np.zeros((height * _FINER, width * _FINER, 3), np.uint8)
        self.owners = np.zeros((height * _FINER, width * _FINER), np.uint8)
        self._origin = np.zeros(2)  # of `pixels`, in pixels of the picture

    def _fixed(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.rint((points[..., :2] - self._origin) * (_FINER << _SHIFT) - (1 << _SHIFT - 1)).astype(np.int32)

    def _around(self, fixed: NDArray[np.int32], margin: float) -> tuple[slice, slice] | None:
        left, top, wide, high = cv2.boundingRect(fixed >> _SHIFT)
        more = round(margin * _FINER) + 1
        x0, x1 = max(left - more, 0), min(left + wide + more, self.pixels.shape[1])
        y0, y1 = max(top - more, 0), min(top + high + more, self.pixels.shape[0])
        return (slice(y0, y1), slice(x0, x1)) if x1 > x0 and y1 > y0 else None

    def fill(self, points: NDArray[np.float64], color: Color, alpha: float = 1.0, owner: int | None = None) -> None:
        """Fill a polygon; with `owner`, what it covers becomes that owner's."""
        fixed = self._fixed(points)
        if owner is not None:
            cv2.fillPoly(self.owners, [fixed], owner, cv2.LINE_8, _SHIFT)
        with self._blended(fixed, 1, alpha):
            cv2.fillPoly(self.pixels, [fixed], color, cv2.LINE_AA, _SHIFT)

    def line(
        self, points: NDArray[np.float64], color: Color, width: float, alpha: float = 1.0, closed: bool = False
    ) -> None:
        """Draw a stroke `width` pixels wide."""
        fixed, thickness = self._fixed(points), max(1, round(width * _FINER))
        with self._blended(fixed, width + 1, alpha):
            cv2.polylines(self.pixels, [fixed], closed, color, thickness, cv2.LINE_AA, _SHIFT)

    @contextmanager
    def _blended(self, fixed: NDArray[np.int32], margin: float, alpha: float) -> Iterator[None]:
        """Blend what is drawn in this block, within `margin` pixels of the points, over what was there."""
        where = self._around(fixed, margin) if alpha < 1 else None
        before = self.pixels[where].copy() if where else None
        yield
        if where and before is not None:
            self.pixels[where] = cv2.addWeighted(self.pixels[where], alpha, before, 1 - alpha, 0)

    @contextmanager
    def inside(self, points: NDArray[np.float64]) -> Iterator[None]:
        """Show what is drawn in this block inside the polygon only. Nothing in it may change an owner."""
        fixed = self._fixed(points)
        where = self._around(fixed, 1)
        whole, origin = self.pixels, self._origin
        if where is None:
            self.pixels = np.zeros((1, 1, 3), np.uint8)  # nothing of it is in the picture
            yield
            self.pixels = whole
            return
        corner = np.array([where[1].start, where[0].start])
        self.pixels, self._origin = whole[where].copy(), origin + corner / _FINER
        yield
        drawn, self.pixels, self._origin = self.pixels, whole, origin
        mask = np.zeros(drawn.shape[:2], np.uint8)
        cv2.fillPoly(mask, [fixed - (corner << _SHIFT).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
        share = mask[..., None].astype(np.uint16)
        whole[where] = ((drawn * share + whole[where] * (255 - share) + 127) // 255).astype(np.uint8)

    def soften(self, radius: float) -> None:
        """Blur everything drawn so far."""
        self.pixels = cv2.GaussianBlur(self.pixels, (0, 0), radius * _FINER).astype(np.uint8, copy=False)

    def image(self) -> NDArray[np.uint8]:
        """Return the finished picture, (H, W, 3) uint8 RGB."""
        return cv2.resize(self.pixels, (self.width, self.height), interpolation=cv2.INTER_AREA).astype(np.uint8)

    def owned(self) -> NDArray[np.uint8]:
        """Return the owner at each pixel, (H, W) uint8."""
        return np.ascontiguousarray(self.owners[::_FINER, ::_FINER])
