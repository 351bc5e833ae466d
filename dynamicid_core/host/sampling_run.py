"""What is known once per sampling run and once per call of the UNet, so that no layer has to find it out again."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..saa.attention import RegionTerms, region_terms
from ..saa.regions import rasterize
from ..saa.scene import Placement
from .blocks import TransformerBlock
from .coexistence import NEGATIVE, NO_SIGMA, POSITIVE, warn_if_replaced

# Keys in the host's transformer_options.
RUN = "dynamicid_run"
STEP = "dynamicid_step"
RECORDER = "dynamicid_recorder"

# A run that is given a picture, and starts below the noise level at this part of the schedule, refines it: the layout
# stands already. Without a picture the level tells nothing, for some schedules of few steps start as low.
_FRESH_START = 0.1
# Samplers convert sigmas back and forth; adjacent steps differ by far more than this.
_SIGMA_NOISE = 1e-3


@dataclass(frozen=True)
class AttentionSettings:
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
        called_blocks: layers that were called so far.
    """

    scene: tuple[Placement, ...]
    spans: tuple[tuple[float, float], ...]
    layout_sigma: float | None = None
    negative: frozenset[Any] | None = None
    memory: dict[Any, Any] = field(default_factory=dict)
    called_blocks: set[Any] = field(default_factory=set)

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


@dataclass(frozen=True, eq=False)
class AppliedScene:
    """What a patched model carries, the same object in all its layers."""

    scene: tuple[Placement, ...]
    settings: AttentionSettings
    blocks: tuple[TransformerBlock, ...]
    model_sampling: Any

    def begin_run(self) -> Run:
        """A run as far as it can be known where no sampler tells of one: no layout phase, chunk 1 is negative."""
        return begin_run(self.scene, self.settings, self.model_sampling)


def begin_run(
    scene: tuple[Placement, ...],
    settings: AttentionSettings,
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


def _layout_sigma(
    settings: AttentionSettings, model_sampling: Any, sample_sigmas: Tensor | None, pictured: bool
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


def run_wrapper(applied: AppliedScene) -> Callable:
    def begin(
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        options = extra_args["model_options"]["transformer_options"]
        _tell_copies_apart(guider)
        run = begin_run(
            applied.scene,
            applied.settings,
            guider.inner_model.model_sampling,
            options.get("sample_sigmas", sigmas),
            guider.conds,
            latent_image,
        )
        model_options = {**extra_args["model_options"], "transformer_options": {**options, RUN: run}}
        extra_args = {**extra_args, "model_options": model_options}
        return executor(guider, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs)

    return begin


def _tell_copies_apart(guider: Any) -> None:
    """The host copies an area of one side to the others, its id too; each copy gets an id of its own.

    The conditionings that a guider holds while it samples are copies for this run.
    """
    originals = getattr(guider, "original_conds", {})
    for name, group in guider.conds.items():
        own = {cond.get("uuid") for cond in originals.get(name) or ()}
        for cond in group or ():
            if cond.get("uuid") not in own:
                cond["uuid"] = uuid.uuid4()


def step_wrapper(applied: AppliedScene) -> Callable:
    def begin(
        executor: Any,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        options = transformer_options or {}
        run: Run = options.get(RUN) or applied.begin_run()
        options = {**options, STEP: begin_step(run, options.get("sigmas"))}
        out = executor(x, timesteps, context, y, control, options, **kwargs)
        if "checked" not in run.memory:
            run.memory["checked"] = True
            warn_if_replaced(applied, run)
        return out

    return begin
