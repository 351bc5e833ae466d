"""One attention layer that people enter: it gathers what `saa` needs for its layer, its step and its batch's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..saa.attention import LayoutTerms, RegionTerms, layout_terms, person_activation, region_terms, saa, split_heads
from ..saa.regions import rasterize
from .blocks import BlockKey, block_name
from .coexistence import SharedAttention
from .rows import NEGATIVE, POSITIVE, Rows, in_layer
from .sampling_run import RECORDER, AppliedScene, Step, current_step

_ALIGNMENT = 8  # elements


class PersonTokens(NamedTuple):
    """One person's identity tokens projected for one layer: CPU, float32.

    Axis 0 is (POSITIVE, NEGATIVE), and behind them, of a person whose motion changes, the curve's sets but the first.

    keys:     (sets, t, c) k_id, scaled by the shares of a mixed identity.
    values:   (sets, t, c) v_id, scaled by the person's weight.
    key_sum:  (sets, c) sum of the unscaled keys over t, for the gate.
    """

    keys: Tensor
    values: Tensor
    key_sum: Tensor


class Grid(NamedTuple):
    """The cells of a layer's queries, which follow each other in this order of axes.

    depth:          frames of a video that lie in one row of the batch; 1 of an image.
    height, width:  of the image.
    """

    depth: int
    height: int
    width: int


class RowKind(NamedTuple):
    """What decides the tokens that a row is drawn with.

    present:  numbers of the active people who have a place in the row's frame.
    sets:     for each active person, the place on axis 0 of the `PersonTokens`.
    """

    present: tuple[int, ...]
    sets: tuple[int, ...]


class IdentityLayer:
    """An attention layer that people enter, with everybody's tokens for it.

    Tensors go to the GPU once per sampling run and leave with it.
    """

    def __init__(self, applied: AppliedScene, key: BlockKey, tokens: tuple[PersonTokens, ...]) -> None:
        super().__init__()
        self.applied = applied
        self.key = key
        self.tokens = tokens

    def is_entered(self, step: Step) -> bool:
        """Note that the layer is called; return whether anybody is to be drawn by it now."""
        step.run.called_blocks.add(self.key)
        return bool(step.active)

    def add_people(
        self, out: Tensor | None, q: Tensor, step: Step, heads: int, grid: Grid, options: dict[str, Any]
    ) -> Tensor:
        """Return `out` (b, n, c) with the active people added, or their part alone without it; somebody must be active.

        Args:
            q: (b, n, c) queries of the image, cell after cell of its grid.
            options: the layer's extra_options.
        """
        rows = self._rows(q, step, options)
        k_id, v_id, mean_key = self._people(q, step, rows, heads)
        log_share, layout = self._terms(q, step, rows.frames, grid)
        settings = self.applied.settings
        threshold = settings.gate_threshold if settings.gate else None
        if RECORDER in options:
            maps = person_activation(q, k_id, mean_key, log_share, threshold, self._token_counts(step))  # (b, p, n)
            options[RECORDER].record(self.key, step.active, maps.view(*maps.shape[:2], *grid).mean(dim=2))
        return saa(out, q, k_id, v_id, mean_key, log_share, threshold, layout)

    def _token_counts(self, step: Step) -> list[int]:
        return [self.tokens[i].keys.shape[1] for i in step.active]

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
        frame = min(frame, self.applied.region_frames - 1)
        return step.run.once(("present", step.active, frame), lambda: self.applied.present_in(frame, among=step.active))

    def _kind(self, step: Step, role: int, frame: int) -> RowKind:
        curves = (self.applied.scene[i].identity.curve for i in step.active)
        numbers = (0 if curve is None or role == NEGATIVE else curve.set_at(frame) for curve in curves)
        return RowKind(self._present(step, frame), tuple(NEGATIVE + number if number else role for number in numbers))

    def _people(self, q: Tensor, step: Step, rows: Rows, heads: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return k_id, v_id (b, h, t, d) in q's dtype and mean_key (b, c) in float32, on q's device.

        They are the active people's. With the gate off there is no mean_key.
        """
        if self.applied.motion_frames > 1:
            return self._moving_people(q, step, rows, heads)
        kinds = step.once(("kinds", rows), lambda: tuple(self._kind(step, *row) for row in zip(*rows, strict=True)))
        on_q = (q.dtype, q.device)
        return step.run.once((self.key, step.active, kinds, *on_q), lambda: self._tokens(q, step, kinds, heads))

    def _tokens(
        self, q: Tensor, step: Step, kinds: Sequence[RowKind], heads: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what `_people` returns, for rows of these kinds."""
        people, by_person = [self.tokens[i] for i in step.active], [*zip(*(kind.sets for kind in kinds), strict=True)]

        def joined(parts: Sequence[Tensor]) -> Tensor:
            """Return (b, h, t, d) of each person's (sets, t, c)."""
            by_row = [part[list(sets)] for part, sets in zip(parts, by_person, strict=True)]
            return split_heads(torch.cat(by_row, dim=1), heads)

        def mean_key(kind: RowKind) -> Tensor:
            """Return (c,): the gate listens to those alone who are there."""
            sums = [person.key_sum[number] for person, number in zip(people, kind.sets, strict=True)]
            there = [step.active.index(i) for i in kind.present] or range(len(sums))
            return torch.stack([sums[i] for i in there]).mean(dim=0)

        drawn = torch.tensor([bool(kind.present) for kind in kinds])  # where nobody is, nobody's values are
        k_id = joined([person.keys for person in people])
        v_id = joined([person.values for person in people]) * drawn[:, None, None, None]
        k_id, v_id = (part.contiguous().to(q, non_blocking=True) for part in (k_id, v_id))
        if not self.applied.settings.gate:
            return k_id, v_id, None
        return k_id, v_id, torch.stack([mean_key(kind) for kind in kinds]).to(q.device, non_blocking=True)

    def _moving_people(self, q: Tensor, step: Step, rows: Rows, heads: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what `_people` returns, where motions change by frame.

        All kinds of rows that the run may have lie in one table, (kinds, k_id and v_id and the bytes of mean_key). The
        rows of a call select theirs in one operator; windows of a long batch need no memory of their own.
        """
        kinds, number_of = step.run.once(("kinds", step.active), lambda: self._all_kinds(step))

        def prepare() -> tuple[Tensor, tuple[int, ...]]:
            k_id, v_id, mean_key = self._tokens(q, step, kinds, heads)
            parts = [k_id.flatten(1), v_id.flatten(1)]
            if mean_key is not None:
                parts.append(mean_key.view(q.dtype))
            return torch.cat(parts, dim=1), tuple(k_id.shape[1:])

        table, shape = step.run.once((self.key, step.active, "table", q.dtype, q.device), prepare)
        index = step.once(
            ("row index", rows, q.device),
            lambda: torch.tensor([number_of[row] for row in zip(*rows, strict=True)]).to(q.device, non_blocking=True),
        )
        by_row = table.index_select(0, index)
        size = math.prod(shape)  # h * t * d
        k_id, v_id = (by_row[:, start : start + size].view(-1, *shape) for start in (0, size))
        return k_id, v_id, by_row[:, 2 * size :].view(torch.float32) if self.applied.settings.gate else None

    def _all_kinds(self, step: Step) -> tuple[list[RowKind], dict[tuple[int, int], int]]:
        """Return the kinds of rows of all frames, each once, and the number of the kind of a role and frame."""
        numbers: dict[RowKind, int] = {}
        number_of = {
            (role, frame): numbers.setdefault(self._kind(step, role, frame), len(numbers))
            for role in (POSITIVE, NEGATIVE)
            for frame in range(self.applied.frames)
        }
        return [*numbers], number_of

    def _terms(
        self, q: Tensor, step: Step, frames: tuple[int, ...], grid: Grid
    ) -> tuple[Tensor | None, LayoutTerms | None]:
        """Return log_share in q's dtype and, in the layout phase, its terms in float32, both on q's device.

        Where all rows show one frame they are (n, t) and (n, 1), for all rows alike; else (b, 1, n, t) and (b, n, 1).
        The regions are rasterized once per run, grid and frame: layers of one size share them.
        """
        last = self.applied.region_frames - 1
        frames = tuple(min(frame, last) for frame in frames)
        at = (step.active, grid)
        on_q = (*at, q.dtype, q.device)

        def terms_of(frame: int) -> tuple[Tensor | None, LayoutTerms | None]:
            share, inside = step.run.once(("regions", frame, *at), lambda: self._regions(step, frame, grid))
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

    def _regions(self, step: Step, frame: int, grid: Grid) -> RegionTerms:
        """Return what the regions mean in one frame, but with log_share (n, t) by token; on the CPU, float32."""
        depth, height, width = grid
        present, inside = self._present(step, frame), torch.zeros(depth * height * width)
        log_share = None
        if present:
            regions = [self.applied.scene[i].region.at(frame) for i in present]
            masks = rasterize(regions, height, width).repeat(1, depth, 1)  # (p, depth * y, x)
            log_share, inside = region_terms(masks)  # (n, p), (n,)
            if len(present) < len(step.active):  # those who aren't there have no share anywhere
                there = torch.full((len(inside), len(step.active)), -torch.inf)
                there[:, [step.active.index(i) for i in present]] = 0.0 if log_share is None else log_share
                log_share = there
        if log_share is not None:
            counts = torch.tensor(self._token_counts(step))
            log_share = log_share.repeat_interleave(counts, dim=1)  # (n, p) -> (n, t)
        return RegionTerms(log_share, inside)


class IdentityAttention(IdentityLayer, SharedAttention):
    """The patch at one cross-attention of a UNet."""

    def draw(self, out: Tensor | None, q: Tensor, extra_options: dict[str, Any]) -> Tensor | None:
        step = current_step(self.applied, extra_options)
        if not self.is_entered(step):
            return None
        return self.add_people(out, q, step, extra_options["n_heads"], self._grid(q, extra_options), extra_options)

    def sigma(self, extra_options: dict[str, Any]) -> float:
        """Return the noise level of this call of the UNet."""
        return current_step(self.applied, extra_options).sigma

    def _grid(self, q: Tensor, options: dict[str, Any]) -> Grid:
        height, width = options["activations_shape"][-2:]
        if height * width != q.shape[1]:
            raise ValueError(
                f"DynamicID needs the real grid of each layer to place people, but layer {block_name(self.key)} has "
                f"{q.shape[1]} queries on a grid of {height} x {width}. Another node changes the queries of "
                "cross-attention; remove it or place it on another model."
            )
        return Grid(1, height, width)


def _with_aligned_rows(mask: Tensor, q: Tensor) -> Tensor:
    """Return an attention mask (..., n, t) in q's dtype, on its device, whose rows lie multiples of 8 elements apart.

    On a GPU, memory-efficient attention copies any other mask into such rows in every call.
    """
    tokens = mask.shape[-1]
    return F.pad(mask, (0, -tokens % _ALIGNMENT)).to(q, non_blocking=True)[..., :tokens]
