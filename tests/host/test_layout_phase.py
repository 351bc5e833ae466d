"""The layout phase ends at a noise level: a run in parts is the run, and a pass that starts below it has none."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SplitSigmas
from dynamicid_pack.dynamicid_core.host.sampling_run import STEP
from dynamicid_pack.mini.train import experiments
from torch import Tensor

from nodes import common_ksampler

from . import probe
from .stage import Stage, assert_other, assert_same, conditioning, text

BASE = "one level"
"""Of the stage's UNets the quickest: whole runs are sampled by the hundred."""

SCHEDULERS = ("karras", "normal", "ddim_uniform")
SIZE = (4, 8)
STEPS = [4, *(pytest.param(steps, marks=pytest.mark.full) for steps in (8, 20, 50))]
"""Of runs that are cut after each of their steps."""


# Where it ends


def layout_flags(model: Any, **settings: Any) -> list[bool]:
    """Whether the layout phase applies, for each call of the UNet in a run."""
    watched, calls = probe.watched(model)
    probe.sample(watched, text("p"), text("n"), **{"size": SIZE, **settings})
    return [options[STEP].in_layout for options in calls.options]


@pytest.mark.parametrize(
    ("scheduler", "steps", "in_layout"),
    [
        ("ddim_uniform", 50, 3),  # the release's own run
        ("normal", 20, 2),
        ("sgm_uniform", 50, 3),  # its fourth step starts at the level, to the last digit
        ("karras", 30, 3),
        ("karras", 50, 5),
        ("ddim_uniform", 10, 0),  # starts below the level
        ("normal", 2, 1),
        ("normal", 1, 0),  # the only step ends without noise
    ],
)
def test_steps_that_start_above_the_releases_fourth(stage: Stage, scheduler: str, steps: int, in_layout: int) -> None:
    flags = layout_flags(stage.ours(), scheduler=scheduler, steps=steps, cfg=1.0)
    assert flags == [True] * in_layout + [False] * (steps - in_layout)


@pytest.mark.parametrize(("sampler", "in_layout"), [("heun", 3), ("uni_pc", 2), ("dpmpp_2m_sde", 2)])
def test_samplers_that_call_more_than_once_a_step(stage: Stage, sampler: str, in_layout: int) -> None:
    """Heun's second call of a step stands at the noise of the next."""
    flags = layout_flags(stage.ours(), sampler=sampler, scheduler="normal", steps=20, cfg=1.0)
    assert flags == sorted(flags, reverse=True) and sum(flags) == in_layout


@pytest.mark.parametrize(("layout_steps", "in_layout"), [(0, 0), (1, 1), (10, 2), (25, 5), (50, 9), (1000, 9)])
def test_layout_steps_are_of_fifty(stage: Stage, layout_steps: int, in_layout: int) -> None:
    flags = layout_flags(stage.ours(layout_steps=layout_steps), scheduler="normal", steps=10, cfg=1.0)
    assert flags == [True] * in_layout + [False] * (10 - in_layout)


@pytest.mark.parametrize(
    ("layout_steps", "steps", "in_layout"),
    [
        (experiments.WITH_LAYOUT["overrides"]["apply"]["layout_steps"], experiments.STEPS, 1),
        *((experiments.layout_steps_of(n, experiments.FEW_STEPS), experiments.FEW_STEPS, n) for n in range(4)),
    ],
)
def test_the_miniatures_tables_have_the_phase_that_they_name(
    stage: Stage, layout_steps: int, steps: int, in_layout: int
) -> None:
    sampler = experiments.graph_of(1)["sampler"]["inputs"]
    given = {"sampler": sampler["sampler_name"], "scheduler": sampler["scheduler"], "cfg": 1.0}
    assert sum(layout_flags(stage.ours(layout_steps=layout_steps), steps=steps, **given)) == in_layout


@pytest.mark.parametrize("scheduler", ["karras", "normal", "simple", "exponential", "ddim_uniform"])
@pytest.mark.parametrize("denoise", [0.3, 0.55, 0.9])
def test_a_second_pass_has_none(stage: Stage, denoise: float, scheduler: str) -> None:
    stands = torch.full((1, 4, *SIZE), 0.5)
    settings = {"latent": stands, "denoise": denoise, "scheduler": scheduler, "cfg": 1.0}
    assert not any(layout_flags(stage.ours(), steps=20, **settings))


def test_a_picture_that_is_drawn_anew_has_one(stage: Stage) -> None:
    stands = torch.full((1, 4, *SIZE), 0.5)
    assert sum(layout_flags(stage.ours(), latent=stands, steps=20, cfg=1.0)) == 2


@pytest.mark.parametrize("changed", [{"gate": False}, {"layout_scale": 0.0}, {"layout_steps": 0}])
def test_none_where_it_is_off(stage: Stage, changed: dict[str, Any]) -> None:
    assert not any(layout_flags(stage.ours(**changed), steps=4, cfg=1.0))


