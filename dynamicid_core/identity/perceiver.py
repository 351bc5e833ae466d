"""Perceiver layers: few latents read from a longer context (Jaegle et al., 2021), in the release's parameter names."""

from einops import rearrange
from torch import Tensor, cat, nn
from torch.nn import functional


class PerceiverAttention(nn.Module):
    """Queries come from `x`; keys and values from the context and `x` itself, one after the other."""

    def __init__(self, dim: int, dim_head: int = 64) -> None:
        super().__init__()
        self.heads = heads(dim, dim_head)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, T, dim) and context (B, N, dim) to (B, T, dim)."""
        context, x = self.norm1(context), self.norm2(x)
        key, value = self.to_kv(cat((context, x), dim=1)).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(x), key, value, self.heads))


class SelfAttention(nn.Module):
    """Self-attention with its own normalisation."""

    def __init__(self, dim: int, dim_head: int = 64) -> None:
        super().__init__()
        self.heads = heads(dim, dim_head)
        self.norm1 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) to (B, T, dim)."""
        x = self.norm1(x)
        key, value = self.to_kv(x).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(x), key, value, self.heads))


class PerceiverLayer(nn.ModuleList):
    """Perceiver attention, self-attention if asked for, feed-forward: numbered, each with a residual."""

    def __init__(self, dim: int, dim_head: int = 64, self_attention: bool = False) -> None:
        between = [SelfAttention(dim, dim_head)] if self_attention else []
        super().__init__([PerceiverAttention(dim, dim_head), *between, feed_forward(dim)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, T, dim) and context (B, N, dim) to (B, T, dim)."""
        attention, *others = self
        x = x + attention(x, context)
        for module in others:
            x = x + module(x)
        return x


def feed_forward(dim: int) -> nn.Sequential:
    """LayerNorm, four times the dim, GELU, back; (..., dim) to (..., dim)."""
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, 4 * dim, bias=False),
        nn.GELU(),
        nn.Linear(4 * dim, dim, bias=False),
    )


def heads(dim: int, dim_head: int) -> int:
    """Number of attention heads; ValueError when the dim is not a whole number of them."""
    if dim_head < 1 or dim % dim_head:
        raise ValueError(
            f"a dim of {dim} cannot be split into heads of {dim_head}. "
            "The head dim is not in the weights: give the one that they were trained with (64 in the release)."
        )
    return dim // dim_head


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Softmax attention: query (B, T, H*d), key and value (B, N, H*d) to (B, T, H*d)."""
    query, key, value = (rearrange(x, "b t (h d) -> b h t d", h=heads) for x in (query, key, value))
    return rearrange(functional.scaled_dot_product_attention(query, key, value), "b h t d -> b t (h d)")
