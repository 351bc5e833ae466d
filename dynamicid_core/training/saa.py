"""SAA to be trained: its weights as a module, and diffusers' attention with them.

What an attention layer computes is the core's own functions, as in the host's patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from ..saa.attention import activation_gate, activation_scores, add_gated, identity_attention, split_heads

NAMES = ("to_q", "to_k", "to_v", "to_out")


@dataclass(frozen=True, eq=False)
class IdentityInput:
    """Who is in the pictures of a batch, one person each, and how SAA's gate is set.

    Attributes:
        tokens: (rows, T, D) identity tokens.
        threshold: parts of a picture less face-like than this are left to the text; 0 cuts nothing away.
        gate: off means 1 everywhere, plain decoupled attention.
    """

    tokens: Tensor
    threshold: float = 0.3
    gate: bool = True


class LowRankLayer(nn.Module):
    """`up(down(x))`, which is zero until `up` learns."""

    def __init__(self, inside: int, outside: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inside, rank, bias=False)
        self.up = nn.Linear(rank, outside, bias=False)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inside) to (..., outside)."""
        return self.up(self.down(x))


class LayerAdapter(nn.Module):
    """What SAA adds to one attention layer; names as in the release's file."""

    def __init__(self, attention: Attention, rank: int, token_dim: int | None) -> None:
        """Args: token_dim: of identity tokens; None in self-attention, which people don't enter."""
        super().__init__()
        for name in NAMES:
            layer = _linear(attention, name)
            self.add_module(f"{name}_lora", LowRankLayer(layer.in_features, layer.out_features, rank))
        if token_dim is not None:
            self.to_k_ip = _projection(_linear(attention, "to_k"), token_dim)
            self.to_v_ip = _projection(_linear(attention, "to_v"), token_dim)

    def changed(self, attention: Attention, name: str, x: Tensor) -> Tensor:
        """The layer's own linear map of x, and its low-rank change."""
        lora: Tensor = getattr(self, f"{name}_lora")(x)
        return _linear(attention, name)(x) + lora


class SAA(nn.ModuleList):
    """The adapter of a whole UNet: `{i}.to_q_lora.down.weight` and so on, in diffusers' processor order.

    `state_dict()` is what `adapter.adapter_from_weights` reads.
    """

    @classmethod
    def of(cls, unet: UNet2DConditionModel, rank: int = 128, token_dim: int | None = None) -> SAA:
        """SAA as training begins: the LoRA changes nothing, identity keys and values are the text's own.

        Args:
            token_dim: of identity tokens; the text's where it is None.

        Raises ValueError when the UNet's attention is of another kind than SD1.5's.
        """
        wide = token_dim or int(unet.config["cross_attention_dim"])
        found: list[LayerAdapter] = []
        for name, attention in attentions(unet):
            if attention.residual_connection or attention.spatial_norm is not None or attention.norm_q is not None:
                raise ValueError(f"expected a UNet with SD1.5's attention, got another kind in {name}.")
            found.append(LayerAdapter(attention, rank, wide if name.endswith("attn2") else None))
        if not found:
            raise ValueError("expected a UNet with cross-attention, got one without attention.")
        return cls(found)

    @contextmanager
    def installed(self, unet: UNet2DConditionModel) -> Iterator[None]:
        """The UNet attends with this adapter for a while, then with the one that it had."""
        before = dict(unet.attn_processors)
        self.install(unet)
        try:
            yield
        finally:
            unet.set_attn_processor(before)

    def install(self, unet: UNet2DConditionModel) -> None:
        """Make the UNet attend with this adapter; people come by `cross_attention_kwargs={"identity": ...}`."""
        for layer, (_, attention) in zip(self, attentions(unet), strict=True):
            attention.set_processor(SAAProcessor(layer))  # type: ignore[arg-type]  # diffusers names its own only


class SAAProcessor:
    """diffusers' attention with a layer's adapter. It holds the adapter, and nothing of a call."""

    def __init__(self, layer: nn.Module) -> None:
        assert isinstance(layer, LayerAdapter)
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        identity: IdentityInput | None = None,
    ) -> Tensor:
        """(rows, queries, width) to the same; without `identity` the layer's own attention, LoRA included."""
        layer, heads = self.layer, attn.heads
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = layer.changed(attn, "to_q", hidden_states)
        k, v = (split_heads(layer.changed(attn, name, source), heads) for name in ("to_k", "to_v"))
        out = F.scaled_dot_product_attention(split_heads(q, heads), k, v, attn_mask=attention_mask)
        out = out.transpose(1, 2).flatten(2)
        if identity is not None and encoder_hidden_states is not None:
            out = self._with_people(out, q, heads, identity)
        out = layer.changed(attn, "to_out", out)
        return attn.to_out[1](out)

    def _with_people(self, out: Tensor, q: Tensor, heads: int, identity: IdentityInput) -> Tensor:
        tokens = identity.tokens.to(q.dtype)
        keys, values = self.layer.to_k_ip(tokens), self.layer.to_v_ip(tokens)
        gate = activation_gate(activation_scores(q, keys.mean(1)), identity.threshold) if identity.gate else None
        attended = identity_attention(q, split_heads(keys, heads), split_heads(values, heads), None)
        return add_gated(out, attended, gate)


def attentions(unet: UNet2DConditionModel) -> Iterator[tuple[str, Attention]]:
    """The attention layers by name in diffusers' processor order: self- and cross-attention in turns."""
    modules: Mapping[str, Any] = dict(unet.named_modules())
    for name in unet.attn_processors:
        path = name.removesuffix(".processor")
        yield path, modules[path]


def _linear(attention: Attention, name: str) -> nn.Linear:
    layer = attention.to_out[0] if name == "to_out" else getattr(attention, name)
    assert isinstance(layer, nn.Linear)
    return layer


def _projection(text: nn.Linear, token_dim: int) -> nn.Linear:
    """Begun as the text's own projection where tokens are as wide as the text, and as torch begins it elsewhere."""
    layer = nn.Linear(token_dim, text.out_features, bias=False)
    if token_dim == text.in_features:
        with torch.no_grad():
            layer.weight.copy_(text.weight)
    return layer
