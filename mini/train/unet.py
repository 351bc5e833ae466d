"""The UNet's stage: SD1.5's, in small, on latents of portraits and groups with their captions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import comfyui, encoders
from .core_training import losses
from .drawing import DrawingStage
from .stage import StageConfig, TrainContext
from .words import words

TIMESTEPS = 1000
OPTIONS = {"optimized_attention_override": comfyui.attention}


def alphas_cumprod() -> Tensor:
    """Return SD1.5's alphas_cumprod (1000,): the share of the image's variance that is left at each timestep."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


@torch.no_grad()
def sample(
    network: nn.Module,
    reader: nn.Module,
    captions: Sequence[str],
    size: tuple[int, int],
    context: TrainContext,
    steps: int = 20,
    guidance: float = 7.0,
    seed: int = 0,
) -> Tensor:
    """Return latents (n, 4, *size) drawn from noise by DDIM (arXiv 2010.02502) with classifier-free guidance."""
    device, left = context.device, alphas_cumprod()
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn((len(captions), 4, *size), generator=rng).to(device)
    with context.autocast():
        states = encoders.read(reader, words().batch([*captions, *[""] * len(captions)]).to(device))[0]
        timesteps = torch.linspace(TIMESTEPS - 1, 0, steps + 1).round().long()[:-1].tolist()
        for now, then in zip(timesteps, [*timesteps[1:], -1], strict=True):
            a, b = float(left[now]), float(left[then]) if then >= 0 else 1.0
            at = torch.full((2 * len(x),), now, device=device)
            prediction = network(torch.cat([x, x]), at, states, transformer_options=OPTIONS).float()
            conditional, unconditional = prediction.chunk(2)
            noise = unconditional + guidance * (conditional - unconditional)
            picture = (x - (1 - a) ** 0.5 * noise) / a**0.5
            x = b**0.5 * picture + (1 - b) ** 0.5 * noise
    return x


class UNetStage(DrawingStage):
    name = "unet"
    config = StageConfig(steps=13_200, learning_rate=5e-4, decay_ratio=0.25, weight_decay=0.01, ema_decay=0.998)
    # Heads, views and faces are laid out at dark timesteps. See `timestep_weights`.
    max_loss_weight, min_snr_gamma = 10.0, 5.0

    def __init__(self, context: TrainContext, size: int = 12_000):
        super().__init__(context, size)
        self._signal = alphas_cumprod().to(context.device)

    def network(self) -> nn.Module:
        return comfyui.unet()

    def errors(
        self, network: nn.Module, true: Tensor, captions: Sequence[str], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        device = self.context.device
        with torch.no_grad():
            states = encoders.read(self.reader, words().batch(captions).to(device))[0]
        timesteps = torch.randint(TIMESTEPS, (len(true),), generator=rng).to(device)
        noise = torch.randn(true.shape, generator=rng).to(device)
        signal = self._signal[timesteps]
        kept = signal[:, None, None, None]  # (n, 1, 1, 1)
        noisy = kept.sqrt() * true + (1 - kept).sqrt() * noise
        prediction = network(noisy, timesteps, states, transformer_options=OPTIONS)
        weights = losses.timestep_weights(signal, self.max_loss_weight, self.min_snr_gamma)
        return (prediction.float() - noise).square(), weights

    def sampled(self, network: nn.Module, captions: Sequence[str], size: tuple[int, int], seed: int) -> Tensor:
        return sample(network, self.reader, captions, size, self.context, seed=seed)
