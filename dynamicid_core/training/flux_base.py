"""Flux as a frozen base model: text, rectified flow, and images drawn by it.

    z_t = (1 - t) z + t eps,   dz_t / dt = eps - z                                (1) arXiv 2209.03003, equation 1
    t = sigmoid(m + s n), n normal                                               (2) arXiv 2403.03206, equation 19
    t = shift t / (1 + (shift - 1) t)                                            (3) the same, equation 23

The network predicts eps - z. As eps = z_t + (1 - t) (eps - z), its squared error is the noise's, weighed by
1 / (1 - t)^2: dark timesteps, which decide who is drawn, count by themselves, and all weights are 1. Timesteps that are
to count more are drawn more often, by m and s of equation 2: `timestep_logit_mean` and `timestep_logit_std`. `shift` is
the base model's, as its scheduler has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from einops import rearrange
from torch import Tensor

from ..saa.bases import FLUX
from .base_networks import BaseNetworks, Predict, TextStates, token_ids
from .config import NOISE_OPTIONS, TrainingConfig
from .layers import IdentityInput

LENGTH = 77  # tokens of CLIP's prompt
WHILE_TRAINING, WHILE_DRAWING = 1.0, 3.5  # guidance that a network with distilled guidance is told


@dataclass(frozen=True, eq=False)
class FluxBase(BaseNetworks):
    """A Flux, with CLIP's pooled text and T5's states, or with one text encoder for both as the miniature's."""

    network: FluxTransformer2DModel
    scheduler: FlowMatchEulerDiscreteScheduler
    base = FLUX
    guidance = 4.0
    unused_options = NOISE_OPTIONS

    def __post_init__(self) -> None:
        for name in ("x_embedder", "context_embedder"):
            layer = self.network.get_submodule(name)
            # Under autocast, streams are summed in float32, and diffusers takes the time in their precision.
            layer.register_forward_hook(lambda module, inputs, output: output.float())

    @property
    def pooled_dim(self) -> int:
        return int(self.network.config["pooled_projection_dim"])

    @property
    def patch(self) -> int:
        """Side of the latents' squares that are one token each."""
        config: Any = self.vae.config
        return math.isqrt(self.network.config["in_channels"] // config["latent_channels"])

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> TextStates:
        """Encode prompts: the first encoder's pooled text, the last one's states."""
        lengths = [LENGTH, *(int(tokenizer.model_max_length) for tokenizer in self.tokenizers[1:])]
        outputs = [
            encoder(token_ids(tokenizer, prompts, length).to(self.device))
            for tokenizer, encoder, length in zip(self.tokenizers, self.text_encoders, lengths, strict=True)
        ]
        return TextStates(outputs[-1].last_hidden_state.float(), outputs[0].pooler_output.float())

    def noise(
        self, latents: Tensor, generators: Sequence[torch.Generator], config: TrainingConfig
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noise latents; eps - z is what is predicted. Equations 1 to 3."""
        mean, std = config.timestep_logit_mean, config.timestep_logit_std
        drawn = torch.stack([torch.sigmoid(mean + std * torch.randn((), generator=rng)) for rng in generators])
        timesteps = self._shifted(drawn, latents).to(latents.device)
        noise = torch.stack([torch.randn(latents.shape[1:], generator=rng) for rng in generators]).to(latents.device)
        t = timesteps[:, None, None, None]
        return (1 - t) * latents + t * noise, noise - latents, timesteps

    def _shifted(self, t: Tensor, latents: Tensor) -> Tensor:
        """Return times by equation 3, for images of these latents' size."""
        config: Any = self.scheduler.config
        shift = config["shift"]
        if config["use_dynamic_shifting"]:
            tokens = latents.shape[2] * latents.shape[3] / self.patch**2
            least, most = config["base_image_seq_len"], config["max_image_seq_len"]
            rise = (config["max_shift"] - config["base_shift"]) / (most - least)
            shift = config["base_shift"] + rise * (tokens - least)
            if config["time_shift_type"] == "exponential":
                shift = math.exp(shift)
        shifted: Tensor = shift * t / (1 + (shift - 1) * t)
        return shifted

    def timestep_weights(self, timesteps: Tensor, config: TrainingConfig) -> Tensor:
        return torch.ones_like(timesteps)

    def predict(self, noisy: Tensor, timesteps: Tensor, text: TextStates, identity: IdentityInput | None) -> Tensor:
        return self._predict(noisy, timesteps, text, identity, WHILE_TRAINING)

    def guided(self, noisy: Tensor, timesteps: Tensor, text: TextStates, identity: IdentityInput) -> Tensor:
        """Predict with guidance; a network with distilled guidance is told its scale, and reads nothing negative."""
        if not self.network.config["guidance_embeds"]:
            return super().guided(noisy, timesteps, text, identity)
        positive = IdentityInput(identity.tokens[len(noisy) :], identity.threshold, identity.gate)
        read = TextStates(text.states[len(noisy) :], text.pooled[len(noisy) :])
        return self._predict(noisy, timesteps, read, positive, WHILE_DRAWING)

    def _predict(
        self, noisy: Tensor, timesteps: Tensor, text: TextStates, identity: IdentityInput | None, guidance: float
    ) -> Tensor:
        height, width = (side // self.patch for side in noisy.shape[2:])
        if noisy.shape[2:] != (height * self.patch, width * self.patch):
            pixels = 8 * self.patch
            raise ValueError(f"expected images whose sides are multiples of {pixels} pixels. Set size.")
        packed = rearrange(noisy, "b c (h y) (w x) -> b (h w) (c y x)", y=self.patch, x=self.patch)
        rows = torch.arange(height, device=noisy.device, dtype=torch.float32)
        columns = torch.arange(width, device=noisy.device, dtype=torch.float32)
        places = torch.cartesian_prod(torch.zeros_like(rows[:1]), rows, columns)  # (h * w, 3), row after row
        people: dict[str, Any] | None = None
        if identity is not None:
            tokens = text.states.shape[1]
            people = {
                "identity": IdentityInput(
                    identity.tokens, identity.threshold, identity.gate, tokens, identity.log_share
                )
            }
        distilled = self.network.config["guidance_embeds"]
        half = self.network.dtype == torch.bfloat16
        with torch.autocast(noisy.device.type, torch.bfloat16) if half else nullcontext():
            predicted: Tensor = self.network(
                packed, text.states, text.pooled, timesteps,
                img_ids=places, txt_ids=torch.zeros(text.states.shape[1], 3, device=noisy.device),
                guidance=torch.full_like(timesteps, guidance) if distilled else None, joint_attention_kwargs=people,
            ).sample  # fmt: skip
        return rearrange(predicted, "b (h w) (c y x) -> b c (h y) (w x)", h=height, w=width, y=self.patch, x=self.patch)

    def sample(self, noise: Tensor, predict: Predict, steps: int) -> Tensor:
        """Draw by Euler's method along the flow, from t = 1 to 0."""
        x = noise
        times = self._shifted(torch.linspace(1, 0, steps + 1), noise).tolist()
        for now, then in pairwise(times):
            x = x + (then - now) * predict(x, torch.full((len(x),), now, device=x.device)).float()
        return x
