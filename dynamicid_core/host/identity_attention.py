"""One patched cross-attention: it gathers what `saa` needs for its layer, its step and its rows of the batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..saa.attention import LayoutTerms, layout_terms, person_activation, region_terms, saa, split_heads
from ..saa.regions import rasterize
from .blocks import BlockKey, block_name
from .coexistence import SharedAttention
from .rows import Rows, in_layer
from .sampling_run import RECORDER, AppliedScene, Step, current_step


class PersonTokens(NamedTuple):
    """One person's identity tokens projected for one layer: CPU, float32; axis 0 is (POSITIVE, NEGATIVE).

    keys:     (2, t, c) k_id, scaled by the shares of a mixed identity.
    values:   (2, t, c) v_id, scaled by the person's weight.
    key_sum:  (2, c) sum of the unscaled keys over t, for the gate.
    """

    keys: Tensor
    values: Tensor
    key_sum: Tensor


class IdentityAttention(SharedAttention):
    """The patch at one cross-attention, with everybody's tokens for it.

    Tensors go to the GPU once per sampling run and leave with it.
    """

    def __init__(self, applied: AppliedScene, key: BlockKey, tokens: tuple[PersonTokens, ...]) -> None:
        super().__init__()
        self.applied = applied
        self.key = key
        self.tokens = tokens

    def draw(self, out: Tensor | None, q: Tensor, extra_options: dict[str, Any]) -> Tensor | None:
        """Return `out` (b, n, c) with the active people added, or their part alone without it; None where nobody is."""
        step = current_step(self.applied, extra_options)
        step.run.called_blocks.add(self.key)
        if not step.active:
            return None
        height, width = self._grid(q, extra_options)
        k_id, v_id, mean_key = self._rows(q, step, extra_options)
        log_share, layout = self._terms(q, step, height, width)
        settings = self.applied.settings
        threshold = settings.gate_threshold if settings.gate else None
        if RECORDER in extra_options:
            maps = person_activation(q, k_id, mean_key, log_share, threshold, self._token_counts(step))  # (b, p, n)
            extra_options[RECORDER].record(self.key, step.active, maps.view(*maps.shape[:2], height, width))
        return saa(out, q, k_id, v_id, mean_key, log_share, threshold, layout if step.in_layout else None)

    def sigma(self, extra_options: dict[str, Any]) -> float:
        """Return the noise level of this call of the UNet."""
        return current_step(self.applied, extra_options).sigma

    def _token_counts(self, step: Step) -> list[int]:
        return [self.tokens[i].keys.shape[1] for i in step.active]

    def _grid(self, q: Tensor, options: dict[str, Any]) -> tuple[int, int]:
        height, width = options["activations_shape"][-2:]
        if height * width != q.shape[1]:
            raise ValueError(
                f"DynamicID needs the real grid of each layer to place people, but layer {block_name(self.key)} has "
                f"{q.shape[1]} queries on a grid of {height} x {width}. Another node changes the queries of "
                "cross-attention; remove it or place it on another model."
            )
        return height, width

    def _rows_of(self, q: Tensor, step: Step, options: dict[str, Any]) -> Rows:
        before = (options.get("original_shape") or q.shape)[0]
        rows = step.rows
        if rows is None or len(rows.roles) != before:
            rows = step.run.guidance.rows(before, None, options)
        return in_layer(rows, q.shape[0], options)

    def _rows(self, q: Tensor, step: Step, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Return k_id, v_id (b, h, t, d) and mean_key (b, c) of the active people, in q's dtype, on its device."""
        roles = self._rows_of(q, step, options).roles

        def rows(by_role: Tensor) -> Tensor:
            """Return (2, ...) by role as (b, ...) by row, in q's dtype, on its device."""
            return by_role[list(roles)].contiguous().to(q, non_blocking=True)

        def prepare() -> tuple[Tensor, Tensor, Tensor]:
            keys, values, key_sums = zip(*(self.tokens[i] for i in step.active), strict=True)
            k_id, v_id = (split_heads(torch.cat(people, dim=1), options["n_heads"]) for people in (keys, values))
            return rows(k_id), rows(v_id), rows(torch.stack(key_sums, dim=1).mean(dim=1))

        return step.run.once((self.key, step.active, roles, q.dtype, q.device), prepare)

    def _terms(self, q: Tensor, step: Step, height: int, width: int) -> tuple[Tensor | None, LayoutTerms]:
        """Return log_share (n, t) in q's dtype, and the layout phase's terms in float32, both on q's device.

        The regions are rasterized once per run and grid: layers of one size share them.
        """
        counts = self._token_counts(step)

        def prepare() -> tuple[Tensor | None, LayoutTerms]:
            regions = [self.applied.scene[i].region for i in step.active]
            log_share, inside = region_terms(rasterize(regions, height, width))  # (n, p), (n,)
            if log_share is not None:
                log_share = log_share.repeat_interleave(torch.tensor(counts), dim=1)  # (n, p) -> (n, t)
                log_share = log_share.to(q, non_blocking=True)
            return log_share, layout_terms(inside.to(q.device), self.applied.settings.layout_scale)

        return step.run.once(("terms", step.active, height, width, q.dtype, q.device), prepare)
