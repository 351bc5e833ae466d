"""A face found in a reference picture, as an identity remembers it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Face:
    """What is known of the face an identity was made from.

    Attributes:
        embedding: (512,) float32, L2-normalised ArcFace embedding, or None.
        landmarks: (106, 2) float32, insightface's 2-D landmarks, in the picture squashed to 512 x 512, or None.
    """

    embedding: Tensor | None = None
    landmarks: Tensor | None = None
