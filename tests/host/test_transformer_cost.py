"""What people cost in a transformer: counted, never timed."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sampler_helpers
import comfy.supported_models
import pytest
import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from dynamicid_pack.benchmarks.counting import FLOPS, computing, counted_block_calls, counted_flops
from dynamicid_pack.dynamicid_core.host.apply import apply_scene
from dynamicid_pack.dynamicid_core.host.architectures import ARCHITECTURES
from dynamicid_pack.dynamicid_core.host.architectures.transformer import flat_heads
from dynamicid_pack.dynamicid_core.host.lora import LoraStrength
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from dynamicid_pack.dynamicid_core.host.sampling_run import AttentionSettings
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.adapter import LINEARS, adapter_from_weights
from dynamicid_pack.dynamicid_core.saa.scene import arrange
from torch import Tensor

from . import tiny, transformers
from .transformers import SMALL

ADDED_CALLS = {
    "flux": {11},
    "flux2": {11},
    "chroma": {11},
    "krea2": {11},
    "qwen_image": {11},
    "lumina2": {11, 12},  # one of them turns rotated queries back; in the first block, one more turns the rotation
    "sd3": {12},  # two of them are what the host does in a block that is replaced and runs all the same
    "wan": {9},
    "anima": {9},
}
"""In each block after the first step of a run, operators that compute something, beyond those of the block without us.

Nine are SAA's, as in a UNet's layer. In joint attention one copies the image's queries out of their heads, where heads
come first, and one puts the result between the other tokens. On a GPU each is one launch.
"""

STEPS = 3


@pytest.mark.parametrize("base", SMALL)
def test_operator_calls_added_per_block(base: str, tmp_path: Path) -> None:
    dynamicid = load_dynamicid(transformers.adapter_file(tmp_path / "saa.safetensors", base))
    model = transformers.model(base)
    people = arrange([Identity(**tiny.identity_tensors(seed)) for seed in (1, 2)])
    patched = apply_scene(model, dynamicid.adapter, people, AttentionSettings(layout_scale=0.0), lora=LoraStrength(0.0))
    before, after = counted(model, base), counted(patched, base)
    assert len(before) == len(after) == len(ARCHITECTURES[base].blocks(model.model.diffusion_model))  # type: ignore[attr-defined]
    added = {computing(a) - computing(b) for a, b in zip(after, before, strict=True)}
    assert added == ADDED_CALLS[base], next(a - b for a, b in zip(after, before, strict=True))


def counted(model: Any, base: str) -> list[Counter[str]]:
    """Operator calls in each block of the last step."""
    network = model.model.diffusion_model
    lists = ("double_blocks", "single_blocks", "blocks", "transformer_blocks", "layers", "joint_blocks")
    blocks = [block for name in lists if hasattr(network, name) for block in getattr(network, name)]
    tallies: list[list[Counter[str]]] = []

    def count(executor: Any, *args: Any, **kwargs: Any) -> Any:
        with counted_block_calls(blocks) as counts:
            out = executor(*args, **kwargs)
        tallies.append(counts)
        return out

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "count", count)
    transformers.sample(watched, base, steps=STEPS)
    return tallies[-1]


FLUX = {
    "image_model": "flux",
    "guidance_embed": True,
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 19,
    "depth_single_blocks": 38,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "txt_ids_dims": [],
}
TEXT_TOKENS, TOKEN_DIM = 512, 64
"""The token dim counts nothing: identities are projected before anything is sampled."""


@pytest.mark.full
def test_floating_point_operations_of_flux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people at 1024 x 1024 in all blocks of Flux.1 at full size, where nothing is computed to be counted."""
    # the host's own kernels for rotation know no meta device; those that it trains with are torch's
    monkeypatch.setattr(comfy.model_management, "in_training", True)
    meta = torch.device("meta")
    config = comfy.supported_models.Flux(FLUX)
    config.set_inference_dtype(torch.float32, None)
    model = comfy.model_patcher.ModelPatcher(
        config.get_model({}, "", device=meta).eval(), load_device=meta, offload_device=meta
    )
    weights: dict[str, Tensor] = {}
    blocks = ARCHITECTURES["flux"].blocks(model.model.diffusion_model)  # type: ignore[attr-defined]
    for i in range(len(blocks)):
        for linear in LINEARS:
            weights |= {
                f"{i}.{linear}_lora.down.weight": torch.ones(1, 3072),
                f"{i}.{linear}_lora.up.weight": torch.ones(3072, 1),
            }
        weights |= {f"{i}.{name}.weight": torch.randn(3072, TOKEN_DIM) for name in ("to_k_ip", "to_v_ip")}
    adapter = adapter_from_weights(weights, base="flux")
    assert len(blocks) == 57
    people = [Identity(torch.randn(4, TOKEN_DIM), torch.randn(4, TOKEN_DIM)) for _ in range(2)]
    patched = apply_scene(model, adapter, arrange(people), AttentionSettings(), lora=LoraStrength(0.0))
    without, with_them = flops(model), flops(patched)
    assert 1 < with_them / without < 1.01


def flops(model: Any) -> int:
    options = comfy.model_patcher.create_model_options_clone(model.model_options)
    comfy.sampler_helpers.prepare_model_patcher(model, {}, options)
    sigmas = torch.tensor([1.0, 0.5, 0.0])
    options["transformer_options"] |= {
        "cond_or_uncond": [0],
        "sigmas": sigmas[1:2],
        "sample_sigmas": sigmas,
        "optimized_attention_override": lambda _, q, k, v, *args, **kwargs: flat_heads(
            F.scaled_dot_product_attention(q, k, v)
        ),
    }
    sizes = ((1, 16, 128, 128), (1, TEXT_TOKENS, 4096), (1, 768))
    x, text, pooled = (torch.empty(size, device="meta") for size in sizes)
    one = torch.empty(1, device="meta")

    def run(guider: Any, sigmas: Tensor, extra_args: dict[str, Any], *_: Any) -> int:
        told = extra_args["model_options"]["transformer_options"]
        with counted_flops(model.model.diffusion_model) as tally:
            model.model.apply_model(x, one, c_crossattn=text, y=pooled, guidance=one, transformer_options=told)
        return int(tally.total[FLOPS])

    wrappers = get_all_wrappers(WrappersMP.SAMPLER_SAMPLE, options, is_model_options=True)
    guider = SimpleNamespace(inner_model=model.model, conds={})
    return int(WrapperExecutor.new_executor(run, wrappers).execute(guider, sigmas, {"model_options": options}, None, x))
