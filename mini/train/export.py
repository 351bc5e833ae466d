"""The miniature's base networks in diffusers' and transformers' own folders, as the method's training takes SD1.5's.

`unet`, `scheduler`, `vae`, `text_encoder`, `tokenizer` as in a Stable Diffusion 1.5 repository, and `image_encoder`;
with Flux `transformer` for `unet`, and its own scheduler.
"""

import json
from pathlib import Path
from typing import Any

from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
)

from .. import networks
from . import comfyui, ship

_WIDTHS = tuple(networks.UNET["model_channels"] * factor for factor in networks.UNET["channel_mult"])


def export(shipped: Path, folder: Path, base: str = "UNet") -> None:
    """Write what shipped to `folder`, with the UNet or Flux.

    Raises ValueError where ComfyUI, for its tokenizer, is missing.
    """
    if base == "Flux":
        transformer(ship.as_shipped(shipped, "flux")).save_pretrained(folder / "transformer")
        FlowMatchEulerDiscreteScheduler(shift=networks.FLUX_SHIFT).save_pretrained(folder / "scheduler")
    else:
        unet(ship.as_shipped(shipped, "unet")).save_pretrained(folder / "unet")
        DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ).save_pretrained(folder / "scheduler")
    autoencoder(ship.as_shipped(shipped, "autoencoder")).save_pretrained(folder / "vae")
    text, vision = CLIPTextConfig(**networks.TEXT), CLIPVisionConfig(**networks.VISION)
    rows = networks.with_all_rows(ship.as_shipped(shipped, "text"))
    _filled(CLIPTextModel(text), rows).save_pretrained(folder / "text_encoder")
    vision_weights = ship.as_shipped(shipped, "vision")
    _filled(CLIPVisionModelWithProjection(vision), vision_weights).save_pretrained(folder / "image_encoder")
    CLIPTokenizer.from_pretrained(comfyui.folder() / "comfy" / "sd1_tokenizer").save_pretrained(folder / "tokenizer")
    size = networks.VISION["image_size"]
    preprocessing = {
        "crop_size": {"height": size, "width": size}, "size": {"shortest_edge": size}, "do_center_crop": True,
        "do_resize": True, "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 3,
        "image_mean": networks.VISION["image_mean"], "image_std": networks.VISION["image_std"],
        "image_processor_type": "CLIPImageProcessor",
    }  # fmt: skip
    (folder / "image_encoder" / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n")


def unet(weights: dict[str, Tensor]) -> UNet2DConditionModel:
    """diffusers' UNet of the host's weights."""
    network = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=_WIDTHS,
        layers_per_block=networks.UNET["num_res_blocks"][0],
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=networks.UNET["num_heads"],  # diffusers' name for the number of heads
        cross_attention_dim=networks.CONTEXT_DIM,
    )
    config: dict[str, Any] = {"layers_per_block": networks.UNET["num_res_blocks"][0], **network.config}
    named = {f"model.diffusion_model.{name}": tensor for name, tensor in weights.items()}
    network.load_state_dict(convert_ldm_unet_checkpoint(named, config))
    return network.eval()


def transformer(weights: dict[str, Tensor]) -> FluxTransformer2DModel:
    """diffusers' Flux of the host's weights, which it names by the host's own table. It reads packed patches."""
    comfyui.prepare()
    from comfy.utils import flux_to_diffusers

    flux, heads = networks.FLUX, networks.FLUX["num_heads"]
    network = FluxTransformer2DModel(
        in_channels=flux["in_channels"] * flux["patch_size"] ** 2,
        num_layers=flux["depth"],
        num_single_layers=flux["depth_single_blocks"],
        attention_head_dim=flux["hidden_size"] // heads,
        num_attention_heads=heads,
        joint_attention_dim=flux["context_in_dim"],
        pooled_projection_dim=flux["vec_in_dim"],
        guidance_embeds=flux["guidance_embed"],
        axes_dims_rope=tuple(flux["axes_dim"]),
    )
    places: dict[str, Any] = flux_to_diffusers(flux)
    state = {}
    for name in network.state_dict():
        # A weight's name, or that, what part of it (axis, start, length), and how the part is arranged.
        place, part, *arranged = places[name] if isinstance(places[name], tuple) else (places[name], None)
        tensor = weights[place] if part is None else weights[place].narrow(*part)
        state[name] = arranged[0](tensor) if arranged else tensor
    network.load_state_dict(state)
    return network.eval()


def autoencoder(weights: dict[str, Tensor]) -> AutoencoderTiny:
    """diffusers' TAESD; its decoder counts its layers from behind the clamp."""
    state = {}
    for name, tensor in weights.items():
        kind, _, layer = name.partition(".")
        number, _, rest = layer.partition(".")
        if kind == "taesd_encoder":
            state[f"encoder.layers.{layer}"] = tensor
        elif kind == "taesd_decoder":
            state[f"decoder.layers.{int(number) - 1}.{rest}"] = tensor
    network = AutoencoderTiny(scaling_factor=1.0)
    network.load_state_dict(state)
    return network.eval()


def _filled(network: PreTrainedModel, weights: dict[str, Tensor]) -> PreTrainedModel:
    """Load what the network has, whether or not its names carry transformers' older prefix `text_model.`."""
    wanted = network.state_dict()
    short = {name.removeprefix("text_model."): tensor for name, tensor in weights.items()}
    state = {name: tensor for name, tensor in (short | weights).items() if name in wanted}
    missing = [name for name in wanted if name not in state and not name.endswith("position_ids")]
    if missing:
        raise ValueError(f"expected weights for {type(network).__name__}, missing {', '.join(missing[:3])}.")
    network.load_state_dict(state, strict=False)
    return network
