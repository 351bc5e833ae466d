"""Square crops about faces: cut out at another size, and pasted back through a soft mask.

Images are (H, W, C) float32 in [0, 1] on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ..box import Box
from ..image_inputs import CropBox, crop_box
from ..saa.regions import regions_about

PASTED = 0.5
"""Of a square's margin, what is pasted back: the rest shows the model what surrounds a face, and stays as it is."""


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """What is drawn of a face.

    Attributes:
        square: within the image.
        mask: (side, side) in [0, 1], how much of each pixel is pasted back; 0 in what belongs to a neighbor.
    """

    square: CropBox
    mask: Tensor = field(repr=False)

    def window(self, height: int, width: int) -> Box:
        """Return the square in fractions of the image."""
        square = self.square
        return Box.from_xywh(square.x, square.y, square.side, square.side).to_fractions(width, height)


def face_crops(boxes: Sequence[Box], height: int, width: int, margin: float, feather: float) -> list[FaceCrop]:
    """Return the crop of each face; a square moves into the image where it would lead out of it.

    Args:
        boxes: of all faces of the image, in its pixels: masks meet in the middle between two faces.
        margin: part of its size that is added to a face on each side of the square; of the mask, PASTED of it.
        feather: part of the square's side over which a mask goes from 0 to 1. The image's edge has no feather.
    """
    regions = regions_about([box.to_fractions(width, height) for box in boxes], PASTED * margin)
    crops = []
    for box, region in zip(boxes, regions, strict=True):
        square = crop_box(box, margin, within=(height, width))
        assert region.box is not None
        across = _ramp(region.box.x0, region.box.x1, width, square.x, square.side, feather)
        down = _ramp(region.box.y0, region.box.y1, height, square.y, square.side, feather)
        crops.append(FaceCrop(square, down[:, None] * across[None]))
    return crops


def _ramp(start: float, end: float, length: int, first: int, count: int, feather: float) -> Tensor:
    """Return how much of each of `count` pixels of a line, from `first` on, is inside start..end, softly: (count,).

    Args:
        start, end: in fractions of the line's `length` in pixels.
    """
    centers = torch.arange(first, first + count) + 0.5
    width = max(feather * count, 1e-6)
    rising = torch.ones(count) if start <= 0 else (centers - start * length) / width
    falling = torch.ones(count) if end >= 1 else (end * length - centers) / width
    return torch.minimum(rising, falling).clamp(0, 1)


def cut(image: Tensor, square: CropBox, size: int) -> Tensor:
    """Return the square of an image at another size: (1, size, size, C)."""
    rows, columns = _slices(square)
    return _resized(image[rows, columns], size)[None]


def paste(image: Tensor, drawn: Tensor, crop: FaceCrop) -> Tensor:
    """Return a copy of the image with a drawn square (size, size, C) in place; where the mask is 0, to the bit."""
    rows, columns = _slices(crop.square)
    pasted = image.clone()
    before = image[rows, columns]
    after = torch.lerp(before, _resized(drawn.to(image), crop.square.side), crop.mask[..., None])
    pasted[rows, columns] = torch.where(crop.mask[..., None] > 0, after, before)
    return pasted


def _slices(square: CropBox) -> tuple[slice, slice]:
    return slice(square.y, square.y + square.side), slice(square.x, square.x + square.side)


def _resized(image: Tensor, size: int) -> Tensor:
    """Return a square image at another size, (size, size, C) in [0, 1]."""
    if image.shape[0] == image.shape[1] == size:
        return image
    batch = image.movedim(-1, 0)[None]  # (1, c, h, w)
    return functional.interpolate(batch, (size, size), mode="bicubic", antialias=True).clamp(0, 1)[0].movedim(0, -1)
