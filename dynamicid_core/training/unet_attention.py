"""diffusers' UNet with SAA: its attention layers in order, and what each computes with its adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from ..saa.adapter import LINEARS
from ..saa.attention import attention, split_heads
from .layers import IdentityInput, LayerAdapter, exact_on_cpu, quick_backward


def unet_layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """Return the attention layers by name in diffusers' processor order: self- and cross-attention in turns."""
    paths = (name.removesuffix(".processor") for name in unet.attn_processors)
    return {path: cast(Attention, unet.get_submodule(path)) for path in paths}


def unet_adapters(unet: UNet2DConditionModel, rank: int, token_dim: int) -> Iterator[LayerAdapter]:
    """Yield each layer's adapter as training begins; identity keys and values are the text's own.

    Raises ValueError when the UNet's attention is of another kind than SD1.5's.
    """
    layers = unet_layers(unet)
    if not layers:
        raise ValueError("expected a UNet with cross-attention, got one without attention.")
    for name, layer in layers.items():
        if layer.residual_connection or layer.spatial_norm is not None or layer.norm_q is not None:
            raise ValueError(f"expected a UNet with SD1.5's attention, got another kind in {name}.")
        linears = {name: _linear(layer, name) for name in LINEARS}
        adapter = LayerAdapter({name: (x.in_features, x.out_features) for name, x in linears.items()}, rank)
        if name.endswith("attn2"):  # people don't enter self-attention
            adapter.add_identity(*(_projection(linears[name], token_dim) for name in ("to_k", "to_v")))
        yield adapter


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
        heads = attn.heads
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = self._project(attn, "to_q", hidden_states)
        k, v = (split_heads(self._project(attn, name, source), heads) for name in ("to_k", "to_v"))
        q, k, v = quick_backward(q, k, v)
        with exact_on_cpu():
            out = attention(q, k, v, attention_mask)
            if identity is not None and encoder_hidden_states is not None:
                out = self.adapter.add_people(out, q, heads, identity)
        return cast(Tensor, attn.to_out[1](self._project(attn, "to_out", out)))  # to_out: linear, dropout

    def _project(self, layer: Attention, name: str, x: Tensor) -> Tensor:
        """Return W x + up(down(x)) of one of the layer's linear maps."""
        change = self.adapter.change(name, x)
        return cast(Tensor, _linear(layer, name)(x) + change)


def _linear(layer: Attention, name: str) -> nn.Linear:
    linear = layer.to_out[0] if name == "to_out" else getattr(layer, name)
    assert isinstance(linear, nn.Linear)
    return linear


def _projection(text: nn.Linear, token_dim: int) -> nn.Linear:
    """Return a map begun as the text's own where tokens have the text's channels, and as torch begins it elsewhere."""
    layer = nn.Linear(token_dim, text.out_features, bias=False)
    if token_dim == text.in_features:
        layer.load_state_dict({"weight": text.weight})
    return layer
