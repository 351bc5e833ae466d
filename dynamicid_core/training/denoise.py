"""The noise that the UNet predicts, and images drawn from it, to be looked at while training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor

from ..image_grid import image_grid
from .base_model import BaseNetworks, TextStates
from .config import TrainingConfig
from .rng import seeded_generator
from .saa import IdentityInput

STEPS, GUIDANCE = 20, 5.0


def predict_noise(
    base: BaseNetworks,
    noisy: Tensor,
    timesteps: Tensor,
    text: TextStates,
    tokens: Tensor | None,
    config: TrainingConfig,
) -> Tensor:
    """Return the UNet's noise (n, 4, h, w); without tokens (n, T, D) nobody takes part, and of SAA only the LoRA."""
    people: dict[str, Any] = {}
    if tokens is not None:
        people["identity"] = IdentityInput(tokens, config.gate_threshold, config.gate)
    added = base.added_conditions(text, noisy)
    noise: Tensor = base.unet(
        noisy, timesteps, text.states, cross_attention_kwargs=people, added_cond_kwargs=added
    ).sample
    return noise


@torch.no_grad()
def sample_images(
    base: BaseNetworks,
    tokens: Tensor,
    negative_tokens: Tensor,
    prompts: Sequence[str],
    size: Sequence[int],
    config: TrainingConfig,
) -> Tensor:
    """Return images (n, 3, H, W) in [0, 1] of people, by DDIM (arXiv 2010.02502) with classifier-free guidance.

    Args:
        tokens: (n, T, D) of the people; negative_tokens: (1, T, D).
        size: (H, W) in pixels.
    """
    device = base.unet.device
    context = base.text([""] * len(prompts) + list(prompts))
    scheduler = DDIMScheduler.from_config(base.scheduler.config)
    scheduler.set_timesteps(STEPS)
    shape = base.moments(torch.zeros(1, 3, *size, device=device))[0].shape[1:]
    x = torch.randn((len(prompts), *shape), generator=seeded_generator(0, -2, -1)).to(device)
    people = torch.cat([negative_tokens.expand_as(tokens), tokens])
    for timestep in scheduler.timesteps:
        unconditional, conditional = predict_noise(base, torch.cat([x, x]), timestep, context, people, config).chunk(2)
        # eps = eps_u + s (eps_c - eps_u) (arXiv 2207.12598, equation 6).
        noise = unconditional + GUIDANCE * (conditional - unconditional)
        x = scheduler.step(noise, timestep, x).prev_sample
    return base.images(x)


def sheet(*rows: Tensor) -> NDArray[np.uint8]:
    """Return rows of images, each (n, 3, H, W) in [0, 1], as one image (rows * H, n * W, 3)."""
    images = torch.cat(rows).permute(0, 2, 3, 1).mul(255).round().byte().cpu().numpy()  # (rows * n, H, W, 3)
    return image_grid(list(images), len(rows[0]))
