"""IP-Adapter FaceID against diffusers, which loads the same files by its own code: projections and whole UNets."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from dynamicid_pack.dynamicid_core.host.apply import apply_scene
from dynamicid_pack.dynamicid_core.host.sampling_run import AttentionSettings
from dynamicid_pack.dynamicid_core.identity.encoder import FaceEncoder
from dynamicid_pack.dynamicid_core.identity.encoding import ENCODINGS
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.adapter import adapter_from_weights
from dynamicid_pack.dynamicid_core.saa.scene import arrange
from torch import Tensor

from ..support import generated_weights, relative_error
from . import faceid, probe, shapes, tiny
from .faceid import CLIP_DIM, CLIP_TOKENS, EMBEDDING, KINDS

DIFFUSERS: dict[str, dict[str, Any]] = {
    "SD1.5": {
        "block_out_channels": (64, 128, 256),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 8,
    },
    "SDXL": {
        "block_out_channels": (32, 64, 128),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3),
        "attention_head_dim": (1, 1, 2),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": shapes.TINY_SDXL["adm_in_channels"],
    },
}
"""Base model -> the small UNet's settings in diffusers' words."""


def diffusers_unet(base: str, state: dict[str, dict[str, Tensor]]) -> Any:
    """diffusers' UNet with the weights of the tiny model, and with the file loaded as its `load_ip_adapter` does."""
    config = tiny.CONFIGS[base]
    unet: Any = UNet2DConditionModel(cross_attention_dim=tiny.WIDTH, **DIFFUSERS[base])
    ours = generated_weights(shapes.unet(config), 31)
    names = {theirs: name for theirs, name in shapes.unet_names(config).items() if theirs in unet.state_dict()}
    unet.load_state_dict({theirs: ours[name] for theirs, name in names.items()})
    with torch.no_grad():
        for name, up in _low_rank(unet, state):
            unet.get_parameter(name).add_(up)
    unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    return unet.eval()


def _low_rank(unet: Any, state: dict[str, dict[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """up @ down of every linear that the file's LoRA changes, by diffusers' own pairing of its layers."""
    (loras,) = unet._load_ip_adapter_loras([state]).values()
    changes = []
    for name, down in loras.items():
        if name.endswith("_lora.down.weight"):
            linear = name.removeprefix("unet.").removesuffix("_lora.down.weight").replace(".processor.", ".")
            linear += ".0" if linear.endswith("to_out") else ""
            changes.append((f"{linear}.weight", loras[name.replace(".down.", ".up.")] @ down))
    return changes


def inputs(rows: int) -> tuple[Tensor, Tensor]:
    """Embeddings (rows, 32) of length 1 and CLIP's states (rows, 9, 48)."""
    generator = torch.Generator().manual_seed(5)
    embedding = torch.randn(rows, EMBEDDING, generator=generator)
    return embedding / embedding.norm(dim=1, keepdim=True), torch.randn(
        rows, CLIP_TOKENS, CLIP_DIM, generator=generator
    )


def their_tokens(layer: Any, kind: str, embedding: Tensor, states: Tensor) -> Tensor:
    """diffusers' projection of a file, told what its pipeline would tell it."""
    if ENCODINGS[kind].crop != "none":
        layer.clip_embeds, layer.shortcut = states[:, None], ENCODINGS[kind].shortcut is not None
    return layer(embedding)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_projection(kind: str) -> None:
    state = faceid.state(kind)
    (theirs,) = diffusers_unet("SD1.5", state).encoder_hid_proj.image_projection_layers
    encoder = FaceEncoder.from_weights(state["image_proj"])
    embedding, states = inputs(3)
    tokens = encoder(embedding, states, ENCODINGS[kind].shortcut)
    assert tokens.shape == (3, tiny.TOKENS, tiny.WIDTH)
    assert relative_error(tokens, their_tokens(theirs, kind, embedding, states)) < 1e-5


@pytest.mark.parametrize("base", tiny.CONFIGS)
@pytest.mark.parametrize("kind", [KINDS[-1], *(pytest.param(kind, marks=pytest.mark.full) for kind in KINDS[:-1])])
@torch.no_grad()
def test_unet(base: str, kind: str) -> None:
    """One person, gate off, as the files were trained; each call of the UNet in a run through the host's sampler."""
    state = faceid.state(kind, tiny.CONFIGS[base])
    embedding, states = inputs(2)
    embedding[0] = 0  # the negative half has no face
    negative, positive = FaceEncoder.from_weights(state["image_proj"])(embedding, states, ENCODINGS[kind].shortcut)
    adapter = adapter_from_weights(state["ip_adapter"])
    patched = apply_scene(
        tiny.tiny_patcher(base=base), adapter, arrange([Identity(positive, negative)]), AttentionSettings(gate=False)
    )
    given: list[tuple[Any, ...]] = []
    watched, calls = probe.watched(patched, lambda x, t, c, options: given.append((x, t, c)) or (x, t, c))
    text = torch.randn(2, 1, 77, tiny.WIDTH, generator=torch.Generator().manual_seed(6))
    probe.sample(watched, text[0], text[1], steps=2)

    theirs = diffusers_unet(base, state)
    for (x, timesteps, context), options, ours in zip(given, calls.options, calls.outputs, strict=True):
        negatives_first = [1 - chunk for chunk in options["cond_or_uncond"]]
        added: dict[str, Any] = {"image_embeds": [embedding[negatives_first][:, None]]}
        (layer,) = theirs.encoder_hid_proj.image_projection_layers
        their_tokens(layer, kind, embedding, states[negatives_first])
        if base == "SDXL":
            conds = [probe.conditioning(text[chunk])[0][1]["pooled_output"] for chunk in options["cond_or_uncond"]]
            size = [8.0 * side for side in x.shape[-2:]]
            added |= {"text_embeds": torch.cat(conds), "time_ids": torch.tensor([[*size, 0, 0, *size]] * len(conds))}
        expected = theirs(x, timesteps, context, added_cond_kwargs=added).sample
        assert relative_error(ours, expected) < 1e-4
        plain = theirs(
            x, timesteps, context, added_cond_kwargs=added | {"image_embeds": [0 * embedding[:, None]]}
        ).sample
        assert relative_error(plain, expected) > 1e-2, "the face shows"
