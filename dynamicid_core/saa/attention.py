"""Semantic-Activated Attention (DynamicID, section 3.2) in one cross-attention layer: pure functions of tensors.

The layer's own text attention is not computed here; these functions give what is added to it before `to_out`:

    out = text_attention + gate * softmax(S + log(share)) V_id

with S the scores of the identity tokens, `share` each person's claim on a query, and `gate` in [0, 1] telling how
much a query has to do with faces at all (above 1 inside a region during the layout phase).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor


class RegionTerms(NamedTuple):
    """What the people's regions mean on one grid of h*w queries.

    log_share:  (queries, people) log of each person's share of a query, -inf where that person is excluded;
                None when every share is the same everywhere, so that it would change nothing.
    inside:     (queries,) in [0, 1], how far a query lies inside any region.
    """

    log_share: Tensor | None
    inside: Tensor


def region_terms(masks: Tensor) -> RegionTerms:
    """Turn the regions of n people on one grid into attention terms.

    One formula serves boxes, soft masks and overlaps: inside a region only those who have a part in it compete,
    outside all regions everybody does alike.

    Args:
        masks: (people, h, w) in [0, 1].
    """
    flat = rearrange(masks.float(), "people h w -> (h w) people")
    people = flat.shape[1]
    inside = flat.amax(dim=1)
    outside = 1 - inside
    share = (flat + outside[:, None] / people) / (flat.sum(dim=1) + outside)[:, None]
    if torch.equal(share, share[:, :1].expand_as(share)):
        return RegionTerms(None, inside)
    return RegionTerms(share.log(), inside)


def activation_scores(q: Tensor, mean_key: Tensor) -> Tensor:
    """Sum of the scores of a query over all heads and identity tokens, up to a positive factor: (rows, queries).

    The sum over heads and tokens of q k^T is one dot product of the flattened query with the summed keys
    (the paper's `Q K^T J`, J all ones), so no score tensor is needed.

    Args:
        q: (rows, queries, channels) of the layer, heads flattened.
        mean_key: (rows, channels) identity keys summed over tokens (any positive factor will do: the gate is scaled
            by its own range; a mean keeps half precision from overflowing).
    """
    return torch.bmm(q, mean_key.unsqueeze(-1)).squeeze(-1).float()


def activation_gate(scores: Tensor, threshold: float) -> Tensor:
    """Scale the scores of each row to [0, 1] over its queries and cut what lies below the threshold to 0.

    Args:
        scores: (rows, queries) from `activation_scores`.
        threshold: 0..1; the paper's release cuts at 0.3.

    Returns:
        (rows, queries) in [0, 1]; 0 everywhere in a row whose queries are all alike.
    """
    if scores.requires_grad:  # in training: aminmax has no derivative, and that of 0/0 would be NaN
        low, high = scores.amin(-1, keepdim=True), scores.amax(-1, keepdim=True)
        gate = (scores - low) / (high - low).clamp(min=1e-12)
    else:
        low, high = torch.aminmax(scores, dim=-1, keepdim=True)
        gate = (scores - low) / (high - low)
    # A row whose queries are all alike is 0/0, and NaN is never at or above the threshold.
    return torch.where(gate >= threshold, gate, 0.0)


class LayoutTerms(NamedTuple):
    """What the layout phase does to the gate of each query: gate * scale + shift; both (queries,)."""

    scale: Tensor
    shift: Tensor


def layout_terms(inside: Tensor, layout_scale: float) -> LayoutTerms:
    """The layout phase on one grid: w + L inside all regions, w / (1 + L) outside them, in between by degree.

    Args:
        inside: (queries,) in [0, 1] from `region_terms`.
        layout_scale: L, 0 or more; the paper's release uses 4.
    """
    return LayoutTerms(inside + (1 - inside) / (1 + layout_scale), layout_scale * inside)


def layout_gate(gate: Tensor, terms: LayoutTerms) -> Tensor:
    """Press people into their regions during the first steps: (rows, queries), above 1 inside.

    Args:
        gate: (rows, queries) from `activation_gate`.
    """
    return torch.addcmul(terms.shift, gate, terms.scale)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(rows, n, heads * d) to (rows, heads, n, d), without einops: this runs in every layer of every step."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def identity_attention(q: Tensor, keys: Tensor, values: Tensor, log_share: Tensor | None) -> Tensor:
    """Attention of the queries to the identity tokens alone: (rows, queries, channels).

    Args:
        q: (rows, queries, channels), heads flattened in channels.
        keys, values: (rows, heads, tokens, channels / heads), see `split_heads`.
        log_share: (queries, tokens) added to the scores, -inf excludes; None adds nothing. Same dtype as q.
    """
    q = split_heads(q, keys.shape[1])
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=log_share).transpose(1, 2).flatten(2)


def add_gated(out: Tensor | None, attended: Tensor, gate: Tensor | None) -> Tensor:
    """`out + gate * attended`: (rows, queries, channels); without `out` the product alone.

    Args:
        gate: (rows, queries); None means 1 everywhere (gate off: plain decoupled attention).
    """
    if gate is None:
        return attended if out is None else out + attended
    column = gate.to(attended.dtype).unsqueeze(-1)
    return attended * column if out is None else torch.addcmul(out, attended, column)


def person_activation(
    q: Tensor, keys: Tensor, log_share: Tensor | None, gate: Tensor, token_counts: tuple[int, ...]
) -> Tensor:
    """How strongly each person is drawn at each query, for display: (rows, people, queries) in [0, 1].

    The gate times the person's share of the identity attention (averaged over heads, summed over the person's tokens).

    Args:
        gate: (rows, queries) in [0, 1], before any layout phase.
        token_counts: number of tokens of each person, in the order of the keys.
        Others: see `identity_attention`.
    """
    q = split_heads(q, keys.shape[1]).float()
    scores = torch.einsum("bhnd,bhtd->bhnt", q, keys.float()) / q.shape[-1] ** 0.5
    if log_share is not None:
        scores = scores + log_share.float()
    attention = scores.softmax(dim=-1).mean(dim=1)
    per_person = torch.stack([part.sum(dim=-1) for part in attention.split(token_counts, dim=-1)], dim=1)
    return per_person * repeat(gate, "b n -> b 1 n")
