"""The method written down a second time, slowly and plainly, to compare the pack with inside the host.

One row of a batch, one head and one person at a time, straight from the paper's formulas; a row is the negative's
when it attends to a text that the test names as negative, which no guider, order or batch of other packs can hide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

Key = tuple[Any, ...]  # ("input", 1), or ("input", 1, 0) where a place has several transformer blocks
Patch = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], Tensor]

OWN_ROW = "reference_own_row"
"""In extra_options: for each row of a grown batch, the row that attends to the text of the side it was made of."""

THRESHOLD, LAYOUT_SCALE, LAYOUT_STEPS = 0.3, 4.0, 3
RELEASE_STEPS = 50


@dataclass(frozen=True)
class Person:
    """Somebody in a box (x0, y0, x1, y1) in fractions of the picture; boxes of several people don't overlap."""

    tokens: Tensor
    negative_tokens: Tensor
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Layer:
    """A cross-attention of the UNet: the host's key, its module, the adapter's identity projections."""

    block: Key
    module: Any
    to_k_ip: Tensor
    to_v_ip: Tensor


def layers(model: Any, state: dict[str, Tensor]) -> list[Layer]:
    """The UNet's cross-attentions in the adapter's order, with `SAA_module.*` weights."""
    unet = model.model.diffusion_model
    result: list[Layer] = []
    for name, blocks in (("input", unet.input_blocks), ("output", unet.output_blocks), ("middle", [unet.middle_block])):
        for number, block in enumerate(blocks):
            for part in block:
                transformers = getattr(part, "transformer_blocks", ())
                for index, transformer in enumerate(transformers):
                    key = (name, number) if len(transformers) == 1 else (name, number, index)
                    saa = f"SAA_module.{2 * len(result) + 1}"
                    weights = state[f"{saa}.to_k_ip.weight"], state[f"{saa}.to_v_ip.weight"]
                    result.append(Layer(key, transformer.attn2, *weights))
    return result


def apply(model: Any, state: dict[str, Tensor], people: Sequence[Person], negatives: Sequence[Tensor]) -> Any:
    """A clone of the model that draws the people, by plain functions around whatever is at each key; no LoRA."""
    clone = model.clone()
    layout_end = clone.get_model_object("model_sampling").percent_to_sigma(LAYOUT_STEPS / RELEASE_STEPS)
    for layer in layers(model, state):
        present = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
        key = (*layer.block, 0) if (*layer.block, 0) in present else layer.block
        patch = _patch(layer, people, negatives, layout_end, present.get(key, present.get(key[:2], text_attention)))
        clone.set_model_attn2_replace(patch, *key)
    return clone


def text_attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
    """What the host does at a cross-attention that nobody has patched."""
    return optimized_attention(q, k, v, extra_options["n_heads"], transformer_options=extra_options)


def low_rank_changes(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """up @ down of every weight that the adapter's LoRA changes, by the name in the model's state dict."""
    changes = {}
    names = {id(module): name for name, module in model.model.named_modules()}
    for index, layer in enumerate(layers(model, state)):
        for attention in (1, 2):
            prefix = names[id(layer.module)].removesuffix("attn2") + f"attn{attention}"
            for part, host in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("out", "to_out.0")):
                saa = f"SAA_module.{2 * index + attention - 1}.to_{part}_lora"
                up, down = state[f"{saa}.up.weight"], state[f"{saa}.down.weight"]
                changes[f"{prefix}.{host}.weight"] = up @ down
    return changes


def _patch(
    layer: Layer, people: Sequence[Person], negatives: Sequence[Tensor], layout_end: float, base: Patch
) -> Patch:
    def attend(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        height, width = extra_options["activations_shape"][-2:]
        in_layout = _in_layout(extra_options, layout_end)
        texts = [layer.module.to_k(text)[0] for text in negatives]
        rows = []
        for row, own in enumerate(extra_options.get(OWN_ROW) or range(len(q))):
            is_negative = any(torch.allclose(k[own, : text.shape[0]], text, rtol=1e-3, atol=1e-4) for text in texts)
            tokens = [person.negative_tokens if is_negative else person.tokens for person in people]
            heads = extra_options["n_heads"]
            rows.append(_added(q[row], tokens, [p.box for p in people], layer, heads, height, width, in_layout))
        return base(q, k, v, extra_options) + torch.stack(rows)

    return attend


def _in_layout(extra_options: dict[str, Any], end: float) -> bool:
    """Above the noise level of the release's fourth step, but never in a step that ends without noise."""
    *_, before, last = extra_options["sample_sigmas"]
    sigma = extra_options["sigmas"][0]
    return bool(sigma > end * 1.001 and not (last == 0 and sigma <= before * 1.001))


def _added(
    q: Tensor,
    tokens: Sequence[Tensor],
    boxes: Sequence[tuple[float, float, float, float]],
    layer: Layer,
    heads: int,
    height: int,
    width: int,
    in_layout: bool,
) -> Tensor:
    """What the people add to one row, (queries, channels)."""
    owner = torch.full((height, width), -1)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        owner[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)] = number
    owner = owner.flatten()
    token_owner = torch.cat([torch.full((len(t),), number) for number, t in enumerate(tokens)])
    excluded = (owner[:, None] >= 0) & (owner[:, None] != token_owner[None])

    keys, values = torch.cat(list(tokens)) @ layer.to_k_ip.T, torch.cat(list(tokens)) @ layer.to_v_ip.T
    depth = q.shape[1] // heads
    total, attended = torch.zeros(len(q)), []
    for head in range(heads):
        part = slice(head * depth, (head + 1) * depth)
        scores = q[:, part] @ keys[:, part].T / depth**0.5
        total += scores.sum(dim=1)
        attended.append(scores.masked_fill(excluded, -torch.inf).softmax(dim=1) @ values[:, part])
    gate = (total - total.min()) / (total.max() - total.min())
    gate[gate < THRESHOLD] = 0
    if in_layout:
        gate = torch.where(owner >= 0, gate + LAYOUT_SCALE, gate / (1 + LAYOUT_SCALE))
    return gate[:, None] * torch.cat(attended, dim=1)
