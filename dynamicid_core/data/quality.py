"""How good a picture of a face is, in numbers."""

import numpy as np
from PIL import Image as Pillow

from ..image_inputs import Image
from .optional import needed

_SIDE = 128  # pixels a side at which all faces are compared
_HASH = 16  # bits a side
_HALF_SHARPNESS, _HALF_SIDE = 100.0, 128.0  # at which each counts half


def sharpness(image: Image, box: tuple[float, float, float, float]) -> float:
    """Variance of the Laplacian of a face's grey values, the box brought to 128 x 128; 0 where all is one grey.

    It grows with the contrast too; the same face at half the resolution, or out of focus, has far less.

    Args:
        box: (x0, y0, x1, y1) in pixels; what lies beyond the picture is left out.
    """
    import cv2

    height, width = image.shape[:2]
    x0, y0 = (max(0, round(side)) for side in box[:2])
    x1, y1 = min(width, round(box[2])), min(height, round(box[3]))
    if x1 <= x0 or y1 <= y0:
        return 0.0
    face = cv2.resize(image[y0:y1, x0:x1], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def perceptual_hash(crop: Image) -> str:
    """64 hexadecimal digits, 256 bits that are nearly the same for a picture that was made smaller or saved again."""
    return str(needed("imagehash").phash(Pillow.fromarray(crop), hash_size=_HASH))


def bits_apart(a: str, b: str) -> int:
    """In how many bits two hashes differ."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def quality(score: float, side: float, sharp: float) -> float:
    """0..1, what counts when two pictures show the same: the detector's score, the face's size, its sharpness.

    Args:
        side: pixels of the face's longer side in the source.
        sharp: see `sharpness`.
    """
    worth = score * side / (side + _HALF_SIDE) * sharp / (sharp + _HALF_SHARPNESS)
    return float(np.clip(worth, 0, 1))
