"""What networks are shown of an image: uint8 pixels, crops about a face, CLIP's and the expression classifier's input.

Images in uint8 are (H, W, 3) RGB; tensors of images are (n, 3, H, W) in [0, 1] unless a function says otherwise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor
from torch.nn import functional

from .box import Box
from .inputs import as_images

Image = NDArray[np.uint8]
"""(H, W, 3) RGB."""

CLASSIFIER_SIDE = 64
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def as_pixels(images: Tensor) -> list[Image]:
    """Return ComfyUI's images as uint8 images. Raises ValueError as `as_images` does."""
    return [image.mul(255).round().byte().numpy() for image in as_images(images)]


@dataclass(frozen=True)
class CropBox:
    """A square of an image, in its whole pixels; it may lead out of the image."""

    x: int
    y: int
    side: int


def crop_box(box: Box, margin: float = 0.0, within: tuple[int, int] | None = None) -> CropBox:
    """Return the square about a face.

    Args:
        box: the face's, in pixels.
        margin: part of the box's longer side that is added on each side.
        within: (height, width) of the image that the square is moved into; it is then no larger than the image.
    """
    side = max(1, round(box.longer_side * (1 + 2 * margin)))
    if within is not None:
        side = min(side, *within)
    x, y = (round(middle - side / 2) for middle in box.center)
    if within is not None:
        x, y = min(max(0, x), within[1] - side), min(max(0, y), within[0] - side)
    return CropBox(x, y, side)


def crop(image: Image, square: CropBox) -> Image:
    """Return the (side, side, 3) pixels of a square; the image's outermost pixels are repeated beyond its edge."""
    rows = np.arange(square.y, square.y + square.side).clip(0, image.shape[0] - 1)
    columns = np.arange(square.x, square.x + square.side).clip(0, image.shape[1] - 1)
    return np.ascontiguousarray(image[rows][:, columns])


def face_crop(image: Image, square: CropBox, size: int) -> Image:
    """Return a square of an image, resized to (size, size, 3)."""
    resized = PillowImage.fromarray(crop(image, square)).resize((size, size), PillowImage.Resampling.LANCZOS)
    return np.array(resized, np.uint8)


def to_crop_coords(points: NDArray[np.floating], square: CropBox, size: int) -> NDArray[np.float32]:
    """Return where points (n, 2) of an image lie in its `face_crop`, computed in float32 whatever they come in."""
    corner = np.array([square.x, square.y], np.float32)
    return ((np.asarray(points, np.float32) - corner) * (size / square.side)).astype(np.float32)


def classifier_input(image: Image, box: Box, side: int = CLASSIFIER_SIDE) -> NDArray[np.float32]:
    """Return what ResEmoteNet sees of a face: (1, 3, side, side), gray in three equal channels, as ImageNet's.

    The face's square is moved into the image where it leads out of it. The release crops by a Haar cascade, whose
    squares lie within the image, so the classifier was never shown a border of black or repeated pixels.

    Args:
        box: the face's, in pixels.
    """
    return normalized_gray(torch.from_numpy(_gray_face(image, box, side))[None, None] / 255).numpy()


def normalized_gray(images: Tensor) -> Tensor:
    """Return gray images (n, 1, H, W) in [0, 1] in three channels, normalized as ImageNet's: (n, 3, H, W) float32."""
    mean, std = (torch.tensor(values, dtype=images.dtype)[:, None, None] for values in (_IMAGENET_MEAN, _IMAGENET_STD))
    return ((images - mean) / std).float()


def gray_input(image: Image, box: Box, side: int = CLASSIFIER_SIDE) -> NDArray[np.float32]:
    """Return what FER+ sees of a face: (1, 1, side, side), gray from 0 to 255. The crop is `classifier_input`'s."""
    return np.ascontiguousarray(_gray_face(image, box, side)[None, None], np.float32)


def _gray_face(image: Image, box: Box, side: int) -> NDArray[np.float64]:
    """Return the square about a face, moved into the image, in gray from 0 to 255: (side, side)."""
    face = PillowImage.fromarray(crop(image, crop_box(box, within=(image.shape[0], image.shape[1]))))
    face = face.resize((side, side), PillowImage.Resampling.BILINEAR).convert("L")
    return np.asarray(face, np.float64)


def clip_normalization(config: Path) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (3, 1, 1) of a CLIP model's input.

    Args:
        config: a JSON file with image_mean and image_std. CLIP's own values stand in for what is missing.
    """
    values = json.loads(config.read_text("utf-8")) if config.is_file() else {}
    mean, std = values.get("image_mean", _CLIP_MEAN), values.get("image_std", _CLIP_STD)
    return torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]


def clip_input(images: Tensor, size: int, mean: Tensor, std: Tensor, to_bytes: bool = True) -> Tensor:
    """Return what a CLIP model sees of square images: (n, 3, size, size), resized and normalized as ComfyUI does it.

    Args:
        images: (n, 3, S, S) in [0, 1].
        mean, std: (3, 1, 1), see `clip_normalization`.
        to_bytes: round to the 256 values of a byte, as ComfyUI does. Without it the result has a gradient.
    """
    if images.shape[2:] != (size, size):
        images = functional.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    if to_bytes:
        images = images.mul(255).round().div(255)
    return (images - mean) / std


def negative_clip_input(size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the input (1, 3, size, size) that negative tokens are made from: zeros after normalization, not black."""
    return torch.zeros(1, 3, size, size, device=device)
