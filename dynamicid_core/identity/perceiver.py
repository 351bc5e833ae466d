"""Perceiver layers: few latents read from a longer context (Jaegle et al., 2021), in the release's parameter names."""

from einops import rearrange
from torch import Tensor, cat, nn
from torch.nn import functional


class PerceiverAttention(nn.Module):
    """Queries come from `x`; keys and values from the context and `x` itself, one after the other."""

    def __init__(self, width: int, dim_head: int = 64) -> None:
        super().__init__()
        self.heads = heads(width, dim_head)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, T, width) and context (B, N, width) to (B, T, width)."""
        context, x = self.norm1(context), self.norm2(x)
        key, value = self.to_kv(cat((context, x), dim=1)).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(x), key, value, self.heads))


class SelfAttention(nn.Module):
    """Self-attention with its own normalisation."""

    def __init__(self, width: int, dim_head: int = 64) -> None:
        super().__init__()
        self.heads = heads(width, dim_head)
        self.norm1 = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) to (B, T, width)."""
        x = self.norm1(x)
        key, value = self.to_kv(x).chunk(2, dim=-1)
        return self.to_out(attend(self.to_q(x), key, value, self.heads))


class PerceiverLayer(nn.ModuleList):
    """Perceiver attention, self-attention if asked for, feed-forward: numbered, each with a residual."""

    def __init__(self, width: int, dim_head: int = 64, self_attention: bool = False) -> None:
        between = [SelfAttention(width, dim_head)] if self_attention else []
        super().__init__([PerceiverAttention(width, dim_head), *between, feed_forward(width)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, T, width) and context (B, N, width) to (B, T, width)."""
        attention, *others = self
        x = x + attention(x, context)
        for module in others:
            x = x + module(x)
        return x


def feed_forward(width: int) -> nn.Sequential:
    """LayerNorm, four times the width, GELU, back; (..., width) to (..., width)."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )


def heads(width: int, dim_head: int) -> int:
    """Number of attention heads; ValueError when the width is not a whole number of them."""
    if dim_head < 1 or width % dim_head:
        raise ValueError(
            f"a width of {width} cannot be split into heads of {dim_head}. "
            "The head width is not in the weights: give the one that they were trained with (64 in the release)."
        )
    return width // dim_head


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Softmax attention: query (B, T, H*d), key and value (B, N, H*d) to (B, T, H*d)."""
    query, key, value = (rearrange(x, "b t (h d) -> b h t d", h=heads) for x in (query, key, value))
    return rearrange(functional.scaled_dot_product_attention(query, key, value), "b h t d -> b t (h d)")
