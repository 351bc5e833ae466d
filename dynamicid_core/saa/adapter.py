"""The adapter (SAA): low-rank changes of every attention layer and the identity projections of the cross-attention.

Its tensors are named as in the release's `SAA_module` and in the `ip_adapter` of IP-Adapter FaceID's files. For every
layer i in diffusers' processor order (even: self-attention, odd: cross-attention) a LoRA `y = W x + up(down(x))` on
each of its four linear maps:

    {i}.to_{q,k,v,out}_lora.down.weight     (rank, in)
    {i}.to_{q,k,v,out}_lora.up.weight       (out, rank)
    {i}.to_{k,v}_ip.weight                  (channels, token dim), odd i only: keys and values of identity tokens

So much for a UNet; `bases.py` says how layers are numbered in other base models.
"""

import re
from dataclasses import dataclass, field

from torch import Tensor

from ..identity.encoding import RELEASE, Encoding
from ..messages import printable
from ..state_dict import Weights, compare, fingerprint, size
from .bases import ALL_BLOCKS, BASES, DOUBLE_BLOCKS, IDENTITY_BLOCKS, UNET

LINEARS = ("to_q", "to_k", "to_v", "to_out")

_NAME = re.compile(r"(\d{1,3})\.(?:to_(?:q|k|v|out)_lora\.(?:down|up)|to_[kv]_ip)\.weight")


@dataclass(frozen=True, eq=False)
class Adapter:
    """SAA's weights, and which face encoder they were trained with.

    Attributes:
        weights: by the names above.
        encoder_fingerprint: of the face encoder's weights; empty when the files held none, and identities can't be
            checked against it.
        fingerprint: of the adapter's own weights.
        tokens: identity tokens per person, read from the face encoder; None when the files held none.
        encoding: how that face encoder is shown a person.
        base: the kind of base model that it was made for, a name of `bases.BASES`.
        identity_blocks: which of its blocks carry people, of `bases.IDENTITY_BLOCKS`.
    """

    weights: dict[str, Tensor] = field(repr=False)
    encoder_fingerprint: str
    fingerprint: str
    tokens: int | None = None
    encoding: Encoding = RELEASE
    base: str = UNET
    identity_blocks: str = ALL_BLOCKS

    @property
    def dims(self) -> tuple[int, ...]:
        """Channels of the hidden states that each layer reads and writes."""
        count = 1 + max(int(name.split(".")[0]) for name in self.weights)
        return tuple(self.weights[f"{i}.to_q_lora.down.weight"].shape[1] for i in range(count))

    @property
    def token_dim(self) -> int:
        """Channels of an identity token."""
        return self.weights[f"{self.identity_layers[0]}.to_k_ip.weight"].shape[1]

    @property
    def identity_layers(self) -> tuple[int, ...]:
        """Numbers of the layers that people enter, in order: the cross-attentions, or the joint attentions."""
        return tuple(i for i in range(len(self.dims)) if f"{i}.to_k_ip.weight" in self.weights)

    @property
    def text_dim(self) -> int | None:
        """Channels of a text token, which the cross-attention's keys and values come from; None in joint attention."""
        if BASES[self.base].attentions == 1:
            return None
        return self.weights["1.to_k_lora.down.weight"].shape[1]

    @property
    def rank(self) -> int:
        """The largest rank of any LoRA (layers may differ)."""
        return max(tensor.shape[0] for name, tensor in self.weights.items() if name.endswith("_lora.down.weight"))


def check_adapter(weights: Weights, base: str = UNET, identity_blocks: str = ALL_BLOCKS) -> None:
    """Raise ValueError naming missing and extra tensors, or those whose shape does not fit the rest of their layer.

    Args: base, identity_blocks: what the file says, see `bases.py`.
    """
    check_base(base, identity_blocks)
    compare(_expected_shapes(weights, base, identity_blocks), weights)


def check_base(base: str, identity_blocks: str) -> None:
    """Raise ValueError unless these are a base model that is known, and blocks that it has."""
    if base not in BASES:
        raise ValueError(
            f"it was made for the base model '{printable(base)}', which this version does not know. Expected one of "
            f"{', '.join(BASES)}. Update the pack."
        )
    if identity_blocks not in IDENTITY_BLOCKS or (identity_blocks == DOUBLE_BLOCKS and not BASES[base].has_double):
        there = IDENTITY_BLOCKS if BASES[base].has_double else (ALL_BLOCKS,)
        raise ValueError(
            f"its people are in the blocks '{printable(identity_blocks)}', which {base} has none of. Expected "
            f"identity_blocks in its metadata to be {' or '.join(there)}."
        )


def adapter_from_weights(
    weights: Weights,
    encoder_fingerprint: str = "",
    tokens: int | None = None,
    encoding: Encoding = RELEASE,
    base: str = UNET,
    identity_blocks: str = ALL_BLOCKS,
) -> Adapter:
    """Check tensors named as in the release, without its `SAA_module.`, and make an adapter of them.

    Raises ValueError as `check_adapter` does.
    """
    check_adapter(weights, base, identity_blocks)
    return Adapter(dict(weights), encoder_fingerprint, fingerprint(weights), tokens, encoding, base, identity_blocks)


def _expected_shapes(weights: Weights, base: str, identity_blocks: str) -> dict[str, tuple[int, int]]:
    """Return every name and shape the adapter must have, given its layer, text and token dims and its own ranks."""
    indices = [int(match[1]) for match in map(_NAME.fullmatch, weights) if match]
    attentions = BASES[base].attentions
    count = 1 + max(indices, default=0)
    count += count % attentions  # half of a transformer block lacks the other half
    entered = range(attentions - 1, count, attentions)
    if identity_blocks == DOUBLE_BLOCKS:
        entered = range(1 + max((i for i in entered if f"{i}.to_k_ip.weight" in weights), default=0))
    text = size(weights, "1.to_k_lora.down.weight", 1) if attentions == 2 else None
    token = size(weights, f"{entered[0]}.to_k_ip.weight", 1)
    expected = {}
    for index in range(count):
        dim = size(weights, f"{index}.to_q_lora.down.weight", 1)
        inner = size(weights, f"{index}.to_q_lora.up.weight", 0)
        source = text if text is not None and index % 2 else dim
        # in joint attention several heads of queries may share one of keys and values
        keys = inner if attentions == 2 else size(weights, f"{index}.to_k_lora.up.weight", 0)
        sides = {"to_q": (dim, inner), "to_k": (source, keys), "to_v": (source, keys), "to_out": (inner, dim)}
        for name, (before, after) in sides.items():
            rank = size(weights, f"{index}.{name}_lora.down.weight", 0)
            expected[f"{index}.{name}_lora.down.weight"] = (rank, before)
            expected[f"{index}.{name}_lora.up.weight"] = (after, rank)
        if index in entered:
            expected[f"{index}.to_k_ip.weight"] = expected[f"{index}.to_v_ip.weight"] = (inner, token)
    return expected