# Runs in parts


def schedule(stage: Stage, scheduler: str, steps: int) -> Tensor:
    return comfy.samplers.calculate_sigmas(stage.model.get_model_object("model_sampling"), scheduler, steps)


def cut(sigmas: Tensor, *after: int) -> list[Tensor]:
    """The parts of a schedule that is cut after each of these steps."""
    return [sigmas[first : last + 1] for first, last in pairwise((0, *after, len(sigmas) - 1))]


def sample_parts(
    model: Any, sampler: str, parts: Sequence[Tensor], latent: Tensor | None = None, **options: Any
) -> Any:
    """Sample one part after the other, as SamplerCustomAdvanced does: only the first adds noise."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(conditioning("p"), conditioning("n"))
    guider.set_cfg(7.0)
    latent = torch.zeros(1, 4, *SIZE) if latent is None else latent
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    how = comfy.samplers.ksampler(sampler, options) if options else comfy.samplers.sampler_object(sampler)
    for sigmas in parts:
        latent = guider.sample(noise, latent, how, sigmas, seed=1, disable_pbar=True)
        noise = torch.zeros_like(noise)
    return latent


def assert_parts_are_the_run(model: Any, sampler: str, sigmas: Tensor, **given: Any) -> None:
    """Wherever the run is cut in two, and cut into single steps."""
    whole = sample_parts(model, sampler, [sigmas], **given)
    steps = range(1, len(sigmas) - 1)
    for parts in [(step,) for step in steps] + [tuple(steps)]:
        assert_same(sample_parts(model, sampler, cut(sigmas, *parts), **given), whole, 1e-5)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("sampler", ["euler", "ddim"])
@pytest.mark.parametrize("steps", STEPS)
def test_a_run_in_parts_is_the_run(stage: Stage, steps: int, sampler: str, scheduler: str) -> None:
    assert_parts_are_the_run(stage.ours(), sampler, schedule(stage, scheduler, steps))


@pytest.mark.parametrize("layout_steps", [1, 20, 50])
def test_whatever_the_length_of_the_phase(stage: Stage, layout_steps: int) -> None:
    assert_parts_are_the_run(stage.ours(layout_steps=layout_steps), "euler", schedule(stage, "normal", 4))


def test_a_picture_that_is_drawn_over_in_parts(stage: Stage) -> None:
    """Its latent isn't empty, nor is that of any part but the first."""
    sigmas, stands = schedule(stage, "normal", 8)[2:], torch.full((1, 4, *SIZE), 0.5)
    assert_parts_are_the_run(stage.ours(layout_steps=20), "euler", sigmas, latent=stands)


def repeatable_noise(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Noise that follows from the step alone; a sampler's own depends on where its run began."""
    seed = int(float(sigma) * 1e4) ^ int(float(sigma_next) * 1e4)
    return torch.randn((1, 4, *SIZE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_sde", "dpmpp_2s_ancestral"])
@pytest.mark.parametrize("steps", [4, pytest.param(20, marks=pytest.mark.full)])
def test_samplers_that_add_noise_in_parts(stage: Stage, steps: int, sampler: str) -> None:
    sigmas = schedule(stage, "karras", steps)
    assert_parts_are_the_run(stage.ours(), sampler, sigmas, noise_sampler=repeatable_noise)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_3m_sde", "uni_pc", "lms"])
@pytest.mark.parametrize("after", [(), (2,)])
def test_samplers_that_remember_their_steps(stage: Stage, after: tuple[int, ...], sampler: str) -> None:
    """Their runs in parts differ, the plain model's too; what is drawn at a noise level doesn't."""
    sigmas = cut(schedule(stage, "karras", 5), *after)
    ours, reference = (sample_parts(model, sampler, sigmas) for model in (stage.ours(), stage.reference()))
    assert_same(ours, reference)
    assert_other(ours, sample_parts(stage.ours(layout_steps=0), sampler, sigmas))


def test_the_hosts_nodes_in_parts(stage: Stage) -> None:
    """KSampler (Advanced), and SplitSigmas before two custom samplers."""
    model, empty = stage.ours(), {"samples": torch.zeros(1, 4, *SIZE)}
    given = (model, 1, 6, 7.0, "euler", "normal", conditioning("p"), conditioning("n"))
    (whole,) = common_ksampler(*given, empty)
    for step in (1, 5):
        (first,) = common_ksampler(*given, empty, start_step=0, last_step=step)
        (both,) = common_ksampler(*given, first, disable_noise=True, start_step=step, last_step=1000)
        assert_same(both["samples"], whole["samples"], 1e-5)
    sigmas = schedule(stage, "normal", 6)
    assert_same(sample_parts(model, "euler", SplitSigmas.execute(sigmas, 1).args), whole["samples"], 1e-5)
