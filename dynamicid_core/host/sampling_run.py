"""What is known once per sampling run and once per call of the model, so that no layer has to find it out again."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast

from torch import Tensor

from ..saa.scene import Placement, names_of
from .blocks import BlockKey
from .coexistence import NO_SIGMA, logger, warn_if_replaced
from .compiled import without_compile
from .rows import Guidance, Rows, tell_copies_apart

Value = TypeVar("Value")

# Keys in the host's transformer_options.
RUN = "dynamicid_run"
STEP = "dynamicid_step"
RECORDER = "dynamicid_recorder"

# The release samples in this many steps, in equal parts of the schedule: layout_steps are of these.
_RELEASE_STEPS = 50
# Samplers convert sigmas back and forth; adjacent steps differ by far more than this.
_SIGMA_TOLERANCE = 1e-3


@dataclass(frozen=True)
class AttentionSettings:
    """How the people are drawn, the same for all of them.

    Attributes:
        layout_scale: L of the layout phase, 0 or more.
        layout_steps: length of the layout phase in steps of the release's 50: it ends at the noise level at
            layout_steps / 50 of the model's schedule, in however many steps and parts a run gets there.
        gate_threshold: gate values below it count as 0; 0..1.
        gate: False draws people at every query alike (plain decoupled attention); regions still exclude.
    """

    layout_scale: float = 4.0
    layout_steps: int = 3
    gate_threshold: float = 0.3
    gate: bool = True


@dataclass(frozen=True, eq=False)
class AppliedScene:
    """What a patched model carries, the same object in all its layers.

    Attributes:
        scene: the people who are drawn.
        settings: how they are drawn.
        keys: of the patched transformer blocks, in the adapter's order.
        model_sampling: the host's schedule when DynamicID was applied.
        warn: tells the user of a run what the node can't tell when it is executed.
    """

    scene: tuple[Placement, ...]
    settings: AttentionSettings
    keys: tuple[BlockKey, ...]
    model_sampling: Any
    warn: Callable[[str], None] = logger.warning

    @cached_property
    def region_frames(self) -> int:
        """Number of frames in which anybody's region moves; 1 where all regions stand still."""
        return max((person.region.frames for person in self.scene), default=1)

    @cached_property
    def motion_frames(self) -> int:
        """Number of frames in which anybody's facial motion changes; 1 where no one's does."""
        return max((person.identity.frames for person in self.scene), default=1)

    @property
    def frames(self) -> int:
        """Number of frames in which anybody moves in any way; 1 where all stand still."""
        return max(self.region_frames, self.motion_frames)

    def warn_of_frames(self, batch: int) -> None:
        """Tell of motions that have more or fewer frames than the batch that is sampled."""
        for name, person in zip(names_of(self.scene), self.scene, strict=True):
            frames = person.identity.frames
            if 1 < frames < batch:
                rest = f"the last one stays for the remaining {batch - frames}. Ask Animate Motion for {batch} frames"
            elif frames > batch:
                rest = f"those after the first {batch} are not drawn. Make the latent a batch of {frames}"
            else:
                continue
            self.warn(f"the motion of {name} has {frames} frames, the batch {batch}: {rest}.")

    def present_in(self, frame: int, among: Sequence[int]) -> tuple[int, ...]:
        """Return those of these people who have a place in a frame."""
        return tuple(i for i in among if not self.scene[i].region.at(frame).is_empty)


@dataclass(eq=False, kw_only=True)
class Memory:
    """What is done once and remembered, by all that it depends on."""

    prepared: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, prepare: Callable[[], Value]) -> Value:
        """Return what `prepare` returned when it was first called for this key."""
        if key not in self.prepared:
            self.prepared[key] = prepare()
        return cast(Value, self.prepared[key])


@dataclass(eq=False)
class Run(Memory):
    """One run of a sampler over one patched model; it gathers what is done once in it and is gone with it.

    Attributes:
        applied: what the model carries.
        spans: each person's (sigma_start, sigma_end); active from the first down to the second.
        layout_sigma: the layout phase lasts while sigma is above it; infinite: no layout phase in this run.
        guidance: what tells the rows of each call.
        called_blocks: keys of the blocks that were called so far.
    """

    applied: AppliedScene
    spans: tuple[tuple[float, float], ...]
    layout_sigma: float = math.inf
    guidance: Guidance = field(default_factory=Guidance)
    called_blocks: set[BlockKey] = field(default_factory=set)


@dataclass(eq=False)
class Step(Memory):
    """One call of the model.

    Attributes:
        sigma: noise level.
        active: numbers of the people drawn at this noise level.
        in_layout: whether the layout phase applies.
        run: the run it belongs to.
        rows: of its batch; None where a layer is called without its model.
        size: of the latent, (height, width) or (frames, height, width); empty where a layer is called without its
            model.
        handed: what one hook in a transformer hands to another.
    """

    sigma: float
    active: tuple[int, ...]
    in_layout: bool
    run: Run
    rows: Rows | None = None
    size: tuple[int, ...] = ()
    handed: dict[Hashable, Any] = field(default_factory=dict)


