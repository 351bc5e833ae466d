"""What a step of each training costs on SD1.5's or SDXL's networks, counted without weights or a GPU.

`python -m dynamicid_core.training.cost [SDXL]` prints parameters, floating-point operations and the memory that
activations take until the backward pass. Nothing is timed: the networks are on the meta device, which has shapes and no
numbers. Text encoders are left out: each prompt is read once a step.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ..identity.encoder import FaceEncoder
from ..imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from .layers import IdentityInput
from .saa import SAA

_SIZES = {"SD1.5": 512, "SDXL": 1024}  # pixels a side
_UNETS: dict[str, dict[str, Any]] = {
    "SD1.5": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "SDXL": {
        "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip


def _parameters(*networks: nn.Module) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def _operations(call: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def unet_step(unet: UNet2DConditionModel, size: int) -> dict[str, float]:
    """Return what one image of so many pixels a side costs through SAA's UNet and back.

    That is operations, and bytes of activations (float32).
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    side, dim = size // 8, int(unet.config["cross_attention_dim"])
    latent, time, text = torch.randn(1, 4, side, side), torch.zeros(1), torch.randn(1, 77, dim)
    tokens = torch.randn(1, 4, dim, requires_grad=True)
    added = {"text_embeds": torch.randn(1, 1280), "time_ids": torch.randn(1, 6)}  # SD1.5's doesn't read them

    def there_and_back() -> None:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            people = {"identity": IdentityInput(tokens)}
            noise = unet(latent, time, text, cross_attention_kwargs=people, added_cond_kwargs=added).sample
        noise.sum().backward()

    return {"operations": _operations(there_and_back), "kept_bytes": float(sum(kept.values()))}


def cost(base: str = "SD1.5") -> dict[str, Any]:
    """Return parameters by network, and what one image costs, with and without gradient checkpointing."""
    size, dim = _SIZES[base], _UNETS[base]["cross_attention_dim"]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**_UNETS[base]).requires_grad_(False)
        saa, encoder = SAA.of(unet, 128), FaceEncoder(dim=dim)
        keypoints, pooled = KeypointEncoder(), 768 if base == "SD1.5" else 1280
        imr = IdentityMotionReconfigurator(dim, 768 + pooled)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        )  # fmt: skip
        vision = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14,
                projection_dim=1024,
            )
        )  # fmt: skip
        saa.install(unet)
        steps = {"kept": unet_step(unet, size)}
        unet.enable_gradient_checkpointing()
        unet.train()
        steps["computed again"] = unet_step(unet, size)
        with torch.no_grad():
            frozen = {
                "autoencoder": _operations(lambda: vae.encode(torch.randn(1, 3, size, size))),
                "image encoder": _operations(lambda: vision(torch.randn(1, 3, 224, 224))),
            }
        return {
            "parameters": {
                "UNet": _parameters(unet), "SAA": _parameters(saa), "face encoder": _parameters(encoder),
                "IMR": _parameters(imr), "keypoint encoder": _parameters(keypoints),
                "autoencoder": _parameters(vae), "image encoder": _parameters(vision),
            },
            "a picture there and back, by what becomes of activations": steps,
            "a picture there, frozen": frozen,
        }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(cost(*sys.argv[1:]), indent=2))
