"""Perceiver layers: a few latents read from a longer context, under the release's parameter names.

The attention is that of Flamingo's perceiver resampler (arXiv 2204.14198, section 3.1), after Perceiver (arXiv
2103.03206): keys and values are the context and the latents themselves. Axes: b batch, h heads, t tokens, d dim.
"""

from einops import rearrange
from torch import Tensor, cat, nn
from torch.nn import LayerNorm, Linear, functional


class SelfAttention(nn.Module):
    """Self-attention with its own normalization."""

    def __init__(self, dim: int, dim_head: int = 64) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self._add_projections(dim, dim_head)

    def _add_projections(self, dim: int, dim_head: int) -> None:
        self.heads = head_count(dim, dim_head)
        self.to_q = Linear(dim, dim, bias=False)
        self.to_kv = Linear(dim, 2 * dim, bias=False)
        self.to_out = Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, dim) for x (B, T, dim)."""
        x = self.norm1(x)
        return self.attend(x, x)

    def attend(self, x: Tensor, source: Tensor) -> Tensor:
        """Return softmax attention (B, T, dim): queries from x (B, T, dim), keys and values from source (B, N, dim)."""
        key, value = self.to_kv(source).chunk(2, dim=-1)
        # (B, T, H * d) to (B, H, T, d)
        query, key, value = (
            rearrange(part, "b t (h d) -> b h t d", h=self.heads) for part in (self.to_q(x), key, value)
        )
        attention = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(rearrange(attention, "b h t d -> b t (h d)"))


class PerceiverAttention(SelfAttention):
    """Attention whose queries come from `x`, keys and values from the context and `x`, one after the other."""

    def __init__(self, dim: int, dim_head: int = 64) -> None:
        nn.Module.__init__(self)
        self.norm1 = LayerNorm(dim)
        self.norm2 = LayerNorm(dim)
        self._add_projections(dim, dim_head)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]  # it reads a context, too
        """Return (B, T, dim) for x (B, T, dim) and context (B, N, dim)."""
        context, x = self.norm1(context), self.norm2(x)
        return self.attend(x, cat((context, x), dim=1))


class PerceiverLayer(nn.ModuleList):
    """Perceiver attention, self-attention where it is switched on, feed-forward: numbered, each with a residual."""

    def __init__(self, dim: int, dim_head: int = 64, self_attention: bool = False) -> None:
        between = [SelfAttention(dim, dim_head)] if self_attention else []
        super().__init__([PerceiverAttention(dim, dim_head), *between, feed_forward(dim)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return (B, T, dim) for x (B, T, dim) and context (B, N, dim)."""
        attention, *others = self
        x = x + attention(x, context)
        for module in others:
            x = x + module(x)
        return x


def feed_forward(dim: int) -> nn.Sequential:
    """Return LayerNorm, a linear layer to four times the dim, GELU, and one back: (..., dim) to (..., dim)."""
    return nn.Sequential(LayerNorm(dim), Linear(dim, 4 * dim, bias=False), nn.GELU(), Linear(4 * dim, dim, bias=False))


def head_count(dim: int, dim_head: int) -> int:
    """Return the number of attention heads. Raises ValueError when the dim is not a whole number of them."""
    if dim_head < 1 or dim % dim_head:
        raise ValueError(
            f"a dim of {dim} cannot be split into heads of {dim_head}. "
            "The head dim is not in the weights: give the one that they were trained with (64 in the release)."
        )
    return dim // dim_head
