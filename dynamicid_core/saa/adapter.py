"""The adapter (SAA): low-rank changes of every attention layer and the identity projections of the cross-attention.

File names as in the release's `SAA_module`: `{i}.to_{q,k,v,out}_lora.{down,up}.weight` for every layer i in diffusers'
processor order, `{i}.to_{k,v}_ip.weight` for the odd ones, which are the cross-attention.
"""

import re
from dataclasses import dataclass

from torch import Tensor

from ..state_dict import Weights, compare, fingerprint, size

_NAME = re.compile(r"(\d{1,3})\.(?:to_(?:q|k|v|out)_lora\.(?:down|up)|to_[kv]_ip)\.weight")


@dataclass(frozen=True, eq=False)
class LowRank:
    """A low-rank change of a linear layer: `y += up(down(x))`."""

    down: Tensor
    """(rank, in)"""
    up: Tensor
    """(out, rank)"""


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """What the adapter adds to one attention layer."""

    to_q: LowRank
    to_k: LowRank
    to_v: LowRank
    to_out: LowRank
    to_k_ip: Tensor | None
    """(layer dim, token dim); None in self-attention"""
    to_v_ip: Tensor | None
    """(layer dim, token dim); None in self-attention"""


@dataclass(frozen=True, eq=False)
class Adapter:
    """SAA, and which face encoder it was trained with."""

    layers: tuple[AttentionWeights, ...]
    """In diffusers' processor order: even index self-attention, odd index cross-attention."""
    encoder_fingerprint: str
    """Of the face encoder's weights; empty when the files held none, and identities can't be checked against it."""
    fingerprint: str
    """Of the adapter's own weights."""
    tokens: int | None = None
    """Identity tokens per person (T), read from the face encoder; None when the files held none."""

    @property
    def cross_layers(self) -> tuple[int, ...]:
        """Indices of the cross-attention layers."""
        return tuple(range(1, len(self.layers), 2))

    @property
    def token_dim(self) -> int:
        """Width of an identity token (D)."""
        return _present(self.layers[1].to_k_ip).shape[1]

    @property
    def text_dim(self) -> int:
        """Width of a text token, which the cross-attention's keys and values come from."""
        return self.layers[1].to_k.down.shape[1]

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the hidden states that each layer reads and writes."""
        return tuple(layer.to_q.down.shape[1] for layer in self.layers)

    @property
    def rank(self) -> int:
        """The largest rank of any low-rank pair (layers may differ)."""
        return max(
            pair.down.shape[0] for layer in self.layers for pair in (layer.to_q, layer.to_k, layer.to_v, layer.to_out)
        )


def check_adapter(weights: Weights) -> None:
    """Raises ValueError naming missing and extra tensors, or those whose shape does not fit the rest of their layer."""
    compare(_expected_shapes(weights), weights)


def adapter_from_weights(weights: Weights, encoder_fingerprint: str = "", tokens: int | None = None) -> Adapter:
    """Reads the adapter out of tensors named as in the release, without its `SAA_module.`.

    Raises ValueError naming missing and extra tensors, or those whose shape does not fit the rest of their layer.
    """
    check_adapter(weights)
    count = 1 + max(int(name.split(".")[0]) for name in weights)
    layers = tuple(_layer(weights, index) for index in range(count))
    return Adapter(layers, encoder_fingerprint, fingerprint(weights), tokens)


def adapter_weights(adapter: Adapter) -> dict[str, Tensor]:
    """The adapter's tensors under the release's names: the inverse of `adapter_from_weights`."""
    weights = {}
    for index, layer in enumerate(adapter.layers):
        for name in ("to_q", "to_k", "to_v", "to_out"):
            pair: LowRank = getattr(layer, name)
            weights[f"{index}.{name}_lora.down.weight"] = pair.down
            weights[f"{index}.{name}_lora.up.weight"] = pair.up
        if index % 2:
            weights[f"{index}.to_k_ip.weight"] = _present(layer.to_k_ip)
            weights[f"{index}.to_v_ip.weight"] = _present(layer.to_v_ip)
    return weights


def _expected_shapes(weights: Weights) -> dict[str, tuple[int, int]]:
    """Every name and shape the adapter must have, given its layer, text and token widths and its own ranks."""
    indices = [int(match[1]) for match in map(_NAME.fullmatch, weights) if match]
    count = 1 + max(indices, default=0)
    count += count % 2  # half of a transformer block lacks the other half
    text = size(weights, "1.to_k_lora.down.weight", 1)
    token = size(weights, "1.to_k_ip.weight", 1)
    expected = {}
    for index in range(count):
        width = size(weights, f"{index}.to_q_lora.down.weight", 1)
        inner = size(weights, f"{index}.to_q_lora.up.weight", 0)
        source = text if index % 2 else width
        sides = {"to_q": (width, inner), "to_k": (source, inner), "to_v": (source, inner), "to_out": (inner, width)}
        for name, (before, after) in sides.items():
            rank = size(weights, f"{index}.{name}_lora.down.weight", 0)
            expected[f"{index}.{name}_lora.down.weight"] = (rank, before)
            expected[f"{index}.{name}_lora.up.weight"] = (after, rank)
        if index % 2:
            expected[f"{index}.to_k_ip.weight"] = (inner, token)
            expected[f"{index}.to_v_ip.weight"] = (inner, token)
    return expected


def _layer(weights: Weights, index: int) -> AttentionWeights:
    def pair(name: str) -> LowRank:
        lora = f"{index}.{name}_lora"
        return LowRank(weights[f"{lora}.down.weight"], weights[f"{lora}.up.weight"])

    return AttentionWeights(
        to_q=pair("to_q"),
        to_k=pair("to_k"),
        to_v=pair("to_v"),
        to_out=pair("to_out"),
        to_k_ip=weights.get(f"{index}.to_k_ip.weight"),
        to_v_ip=weights.get(f"{index}.to_v_ip.weight"),
    )


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("a cross-attention layer of this adapter has no identity projections (to_k_ip, to_v_ip).")
    return tensor
