"""What the UNet predicts of noise, and pictures drawn from it: to be looked at while training."""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from .base_model import BaseNetworks
from .saa import IdentityInput
from .stage import chance

STEPS, GUIDANCE = 20, 5.0


def predict_noise(
    base: BaseNetworks, noisy: Tensor, times: Tensor, text: Tensor, tokens: Tensor | None, gate: bool, threshold: float
) -> Tensor:
    """The UNet's noise (n, 4, h, w); without tokens (n, T, D) nobody is drawn in, and only SAA's LoRA takes part."""
    people: dict[str, Any] = {} if tokens is None else {"identity": IdentityInput(tokens, threshold, gate)}
    said: Tensor = base.unet(noisy, times, text, cross_attention_kwargs=people).sample
    return said


@torch.no_grad()
def sample_images(
    base: BaseNetworks,
    tokens: Tensor,
    nobody: Tensor,
    prompts: Sequence[str],
    size: Sequence[int],
    gate: bool,
    threshold: float,
) -> Tensor:
    """Pictures (n, 3, H, W) in [0, 1] of people, by DDIM with classifier-free guidance.

    Args:
        tokens: (n, T, D) of the people; nobody: (1, T, D), the negative half's.
        size: (H, W) in pixels.
    """
    device = base.unet.device
    text, empty = base.text(prompts)[0], base.text([""] * len(prompts))[0]
    scheduler = DDIMScheduler.from_config(base.scheduler.config)
    scheduler.set_timesteps(STEPS)
    shape = base.moments(torch.zeros(1, 3, *size, device=device))[0].shape[1:]
    x = torch.randn((len(prompts), *shape), generator=chance(0, -2)).to(device)
    context, people = torch.cat([empty, text]), torch.cat([nobody.expand_as(tokens), tokens])
    for time in scheduler.timesteps:
        plain, asked = predict_noise(base, torch.cat([x, x]), time, context, people, gate, threshold).chunk(2)
        x = scheduler.step(plain + GUIDANCE * (asked - plain), time, x).prev_sample
    return base.pictures(x)


def side_by_side(pictures: Tensor) -> Tensor:
    """(n, 3, H, W) to (3, H, n * W)."""
    return torch.cat(list(pictures), dim=2)
