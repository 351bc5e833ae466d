"""Small diffusion transformers of the host's own classes with random weights, and adapters that fit them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import comfy.ldm.anima.model
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import torch
import torch.nn.functional as F
from dynamicid_pack.dynamicid_core.checkpoint import FORMAT
from dynamicid_pack.dynamicid_core.host.architectures import ARCHITECTURES
from safetensors.torch import save_file
from torch import Tensor

from ..support import generated_weights
from . import probe, tiny

TEXT_TOKENS, POOLED, RANK = 5, 32, 4
GRID = (4, 6)
"""Tokens of an image."""

_FLUX = {
    "context_in_dim": 48,
    "hidden_size": 64,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [8, 12, 12],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "txt_ids_dims": [],
}


@dataclass(frozen=True)
class Small:
    """A base model in small.

    Attributes:
        kind: the host's class in `comfy.supported_models`.
        settings: of its network.
        text: channels of its text.
        channels: of its latent.
        frames: of its latent: 0 of an image's (b, c, h, w), else (b, c, frames, h, w).
        patch: side of the latent's square that makes a token.
        start: tokens before the image's in a block.
        queries: from a network, makes the context in which the first block's image queries before rotation are put
            into a list: (b, n, h * d).
    """

    kind: str
    settings: dict[str, Any]
    queries: Callable[[Any], tuple[Any, Callable[[Any, Any], Tensor]]]
    text: int = 48
    channels: int = 16
    frames: int = 0
    patch: int = 2
    start: int = TEXT_TOKENS
    extra: Callable[[], Any] = field(default=nullcontext)

    @property
    def cells(self) -> int:
        return max(self.frames, 1) * GRID[0] * GRID[1]

    @property
    def size(self) -> tuple[int, int]:
        return self.patch * GRID[0], self.patch * GRID[1]

    def latent(self, batch: int = 1, size: tuple[int, int] | None = None) -> Tensor:
        frames = (self.frames,) if self.frames else ()
        return torch.zeros(batch, self.channels, *frames, *(size or self.size))


def _flat(q: Tensor) -> Tensor:
    """Return (b, h, n, d) as (b, n, h * d)."""
    return q.transpose(1, 2).flatten(2)


def _lumina_queries(network: Any, qkv: Tensor) -> Tensor:
    attention = network.layers[0].attention
    q = qkv[..., : attention.n_local_heads * attention.head_dim].unflatten(-1, (attention.n_local_heads, -1))
    normed = F.rms_norm(q, (attention.head_dim,), attention.q_norm.weight, torch.finfo(torch.float32).eps)
    return normed.flatten(2)[:, 32 : 32 + 24]  # text padded to 32 tokens, then 4 x 6 of the image, padded too


SMALL = {
    "flux": Small(
        "Flux",
        {
            "image_model": "flux", "guidance_embed": True, "in_channels": 16, "out_channels": 16,
            "vec_in_dim": POOLED, **_FLUX,
        },
        lambda network: (network.double_blocks[0].img_attn.norm, lambda _, out: _flat(out[0])),
    ),
    "flux2": Small(
        "Flux2",
        {
            "image_model": "flux2", "guidance_embed": False, "in_channels": 128, "out_channels": 128,
            "vec_in_dim": None, **_FLUX, "patch_size": 1, "global_modulation": True, "mlp_silu_act": True,
            "qkv_bias": False, "ops_bias": False, "txt_ids_dims": [2],
        },
        lambda network: (network.double_blocks[0].img_attn.norm, lambda _, out: _flat(out[0])),
        channels=128,
        patch=1,
        start=512,  # the host pads its text
    ),
    "chroma": Small(
        "Chroma",
        {
            "image_model": "chroma", "in_channels": 64, "out_channels": 64, "vec_in_dim": 0, "in_dim": 64,
            "out_dim": 64, "hidden_dim": 32, "n_layers": 1, **_FLUX,
        },
        lambda network: (network.double_blocks[0].img_attn.norm, lambda _, out: _flat(out[0])),
    ),
    "krea2": Small(
        "Krea2",
        {
            "image_model": "krea2", "features": 64, "tdim": 32, "txtdim": 16, "heads": 4, "kvheads": 2, "multiplier": 2,
            "layers": 3, "patch": 2, "channels": 16, "txtlayers": 2, "txtheads": 2, "txtkvheads": 2,
        },
        lambda network: (network.blocks[0].attn.qknorm, lambda _, out: _flat(out[0])[:, TEXT_TOKENS:]),
        text=32,
        frames=1,
    ),
    "qwen_image": Small(
        "QwenImage",
        {
            "image_model": "qwen_image", "in_channels": 64, "num_layers": 3, "attention_head_dim": 32,
            "num_attention_heads": 2, "joint_attention_dim": 48, "pooled_projection_dim": 32,
            "axes_dims_rope": (8, 12, 12),
        },
        lambda network: (network.transformer_blocks[0].attn.norm_q, lambda _, out: _flat(out)),
        frames=1,
    ),
    "lumina2": Small(
        "Lumina2",
        {
            "image_model": "lumina2", "in_channels": 16, "dim": 64, "n_layers": 3, "n_refiner_layers": 1, "n_heads": 4,
            "n_kv_heads": 2, "multiple_of": 32, "ffn_dim_multiplier": 1.0, "qk_norm": True, "cap_feat_dim": 48,
            "axes_dims": [4, 6, 6], "axes_lens": [64, 64, 64], "pad_tokens_multiple": 32,
        },
        lambda network: (network.layers[0].attention.qkv, lambda _, out: _lumina_queries(network, out)),
        start=32,
    ),
    "sd3": Small(
        "SD3",
        {
            "in_channels": 16, "input_size": None, "pos_embed_scaling_factor": None, "patch_size": 2, "depth": 2,
            "adm_in_channels": POOLED, "num_patches": 256, "pos_embed_max_size": 16, "qk_norm": "rms",
            "context_embedder_config": {
                "target": "torch.nn.Linear", "params": {"in_features": 48, "out_features": 128},
            },
            "x_block_self_attn_layers": [0],
        },
        lambda network: (network.joint_blocks[0].x_block.attn.ln_q, lambda _, out: out.flatten(2)),
    ),
    "wan": Small(
        "WAN21_T2V",
        {
            "image_model": "wan2.1", "model_type": "t2v", "in_dim": 16, "dim": 48, "ffn_dim": 96, "freq_dim": 32,
            "text_dim": 48, "out_dim": 16, "num_heads": 2, "num_layers": 2,
        },
        lambda network: (network.blocks[0].cross_attn.norm_q, lambda _, out: out),
        frames=2,
        start=0,
    ),
    "anima": Small(
        "Anima",
        {
            "image_model": "anima", "max_img_h": 64, "max_img_w": 64, "max_frames": 8, "in_channels": 16,
            "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "model_channels": 64, "num_blocks": 2,
            "num_heads": 2, "mlp_ratio": 2.0, "crossattn_emb_channels": 48, "pos_emb_cls": "rope3d",
            "use_adaln_lora": True, "adaln_lora_dim": 16,
        },
        lambda network: (network.blocks[0].cross_attn.q_norm, lambda _, out: out.flatten(2)),
        frames=1,
        start=0,
        # its text adapter has 130 M parameters that no size is told of
        extra=lambda: mock.patch.object(comfy.ldm.anima.model, "LLMAdapter", return_value=torch.nn.Identity()),
    ),
}  # fmt: skip
"""By the names that adapter files give them."""


@lru_cache
def model(base: str) -> Any:
    """The ModelPatcher of a base in small, made once; no test may change it."""
    small, cpu = SMALL[base], torch.device("cpu")
    config = getattr(comfy.supported_models, small.kind)(small.settings)
    config.set_inference_dtype(torch.float32, None)
    with small.extra():
        made = config.get_model({}, "", device=cpu)
    shapes = {name: tuple(tensor.shape) for name, tensor in made.diffusion_model.state_dict().items()}
    made.diffusion_model.load_state_dict(generated_weights(shapes, seed=41))
    return comfy.model_patcher.ModelPatcher(made.eval(), load_device=cpu, offload_device=cpu)


def adapter_weights(base: str, seed: int = 42, carry: str = "all") -> dict[str, Tensor]:
    """`SAA_module.*` for a base in small."""
    patcher, shapes = model(base), {}
    blocks, number = ARCHITECTURES[base].blocks(patcher.model.diffusion_model), 0  # type: ignore[attr-defined]
    for block in blocks:
        for maps in block.layers:
            for linear, weight in maps.items():
                rows, columns = weight.shape(patcher)
                shapes[f"{number}.{linear}_lora.down.weight"] = (RANK, columns)
                shapes[f"{number}.{linear}_lora.up.weight"] = (rows, RANK)
            number += 1
        if carry == "all" or block.key[0] == carry:
            inner = block.layers[-1]["to_q"].shape(patcher)[0]
            shapes |= {f"{number - 1}.{name}.weight": (inner, tiny.WIDTH) for name in ("to_k_ip", "to_v_ip")}
    return {f"SAA_module.{name}": tensor for name, tensor in generated_weights(shapes, seed).items()}


def adapter_file(path: Path, base: str, *, carry: str = "all", weights: dict[str, Tensor] | None = None) -> Path:
    """Write an adapter for a base in small."""
    metadata = {"format": FORMAT, "base": base, "identity_blocks": carry}
    save_file(weights or adapter_weights(base, carry=carry), path, metadata)
    return path


def conditioning(base: str, seed: int, **more: Any) -> list[Any]:
    """The host's CONDITIONING of a random text; the seed is the text."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, TEXT_TOKENS, SMALL[base].text, generator=generator)
    return [[text, {"pooled_output": torch.randn(1, POOLED, generator=generator), **more}]]


def sample(
    patched: Any,
    base: str,
    *,
    cfg: float = 3.0,
    steps: int = 2,
    batch: int = 1,
    size: tuple[int, int] | None = None,
    **more: Any,
) -> Tensor:
    """Sample with the host's guider: the latent."""
    guider = comfy.samplers.CFGGuider(patched)
    guider.set_conds(conditioning(base, 1, **more), conditioning(base, 2, **more))
    guider.set_cfg(cfg)
    latent = SMALL[base].latent(batch, size)
    return probe.sample(patched, None, None, latent=latent, steps=steps, guider=guider, scheduler="simple")


@contextmanager
def first_queries(base: str) -> Iterator[list[Tensor]]:
    """Collect the first block's image queries, normalized and not rotated, of each call: (b, n, h * d)."""
    module, read = SMALL[base].queries(model(base).model.diffusion_model)
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, inputs, out: seen.append(read(inputs, out)))
    try:
        yield seen
    finally:
        handle.remove()
