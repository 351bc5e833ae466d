"""What is known once per sampling run and once per call of the UNet, so that no layer has to find it out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..saa.attention import RegionTerms, region_terms
from ..saa.regions import rasterize
from ..saa.scene import Placement

# Keys in the host's transformer_options.
RUN = "dynamicid_run"
STEP = "dynamicid_step"
RECORDER = "dynamicid_recorder"

# What packs agree to take for the noise level where none is told: higher than any.
NO_SIGMA = 999999999.9

# Rows of a batch are drawn with a person's tokens or, in the negative half, with the encoder's tokens of nobody.
POSITIVE, NEGATIVE = 0, 1

# A run that is given a picture, and starts below the noise level at this part of the schedule, refines it: the layout
# stands already. Without a picture the level tells nothing, for some schedules of few steps start as low.
_FRESH_START = 0.1
# Samplers convert sigmas back and forth; adjacent steps differ by far more than this.
_SIGMA_NOISE = 1e-3


@dataclass(frozen=True)
class Settings:
    """How the people are drawn, the same for all of them.

    Attributes:
        layout_scale: L of the layout phase, 0 or more.
        layout_steps: number of steps in the layout phase.
        gate_threshold: activations below it count as 0; 0..1.
        gate: False draws people at every query alike (plain decoupled attention); regions still exclude.
    """

    layout_scale: float = 4.0
    layout_steps: int = 3
    gate_threshold: float = 0.3
    gate: bool = True


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a sampler over one model.

    Attributes:
        scene: the people it draws.
        spans: each person's (sigma_start, sigma_end); active from the first down to the second.
        layout_sigma: the layout phase lasts while sigma is above it; None: no layout phase in this run.
        negative: ids of the conditionings that are the guider's negative ones; None where it names none.
        memory: what layers have prepared for this run, by whatever it depends on; gone with the run.
        reached: layers that were called so far.
    """

    scene: tuple[Placement, ...]
    spans: tuple[tuple[float, float], ...]
    layout_sigma: float | None = None
    negative: frozenset[Any] | None = None
    memory: dict[Any, Any] = field(default_factory=dict)
    reached: set[Any] = field(default_factory=set)

    def roles(self, chunks: Sequence[int], ids: Sequence[Any]) -> tuple[int, ...]:
        """POSITIVE or NEGATIVE for each chunk of a batch.

        A chunk is negative when the guider lists its conditioning under a name with "negative" in it ("negative",
        "empty_negative_prompt"); everything else ("positive", "middle") counts as positive. Where the guider names
        none, number 1 is negative: its place in the plain CFG guider's list.
        """
        if self.negative is None or len(ids) != len(chunks):
            return tuple(NEGATIVE if chunk == 1 else POSITIVE for chunk in chunks)
        return tuple(NEGATIVE if uid in self.negative else POSITIVE for uid in ids)


@dataclass(frozen=True, eq=False)
class Step:
    """One call of the UNet.

    Attributes:
        sigma: noise level.
        active: numbers of the people drawn at this noise level.
        in_layout: whether the layout phase applies.
        run: the run it belongs to.
    """

    sigma: float
    active: tuple[int, ...]
    in_layout: bool
    run: Run


def begin_run(
    scene: tuple[Placement, ...],
    settings: Settings,
    model_sampling: Any,
    sample_sigmas: Tensor | None = None,
    conds: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    latent_image: Tensor | None = None,
) -> Run:
    """Read what a whole sampling run needs to know (the only place that reads the schedule back from the GPU).

    Args:
        model_sampling: the host's schedule; `percent_to_sigma(0..1)`.
        sample_sigmas: (steps + 1,) noise levels of this run, falling; None where no sampler runs.
        conds: the guider's conditionings by name, each with a "uuid" of its own.
        latent_image: what the run starts from beside noise; all zeros, as an empty latent's, or None: no picture.
    """
    pictured = latent_image is not None and bool(latent_image.any())
    spans = tuple(
        (
            float(model_sampling.percent_to_sigma(person.start_at)),
            float(model_sampling.percent_to_sigma(person.end_at)),
        )
        for person in scene
    )
    named = [group or () for name, group in (conds or {}).items() if "negative" in name]
    return Run(
        scene=scene,
        spans=spans,
        layout_sigma=_layout_sigma(settings, model_sampling, sample_sigmas, pictured),
        negative=frozenset(cond.get("uuid") for group in named for cond in group) if named else None,
    )


