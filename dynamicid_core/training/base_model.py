"""The frozen base model that the method is trained on: Stable Diffusion 1.5's networks, and CLIP's image encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from ..image_inputs import clip_input, clip_normalization, negative_clip_input
from .config import TrainingConfig
from .losses import timestep_weights

LENGTH = 77  # tokens of a prompt
_AUTOENCODERS: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


@dataclass(frozen=True, eq=False)
class BaseNetworks:
    """The networks, frozen, in evaluation mode, on one device.

    Attributes:
        mean, std: of the image encoder's input, by channel.
    """

    unet: UNet2DConditionModel
    vae: nn.Module
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    image_encoder: CLIPVisionModelWithProjection
    scheduler: DDPMScheduler
    mean: Tensor
    std: Tensor

    @property
    def text_dim(self) -> int:
        return int(self.unet.config["cross_attention_dim"])

    @property
    def _clip_size(self) -> int:
        """Pixels a side of the image encoder's input."""
        size = self.image_encoder.config.image_size
        if not isinstance(size, int):
            raise ValueError(f"expected an image encoder for square images, got {size}.")
        return size

    def checkpoint_activations(self) -> None:
        """Make the UNet compute activations again when they are needed, for less memory."""
        self.unet.enable_gradient_checkpointing()
        self.unet.train()  # diffusers checkpoints only then; the UNet has no dropout that this would wake

    def noise(self, latents: Tensor, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor, Tensor]:
        """Return latents (n, 4, h, w) with noise added, the noise, and the timesteps (n,), each row's by its generator.

        z_t = sqrt(alphas_cumprod_t) z + sqrt(1 - alphas_cumprod_t) eps (DDPM, arXiv 2006.11239, equation 4).
        """
        timesteps = torch.stack([torch.randint(1000, (), generator=rng) for rng in generators]).to(latents.device)
        noise = torch.stack([torch.randn(latents.shape[1:], generator=rng) for rng in generators]).to(latents.device)
        noisy: Tensor = self.scheduler.add_noise(latents, noise, timesteps)  # type: ignore[arg-type]  # an IntTensor
        return noisy, noise, timesteps

    def timestep_weights(self, timesteps: Tensor, config: TrainingConfig) -> Tensor:
        """Return the weights (n,) of timesteps (n,) in a loss on the predicted noise."""
        signal = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
        return timestep_weights(signal, config.max_loss_weight, config.min_snr_gamma)

    @torch.no_grad()
    def moments(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the means (n, 4, H/8, W/8) of the latents of images (n, 3, H, W) in [0, 1], and standard deviations.

        The latter are None where the encoder is not variational.
        """
        pixels = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        scale = self.vae.config["scaling_factor"]  # type: ignore[index]
        encoded = self.vae.encode(pixels)  # type: ignore[operator]
        if hasattr(encoded, "latents"):
            return encoded.latents.float() * scale, None
        distribution = encoded.latent_dist
        return distribution.mean.float() * scale, distribution.std.float() * scale

    @torch.no_grad()
    def images(self, latents: Tensor) -> Tensor:
        """Return the images (n, 3, 8h, 8w) in [0, 1] of latents (n, 4, h, w)."""
        decoded = self.vae.decode(latents / self.vae.config["scaling_factor"]).sample  # type: ignore[operator, index]
        return ((decoded + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the states (n, 77, D) and pooled states (n, D) of prompts."""
        ids = self.tokenizer(
            list(prompts), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        ).input_ids
        output = self.text_encoder(ids.to(self.unet.device))
        return output.last_hidden_state, output.pooler_output

    @torch.no_grad()
    def image_states(self, images: Tensor) -> Tensor:
        """Return CLIP's penultimate states (n, N, W) of square images (n, 3, S, S) in [0, 1]."""
        return self._states(clip_input(images, self._clip_size, self.mean, self.std))

    @torch.no_grad()
    def negative_states(self) -> Tensor:
        """Return the states (1, N, W) that negative tokens are encoded from."""
        return self._states(negative_clip_input(self._clip_size, self.mean.device))

    def _states(self, pixels: Tensor) -> Tensor:
        states: Tensor = self.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]
        return states


def load_base_model(folder: Path, device: torch.device | str = "cpu") -> BaseNetworks:
    """Read a base model's folder. Raises ValueError naming what is missing in it."""
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "image_encoder")
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise ValueError(
            f"{folder}: expected a Stable Diffusion 1.5 model as diffusers keeps it, and CLIP's image encoder in "
            f"image_encoder; missing {', '.join(missing)}."
        )
    kind = AutoencoderKL.load_config(folder / "vae")["_class_name"]
    if kind not in _AUTOENCODERS:
        raise ValueError(f"{folder / 'vae'}: expected one of {', '.join(_AUTOENCODERS)}, got {kind}.")
    networks: list[nn.Module] = [
        UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32),
        _AUTOENCODERS[kind].from_pretrained(folder / "vae", torch_dtype=torch.float32),
        CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
        CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", dtype=torch.float32),
    ]
    unet, vae, text_encoder, image_encoder = (network.to(device).eval().requires_grad_(False) for network in networks)
    assert isinstance(unet, UNet2DConditionModel) and isinstance(text_encoder, CLIPTextModel)
    assert isinstance(image_encoder, CLIPVisionModelWithProjection)
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are quicker with it
    mean, std = clip_normalization(folder / "image_encoder" / "preprocessor_config.json")
    return BaseNetworks(
        unet, vae, text_encoder, CLIPTokenizer.from_pretrained(folder / "tokenizer"), image_encoder,
        DDPMScheduler.from_pretrained(folder / "scheduler"), mean.to(device), std.to(device),
    )  # fmt: skip
