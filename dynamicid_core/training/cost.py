"""What a step of each training costs on SD1.5's, SDXL's or Flux.1's networks, counted without weights or a GPU.

`python -m dynamicid_core.training.cost [SDXL or Flux.1]` prints parameters, floating-point operations and the memory
that activations take until the backward pass. Nothing is timed: the networks are on the meta device, which has shapes
and no numbers. Text encoders are left out: each prompt is read once a step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ..identity.encoder import FaceEncoder
from ..imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from .layers import IdentityInput
from .saa import SAA, Network, default_token_dim


class _Model(NamedTuple):
    """A base model: its network, pixels a side of its images, channels of pooled text."""

    kind: type[UNet2DConditionModel] | type[FluxTransformer2DModel]
    config: dict[str, Any]
    size: int
    pooled: int


_MODELS = {
    "SD1.5": _Model(UNet2DConditionModel, {"cross_attention_dim": 768, "attention_head_dim": 8}, 512, 768),
    "SDXL": _Model(
        UNet2DConditionModel,
        {
            "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        1024,
        1280,
    ),
    "Flux.1": _Model(FluxTransformer2DModel, {"guidance_embeds": True}, 1024, 768),
}  # fmt: skip
_T5_TOKENS = 512


def _parameters(*networks: nn.Module) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def _operations(call: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def step(network: Network, size: int) -> dict[str, float]:
    """Return what one image of so many pixels a side costs through the network with SAA and back.

    That is operations, and bytes of activations (float32).
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    tokens = torch.randn(1, 4, default_token_dim(network), requires_grad=True)
    call = _flux_call if isinstance(network, FluxTransformer2DModel) else _unet_call

    def there_and_back() -> None:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            noise = call(network, size // 8, tokens)
        noise.sum().backward()  # type: ignore[no-untyped-call]

    return {"operations": _operations(there_and_back), "kept_bytes": float(sum(kept.values()))}


def _unet_call(unet: Any, side: int, tokens: Tensor) -> Tensor:
    text = torch.randn(1, 77, unet.config["cross_attention_dim"])
    added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}  # SD1.5's doesn't read them
    people = {"identity": IdentityInput(tokens)}
    latent = torch.randn(1, 4, side, side)
    noise: Tensor = unet(latent, torch.zeros(1), text, cross_attention_kwargs=people, added_cond_kwargs=added).sample
    return noise


def _flux_call(flux: Any, side: int, tokens: Tensor) -> Tensor:
    count, config = side**2 // 4, flux.config
    predicted: Tensor = flux(
        torch.randn(1, count, config["in_channels"]), torch.randn(1, _T5_TOKENS, config["joint_attention_dim"]),
        torch.randn(1, config["pooled_projection_dim"]), torch.zeros(1), img_ids=torch.zeros(count, 3),
        txt_ids=torch.zeros(_T5_TOKENS, 3), guidance=torch.ones(1),
        joint_attention_kwargs={"identity": IdentityInput(tokens, text_tokens=_T5_TOKENS)},
    ).sample  # fmt: skip
    return predicted


def cost(base: str = "SD1.5") -> dict[str, Any]:
    """Return parameters by network, and what one image costs, with and without gradient checkpointing.

    Raises ValueError for a base model that is none of the three.
    """
    if base not in _MODELS:
        raise ValueError(f"expected one of {', '.join(_MODELS)}, got {base!r}.")
    model = _MODELS[base]
    with torch.device("meta"):
        network = model.kind(**model.config).requires_grad_(False)
        dim = default_token_dim(network)
        saa, encoder = SAA.of(network, 128), FaceEncoder(dim=dim)
        keypoints = KeypointEncoder()
        imr = IdentityMotionReconfigurator(dim, 768 + model.pooled)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
            latent_channels=4 if model.kind is UNet2DConditionModel else 16,
        )  # fmt: skip
        vision = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14,
                projection_dim=1024,
            )
        )  # fmt: skip
        saa.install(network)
        steps = {"kept": step(network, model.size)}
        network.enable_gradient_checkpointing()
        network.train()
        steps["computed again"] = step(network, model.size)
        with torch.no_grad():
            frozen = {
                "autoencoder": _operations(lambda: vae.encode(torch.randn(1, 3, model.size, model.size))),
                "image encoder": _operations(lambda: vision(torch.randn(1, 3, 224, 224))),
            }
        return {
            "parameters": {
                "base model": _parameters(network), "SAA": _parameters(saa), "face encoder": _parameters(encoder),
                "IMR": _parameters(imr), "keypoint encoder": _parameters(keypoints),
                "autoencoder": _parameters(vae), "image encoder": _parameters(vision),
            },
            "an image there and back, by what becomes of activations": steps,
            "an image there, frozen": frozen,
        }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(cost(*sys.argv[1:]), indent=2))
