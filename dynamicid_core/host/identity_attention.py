"""One patched cross-attention: its text attention, plus the people, plus what other packs add later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from torch import Tensor

from ..saa.attention import (
    LayoutTerms,
    activation_gate,
    activation_scores,
    add_gated,
    identity_attention,
    layout_gate,
    layout_terms,
    person_activation,
    split_heads,
)
from .blocks import TransformerBlock
from .coexistence import batch_roles, fork
from .sampling_run import RECORDER, RUN, STEP, AppliedScene, Run, Step, begin_step, grid_terms, rows_of, to_device


@dataclass(frozen=True, eq=False)
class LayerTokens:
    """All people's identity tokens projected for one layer: CPU, float32; axis 0 is (POSITIVE, NEGATIVE).

    Attributes:
        keys: one (2, tokens, channels) per person, scaled by the shares of mixed identities.
        values: one (2, tokens, channels) per person, scaled by the person's weight.
        gate_keys: (2, people, channels) sum of each person's keys, unscaled.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    gate_keys: Tensor


class IdentityAttention:
    """The patch at one cross-attention: what is there already, plus the people, plus what other packs add later.

    Other packs that share a place find this object and call `add`; a callback is then run with
    `(out, q, k, v, extra_options, **kwargs)` while sigma_start >= sigma >= sigma_end, and its result is added.
    Apart from these two lists, which every clone of the model gets copies of, nothing ever changes in it; tensors
    go to the GPU once per sampling run and leave with it.
    """

    def __init__(self, applied: AppliedScene, block: TransformerBlock, tokens: LayerTokens, base: Any = None) -> None:
        self.applied = applied
        self.block = block
        self.tokens = tokens
        self.base = base
        self.callback: list[Callable] = []
        self.kwargs: list[dict[str, Any]] = []

    def add(self, callback: Callable, **kwargs: Any) -> None:
        """Add another pack's attention; see the class."""
        self.callback.append(callback)
        self.kwargs.append(kwargs)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        """Attention of the queries to the text and to the people: (rows, queries, channels) in q's dtype."""
        if self.base is not None:
            out = self.base(q, k, v, extra_options)
        else:
            out = optimized_attention(
                q,
                k,
                v,
                extra_options["n_heads"],
                attn_precision=extra_options.get("attn_precision"),
                transformer_options=extra_options,
            )
        people = self._people(q, extra_options)
        if people is not None:
            out = add_gated(out, *people)
        if self.callback:
            sigma = self._step(extra_options).sigma
            for callback, kwargs in zip(self.callback, self.kwargs, strict=True):
                if kwargs.get("sigma_start", sigma) >= sigma >= kwargs.get("sigma_end", sigma):
                    out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out.to(q.dtype)

    def as_callback(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: dict, **_: Any) -> Tensor | int:
        """What the people add, for an attention object of another pack that was there first; 0: nobody is active."""
        people = self._people(q, extra_options)
        return 0 if people is None else add_gated(None, *people)

    def _people(self, q: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, Tensor | None] | None:
        """Attention to the active people (rows, queries, channels) and its gate (rows, queries); None: nobody is."""
        step = self._step(extra_options)
        step.run.called_blocks.add(self.block.key)
        if not step.active:
            return None
        height, width = self._grid(q, extra_options)
        keys, values, mean_key = self._rows(q, step, extra_options)
        log_share, layout = self._terms(q, step, height, width)
        settings = self.applied.settings

        gate = None
        if settings.gate:
            gate = activation_gate(activation_scores(q, mean_key), settings.gate_threshold)
        if RECORDER in extra_options:
            counts = tuple(self.tokens.keys[i].shape[1] for i in step.active)
            shown = torch.ones(q.shape[:2], device=q.device) if gate is None else gate
            activation = person_activation(q, keys, log_share, shown, counts)
            maps = rearrange(activation, "rows people (h w) -> rows people h w", h=height)
            extra_options[RECORDER].record(self.block, step.active, maps)
        if gate is not None and step.in_layout:
            gate = layout_gate(gate, layout)
        return identity_attention(q, keys, values, log_share), gate

    def to(self, *args: Any, **kwargs: Any) -> IdentityAttention:
        """The host moves patches between devices. Ours moves with each run by itself; what is underneath moves here."""
        base = self.base.to(*args, **kwargs) if hasattr(self.base, "to") else self.base
        if base is self.base:
            return self
        moved = fork(self)
        moved.base = base
        return moved

    def models(self) -> list[ModelPatcher]:
        """Models that the host must load for this patch: those of the attention underneath."""
        return self.base.models() if hasattr(self.base, "models") else []

    def cleanup(self) -> None:
        """The host calls this after a run, for the attention underneath."""
        if hasattr(self.base, "cleanup"):
            self.base.cleanup()

    def __deepcopy__(self, memo: dict) -> IdentityAttention:
        return fork(self)

    def _step(self, options: dict[str, Any]) -> Step:
        """The step as the wrapper has read it; read here only where something calls this layer in a way of its own."""
        step: Step | None = options.get(STEP)
        if step is not None and step.run.scene is self.applied.scene:
            return step
        run: Run | None = options.get(RUN)
        if run is None or run.scene is not self.applied.scene:
            run = self.applied.begin_run()
        return begin_step(run, options.get("sigmas"))

    def _grid(self, q: Tensor, options: dict[str, Any]) -> tuple[int, int]:
        height, width = options["activations_shape"][-2:]
        if height * width != q.shape[1]:
            raise ValueError(
                f"DynamicID needs the real grid of each layer to place people, but layer {self.block.key} has "
                f"{q.shape[1]} queries on a grid of {height} x {width}. Another node changes the queries of "
                "cross-attention; remove it or place it on another model."
            )
        return height, width

    def _rows(self, q: Tensor, step: Step, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values by head, and summed keys, of the active people for each row of the batch, as q's kind."""
        roles, per_chunk = batch_roles(step, q.shape[0], options)
        key = (self.block.key, step.active, roles, per_chunk, q.dtype, q.device)
        memory = step.run.memory
        if key not in memory:
            heads = options["n_heads"]
            by_role = (
                split_heads(torch.cat([self.tokens.keys[i] for i in step.active], dim=1), heads),
                split_heads(torch.cat([self.tokens.values[i] for i in step.active], dim=1), heads),
                self.tokens.gate_keys[:, list(step.active)].mean(dim=1),
            )
            memory[key] = tuple(rows_of(to_device(tensor, q), roles, per_chunk) for tensor in by_role)
        return memory[key]

    def _terms(self, q: Tensor, step: Step, height: int, width: int) -> tuple[Tensor | None, LayoutTerms]:
        """The regions' shares per token, in q's dtype, and the layout phase in float32, both on q's device.

        Rasterized once per run and grid: layers of one size share them.
        """
        counts = tuple(self.tokens.keys[i].shape[1] for i in step.active)
        key = ("terms", step.active, height, width, q.dtype, q.device)
        memory = step.run.memory
        if key not in memory:
            log_share, inside = grid_terms(step, height, width)
            if log_share is not None:
                log_share = to_device(log_share.repeat_interleave(torch.tensor(counts), dim=1), q)
            memory[key] = (log_share, layout_terms(inside.to(q.device), self.applied.settings.layout_scale))
        return memory[key]