def current_step(applied: AppliedScene, options: Mapping[str, Any]) -> Step:
    """Return the step that the wrapper has put into the options; begin one where a layer is called in another way."""
    step: Step | None = options.get(STEP)
    return step if step is not None and step.run.applied is applied else _begin_step(applied, options)


def run_wrapper(applied: AppliedScene) -> Callable[..., Any]:
    """Return the wrapper around a run of a sampler (SAMPLER_SAMPLE): it puts a `Run` into the transformer options."""

    def sample(
        executor: Any,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        options = extra_args["model_options"]["transformer_options"]
        tell_copies_apart(guider)
        sample_sigmas = options.get("sample_sigmas", sigmas)
        run = _begin_run(applied, guider.inner_model.model_sampling, sample_sigmas)
        run.guidance = Guidance(guider.conds, noise.shape[0])
        applied.warn_of_frames(noise.shape[0])
        model_options = {**extra_args["model_options"], "transformer_options": {**options, RUN: run}}
        extra_args = {**extra_args, "model_options": model_options}
        eagerly = without_compile(model_options, guider.inner_model.diffusion_model, applied.warn)
        if eagerly is None:
            run.once("warning", lambda: None)  # nothing was replaced where people are missing
        with eagerly or nullcontext():
            return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

    return sample


def step_wrapper(applied: AppliedScene) -> Callable[..., Any]:
    """Return the wrapper around a call of the UNet (DIFFUSION_MODEL): it puts a `Step` into the transformer options."""

    def call(
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
        step = _begin_step(applied, options, x, context)
        out = executor(x, timesteps, context, y, control, {**options, STEP: step}, **kwargs)
        step.run.once("warning", lambda: warn_if_replaced(applied.keys, step.run.called_blocks))
        return out

    return call


def model_wrapper(applied: AppliedScene) -> Callable[..., Any]:
    """Return the wrapper around a call of a transformer (APPLY_MODEL), which does what `step_wrapper` does for a UNet.

    Not every transformer of the host's has a place for wrappers of its own (DIFFUSION_MODEL), and those that have one
    take their arguments in orders of their own.
    """

    def call(
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        options = transformer_options or {}
        step = _begin_step(applied, options, x, c_crossattn)
        out = executor(x, t, c_concat, c_crossattn, control, {**options, STEP: step}, **kwargs)
        step.run.once("warning", lambda: warn_if_replaced(applied.keys, step.run.called_blocks))
        return out

    return call


def _begin_run(
    applied: AppliedScene,
    model_sampling: Any,
    sample_sigmas: Tensor | None = None,
) -> Run:
    """Read what a whole sampling run needs to know (the only place that reads the schedule back from the GPU).

    Args:
        model_sampling: the host's schedule; `percent_to_sigma(0..1)`.
        sample_sigmas: (steps + 1,) noise levels of this run, falling; None where no sampler runs.
    """

    def sigma_at(part: float) -> float:
        return float(model_sampling.percent_to_sigma(part))

    settings, layout_sigma = applied.settings, math.inf
    if sample_sigmas is not None and settings.gate and settings.layout_scale != 0:
        # A run may be one part of a whole: where the phase ends follows from the noise level, not from its own steps.
        layout_sigma = sigma_at(min(settings.layout_steps / _RELEASE_STEPS, 1.0))
        last_step = sample_sigmas[-2:].tolist()
        if last_step[-1:] == [0.0]:  # the step that finishes the image is free of it
            layout_sigma = max(layout_sigma, last_step[0])
    return Run(
        applied,
        tuple((sigma_at(person.start_at), sigma_at(person.end_at)) for person in applied.scene),
        layout_sigma,
    )


def _begin_step(
    applied: AppliedScene, options: Mapping[str, Any], x: Tensor | None = None, context: Tensor | None = None
) -> Step:
    """Read the noise level of one call of the UNet (one read-back) and find who is active at it, and in which rows.

    Where no sampler told of a run of this model, one is begun: no layout phase, chunk 1 is negative.
    """
    run: Run | None = options.get(RUN)
    if run is None or run.applied is not applied:
        run = _begin_run(applied, applied.model_sampling)
    sigmas: Tensor | None = options.get("sigmas")
    sigma = NO_SIGMA if sigmas is None else float(sigmas.flatten()[0])
    active = tuple(i for i, (start, end) in enumerate(run.spans) if sigmas is None or start >= sigma >= end)
    in_layout = sigma > run.layout_sigma * (1 + _SIGMA_TOLERANCE)
    rows = run.guidance.rows(x.shape[0], context, options) if active and x is not None else None
    size = () if x is None else tuple(x.shape[2:])
    return Step(sigma, active, in_layout and sigmas is not None, run, rows, size)
