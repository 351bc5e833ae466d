"""Semantic-Activated Attention (SAA) in one cross-attention layer: DynamicID, arXiv 2503.06505, section 3.2.

    S   = q k_id^T / sqrt(d)                                                 (1) scores of the identity tokens
    w   = Norm(Q K^T J), and 0 below the threshold                           (2) the gate
    w   = w (inside + (1 - inside) / (1 + L)) + L inside                     (3) the gate in the layout phase
    out = softmax(q k^T / sqrt(d)) v  +  w softmax(S + log share) v_id       (4) before the layer's `to_out`

The numbers are this file's. Q and K are q and k_id with all heads flattened, J is all ones: the gate says how much a
query has to do with faces at all. `share` is each person's claim on a query, `inside` how far it lies in any region.

Axes: b rows of the batch, n queries (y * x cells of the layer's grid), h heads, d channels of a head, c = h * d,
t identity tokens of all people, p people.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


class RegionTerms(NamedTuple):
    """What the people's regions mean on one grid.

    log_share:  (n, p) log of each person's share of a query, -inf where that person is excluded; None when all
                shares are equal everywhere, so that they would change nothing.
    inside:     (n,) in [0, 1], how far a query lies inside any region.
    """

    log_share: Tensor | None
    inside: Tensor


class LayoutTerms(NamedTuple):
    """Equation 3 on one grid, which presses people into their regions: gate * scale + shift; both (n,) or (b, n)."""

    scale: Tensor
    shift: Tensor


def saa(
    out: Tensor | None,
    q: Tensor,
    k_id: Tensor,
    v_id: Tensor,
    mean_key: Tensor | None,
    log_share: Tensor | None,
    threshold: float | None,
    layout: LayoutTerms | None = None,
) -> Tensor:
    """Return the layer's text attention with the people added: (b, n, c).

    Args:
        out: (b, n, c) text attention, the first term of equation 4; None: return what the people add, alone.
        q: (b, n, c) queries, heads flattened.
        k_id, v_id: (b, h, t, d) keys and values of the identity tokens, see `split_heads`.
        mean_key: (b, c) mean over t of the keys that the gate listens to; any positive factor changes nothing. It and
            a threshold go together.
        log_share: (n, t) log of the share of the person whose token it is, in q's dtype; (b, 1, n, t) where it differs
            by row; None adds nothing.
        threshold: gate values below it become 0; None: gate off, w = 1 (plain decoupled attention).
        layout: equation 3's terms during the layout phase, else None. The gate must be on.
    """
    gate = None
    if threshold is not None and mean_key is not None:
        gate = activation_gate(q, mean_key, threshold)  # (2)
        if layout is not None:
            gate = torch.addcmul(layout.shift, gate, layout.scale)  # (3), above 1 inside
    return add_gated(out, attention(q, k_id, v_id, log_share), gate)  # (1), (4)


def activation_gate(q: Tensor, mean_key: Tensor, threshold: float) -> Tensor:
    """Return the gate w of equation 2: (b, n, 1) float32 in [0, 1]; 0 in a row whose queries are all alike.

    Args: see `saa`; the paper's release cuts at threshold 0.3.
    """
    # Q K^T J: the sum of S over heads and tokens is one dot product with the summed keys. In float32: half precision
    # overflows where queries and keys are large, and bfloat16 keeps 18 levels of scores that lie far from 0.
    scores = torch.bmm(q.float(), mean_key.float().unsqueeze(-1))  # (b, n, 1)
    # Norm: from minimum to maximum over the queries of each row; 0 / 1e-12 where all are alike
    above = scores - scores.amin(1, keepdim=True)
    gate = above / above.amax(1, keepdim=True).clamp(min=1e-12)
    return F.threshold(gate, _float_below(threshold), 0.0)  # keeps what is above its argument


@lru_cache
def _float_below(number: float) -> float:
    """Return the largest float32 below a number."""
    return float(np.nextafter(np.float32(number), np.float32(-np.inf)))


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + mask) v with all heads flattened: (b, n, c).

    Args:
        q: (b, n, c).
        k, v: (b, h, t, d).
        mask: added to the scores, broadcast to (b, h, n, t).
    """
    q = split_heads(q, k.shape[1])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)  # (b, h, n, d)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return (b, n, h * d) as (b, h, n, d), without einops: this runs in every layer of every step."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)  # (b, n, h, d) -> (b, h, n, d)


def add_gated(out: Tensor | None, attended: Tensor, gate: Tensor | None) -> Tensor:
    """Return `out + gate * attended`: (b, n, c) in attended's dtype. No `out` counts as 0, no `gate` (b, n, 1) as 1.

    Where nothing is differentiated the result takes attended's place: the product is float32 without a cast.
    """
    if gate is None:
        return attended if out is None else out + attended
    if torch.is_grad_enabled():
        gate = gate.to(attended.dtype)
        return attended * gate if out is None else torch.addcmul(out, attended, gate)
    return attended.mul_(gate) if out is None else torch.addcmul(out, attended, gate, out=attended)


def region_terms(masks: Tensor) -> RegionTerms:
    """Turn the regions of p people on one grid into attention terms.

    One formula serves boxes, soft masks and overlaps: inside a region only those who have a part in it compete,
    outside all regions everybody does alike.

    Args:
        masks: (p, y, x) in [0, 1].
    """
    flat = rearrange(masks.float(), "p y x -> (y x) p")
    people = flat.shape[1]
    inside = flat.amax(dim=1)
    outside = 1 - inside
    # share_i = (m_i + (1 - inside) / p) / (sum of m + 1 - inside)
    share = (flat + outside[:, None] / people) / (flat.sum(dim=1) + outside)[:, None]
    if torch.equal(share, share[:, :1].expand_as(share)):
        return RegionTerms(None, inside)
    return RegionTerms(share.log(), inside)


def layout_terms(inside: Tensor, layout_scale: float) -> LayoutTerms:
    """Return equation 3's terms: w + L inside all regions, w / (1 + L) outside them, in between by degree.

    Args:
        inside: (n,) in [0, 1] from `region_terms`.
        layout_scale: L, 0 or more; the paper's release uses 4.
    """
    inside = inside.unsqueeze(-1)
    return LayoutTerms(inside + (1 - inside) / (1 + layout_scale), layout_scale * inside)


def person_activation(
    q: Tensor,
    k_id: Tensor,
    mean_key: Tensor | None,
    log_share: Tensor | None,
    threshold: float | None,
    counts: list[int],
) -> Tensor:
    """Return how strongly each person is drawn at each query, for display: (b, p, n) in [0, 1].

    It is the gate (before any layout phase) times the person's part of softmax(S + log share), averaged over heads.

    Args:
        counts: number of tokens of each person, in the order of the keys.
        Others: see `saa`.
    """
    heads = split_heads(q, k_id.shape[1]).float()
    scores = torch.einsum("bhnd,bhtd->bhnt", heads, k_id.float()) / heads.shape[-1] ** 0.5  # (1)
    if log_share is not None:
        scores = scores + log_share.float()
    weights = scores.softmax(dim=-1).mean(dim=1)  # (b, n, t)
    parts = torch.stack([part.sum(dim=-1) for part in weights.split(counts, dim=-1)], dim=1)  # (b, p, n)
    return parts if threshold is None or mean_key is None else parts * activation_gate(q, mean_key, threshold).mT
