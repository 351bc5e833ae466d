"""The transformer's stage: Flux's, in small, on latents of portraits and groups with their captions.

Rectified flow (arXiv 2209.03003, equation 1): z_t = (1 - t) z + t eps, and the network predicts dz/dt = eps - z.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..networks import FLUX_SHIFT
from . import comfyui, encoders
from .drawing import DrawingStage
from .stage import StageConfig, TrainContext
from .words import words

OPTIONS = {
    "optimized_attention_override": comfyui.joint_attention,
    "patches": {"attn1_patch": [comfyui.rotate]},
}


def shifted(t: Tensor, shift: float = FLUX_SHIFT) -> Tensor:
    """Return times later in the noise (arXiv 2403.03206, equation 23): shift t / (1 + (shift - 1) t)."""
    return shift * t / (1 + (shift - 1) * t)


@torch.no_grad()
def sample(
    network: nn.Module,
    reader: nn.Module,
    captions: Sequence[str],
    size: tuple[int, int],
    context: TrainContext,
    steps: int = 20,
    guidance: float = 4.0,
    seed: int = 0,
) -> Tensor:
    """Return latents (n, 4, *size) drawn from noise by Euler's method with classifier-free guidance."""
    device = context.device
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn((len(captions), 4, *size), generator=rng).to(device)
    times = shifted(torch.linspace(1, 0, steps + 1)).tolist()
    with context.autocast():
        tokens = words().batch([*captions, *[""] * len(captions)]).to(device)
        states, pooled = encoders.read_pooled(reader, tokens)
        for now, then in pairwise(times):
            at = torch.full((2 * len(x),), now, device=device)
            prediction = network(torch.cat([x, x]), at, states, pooled, transformer_options=OPTIONS).float()
            conditional, unconditional = prediction.chunk(2)
            x = x + (then - now) * (unconditional + guidance * (conditional - unconditional))
    return x


class FluxStage(DrawingStage):
    name = "flux"
    config = StageConfig(steps=9_000, learning_rate=1e-3, decay_ratio=0.3, weight_decay=0.01, ema_decay=0.998)
    portraits, groups = 4, 8
    spread = 1.0  # of the times' logits, which are normal (arXiv 2403.03206, equation 19), before they are shifted

    def network(self) -> nn.Module:
        return comfyui.flux()

    def errors(
        self, network: nn.Module, true: Tensor, captions: Sequence[str], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        device = self.context.device
        with torch.no_grad():
            states, pooled = encoders.read_pooled(self.reader, words().batch(captions).to(device))
        times = shifted(torch.sigmoid(self.spread * torch.randn(len(true), generator=rng))).to(device)
        noise = torch.randn(true.shape, generator=rng).to(device)
        t = times[:, None, None, None]  # (n, 1, 1, 1)
        prediction = network((1 - t) * true + t * noise, times, states, pooled, transformer_options=OPTIONS)
        return (prediction.float() - (noise - true)).square(), torch.ones_like(times)

    def sampled(self, network: nn.Module, captions: Sequence[str], size: tuple[int, int], seed: int) -> Tensor:
        return sample(network, self.reader, captions, size, self.context, seed=seed)
