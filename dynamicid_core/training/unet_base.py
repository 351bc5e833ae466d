"""SD1.5's and SDXL's UNets as frozen base models: text, noise, and images drawn from it.

SDXL (arXiv 2307.01952, section 2) reads the states of two text encoders, one beside the other, the pooled text of the
second, and six numbers of sizes: the image's before it was resized, its crop's corner, and its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from ..saa.bases import UNET
from .base_networks import BaseNetworks, Predict, TextStates, token_ids
from .config import FLUX_OPTIONS, TrainingConfig
from .layers import IdentityInput
from .losses import timestep_weights

LENGTH = 77  # tokens of a prompt


@dataclass(frozen=True, eq=False)
class UNetBase(BaseNetworks):
    """A UNet that predicts noise, with SD1.5's one text encoder or SDXL's two."""

    network: UNet2DConditionModel
    scheduler: DDPMScheduler
    base = UNET
    guidance = 5.0
    unused_options = FLUX_OPTIONS

    @property
    def pooled_dim(self) -> int:
        """Channels of pooled text: the last encoder's, projected where it projects."""
        config = self.text_encoders[-1].config
        return int((config.projection_dim if len(self.text_encoders) > 1 else config.hidden_size) or 0)

    def check(self, config: TrainingConfig) -> None:
        if self.scheduler.config["prediction_type"] != "epsilon":
            raise ValueError(
                f"expected a base model that predicts noise, got {self.scheduler.config['prediction_type']!r}."
            )
        super().check(config)

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> TextStates:
        """Encode prompts: SD1.5 reads the last states, SDXL both encoders' penultimate ones and the second's pooled."""
        states = []
        for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True):
            ids = token_ids(tokenizer, prompts, LENGTH).to(self.device)
            output = encoder(ids, output_hidden_states=len(self.text_encoders) > 1)
            states.append(output.hidden_states[-2] if len(self.text_encoders) > 1 else output.last_hidden_state)
        return TextStates(torch.cat(states, dim=-1), output.text_embeds if len(states) > 1 else output.pooler_output)

    def noise(
        self, latents: Tensor, generators: Sequence[torch.Generator], config: TrainingConfig
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noise latents; the noise is what is predicted.

        z_t = sqrt(alphas_cumprod_t) z + sqrt(1 - alphas_cumprod_t) eps (DDPM, arXiv 2006.11239, equation 4).
        """
        timesteps = torch.stack([torch.randint(1000, (), generator=rng) for rng in generators]).to(latents.device)
        noise = torch.stack([torch.randn(latents.shape[1:], generator=rng) for rng in generators]).to(latents.device)
        noisy: Tensor = self.scheduler.add_noise(latents, noise, timesteps)  # type: ignore[arg-type]  # an IntTensor
        return noisy, noise, timesteps

    def timestep_weights(self, timesteps: Tensor, config: TrainingConfig) -> Tensor:
        signal = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
        return timestep_weights(signal, config.max_loss_weight, config.min_snr_gamma)

    def predict(self, noisy: Tensor, timesteps: Tensor, text: TextStates, identity: IdentityInput | None) -> Tensor:
        people: dict[str, Any] = {} if identity is None else {"identity": identity}
        added = self._added_conditions(text, noisy)
        noise: Tensor = self.network(
            noisy, timesteps, text.states, cross_attention_kwargs=people, added_cond_kwargs=added
        ).sample
        return noise

    def _added_conditions(self, text: TextStates, latents: Tensor) -> dict[str, Tensor] | None:
        """Return what SDXL's UNet reads beside latents (n, 4, h, w) and states; None for SD1.5's.

        The sizes say that the images were neither resized nor cropped, as ComfyUI does where a prompt says nothing.
        """
        if len(self.text_encoders) == 1:
            return None
        size = [8.0 * side for side in latents.shape[2:]]
        sizes = torch.tensor([*size, 0.0, 0.0, *size], device=latents.device)
        return {"text_embeds": text.pooled, "time_ids": sizes.expand(len(latents), -1)}

    def sample(self, noise: Tensor, predict: Predict, steps: int) -> Tensor:
        """Draw by DDIM (arXiv 2010.02502)."""
        scheduler = DDIMScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(steps)
        x = noise
        for timestep in scheduler.timesteps:
            times = timestep.to(x.device).expand(len(x))
            x = scheduler.step(predict(x, times), timestep, x).prev_sample
        return x
