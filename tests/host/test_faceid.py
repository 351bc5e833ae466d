"""IP-Adapter FaceID against diffusers, which loads the same files by its own code: projections and whole UNets."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from dynamicid_pack.dynamicid_core.host.apply import apply_scene
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from dynamicid_pack.dynamicid_core.host.sampling_run import AttentionSettings
from dynamicid_pack.dynamicid_core.identity.encoder import FaceEncoder
from dynamicid_pack.dynamicid_core.identity.encoding import ENCODINGS
from dynamicid_pack.dynamicid_core.identity.identity import Identity
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


PIPELINES: dict[str, Any] = {"SD1.5": StableDiffusionPipeline, "SDXL": StableDiffusionXLPipeline}
ABSENT = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "safety_checker", "feature_extractor")
"""Parts of a pipeline that loading an adapter does without."""


def diffusers_unet(base: str, file: Path) -> Any:
    """diffusers' UNet with the weights of the tiny model, and with a file loaded by `load_ip_adapter`, LoRA by peft."""
    config = tiny.CONFIGS[base]
    unet: Any = UNet2DConditionModel(cross_attention_dim=tiny.WIDTH, **DIFFUSERS[base])
    ours = generated_weights(shapes.unet(config), 31)
    names = {theirs: name for theirs, name in shapes.unet_names(config).items() if theirs in unet.state_dict()}
    unet.load_state_dict({theirs: ours[name] for theirs, name in names.items()})
    takes = inspect.signature(PIPELINES[base]).parameters
    absent = {name: None for name in ABSENT if name in takes}
    pipeline = PIPELINES[base](unet=unet, scheduler=DDIMScheduler(steps_offset=1, clip_sample=False), **absent)
    layers = len(unet.attn_processors)
    pipeline.load_ip_adapter(str(file.parent), "", file.name, image_encoder_folder=None)
    assert sum(name.endswith(".lora_A") for name, _ in unet.named_modules()) == 4 * layers, "peft has the whole LoRA"
    return unet.eval()


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
def test_projection(kind: str, tmp_path: Path) -> None:
    state = faceid.state(kind)
    (theirs,) = diffusers_unet("SD1.5", faceid.file(tmp_path, kind)).encoder_hid_proj.image_projection_layers
    encoder = FaceEncoder.from_weights(state["image_proj"])
    embedding, states = inputs(3)
    tokens = encoder(embedding, states, ENCODINGS[kind].shortcut)
    assert tokens.shape == (3, tiny.TOKENS, tiny.WIDTH)
    assert relative_error(tokens, their_tokens(theirs, kind, embedding, states)) < 1e-5


@pytest.mark.parametrize("base", tiny.CONFIGS)
@pytest.mark.parametrize("kind", [KINDS[-1], *(pytest.param(kind, marks=pytest.mark.full) for kind in KINDS[:-1])])
@torch.no_grad()
def test_unet(base: str, kind: str, tmp_path: Path) -> None:
    """One person, gate off, as the files were trained; each call of the UNet in a run through the host's sampler."""
    file = faceid.file(tmp_path, kind, config=tiny.CONFIGS[base])
    ours, embedding, states = load_dynamicid(file), *inputs(2)
    embedding[0] = 0  # the negative half has no face
    encoding = ours.adapter.encoding
    negative, positive = ours.face_encoder(embedding, states, encoding.shortcut)
    scene = arrange([Identity(positive, negative, encoding=encoding)])
    patched = apply_scene(tiny.tiny_patcher(base=base), ours.adapter, scene, AttentionSettings(gate=False))
    given: list[tuple[Any, ...]] = []
    watched, calls = probe.watched(patched, lambda x, t, c, options: given.append((x, t, c)) or (x, t, c))
    text = torch.randn(2, 1, 77, tiny.WIDTH, generator=torch.Generator().manual_seed(6))
    probe.sample(watched, text[0], text[1], steps=2)

    theirs = diffusers_unet(base, file)
    for (x, timesteps, context), options, result in zip(given, calls.options, calls.outputs, strict=True):
        negatives_first = [1 - chunk for chunk in options["cond_or_uncond"]]
        added: dict[str, Any] = {"image_embeds": [embedding[negatives_first][:, None]]}
        (layer,) = theirs.encoder_hid_proj.image_projection_layers
        their_tokens(layer, kind, embedding, states[negatives_first])
        if base == "SDXL":
            conds = [probe.conditioning(text[chunk])[0][1]["pooled_output"] for chunk in options["cond_or_uncond"]]
            size = [8.0 * side for side in x.shape[-2:]]
            added |= {"text_embeds": torch.cat(conds), "time_ids": torch.tensor([[*size, 0, 0, *size]] * len(conds))}
        expected = theirs(x, timesteps, context, added_cond_kwargs=added).sample
        assert relative_error(result, expected) < 1e-4
        plain = theirs(
            x, timesteps, context, added_cond_kwargs=added | {"image_embeds": [0 * embedding[:, None]]}
        ).sample
        assert relative_error(plain, expected) > 1e-2, "the face shows"
