"""The host's pictures as face analysis takes them."""

import numpy as np
import torch
from torch import Tensor


def as_pixels(images: Tensor) -> list[np.ndarray]:
    """Pictures (n, H, W, 1, 3 or 4) in [0, 1] as (H, W, 3) uint8; grey ones in three equal channels, what is
    transparent on white.

    Raises ValueError when they are none, or hold NaN.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape:
        raise ValueError(f"Expected pictures of shape (n, height, width, 1, 3 or 4), got {tuple(images.shape)}.")
    if not bool(torch.isfinite(images).all()):
        raise ValueError("The picture holds NaN or infinite values. Look at the node that made it.")
    images = images.detach().cpu().float().clamp(0, 1)
    if images.shape[-1] == 4:
        images = images[..., :3] * images[..., 3:] + 1 - images[..., 3:]
    elif images.shape[-1] == 1:
        images = images.expand(-1, -1, -1, 3)
    return [picture.mul(255).round().byte().numpy() for picture in images]
