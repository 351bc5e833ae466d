"""Where a person may be drawn: a box or a mask, and its cells on any grid of the UNet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..box import Box

# A box edge that falls on a cell border may be off by float noise (0.29 * 100 = 28.999...).
_EDGE_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the picture: a box, or a mask, or (neither given) the whole picture.

    Attributes:
        box: (x0, y0, x1, y1) in fractions of width and height, 0 <= x0 <= x1 <= 1.
        mask: (H, W) float32 in [0, 1], any size; stretched over the whole picture.
    """

    box: Box | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.box is not None and self.mask is not None:
            raise ValueError("A region is either a box or a mask; both were given. Leave one of them out.")
        if self.box is not None:
            object.__setattr__(self, "box", _checked_box(self.box))
        if self.mask is not None:
            object.__setattr__(self, "mask", _checked_mask(self.mask))

    @property
    def is_empty(self) -> bool:
        """A box without area or a mask that is zero everywhere: nobody can be drawn in it."""
        if self.mask is not None:
            return not bool((self.mask > 0).any())
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            return x1 <= x0 or y1 <= y0
        return False

    def rasterize(self, height: int, width: int) -> Tensor:
        """The region's part of each cell of a grid: (height, width) float32 in [0, 1].

        A region that is not empty keeps at least one full cell, however coarse the grid.
        """
        if self.is_empty:
            return torch.zeros(height, width)
        if self.mask is not None:
            return _rasterize_mask(self.mask, height, width)
        x0, y0, x1, y1 = self.box or (0.0, 0.0, 1.0, 1.0)
        grid = torch.zeros(height, width)
        grid[_cells(y0, y1, height), _cells(x0, x1, width)] = 1
        return grid


def columns(count: int) -> tuple[Region, ...]:
    """Equal vertical strips from left to right, the paper's layout when no boxes are given; one person has all."""
    if count == 1:
        return (Region(),)
    return tuple(Region(box=strip) for strip in strips(count))


def strips(count: int) -> list[Box]:
    """The boxes of equal vertical strips, from left to right."""
    return [(i / count, 0.0, (i + 1) / count, 1.0) for i in range(count)]


def grown(region: Region, margin: float) -> Region:
    """A box grown on each side by a part of its own size, as far as the picture goes; other regions as they are."""
    if region.box is None or margin == 0:
        return region
    x0, y0, x1, y1 = region.box
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    return Region(box=(max(x0 - dx, 0.0), max(y0 - dy, 0.0), min(x1 + dx, 1.0), min(y1 + dy, 1.0)))


def rasterize(regions: Sequence[Region], height: int, width: int) -> Tensor:
    """All regions on one grid: (people, height, width) float32 in [0, 1]."""
    return torch.stack([region.rasterize(height, width) for region in regions])


def box_from_pixels(x: float, y: float, box_width: float, box_height: float, width: int, height: int) -> Box:
    """A box in pixels of a width x height picture as fractions; what hangs over the picture's edge is cut off.

    Raises:
        ValueError: the picture has no area, or the box lies wholly outside it.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f"The picture's size must be positive to place a box in it, got {width} x {height} pixels.")
    x0, x1 = (min(max(edge / width, 0.0), 1.0) for edge in (x, x + box_width))
    y0, y1 = (min(max(edge / height, 0.0), 1.0) for edge in (y, y + box_height))
    if box_width > 0 and box_height > 0 and (x1 <= x0 or y1 <= y0):
        raise ValueError(
            f"The box at ({x:g}, {y:g}) of {box_width:g} x {box_height:g} pixels lies outside the "
            f"{width} x {height} picture. Give the size of the picture that the boxes were drawn for."
        )
    return (x0, y0, x1, y1)


def _cells(start: float, end: float, count: int) -> slice:
    """The cells from int(start * count) up to, not including, int(end * count); the middle one where that is none."""
    first, last = (math.floor(edge * count + _EDGE_TOLERANCE) for edge in (start, end))
    if last > first:
        return slice(first, last)
    middle = min(int((start + end) / 2 * count), count - 1)
    return slice(middle, middle + 1)


def _rasterize_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """Mean of the mask over each cell; the fullest cell takes the mask's peak, so that thin masks don't fade away."""
    grid = F.interpolate(mask[None, None], size=(height, width), mode="area")[0, 0]
    return torch.where(grid >= grid.max(), mask.max(), grid)


def _checked_box(box: Sequence[float]) -> Box:
    expected = "A box is (x0, y0, x1, y1) in fractions of the picture with 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1"
    if len(box) != 4:
        raise ValueError(f"{expected}, got {len(box)} numbers: {tuple(box)}.")
    x0, y0, x1, y1 = (float(edge) for edge in box)
    # A width added to a start may pass 1 by float noise.
    x1, y1 = (min(edge, 1.0) if edge < 1 + _EDGE_TOLERANCE else edge for edge in (x1, y1))
    if not (0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1):
        raise ValueError(
            f"{expected}, got x {x0:g} to {x1:g} and y {y0:g} to {y1:g}. "
            "Make the box smaller or move it so that it lies within the picture."
        )
    return (x0, y0, x1, y1)


def _checked_mask(mask: Tensor) -> Tensor:
    if mask.ndim == 3 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim != 2 or mask.numel() == 0:
        raise ValueError(
            f"A region's mask is one picture of shape (height, width), got shape {tuple(mask.shape)}. "
            "Give each person a mask of their own, or use Auto Layout with a batch of masks, one per person."
        )
    mask = mask.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(mask).all()):
        raise ValueError("A region's mask must hold numbers from 0 to 1, but this one contains NaN or infinity.")
    return mask.clamp(0, 1)
