"""Where a person may be drawn: a box or a mask, still or moving, and its cells on any grid of the UNet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..box import Box

WHOLE = Box(0.0, 0.0, 1.0, 1.0)

# A box edge that falls on a cell border may be off by float noise (0.29 * 100 = 28.999...).
_EDGE_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the image: a box, or a mask, or (neither given) the whole image.

    Attributes:
        box: (x0, y0, x1, y1) in fractions of width and height, 0 <= x0 <= x1 <= 1.
        mask: (H, W) float32 in [0, 1], any size; stretched over the whole image. Or (frames, H, W), one for each frame
            of a batch: the region moves.
    """

    box: Box | None = None
    mask: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.box is not None and self.mask is not None:
            raise ValueError("A region is either a box or a mask; both were given. Leave one of them out.")
        if self.box is not None:
            object.__setattr__(self, "box", _checked_box(self.box))
        if self.mask is not None:
            object.__setattr__(self, "mask", _checked_mask(self.mask))

    @property
    def frames(self) -> int:
        """Number of frames in which it moves; 1 where it stands still."""
        return 1 if self.mask is None or self.mask.ndim == 2 else len(self.mask)

    def at(self, frame: int) -> "Region":
        """Return where it is in a frame, from 0; after its last frame it stays there."""
        return self if self.mask is None or self.mask.ndim == 2 else Region(mask=self.mask[min(frame, self.frames - 1)])

    @property
    def is_empty(self) -> bool:
        """Whether nobody can be drawn in it: a box without area or a mask that is zero everywhere, in all frames."""
        if self.mask is not None:
            return not bool((self.mask > 0).any())
        return self.box is not None and (self.box.width <= 0 or self.box.height <= 0)

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole image, which tells nothing of where somebody is."""
        return self.mask is None and self.box in (None, WHOLE)

    @property
    def center(self) -> tuple[float, float]:
        """(x, y) in fractions of the image: a box's middle, a mask's mean; of the first frame."""
        if self.mask is None:
            return (self.box or WHOLE).center
        mask = self.mask if self.mask.ndim == 2 else self.mask[0]
        rows, cols = torch.nonzero(mask > 0, as_tuple=True)
        if not len(rows):
            return WHOLE.center
        return (float(cols.float().mean()) + 0.5) / mask.shape[1], (float(rows.float().mean()) + 0.5) / mask.shape[0]

    def covers(self, x: float, y: float) -> float:
        """Return the region's part of a point in fractions of the image: 0..1; of the first frame."""
        if self.is_empty:
            return 0.0
        if self.mask is None:
            return float((self.box or WHOLE).contains(x, y))
        mask = self.mask if self.mask.ndim == 2 else self.mask[0]
        height, width = mask.shape
        return float(mask[min(max(int(y * height), 0), height - 1), min(max(int(x * width), 0), width - 1)])

    def rasterize(self, height: int, width: int) -> Tensor:
        """Return the region's part of each cell of a grid: (height, width) float32 in [0, 1]; of the first frame.

        A region that is not empty keeps at least one full cell, however coarse the grid.
        """
        if self.frames > 1:
            return self.at(0).rasterize(height, width)
        if self.is_empty:
            return torch.zeros(height, width)
        if self.mask is not None:
            return _rasterize_mask(self.mask, height, width)
        x0, y0, x1, y1 = self.box or WHOLE
        grid = torch.zeros(height, width)
        grid[_cells(y0, y1, height), _cells(x0, x1, width)] = 1
        return grid


def columns(count: int) -> tuple[Region, ...]:
    """Return equal vertical strips from left to right, the paper's layout without boxes; one person has all."""
    if count == 1:
        return (Region(),)
    return tuple(Region(box=strip) for strip in strips(count))


def strips(count: int) -> list[Box]:
    """Return the boxes of equal vertical strips, from left to right."""
    return [Box(i / count, 0.0, (i + 1) / count, 1.0) for i in range(count)]


