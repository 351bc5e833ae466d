"""A small SD1.5-shaped model of the host's own classes, and an adapter and identities that fit it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import torch
from safetensors.torch import save_file

from ..support import generated_weights
from . import shapes

TOKENS, WIDTH = 4, 128


CONFIGS = {"SD1.5": shapes.TINY, "SDXL": shapes.TINY_SDXL}
"""Base model -> the settings of its small UNet."""


def patcher(settings: dict[str, Any], seed: int, *, dtype: torch.dtype = torch.float32) -> Any:
    """A fresh ModelPatcher around a UNet of generated weights on the CPU, an SDXL where it takes a vector of sizes."""
    cpu = torch.device("cpu")
    kind = comfy.supported_models.SDXL if settings["adm_in_channels"] else comfy.supported_models.SD15
    config = kind({k: v for k, v in settings.items() if k != "legacy"})
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "", device=cpu)
    model.diffusion_model.load_state_dict(generated_weights(shapes.unet(settings), seed))
    return comfy.model_patcher.ModelPatcher(model.eval(), load_device=cpu, offload_device=cpu)


def tiny_patcher(seed: int = 31, *, dtype: torch.dtype = torch.float32, base: str = "SD1.5") -> Any:
    """A small model with text of dim 128: of 12.6M and 7 cross-attentions for SD1.5."""
    return patcher(CONFIGS[base], seed, dtype=dtype)


def tiny_adapter_state(
    seed: int = 32, *, rank: int = 4, width: int = WIDTH, embedding: int = 32, config: dict[str, Any] = shapes.TINY
) -> dict[str, torch.Tensor]:
    """`SAA_module.*` for the tiny model and `proj_module.*` that makes 4 tokens of its width, float32."""
    encoder = shapes.face_encoder(width, tokens=TOKENS, embedding=embedding, hidden=64, clip_dim=48)
    return generated_weights(shapes.saa(config, rank) | encoder, seed)


def adapter_file(path: Path, seed: int = 32, *, rank: int = 4, base: str = "SD1.5") -> Path:
    """Write the adapter for a tiny model as the pack's safetensors file."""
    save_file(tiny_adapter_state(seed, rank=rank, config=CONFIGS[base]), path)
    return path


def identity_tensors(seed: int, *, tokens: int = TOKENS, width: int = WIDTH) -> dict[str, Any]:
    """`tokens` and `negative_tokens` (tokens, width) of an identity file, standard normal; the seed is the person."""
    generator = torch.Generator().manual_seed(seed)
    nobody = torch.Generator().manual_seed(0)  # negative tokens are the encoder's, the same for everybody
    return {
        "tokens": torch.randn((tokens, width), generator=generator),
        "negative_tokens": torch.randn((tokens, width), generator=nobody),
    }


def identity_file(
    path: Path,
    seed: int,
    *,
    encoder: str = "",
    tokens: int = TOKENS,
    width: int = WIDTH,
    changed: Mapping[str, torch.Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write an identity file; `changed` tensors and `metadata` override what a sound one holds."""
    tensors = identity_tensors(seed, tokens=tokens, width=width) | dict(changed or {})
    known = {"format": "dynamicid-identity-1", "name": path.stem} | ({"encoder": encoder} if encoder else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=known | dict(metadata or {}))
    return path
