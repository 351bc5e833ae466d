"""What is measured: a full-size SD1.5 UNet of the host's own class, an adapter and people, all of random numbers."""

from collections.abc import Sequence
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import torch
from torch import Tensor

from ..dynamicid_core.host.apply import apply_scene
from ..dynamicid_core.host.architectures.unet import find_transformer_blocks
from ..dynamicid_core.host.sampling_run import AttentionSettings
from ..dynamicid_core.identity.identity import Identity
from ..dynamicid_core.saa.adapter import LINEARS, Adapter
from ..dynamicid_core.saa.scene import arrange
from .networks import SD15, SDXL

RANK, TOKENS, DIM = 128, 4, SD15["context_dim"]  # the release's adapter
TEXT_TOKENS = 77

_BASES = {"SD1.5": (comfy.supported_models.SD15, SD15), "SDXL": (comfy.supported_models.SDXL, SDXL)}


def full_size_model(load_device: torch.device, dtype: torch.dtype, base: str = "SD1.5") -> Any:
    """The host's ModelPatcher around a base's UNet; on the meta device its weights have shapes and no numbers."""
    kind, settings = _BASES[base]
    config = kind(dict(settings))
    config.set_inference_dtype(dtype, None)
    keep = torch.device("meta" if load_device.type == "meta" else "cpu")
    model = config.get_model({}, "", device=keep).eval()
    for name, parameter in model.diffusion_model.named_parameters():
        _draw(name, parameter)
    return comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=keep)


def random_adapter(model: Any) -> Adapter:
    """An adapter for this model in the release's shapes, without a face encoder."""
    weights: dict[str, Tensor] = {}
    for number, block in enumerate(find_transformer_blocks(model)):
        for layer, source in ((2 * number, block.dim), (2 * number + 1, block.context_dim)):
            for name in LINEARS:
                inside = source if name in ("to_k", "to_v") else block.dim
                weights[f"{layer}.{name}_lora.down.weight"] = _random(RANK, inside)
                weights[f"{layer}.{name}_lora.up.weight"] = _random(block.dim, RANK)
        for name in ("to_k_ip", "to_v_ip"):
            weights[f"{2 * number + 1}.{name}.weight"] = _random(block.dim, block.context_dim)
    return Adapter(weights, encoder_fingerprint="", fingerprint="benchmark", tokens=TOKENS)


def with_people(model: Any, adapter: Adapter, count: int) -> Any:
    """The model with the adapter's LoRA and so many people in columns; with none, the LoRA alone.

    All of them share their merged weights, so the host merges once however often they take turns. A merged LoRA
    changes no shape and costs nothing per step: the model with none takes the unpatched model's time.
    """
    width = adapter.token_dim
    people = [Identity(torch.randn(TOKENS, width), torch.randn(TOKENS, width)) for _ in range(count)]
    return apply_scene(model, adapter, arrange(people), AttentionSettings())


def random_text(width: int = DIM) -> tuple[Tensor, Tensor]:
    """Encodings of a prompt and a negative prompt: (1, tokens, width) each."""
    return torch.randn(1, TEXT_TOKENS, width), torch.randn(1, TEXT_TOKENS, width)


def latent_size(picture: Sequence[int]) -> tuple[int, int]:
    """(height, width) of the latent of a picture of (width, height) pixels."""
    width, height = picture
    return height // 8, width // 8


def _random(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns) / columns**0.5


def _draw(name: str, parameter: Tensor) -> None:
    """Numbers that keep activations finite: scaled by fan-in, norms of 1, biases of 0."""
    if parameter.ndim >= 2:
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    else:
        torch.nn.init.constant_(parameter, 1 if name.endswith("weight") else 0)