def begin_step(run: Run, sigmas: Tensor | None) -> Step:
    """Read the noise level of one call of the UNet (one read-back) and find who is active at it."""
    if sigmas is None:
        return Step(NO_SIGMA, tuple(range(len(run.spans))), False, run)
    sigma = float(sigmas.flatten()[0])
    active = tuple(i for i, (start, end) in enumerate(run.spans) if start >= sigma >= end)
    in_layout = run.layout_sigma is not None and sigma > run.layout_sigma * (1 + _SIGMA_NOISE)
    return Step(sigma, active, in_layout, run)


def grid_terms(step: Step, height: int, width: int) -> RegionTerms:
    """The regions of the active people on one grid, on the CPU."""
    return region_terms(rasterize([step.run.scene[i].region for i in step.active], height, width))


def batch_roles(step: Step, rows: int, options: Mapping[str, Any]) -> tuple[tuple[int, ...], int]:
    """The roles of a batch's equal chunks and the rows of each, whatever other packs did to the batch.

    Attention-couple packs repeat every chunk but number 1, once per regional prompt, while `cond_or_uncond` still
    tells the chunks of before; they tell the chunks of after in a key of their own, or not at all.

    Args:
        rows: rows of this layer's queries.
        options: the layer's extra_options.
    """
    chunks = list(options.get("cond_or_uncond") or [0])
    roles = step.run.roles(chunks, options.get("uuids") or ())
    for key in ("cond_or_uncond_couple", "cond_or_uncond_hook_couple"):
        coupled = options.get(key)
        if coupled and rows % len(coupled) == 0:
            role_of = dict(zip(chunks, roles, strict=True))
            return tuple(role_of.get(c, NEGATIVE if c == 1 else POSITIVE) for c in coupled), rows // len(coupled)
    batch = (options.get("original_shape") or [rows])[0]
    per_chunk = max(batch // len(chunks), 1)
    if rows != per_chunk * len(chunks):
        roles = _expanded(roles, chunks, rows // per_chunk)
    return (roles, per_chunk) if len(roles) * per_chunk == rows else (_row_by_row(roles, rows), 1)


def _expanded(roles: tuple[int, ...], chunks: Sequence[int], total: int) -> tuple[int, ...]:
    """The roles after every chunk but number 1 was repeated equally often, so that there are `total` chunks."""
    repeated = sum(chunk != 1 for chunk in chunks)
    times, left = divmod(total - (len(chunks) - repeated), repeated or 1)
    if left or times < 1:
        return roles
    return tuple(role for role, chunk in zip(roles, chunks, strict=True) for _ in range(1 if chunk == 1 else times))


def _row_by_row(roles: tuple[int, ...], rows: int) -> tuple[int, ...]:
    """Spread the roles over rows that don't divide evenly: nothing known fits, and sampling must go on."""
    return tuple(roles[row * len(roles) // rows] for row in range(rows))


def _layout_sigma(
    settings: Settings, model_sampling: Any, sample_sigmas: Tensor | None, pictured: bool
) -> float | None:
    if sample_sigmas is None or not settings.gate or settings.layout_scale == 0:
        return None
    sigmas = sample_sigmas.tolist()
    # With few steps at least the last one must be free of it.
    steps = min(settings.layout_steps, len(sigmas) - 2)
    if steps < 1 or (pictured and sigmas[0] < float(model_sampling.percent_to_sigma(_FRESH_START))):
        return None
    return sigmas[steps]


def to_device(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor with the device and dtype of another."""
    return tensor.to(device=like.device, dtype=like.dtype, non_blocking=True)


def rows_of(tensor: Tensor, roles: Sequence[int], per_chunk: int) -> Tensor:
    """(2, ...) tensors by role to (rows, ...): each chunk's role, once per row of it."""
    return torch.cat([tensor[role : role + 1].expand(per_chunk, *tensor.shape[1:]) for role in roles])
