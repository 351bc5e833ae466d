"""Names and shapes of the weights that tests generate, taken from the host's own networks on the meta device."""

import json
import re
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.clip_model
import comfy.clip_vision
import comfy.ops
import comfy.sd1_clip
import comfy.supported_models
import comfy.utils
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from dynamicid_pack.benchmarks import networks
from dynamicid_pack.dynamicid_core.imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from dynamicid_pack.mini.networks import UNET

Shapes = dict[str, tuple[int, ...]]

SD15: dict[str, Any] = networks.SD15 | {"legacy": False}
SDXL: dict[str, Any] = networks.SDXL | {"legacy": False}
TINY: dict[str, Any] = UNET | {"num_heads": 8, "legacy": False}

POOLED = 64
"""Channels of the tiny SDXL's pooled text; its six numbers of sizes bring 256 each."""

TINY_SDXL: dict[str, Any] = TINY | {
    "model_channels": 32,
    "transformer_depth": [0, 2, 3],
    "transformer_depth_middle": 3,
    "transformer_depth_output": [0, 0, 2, 2, 3, 3],
    "num_heads": -1,
    "num_head_channels": 64,  # whatever it is given, the host's class says so
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": POOLED + 6 * 256,
}

SD_VAE: dict[str, Any] = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def _of(module: torch.nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def unet(config: dict[str, Any]) -> Shapes:
    """A UNet's weights in the host's (ldm) names, without prefix."""
    return _of(UNetModel(**config, dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init))


def unet_names(config: dict[str, Any]) -> dict[str, str]:
    """diffusers' name of each of the UNet's weights -> the host's."""
    present = unet(config)
    return {theirs: ours for theirs, ours in comfy.utils.unet_to_diffusers(config).items() if ours in present}


def diffusers_unet(config: dict[str, Any]) -> Shapes:
    """The same UNet's weights in diffusers' names; both layouts give every weight the same shape."""
    present = unet(config)
    return {theirs: present[ours] for theirs, ours in unet_names(config).items()}


def controlnet(config: dict[str, Any]) -> Shapes:
    """A ControlNet that reads RGB hints, for a UNet of this config, in cldm names without prefix."""
    own = {k: v for k, v in config.items() if k not in ("out_channels", "transformer_depth_output")}
    net = comfy.cldm.cldm.ControlNet(
        **own, hint_channels=3, dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init
    )
    return _of(net)


def text_encoder() -> Shapes:
    """CLIP-L as SD1.5 checkpoints hold it: without the projection, which SD1.5 does not use."""
    present = _of(_text_model("sd1_clip_config"))
    return {name: shape for name, shape in present.items() if name.startswith("text_model.")}


def sdxl_text_encoders() -> Shapes:
    """CLIP-L and OpenCLIP bigG as SDXL checkpoints hold them, the latter in its own names, with their prefixes."""
    state = {
        f"{encoder}.transformer.{name}": tensor
        for encoder, config in (("clip_l", "sd1_clip_config"), ("clip_g", "clip_config_bigg"))
        for name, tensor in _text_model(config).state_dict().items()
    }
    saved = comfy.supported_models.SDXL(dict(SDXL)).process_clip_state_dict_for_saving(state)
    return {name: tuple(tensor.shape) for name, tensor in saved.items() if not name.endswith("position_ids")}


def _text_model(config: str) -> torch.nn.Module:
    settings = json.loads(Path(comfy.sd1_clip.__file__).with_name(f"{config}.json").read_text("utf-8"))
    return comfy.clip_model.CLIPTextModel(settings, torch.float32, "meta", comfy.ops.disable_weight_init)


def vae() -> Shapes:
    """SD1.5's autoencoder, encoder included, in ldm names without prefix."""
    with torch.device("meta"):
        return _of(AutoencoderKL(ddconfig=SD_VAE, embed_dim=4))


def transformer_blocks(config: dict[str, Any]) -> list[str]:
    """The transformer blocks' prefixes in the host's names, in diffusers' processor order: down, up, middle."""
    block = re.compile(r"((input|output|middle)_block\D*(\d+).*transformer_blocks\.(\d+)\.)")
    matches = {match[1]: match for match in map(block.match, unet(config)) if match}
    parts = ("input", "output", "middle")
    return sorted(matches, key=lambda name: (parts.index(matches[name][2]), *map(int, matches[name].group(3, 4))))


def saa(config: dict[str, Any], rank: int) -> Shapes:
    """`SAA_module.{i}.…` for a UNet of this config: LoRA of this rank on every attention, id projections on odd i."""
    present, context = unet(config), config["context_dim"]
    shapes: Shapes = {}
    for block, prefix in enumerate(transformer_blocks(config)):
        width = present[f"{prefix}attn1.to_q.weight"][0]
        for attention, text_dim in enumerate((width, context)):
            name = f"SAA_module.{2 * block + attention}"
            for part in ("q", "k", "v", "out"):
                inner = text_dim if part in "kv" else width
                shapes[f"{name}.to_{part}_lora.down.weight"] = (rank, inner)
                shapes[f"{name}.to_{part}_lora.up.weight"] = (width, rank)
            if attention == 1:
                shapes[f"{name}.to_k_ip.weight"] = shapes[f"{name}.to_v_ip.weight"] = (width, context)
    return shapes


def face_encoder(width: int, *, tokens: int, embedding: int, hidden: int, clip_dim: int, layers: int = 4) -> Shapes:
    """`proj_module.…`: face embedding (embedding,) and CLIP states (n, clip_dim) to tokens (tokens, width)."""

    def linear(name: str, out: int, into: int, bias: bool = True) -> Shapes:
        return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})

    def norm(name: str) -> Shapes:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    resampler = "perceiver_resampler"
    shapes = linear("proj.0", hidden, embedding) | linear("proj.2", tokens * width, hidden) | norm("norm")
    shapes |= linear(f"{resampler}.proj_in", width, clip_dim) | linear(f"{resampler}.proj_out", width, width)
    shapes |= norm(f"{resampler}.norm_out")
    for layer in range(layers):
        attention, feed_forward = f"{resampler}.layers.{layer}.0", f"{resampler}.layers.{layer}.1"
        shapes |= norm(f"{attention}.norm1") | norm(f"{attention}.norm2")
        shapes |= linear(f"{attention}.to_q", width, width, bias=False)
        shapes |= linear(f"{attention}.to_kv", 2 * width, width, bias=False)
        shapes |= linear(f"{attention}.to_out", width, width, bias=False)
        shapes |= norm(f"{feed_forward}.0")
        shapes |= linear(f"{feed_forward}.1", 4 * width, width, bias=False)
        shapes |= linear(f"{feed_forward}.3", width, 4 * width, bias=False)
    return {f"proj_module.{name}": shape for name, shape in shapes.items()}


def clip_vision() -> Shapes:
    """CLIP ViT-H, in transformers' names."""
    config = json.loads((Path(comfy.clip_vision.__file__).parent / "clip_vision_config_h.json").read_text())
    with torch.device("meta"):
        return _of(comfy.clip_model.CLIPVisionModelProjection(config, torch.float32, "meta", comfy.ops.manual_cast))


def imr() -> Shapes:
    """The release's IMR, as a file of its own holds it."""
    return _of(IdentityMotionReconfigurator(depth=1))


def keypoint_encoder() -> Shapes:
    """The release's keypoint encoder, as a file of its own holds it."""
    return _of(KeypointEncoder())
