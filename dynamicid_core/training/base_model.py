"""The frozen base model that the method is trained on: SD1.5's or SDXL's networks, and CLIP's image encoder.

SDXL (arXiv 2307.01952, section 2) reads the states of two text encoders, one beside the other, the pooled text of the
second, and six numbers of sizes: the image's before it was resized, its crop's corner, and its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from ..image_inputs import clip_input, clip_normalization, negative_clip_input
from .config import TrainingConfig
from .losses import timestep_weights

LENGTH = 77  # tokens of a prompt
_AUTOENCODERS: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


class TextStates(NamedTuple):
    """What a UNet reads of prompts: states (n, 77, D), and pooled text (n, P), which IMR reads, too."""

    states: Tensor
    pooled: Tensor

    def expand(self, rows: int) -> TextStates:
        """Return one prompt's for so many rows."""
        return TextStates(self.states.expand(rows, -1, -1), self.pooled.expand(rows, -1))


@dataclass(frozen=True, eq=False)
class BaseNetworks:
    """The networks, frozen, in evaluation mode, on one device.

    Attributes:
        text_encoders: SD1.5's one, or SDXL's two; tokenizers: theirs.
        mean, std: of the image encoder's input, by channel.
    """

    unet: UNet2DConditionModel
    vae: nn.Module
    text_encoders: tuple[CLIPTextModel | CLIPTextModelWithProjection, ...]
    tokenizers: tuple[CLIPTokenizer, ...]
    image_encoder: CLIPVisionModelWithProjection
    scheduler: DDPMScheduler
    mean: Tensor
    std: Tensor

    @property
    def text_dim(self) -> int:
        return int(self.unet.config["cross_attention_dim"])

    @property
    def pooled_dim(self) -> int:
        """Channels of pooled text: the last encoder's, projected where it projects."""
        config = self.text_encoders[-1].config
        return int((config.projection_dim if len(self.text_encoders) > 1 else config.hidden_size) or 0)

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
        decoded: Tensor = self.vae.decode(latents / self.vae.config["scaling_factor"]).sample  # type: ignore[operator, index]
        return ((decoded + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> TextStates:
        """Encode prompts: SD1.5 reads the last states, SDXL both encoders' penultimate ones and the second's pooled."""
        states = []
        for tokenizer, encoder in zip(self.tokenizers, self.text_encoders, strict=True):
            ids = tokenizer(
                list(prompts), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
            ).input_ids
            output = encoder(ids.to(self.unet.device), output_hidden_states=len(self.text_encoders) > 1)
            states.append(output.hidden_states[-2] if len(self.text_encoders) > 1 else output.last_hidden_state)
        return TextStates(torch.cat(states, dim=-1), output.text_embeds if len(states) > 1 else output.pooler_output)

    def added_conditions(self, text: TextStates, latents: Tensor) -> dict[str, Tensor] | None:
        """Return what SDXL's UNet reads beside latents (n, 4, h, w) and states; None for SD1.5's.

        The sizes say that the images were neither resized nor cropped, as ComfyUI does where a prompt says nothing.
        """
        if len(self.text_encoders) == 1:
            return None
        size = [8.0 * side for side in latents.shape[2:]]
        sizes = torch.tensor([*size, 0.0, 0.0, *size], device=latents.device)
        return {"text_embeds": text.pooled, "time_ids": sizes.expand(len(latents), -1)}

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
    second = ("text_encoder_2", "tokenizer_2") if (folder / "text_encoder_2").is_dir() else ()
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "image_encoder", *second)
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise ValueError(
            f"{folder}: expected a Stable Diffusion 1.5 or XL model as diffusers keeps it, and CLIP's image encoder in "
            f"image_encoder; missing {', '.join(missing)}."
        )
    kind = AutoencoderKL.load_config(folder / "vae")["_class_name"]
    if kind not in _AUTOENCODERS:
        raise ValueError(f"{folder / 'vae'}: expected one of {', '.join(_AUTOENCODERS)}, got {kind}.")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    text_encoders: list[Any] = [CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)]
    if second:
        text_encoders.append(CLIPTextModelWithProjection.from_pretrained(folder / second[0], dtype=torch.float32))
    if (unet.config["addition_embed_type"] == "text_time") != bool(second):
        raise ValueError(
            f"{folder}: the UNet reads pooled text and sizes ({unet.config['addition_embed_type']}) where there is a "
            "second text encoder, and only there. Expected the folders of one model, SD1.5 or SDXL."
        )
    vae = _AUTOENCODERS[kind].from_pretrained(folder / "vae", torch_dtype=torch.float32)
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", dtype=torch.float32)
    for network in (unet, vae, image_encoder, *text_encoders):
        network.to(device).eval().requires_grad_(False)
    vae.to(memory_format=torch.channels_last)  # convolutions are quicker with it
    mean, std = clip_normalization(folder / "image_encoder" / "preprocessor_config.json")
    tokenizers = [CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", *second[1:])]
    return BaseNetworks(
        unet, vae, tuple(text_encoders), tuple(tokenizers), image_encoder,
        DDPMScheduler.from_pretrained(folder / "scheduler"), mean.to(device), std.to(device),
    )  # fmt: skip
