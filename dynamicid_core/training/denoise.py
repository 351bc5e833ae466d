"""What the network predicts of noised images with a person, and images drawn by it, to be looked at while training."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..image_grid import image_grid
from .base_networks import BaseNetworks, TextStates
from .config import TrainingConfig
from .layers import IdentityInput
from .rng import seeded_generator

STEPS = 20


def predict_noise(
    base: BaseNetworks,
    noisy: Tensor,
    timesteps: Tensor,
    text: TextStates,
    tokens: Tensor | None,
    config: TrainingConfig,
) -> Tensor:
    """Return what the network predicts (n, C, h, w): a UNet noise, Flux noise less image.

    Without tokens (n, T, D) nobody takes part, and of SAA only the LoRA.
    """
    identity = None if tokens is None else IdentityInput(tokens, config.gate_threshold, config.gate)
    return base.predict(noisy, timesteps, text, identity)


@torch.no_grad()
def sample_images(
    base: BaseNetworks,
    tokens: Tensor,
    negative_tokens: Tensor,
    prompts: Sequence[str],
    size: Sequence[int],
    config: TrainingConfig,
) -> Tensor:
    """Return images (n, 3, H, W) in [0, 1] of people, drawn with guidance.

    Args:
        tokens: (n, T, D) of the people; negative_tokens: (1, T, D).
        size: (H, W) in pixels.
    """
    context = base.text([""] * len(prompts) + list(prompts))
    shape = base.moments(torch.zeros(1, 3, *size, device=base.device))[0].shape[1:]
    noise = torch.randn((len(prompts), *shape), generator=seeded_generator(0, -2, -1)).to(base.device)
    people = torch.cat([negative_tokens.expand_as(tokens), tokens])
    identity = IdentityInput(people, config.gate_threshold, config.gate)
    return base.images(base.sample(noise, lambda x, times: base.guided(x, times, context, identity), STEPS))


def sheet(*rows: Tensor) -> NDArray[np.uint8]:
    """Return rows of images, each (n, 3, H, W) in [0, 1], as one image (rows * H, n * W, 3)."""
    images = torch.cat(rows).permute(0, 2, 3, 1).mul(255).round().byte().cpu().numpy()  # (rows * n, H, W, 3)
    return image_grid(list(images), len(rows[0]))
