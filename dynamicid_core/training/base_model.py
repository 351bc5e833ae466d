"""Load the frozen base model that the method is trained on from its folder: SD1.5's, SDXL's or Flux's networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from transformers import (
    AutoTokenizer,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
    T5EncoderModel,
)

from ..image_inputs import clip_normalization
from .base_networks import BaseNetworks, TextStates
from .flux_base import FluxBase
from .unet_base import UNetBase

__all__ = ["BaseNetworks", "TextStates", "load_base_model"]

_AUTOENCODERS: dict[str, Any] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def load_base_model(folder: Path, device: torch.device | str = "cpu", half: bool = False) -> BaseNetworks:
    """Read a base model's folder: Flux's has a `transformer` where Stable Diffusion's has a `unet`.

    Args:
        half: keep Flux and T5, which are large, in bfloat16.

    Raises ValueError naming what is missing in it.
    """
    flux = (folder / "transformer").is_dir() and not (folder / "unet").is_dir()
    second = ("text_encoder_2", "tokenizer_2") if (folder / "text_encoder_2").is_dir() else ()
    drawing = "transformer" if flux else "unet"
    parts = (drawing, "vae", "text_encoder", "tokenizer", "scheduler", "image_encoder", *second)
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise ValueError(
            f"{folder}: expected a Stable Diffusion 1.5 or XL model or a Flux as diffusers keeps it, and CLIP's image "
            f"encoder in image_encoder; missing {', '.join(missing)}."
        )
    kind = AutoencoderKL.load_config(folder / "vae")["_class_name"]
    if kind not in _AUTOENCODERS:
        raise ValueError(f"{folder / 'vae'}: expected one of {', '.join(_AUTOENCODERS)}, got {kind}.")
    text_encoders: list[Any] = [CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)]
    tokenizers: list[Any] = [CLIPTokenizer.from_pretrained(folder / "tokenizer")]
    network, scheduler, text_encoder, tokenizer = (_flux if flux else _unet)(folder, second, half)
    if second:
        text_encoders.append(text_encoder)
        tokenizers.append(tokenizer)
    vae = _AUTOENCODERS[kind].from_pretrained(folder / "vae", torch_dtype=torch.float32)
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder", dtype=torch.float32)
    for frozen in (network, vae, image_encoder, *text_encoders):
        frozen.to(device).eval().requires_grad_(False)
    vae.to(memory_format=torch.channels_last)  # convolutions are quicker with it
    mean, std = clip_normalization(folder / "image_encoder" / "preprocessor_config.json")
    return (FluxBase if flux else UNetBase)(
        network, vae, tuple(text_encoders), tuple(tokenizers), image_encoder, scheduler, mean.to(device), std.to(device)
    )


def _unet(folder: Path, second: tuple[str, ...], half: bool) -> tuple[Any, Any, Any, Any]:
    """Return the UNet, its scheduler, and a second text encoder and its tokenizer where there is one."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    if (unet.config["addition_embed_type"] == "text_time") != bool(second):
        raise ValueError(
            f"{folder}: the UNet reads pooled text and sizes ({unet.config['addition_embed_type']}) where there is a "
            "second text encoder, and only there. Expected the folders of one model, SD1.5 or SDXL."
        )
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    if not second:
        return unet, scheduler, None, None
    encoder = CLIPTextModelWithProjection.from_pretrained(folder / second[0], dtype=torch.float32)
    return unet, scheduler, encoder, CLIPTokenizer.from_pretrained(folder / second[1])


def _flux(folder: Path, second: tuple[str, ...], half: bool) -> tuple[Any, Any, Any, Any]:
    """Return Flux, its scheduler, and T5 and its tokenizer where there is one."""
    dtype = torch.bfloat16 if half else torch.float32
    kind = FlowMatchEulerDiscreteScheduler.load_config(folder / "scheduler")["_class_name"]
    if kind != FlowMatchEulerDiscreteScheduler.__name__:
        raise ValueError(f"{folder / 'scheduler'}: expected Flux's FlowMatchEulerDiscreteScheduler, got {kind}.")
    network = FluxTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=dtype)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    if not second:
        return network, scheduler, None, None
    encoder = T5EncoderModel.from_pretrained(folder / second[0], dtype=dtype)
    return network, scheduler, encoder, AutoTokenizer.from_pretrained(folder / second[1])
