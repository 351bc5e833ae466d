"""SAA to be trained: its weights as a module, and diffusers' attention with them.

What an attention layer computes is the core's own `saa`, as in the host's patch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from ..saa.adapter import LINEARS
from ..saa.attention import attention, saa, split_heads


@dataclass(frozen=True, eq=False)
class IdentityInput:
    """Who is in the images of a batch, one person each, and how SAA's gate is set.

    Attributes:
        tokens: (b, t, D) identity tokens.
        threshold: gate values below it become 0; 0 cuts nothing away.
        gate: False means 1 everywhere, plain decoupled attention.
    """

    tokens: Tensor
    threshold: float = 0.3
    gate: bool = True


class LayerAdapter(nn.Module):
    """What SAA adds to one attention layer; names as in the release's file."""

    def __init__(self, layer: Attention, rank: int, token_dim: int | None) -> None:
        """Args: token_dim: channels of identity tokens; None in self-attention, which people don't enter."""
        super().__init__()
        for name in LINEARS:
            linear = _linear(layer, name)
            self.add_module(f"{name}_lora", _lora(linear.in_features, linear.out_features, rank))
        if token_dim is not None:
            self.to_k_ip = _projection(_linear(layer, "to_k"), token_dim)
            self.to_v_ip = _projection(_linear(layer, "to_v"), token_dim)

    def project(self, layer: Attention, name: str, x: Tensor) -> Tensor:
        """Return W x + up(down(x)) of one of the layer's linear maps."""
        change = getattr(self, f"{name}_lora")(x)
        return cast(Tensor, _linear(layer, name)(x) + change)


class SAA(nn.ModuleList):
    """The adapter of a whole UNet: `{i}.to_q_lora.down.weight` and so on, in diffusers' processor order.

    `state_dict()` is what `adapter.adapter_from_weights` reads.
    """

    @classmethod
    def of(cls, unet: UNet2DConditionModel, rank: int = 128, token_dim: int | None = None) -> SAA:
        """Return SAA as training begins: the LoRA changes nothing, identity keys and values are the text's own.

        Args:
            token_dim: channels of identity tokens; the text's where it is None.

        Raises ValueError when the UNet's attention is of another kind than SD1.5's.
        """
        token_dim = token_dim or int(unet.config["cross_attention_dim"])
        adapters: list[LayerAdapter] = []
        for name, layer in _attentions(unet):
            if layer.residual_connection or layer.spatial_norm is not None or layer.norm_q is not None:
                raise ValueError(f"expected a UNet with SD1.5's attention, got another kind in {name}.")
            adapters.append(LayerAdapter(layer, rank, token_dim if name.endswith("attn2") else None))
        if not adapters:
            raise ValueError("expected a UNet with cross-attention, got one without attention.")
        return cls(adapters)

    @contextmanager
    def installed(self, unet: UNet2DConditionModel) -> Iterator[None]:
        """Make the UNet attend with this adapter for a while, then with the one that it had."""
        before = dict(unet.attn_processors)
        self.install(unet)
        try:
            yield
        finally:
            unet.set_attn_processor(before)

    def install(self, unet: UNet2DConditionModel) -> None:
        """Make the UNet attend with this adapter; people come by `cross_attention_kwargs={"identity": ...}`."""
        for adapter, (_, layer) in zip(self, _attentions(unet), strict=True):
            layer.set_processor(SAAProcessor(adapter))  # type: ignore[arg-type]  # diffusers names its own only


@dataclass(frozen=True, eq=False)
class SAAProcessor:
    """diffusers' attention with a layer's adapter. It holds the adapter, and nothing of a call."""

    adapter: LayerAdapter

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        identity: IdentityInput | None = None,
    ) -> Tensor:
        """Map (b, n, c) to the same; without `identity` the layer's own attention, LoRA included."""
        adapter, heads = self.adapter, attn.heads
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = adapter.project(attn, "to_q", hidden_states)
        k, v = (split_heads(adapter.project(attn, name, source), heads) for name in ("to_k", "to_v"))
        if q.device.type == "cpu":  # half precision's backward pass is up to five times slower there
            q, k, v = q.float(), k.float(), v.float()
        with torch.autocast("cpu", enabled=False):
            out = attention(q, k, v, attention_mask)
            if identity is not None and encoder_hidden_states is not None:
                tokens = identity.tokens.to(q.dtype)
                keys, values = adapter.to_k_ip(tokens), adapter.to_v_ip(tokens)  # (b, t, c)
                mean_key, threshold = keys.mean(1), identity.threshold if identity.gate else None
                out = saa(out, q, split_heads(keys, heads), split_heads(values, heads), mean_key, None, threshold)
        return cast(Tensor, attn.to_out[1](adapter.project(attn, "to_out", out)))  # to_out: linear, dropout


def _attentions(unet: UNet2DConditionModel) -> Iterator[tuple[str, Attention]]:
    """Yield the attention layers by name in diffusers' processor order: self- and cross-attention in turns."""
    for name in unet.attn_processors:
        path = name.removesuffix(".processor")
        yield path, cast(Attention, unet.get_submodule(path))


def _linear(layer: Attention, name: str) -> nn.Linear:
    linear = layer.to_out[0] if name == "to_out" else getattr(layer, name)
    assert isinstance(linear, nn.Linear)
    return linear


def _lora(in_features: int, out_features: int, rank: int) -> nn.Sequential:
    """Return `up(down(x))`, which is zero until `up` learns."""
    down, up = nn.Linear(in_features, rank, bias=False), nn.Linear(rank, out_features, bias=False)
    nn.init.normal_(down.weight, std=1 / rank)
    nn.init.zeros_(up.weight)
    return nn.Sequential(OrderedDict(down=down, up=up))


def _projection(text: nn.Linear, token_dim: int) -> nn.Linear:
    """Return a map begun as the text's own where tokens have the text's channels, and as torch begins it elsewhere."""
    layer = nn.Linear(token_dim, text.out_features, bias=False)
    if token_dim == text.in_features:
        layer.load_state_dict({"weight": text.weight})
    return layer