def regions_about(faces: Sequence[Box | None], reach: float) -> list[Region]:
    """Return a region about each face, none in another's; an empty one where there is no face.

    Args:
        faces: boxes in fractions of the image.
        reach: how far a region goes beyond its face on each side, in faces. Neighbors meet in the middle between them.
    """
    places = [place for place, box in enumerate(faces) if box is not None]
    boxes = np.array([box for box in faces if box is not None]).reshape(-1, 2, 2)  # (face, start or end, x or y)
    sides = boxes[:, 1] - boxes[:, 0]
    grown = boxes + reach * np.stack([-sides, sides], axis=1)
    for i, j in combinations(range(len(boxes)), 2):
        # neighbors are parted across the axis along which they lie further apart
        axis = np.argmax(np.maximum(boxes[i, 0], boxes[j, 0]) - np.minimum(boxes[i, 1], boxes[j, 1]))
        near, far = sorted((i, j), key=lambda face: float(boxes[face, :, axis].sum()))
        middle = (boxes[near, 1, axis] + boxes[far, 0, axis]) / 2
        grown[near, 1, axis] = min(grown[near, 1, axis], middle)
        grown[far, 0, axis] = max(grown[far, 0, axis], middle)
    regions = [Region(box=Box(0.0, 0.0, 0.0, 0.0))] * len(faces)
    for place, box in zip(places, grown, strict=True):
        regions[place] = Region(box=Box.of(box.ravel()).clamped())
    return regions


def grown(region: Region, margin: float) -> Region:
    """Return a box grown on each side by a part of its own size, within the image; other regions as they are."""
    if region.box is None or margin == 0:
        return region
    return Region(box=region.box.grown(margin * region.box.width, margin * region.box.height).clamped())


def rasterize(regions: Sequence[Region], height: int, width: int) -> Tensor:
    """Return all regions on one grid: (people, height, width) float32 in [0, 1]."""
    return torch.stack([region.rasterize(height, width) for region in regions])


def box_from_pixels(box: Box, width: int, height: int) -> Box:
    """Return a box in pixels of a width x height image in fractions of it; what hangs over its edge is cut off.

    Raises:
        ValueError: the image has no area, or the box lies wholly outside it.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f"The picture's size must be positive to place a box in it, got {width} x {height} pixels.")
    inside = box.to_fractions(width, height).clamped()
    if box.width > 0 and box.height > 0 and (inside.width <= 0 or inside.height <= 0):
        raise ValueError(
            f"The box at ({box.x0:g}, {box.y0:g}) of {box.width:g} x {box.height:g} pixels lies outside the "
            f"{width} x {height} picture. Give the size of the picture that the boxes were drawn for."
        )
    return inside


def _cells(start: float, end: float, count: int) -> slice:
    """Return the cells int(start * count) to int(end * count), the end excluded; the middle one where that is none."""
    first, last = (math.floor(edge * count + _EDGE_TOLERANCE) for edge in (start, end))
    if last > first:
        return slice(first, last)
    middle = min(int((start + end) / 2 * count), count - 1)
    return slice(middle, middle + 1)


def _rasterize_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """Return the mask's mean over each cell; the fullest cell takes the mask's peak, so that thin masks don't fade."""
    grid = F.interpolate(mask[None, None], size=(height, width), mode="area")[0, 0]
    return torch.where(grid >= grid.max(), mask.max(), grid)


def _checked_box(box: Sequence[float]) -> Box:
    expected = "A box is (x0, y0, x1, y1) in fractions of the picture with 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1"
    if len(box) != 4:
        raise ValueError(f"{expected}, got {len(box)} numbers: {tuple(box)}.")
    x0, y0, x1, y1 = (float(edge) for edge in box)
    # a width added to a start may pass 1 by float noise
    x1, y1 = (min(edge, 1.0) if edge < 1 + _EDGE_TOLERANCE else edge for edge in (x1, y1))
    if not (0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1):
        raise ValueError(
            f"{expected}, got x {x0:g} to {x1:g} and y {y0:g} to {y1:g}. "
            "Make the box smaller or move it so that it lies within the picture."
        )
    return Box(x0, y0, x1, y1)


def _checked_mask(mask: Tensor) -> Tensor:
    if mask.ndim == 3 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.ndim not in (2, 3) or mask.numel() == 0:
        raise ValueError(
            "A region's mask is one picture of shape (height, width), or one for each frame, (frames, height, width), "
            f"got shape {tuple(mask.shape)}. Connect a mask, or a batch of masks."
        )
    mask = mask.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(mask).all()):
        raise ValueError("A region's mask must hold numbers from 0 to 1, but this one contains NaN or infinity.")
    return mask.clamp(0, 1)
