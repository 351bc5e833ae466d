"""diffusers' Flux with SAA: its joint attentions in order, and what each computes with its adapter.

People meet the image's queries after their norm and before their rotation, in double-stream and single-stream blocks;
the LoRA is the image stream's, and in a single-stream block the one stream's. `saa/bases.py` has the names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxTransformer2DModel
from torch import Tensor, nn

from ..saa.attention import attention
from ..saa.bases import DOUBLE_BLOCKS
from .layers import IdentityInput, LayerAdapter, exact_on_cpu, quick_backward


def flux_layers(network: FluxTransformer2DModel) -> dict[str, FluxAttention]:
    """Return the attention layers by name in the order in which they run: double-stream blocks, then single-stream."""
    return {
        f"{kind}.{number}.attn": block.attn
        for kind in ("transformer_blocks", "single_transformer_blocks")
        for number, block in enumerate(getattr(network, kind))
    }


def flux_adapters(
    network: FluxTransformer2DModel, rank: int, token_dim: int, identity_blocks: str
) -> Iterator[LayerAdapter]:
    """Yield each layer's adapter as training begins. People add nothing: their values are zero until they learn.

    A layer has no map that reads text as such, which keys and values could begin as.
    """
    for layer in flux_layers(network).values():
        dim, inner = layer.query_dim, layer.inner_dim
        shapes = {"to_q": (dim, inner), "to_k": (dim, inner), "to_v": (dim, inner), "to_out": (inner, dim)}
        adapter = LayerAdapter(shapes, rank)
        if not (identity_blocks == DOUBLE_BLOCKS and layer.pre_only):
            to_k, to_v = (nn.Linear(token_dim, inner, bias=False) for _ in range(2))
            nn.init.normal_(to_k.weight, std=token_dim**-0.5)  # keys as long as the layer's own, which are normalized
            nn.init.zeros_(to_v.weight)
            adapter.add_identity(to_k, to_v)
        yield adapter


def prepare_flux(network: FluxTransformer2DModel) -> None:
    """Let single-stream blocks add the LoRA of their output, a map behind the attention. A second call does nothing."""
    blocks: Any = network.single_transformer_blocks
    for block in blocks:
        if not any(isinstance(hook, _OutputChange) for hook in block.proj_out._forward_hooks.values()):
            block.proj_out.register_forward_hook(_OutputChange(block.attn))


@dataclass(frozen=True, eq=False)
class FluxSAAProcessor:
    """diffusers' joint attention with a layer's adapter. It holds the adapter, and nothing of a call."""

    adapter: LayerAdapter

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        identity: IdentityInput | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the attention of the image's stream and of the text's, or of the one stream of both.

        Args:
            hidden_states: (b, n, c) of the image, or where there is no text beside it of text and image.
        """
        x, text, heads = hidden_states, encoder_hidden_states, attn.heads
        q, k, v = (_heads(getattr(attn, name)(x) + self.adapter.change(name, x), heads) for name in _MAPS)
        q, k = attn.norm_q(q), attn.norm_k(k)  # (b, n, h, d)
        start = identity.text_tokens if identity is not None else 0
        if text is not None:
            start = text.shape[1]
            text_q, text_k, text_v = (_heads(getattr(attn, name)(text), heads) for name in _TEXT_MAPS)
            before = (attn.norm_added_q(text_q), attn.norm_added_k(text_k), text_v)
            q, k, v = (torch.cat(parts, dim=1) for parts in zip(before, (q, k, v), strict=True))
        q, k, v = quick_backward(q, k, v)
        image_q = q[:, start:].flatten(2)
        if image_rotary_emb is not None:
            rotation: Any = image_rotary_emb
            q, k = (cast(Tensor, apply_rotary_emb(y, rotation, sequence_dim=1)) for y in (q, k))
        with exact_on_cpu():
            out = attention(q.flatten(2), k.transpose(1, 2), v.transpose(1, 2), attention_mask)  # (b, tokens, c)
            if identity is not None and self.adapter.is_entered:
                drawn = self.adapter.add_people(out[:, start:], image_q, heads, identity)
                out = torch.cat((out[:, :start], drawn), dim=1)
        if text is None:
            return out  # `_OutputChange` sees to the LoRA of what follows
        of_text, of_image = out[:, :start], out[:, start:].contiguous()
        of_image = attn.to_out[1](attn.to_out[0](of_image) + self.adapter.change("to_out", of_image))
        return of_image, attn.to_add_out(of_text.contiguous())


@dataclass(frozen=True, eq=False)
class _OutputChange:
    """A hook of a single-stream block's `proj_out`, whose first input channels are the attention's."""

    layer: FluxAttention

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        processor = self.layer.processor
        if not isinstance(processor, FluxSAAProcessor):
            return output
        return output + processor.adapter.change("to_out", inputs[0][..., : self.layer.inner_dim])


_MAPS, _TEXT_MAPS = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")


def _heads(x: Tensor, heads: int) -> Tensor:
    """Return (b, n, h * d) as (b, n, h, d)."""
    return x.view(*x.shape[:2], heads, -1)
