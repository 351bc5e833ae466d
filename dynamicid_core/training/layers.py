"""What SAA adds to one attention layer of any base model, and who is in the images that it sees."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ..saa.adapter import LINEARS
from ..saa.attention import saa, split_heads

Shapes = Mapping[str, tuple[int, int]]
"""Channels that each of a layer's maps takes and gives, by the names of `LINEARS`."""


@dataclass(frozen=True, eq=False)
class IdentityInput:
    """Who is in the images of a batch, and how SAA's gate is set. Training has one person in each image.

    Attributes:
        tokens: (b, t, D) identity tokens.
        threshold: gate values below it become 0; 0 cuts nothing away.
        gate: False means 1 everywhere, plain decoupled attention.
        text_tokens: of a joint attention, those that come before the image's.
        log_share: (n, t) of several people in regions, as `saa` takes it; of a base whose layers have one grid.
    """

    tokens: Tensor
    threshold: float = 0.3
    gate: bool = True
    text_tokens: int = 0
    log_share: Tensor | None = None


class LayerAdapter(nn.Module):
    """The LoRA of a layer's maps and, where people enter it, their keys and values; names as in the release's file."""

    def __init__(self, shapes: Shapes, rank: int) -> None:
        super().__init__()
        for name in LINEARS:
            self.add_module(f"{name}_lora", _lora(*shapes[name], rank))

    def add_identity(self, to_k: nn.Linear, to_v: nn.Linear) -> LayerAdapter:
        """Let people enter the layer by these maps of identity tokens. Return the adapter."""
        self.to_k_ip, self.to_v_ip = to_k, to_v
        return self

    @property
    def is_entered(self) -> bool:
        return hasattr(self, "to_k_ip")

    def change(self, name: str, x: Tensor) -> Tensor:
        """Return up(down(x)), which is added to what one of the layer's maps makes of x."""
        return cast(Tensor, getattr(self, f"{name}_lora")(x))

    def add_people(self, out: Tensor, q: Tensor, heads: int, identity: IdentityInput) -> Tensor:
        """Return attention (b, n, c) of queries (b, n, c) with people added to it."""
        tokens = identity.tokens.to(q.dtype)
        keys, values = self.to_k_ip(tokens), self.to_v_ip(tokens)  # (b, t, c)
        mean_key, threshold = keys.mean(1), identity.threshold if identity.gate else None
        k_id, v_id = split_heads(keys, heads), split_heads(values, heads)
        return saa(out, q, k_id, v_id, mean_key, identity.log_share, threshold)


def _lora(in_features: int, out_features: int, rank: int) -> nn.Sequential:
    """Return `up(down(x))`, which is zero until `up` learns."""
    down, up = nn.Linear(in_features, rank, bias=False), nn.Linear(rank, out_features, bias=False)
    nn.init.normal_(down.weight, std=1 / rank)
    nn.init.zeros_(up.weight)
    return nn.Sequential(OrderedDict(down=down, up=up))


def quick_backward(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return queries, keys and values in float32 on a CPU: half precision is slow backwards there."""
    return tuple(x.float() if x.device.type == "cpu" else x for x in tensors)


def exact_on_cpu() -> torch.autocast:
    """Return a context in which nothing is computed in half precision on a CPU."""
    return torch.autocast("cpu", enabled=False)
