"""The face encoder: face embedding and CLIP states of an image to identity tokens (arXiv 2503.06505, section 3).

IP-Adapter's FaceID encoders have the same networks and names (`image_proj` in their files); the plain one reads the
embedding alone.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import LayerNorm, Linear

from ..state_dict import Weights, WeightsNetwork, check_shape, depth, size, stacked
from .perceiver import PerceiverLayer


class FaceEncoder(WeightsNetwork):
    """Queries made from the embedding, refined by a perceiver resampler that reads the CLIP states.

    Parameter names are those of the release's `proj_module`.

    Args:
        clip_dim: channels of the CLIP states; None: there is no resampler, the queries are the tokens (FaceID).
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        hidden_dim: int = 1024,
        clip_dim: int | None = 1280,
        dim: int = 768,
        tokens: int = 4,
        depth: int = 4,
        dim_head: int = 64,
    ) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.clip_dim = clip_dim
        self.dim = dim
        self.tokens = tokens
        self.proj = nn.Sequential(Linear(embedding_dim, hidden_dim), nn.GELU(), Linear(hidden_dim, tokens * dim))
        self.norm = LayerNorm(dim)
        if clip_dim is not None:
            self.perceiver_resampler = Resampler(clip_dim, dim, depth, dim_head)

    @classmethod
    def shaped_like(cls, weights: Weights, dim_head: int = 1) -> "FaceEncoder":
        dim = size(weights, "norm.weight", 0, axes=1)
        refines = not weights or any(name.startswith("perceiver_resampler.") for name in weights)
        with torch.device("meta"):
            return cls(
                embedding_dim=size(weights, "proj.0.weight", 1),
                hidden_dim=size(weights, "proj.0.weight", 0),
                clip_dim=size(weights, "perceiver_resampler.proj_in.weight", 1) if refines else None,
                dim=dim,
                tokens=stacked(weights, "proj.2.weight", dim, "token"),
                depth=depth(weights, "perceiver_resampler.layers."),
                dim_head=dim_head,
            )

    def forward(self, embedding: Tensor, clip_states: Tensor | None, shortcut: float | None = None) -> Tensor:
        """Return identity tokens (B, T, D).

        Args:
            embedding: (B, 512), the recognition network's, of length 1, or zeros where there is no face.
            clip_states: (B, N, 1280), the penultimate hidden states of CLIP ViT-H/14; not read without a resampler.
            shortcut: when given, the resampler's output, times this, is added to what the embedding alone gives.
        """
        check_shape("face embeddings", embedding, ("people", self.embedding_dim))
        # (B, T * D) to (B, T, D)
        x = self.norm(rearrange(self.proj(embedding), "b (t d) -> b t d", t=self.tokens))
        if self.clip_dim is None:
            return x
        if clip_states is None:
            raise ValueError("expected CLIP's hidden states, got none. This face encoder reads the image, too.")
        trained = " The face encoder was trained with CLIP ViT-H/14's penultimate states."
        check_shape("CLIP hidden states", clip_states, (len(embedding), "tokens", self.clip_dim), trained)
        refined = self.perceiver_resampler(x, clip_states)
        return refined if shortcut is None else x + shortcut * refined


class Resampler(nn.Module):
    """Latents refined against a context by `depth` layers of perceiver attention and feed-forward."""

    def __init__(self, context_dim: int, dim: int, depth: int, dim_head: int = 64) -> None:
        super().__init__()
        self.proj_in = Linear(context_dim, dim)
        self.layers = nn.ModuleList(PerceiverLayer(dim, dim_head) for _ in range(depth))
        self.proj_out = Linear(dim, dim)
        self.norm_out = LayerNorm(dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return (B, T, dim) for x (B, T, dim) and context (B, N, context_dim)."""
        context = self.proj_in(context)
        for layer in self.layers:
            x = layer(x, context)
        return self.norm_out(self.proj_out(x))
