"""One patched cross-attention: it gathers what `saa` needs for its layer, its step and its rows of the batch."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..saa.attention import LayoutTerms, RegionTerms, layout_terms, person_activation, region_terms, saa, split_heads
from ..saa.regions import rasterize
from .blocks import BlockKey, block_name
from .coexistence import SharedAttention
from .rows import Rows, in_layer
from .sampling_run import RECORDER, AppliedScene, Step, current_step

_ALIGNMENT = 8  # elements


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
        rows = self._rows(q, step, extra_options)
        k_id, v_id, mean_key = self._people(q, step, rows, extra_options["n_heads"])
        log_share, layout = self._terms(q, step, rows.frames, height, width)
        settings = self.applied.settings
        threshold = settings.gate_threshold if settings.gate else None
        if RECORDER in extra_options:
            maps = person_activation(q, k_id, mean_key, log_share, threshold, self._token_counts(step))  # (b, p, n)
            extra_options[RECORDER].record(self.key, step.active, maps.view(*maps.shape[:2], height, width))
        return saa(out, q, k_id, v_id, mean_key, log_share, threshold, layout)

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

    def _rows(self, q: Tensor, step: Step, options: dict[str, Any]) -> Rows:
        """Return what the rows of the queries are; frames after the last in which anybody moves count as that one."""
        before = (options.get("original_shape") or q.shape)[0]
        rows = step.rows
        if rows is None or len(rows.roles) != before:
            rows = step.run.guidance.rows(before, None, options)
        roles, frames = in_layer(rows, q.shape[0], options)
        last = self.applied.frames - 1
        return Rows(roles, tuple(min(frame, last) for frame in frames))

    def _present(self, step: Step, frame: int) -> tuple[int, ...]:
        return step.run.once(("present", step.active, frame), lambda: self.applied.present_in(frame, among=step.active))

    def _people(self, q: Tensor, step: Step, rows: Rows, heads: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return k_id, v_id (b, h, t, d) in q's dtype and mean_key (b, c) in float32, on q's device.

        They are the active people's. With the gate off there is no mean_key.
        """
        present = {frame: self._present(step, frame) for frame in set(rows.frames)}
        kinds = tuple((role, present[frame]) for role, frame in zip(*rows, strict=True))

        def mean_key(role: int, there: tuple[int, ...]) -> Tensor:
            """Return (c,): the gate listens to those alone who are there."""
            return torch.stack([self.tokens[i].key_sum[role] for i in there or step.active]).mean(dim=0)

        def prepare() -> tuple[Tensor, Tensor, Tensor | None]:
            people = [self.tokens[i] for i in step.active]
            k_id = split_heads(torch.cat([person.keys for person in people], dim=1), heads)  # (2, h, t, d)
            v_id = split_heads(torch.cat([person.values for person in people], dim=1), heads)
            roles = list(rows.roles)
            drawn = torch.tensor([bool(there) for _, there in kinds])  # where nobody is, nobody's values are
            by_row = k_id[roles], v_id[roles] * drawn[:, None, None, None]
            k_id, v_id = (part.contiguous().to(q, non_blocking=True) for part in by_row)
            if not self.applied.settings.gate:
                return k_id, v_id, None
            return k_id, v_id, torch.stack([mean_key(*kind) for kind in kinds]).to(q.device, non_blocking=True)

        return step.run.once((self.key, step.active, kinds, q.dtype, q.device), prepare)

    def _terms(
        self, q: Tensor, step: Step, frames: tuple[int, ...], height: int, width: int
    ) -> tuple[Tensor | None, LayoutTerms | None]:
        """Return log_share in q's dtype and, in the layout phase, its terms in float32, both on q's device.

        Where all rows show one frame they are (n, t) and (n, 1), for all rows alike; else (b, 1, n, t) and (b, n, 1).
        The regions are rasterized once per run, grid and frame: layers of one size share them.
        """
        at = (step.active, height, width)
        on_q = (*at, q.dtype, q.device)

        def terms_of(frame: int) -> tuple[Tensor | None, LayoutTerms | None]:
            share, inside = step.run.once(("regions", frame, *at), lambda: self._regions(step, frame, height, width))
            log_share = layout = None
            if share is not None:
                log_share = step.run.once(("log share", frame, *on_q), lambda: _with_aligned_rows(share, q))
            if step.in_layout:
                scale = self.applied.settings.layout_scale
                layout = step.run.once(("layout", frame, *on_q), lambda: layout_terms(inside.to(q.device), scale))
            return log_share, layout

        of_frame = {frame: terms_of(frame) for frame in set(frames)}
        if len(of_frame) == 1:
            return of_frame[frames[0]]

        def prepare() -> tuple[Tensor | None, LayoutTerms | None]:
            log_shares, layouts = zip(*(of_frame[frame] for frame in frames), strict=True)
            layout = LayoutTerms(*map(torch.stack, zip(*layouts, strict=True))) if step.in_layout else None  # (b, n, 1)
            some = next((log_share for log_share in log_shares if log_share is not None), None)
            if some is None:
                return None, layout
            stacked = torch.stack([torch.zeros_like(some) if one is None else one for one in log_shares])
            return _with_aligned_rows(stacked.unsqueeze(1), q), layout

        return step.once(("terms", frames, *on_q), prepare)

    def _regions(self, step: Step, frame: int, height: int, width: int) -> RegionTerms:
        """Return what the regions mean in one frame, but with log_share (n, t) by token; on the CPU, float32."""
        present, inside = self._present(step, frame), torch.zeros(height * width)
        log_share = None
        if present:
            regions = [self.applied.scene[i].region.at(frame) for i in present]
            log_share, inside = region_terms(rasterize(regions, height, width))  # (n, p), (n,)
            if len(present) < len(step.active):  # those who aren't there have no share anywhere
                there = torch.full((len(inside), len(step.active)), -torch.inf)
                there[:, [step.active.index(i) for i in present]] = 0.0 if log_share is None else log_share
                log_share = there
        if log_share is not None:
            counts = torch.tensor(self._token_counts(step))
            log_share = log_share.repeat_interleave(counts, dim=1)  # (n, p) -> (n, t)
        return RegionTerms(log_share, inside)


def _with_aligned_rows(mask: Tensor, q: Tensor) -> Tensor:
    """Return an attention mask (..., n, t) in q's dtype, on its device, whose rows lie multiples of 8 elements apart.

    On a GPU, memory-efficient attention copies any other mask into such rows in every call.
    """
    tokens = mask.shape[-1]
    return F.pad(mask, (0, -tokens % _ALIGNMENT)).to(q, non_blocking=True)[..., :tokens]
