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
from .weighting import weight_of_times

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
    def _image_size(self) -> int:
        """Pixels a side of what the image encoder sees."""
        size = self.image_encoder.config.image_size
        if not isinstance(size, int):
            raise ValueError(f"expected an image encoder for square pictures, got {size}.")
        return size

    def checkpoint_activations(self) -> None:
        """The UNet computes activations again when they are needed, for less memory."""
        self.unet.enable_gradient_checkpointing()
        self.unet.train()  # diffusers checkpoints only then; the UNet has no dropout that this would wake

    def noised(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Latents with noise as the schedule has it at these times (n,), 0..999."""
        noisy: Tensor = self.scheduler.add_noise(latents, noise, times)  # type: ignore[arg-type]  # an IntTensor
        return noisy

    def weight_of_times(self, times: Tensor, darkest: float, clearest: float) -> Tensor:
        """(n,) weights of times (n,), see `weighting`."""
        return weight_of_times(self.scheduler.alphas_cumprod.to(times.device)[times].float(), darkest, clearest)

    @torch.no_grad()
    def moments(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Pictures (n, 3, H, W) in [0, 1] to the means (n, 4, H/8, W/8) of their latents, and standard deviations.

        The latter are None where the encoder is not variational.
        """
        pixels = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        scale = self.vae.config["scaling_factor"]  # type: ignore[index]
        found = self.vae.encode(pixels)  # type: ignore[operator]
        if hasattr(found, "latents"):
            return found.latents.float() * scale, None
        spread = found.latent_dist
        return spread.mean.float() * scale, spread.std.float() * scale

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Tensor:
        """The inverse of `moments`: latents (n, 4, h, w) to pictures (n, 3, 8h, 8w) in [0, 1]."""
        decoded = self.vae.decode(latents / self.vae.config["scaling_factor"]).sample  # type: ignore[operator, index]
        return ((decoded + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (n, 77, D) and pooled states (n, D) of prompts."""
        ids = self.tokenizer(
            list(prompts), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        ).input_ids
        found = self.text_encoder(ids.to(self.unet.device))
        return found.last_hidden_state, found.pooler_output

    @torch.no_grad()
    def image_states(self, images: Tensor) -> Tensor:
        """CLIP's penultimate states (n, N, W) of square pictures (n, 3, S, S) in [0, 1]."""
        return self._states(clip_input(images, self._image_size, self.mean, self.std))

    @torch.no_grad()
    def blank_states(self) -> Tensor:
        """(1, N, W): the states of pixels that are zero after preprocessing, which nobody is encoded from."""
        return self._states(negative_clip_input(self._image_size, self.mean.device))

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
