"""How good an image of a face is, in numbers."""

import numpy as np
from PIL import Image as PillowImage

from ..box import Box
from ..image_inputs import Image
from .optional import require

_SIDE = 128  # pixels a side at which the sharpness of all faces is compared
_HASH_SIDE = 16  # bits a side of the perceptual hash
_HALF_SHARPNESS, _HALF_SIDE = 100.0, 128.0  # each halves the quality


def sharpness(image: Image, box: Box) -> float:
    """Return the variance of the Laplacian of a face's gray values, the box resized to 128 x 128; 0 for one gray.

    It grows with the contrast too; the same face at half the resolution, or out of focus, has far less.

    Args:
        box: in pixels; what lies beyond the image is left out.
    """
    import cv2

    height, width = image.shape[:2]
    x0, y0 = max(0, round(box.x0)), max(0, round(box.y0))
    x1, y1 = min(width, round(box.x1)), min(height, round(box.y1))
    if x1 <= x0 or y1 <= y0:
        return 0.0
    face = cv2.resize(image[y0:y1, x0:x1], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def perceptual_hash(crop: Image) -> str:
    """Return pHash, by the discrete cosine transform: 256 bits as 64 hexadecimal digits.

    They are nearly the same for an image that was made smaller or saved again.
    """
    return str(require("imagehash").phash(PillowImage.fromarray(crop), hash_size=_HASH_SIDE))


def hamming_distance(a: str, b: str) -> int:
    """Return in how many bits two hashes differ."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def quality(score: float, side: float, sharp: float) -> float:
    """Return a face's quality, 0..1: the better of two images that show the same is kept.

    Args:
        score: the detector's, 0..1.
        side: pixels of the face's longer side in the source.
        sharp: see `sharpness`.
    """
    return float(np.clip(score * side / (side + _HALF_SIDE) * sharp / (sharp + _HALF_SHARPNESS), 0, 1))
