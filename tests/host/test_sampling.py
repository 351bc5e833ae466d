"""Real sampling through the server: small pictures, few steps, everything users combine; --full: in full size."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid

from . import tiny
from .conftest import PEOPLE
from .graphs import CONTROLNET, FULL_SIZE, Scene, Settings, portrait
from .server import Server
from .stage import Stage, assert_other, assert_same

pytestmark = pytest.mark.timeout(900)

SMALL = Settings()


@pytest.fixture
def server(either_server: Server) -> Server:
    """The miniature's server, and with --full that of the full size."""
    return either_server


RUNS: dict[str, tuple[int, Settings]] = {
    "1 person": (1, Settings(128, 128)),
    "2 people": (2, Settings(128, 128)),
    "3 people": (3, Settings(128, 128)),
    "12 people": (12, Settings(128, 128)),
    "12 people on a grid of 1 cell": (12, SMALL),
    "CFG 1": (2, Settings(cfg=1.0)),
    "odd size": (2, Settings(width=136, height=72)),
    "heun, batch of 2": (2, Settings(sampler="heun", batch=2)),
    "dpmpp_2m_sde, landscape": (3, Settings(192, 64, steps=3, sampler="dpmpp_2m_sde", scheduler="karras")),
    "uni_pc, portrait": (2, Settings(64, 128, steps=3, sampler="uni_pc")),
}
"""Name -> number of people, settings."""


@pytest.mark.parametrize("name", RUNS)
def test_people_are_drawn(name: str, server: Server) -> None:
    count, settings = RUNS[name]
    plain = pictures(server, portrait([], settings))
    drawn = pictures(server, portrait(PEOPLE[:count], settings))
    assert len(drawn) == settings.batch
    for with_people, without in zip(drawn, plain, strict=True):
        assert with_people.shape == (settings.height, settings.width, 3)
        assert distance(with_people, without) > 1
    if settings.batch > 1:
        assert distance(drawn[0], drawn[1]) > 1, "each of a batch has noise of its own"


@pytest.mark.full
def test_at_512(server: Server) -> None:
    """The size that SD1.5 is made for; it takes long, so only the picture with people, and without guidance."""
    (drawn,) = pictures(server, portrait(PEOPLE[:2], Settings(512, 512, cfg=1.0)))
    assert drawn.shape == (512, 512, 3)


def test_weight_zero_is_the_plain_picture(server: Server) -> None:
    result = server.run(portrait(PEOPLE[:2], SMALL, weight=0.0))
    (plain,) = pictures(server, portrait([], SMALL))
    assert np.array_equal(result.images[0], plain)
    # bit for bit in the latent too, through the node that has a LoRA of its own to leave out
    scene = Scene(SMALL)
    scene.apply_advanced(scene.loader(), [scene.identity(PEOPLE[0])], weight=0.0, lora_strength=0.0)
    scene.sample()
    scene.save()
    assert np.array_equal(pictures(server, scene)[0], plain)


def test_second_run_equals_the_first(server: Server) -> None:
    """The same picture through another sampler node (nothing cached of it), with another seed's run in between."""
    (first,) = pictures(server, portrait(PEOPLE[:2], SMALL))
    (other,) = pictures(server, portrait(PEOPLE[:2], Settings(seed=5)))
    assert distance(first, other) > 1

    scene = Scene(SMALL)
    scene.cast(PEOPLE[:2])
    sigmas = scene.add("BasicScheduler", model=scene.model, scheduler=SMALL.scheduler, steps=SMALL.steps, denoise=1.0)
    sampler = scene.add("KSamplerSelect", sampler_name=SMALL.sampler)
    inputs = {"model": scene.model, "positive": scene.positive, "negative": scene.negative, "add_noise": True}
    inputs |= {"noise_seed": SMALL.seed, "cfg": SMALL.cfg, "sampler": sampler[0], "sigmas": sigmas[0]}
    scene.latent = scene.add("SamplerCustom", inputs, latent_image=scene.latent)[0]
    scene.save()
    (second,) = pictures(server, scene)
    assert np.array_equal(first, second)


def test_an_upscaled_second_pass_has_no_layout_phase(server: Server) -> None:
    """The first pass decides who stands where; the second, from half noise, must not press people into place again."""

    def picture(first_scale: float, second_scale: float) -> np.ndarray:
        scene = Scene(Settings(cfg=1.0))
        plain, loader = scene.model, scene.loader()
        people = [scene.identity(name) for name in PEOPLE[:2]]
        scene.apply_advanced(loader, people, layout_scale=first_scale)
        scene.sample()
        scene.model = plain
        scene.apply_advanced(loader, people, layout_scale=second_scale)
        larger = {"upscale_method": "nearest-exact", "width": 128, "height": 96, "crop": "disabled"}
        scene.latent = scene.add("LatentUpscale", larger, samples=scene.latent)[0]
        scene.sample(denoise=0.5, steps=2)
        scene.save()
        return pictures(server, scene)[0]

    both = picture(4.0, 4.0)
    assert both.shape == (96, 128, 3)
    assert np.array_equal(both, picture(4.0, 0.0))
    assert distance(both, picture(0.0, 4.0)) > 0, "the first pass had no layout phase"


@pytest.mark.usefixtures("full_size_scenes")
def test_with_a_controlnet(full_size_server: Server) -> None:
    server = full_size_server

    def picture(names: tuple[str, ...], strength: float) -> np.ndarray:
        scene = Scene(SMALL)
        if names:
            scene.cast(names)
        hint = scene.add("EmptyImage", width=64, height=64, batch_size=1, color=0x40C080)
        net = scene.add("ControlNetLoader", control_net_name=CONTROLNET)
        wired = {"positive": scene.positive, "negative": scene.negative, "control_net": net[0], "image": hint[0]}
        controlled = scene.add("ControlNetApplyAdvanced", wired, strength=strength, start_percent=0.0, end_percent=1.0)
        scene.positive, scene.negative = controlled[0], controlled[1]
        scene.sample()
        scene.save()
        return pictures(server, scene)[0]

    both = picture(PEOPLE[:2], 0.3)
    assert distance(both, picture((), 0.3)) > 1, "the people do not show"
    assert distance(both, pictures(server, portrait(PEOPLE[:2], SMALL))[0]) > 1, "the ControlNet does not show"


def test_a_lora_before_or_after_is_the_same(server: Server) -> None:
    def picture(order: str) -> np.ndarray:
        scene = Scene(SMALL)
        for node in order:
            if node == "a":
                scene.cast(PEOPLE[:2])
            else:
                strengths: dict[str, Any] = {"strength_model": 0.7, "strength_clip": 0.7}
                inputs = strengths | {"lora_name": scene.models.lora}
                lora = scene.add("LoraLoader", inputs, model=scene.model, clip=scene.clip)
                scene.model, scene.clip = lora[0], lora[1]
        scene.positive = scene.add("CLIPTextEncode", text="two people in a garden", clip=scene.clip)[0]
        scene.sample()
        scene.save()
        return pictures(server, scene)[0]

    before, after = picture("la"), picture("al")
    assert np.abs(before.astype(int) - after).max() <= 2, "the order of two sums makes no more than rounding"
    assert distance(before, picture("a")) > 1, "the LoRA does not show"
    assert distance(before, picture("l")) > 1, "the people do not show"


@pytest.mark.parametrize("freeu_first", [True, False], ids=["before", "after"])
def test_with_freeu(freeu_first: bool, server: Server) -> None:
    settings = Settings(128, 128)  # FreeU divides by zero on a grid of one cell, alone too

    def freeu(scene: Scene) -> None:
        scene.model = scene.add("FreeU_V2", model=scene.model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)[0]

    scene = Scene(settings)
    steps: list[Callable[[], Any]] = [lambda: freeu(scene), lambda: scene.cast(PEOPLE[:2])]
    for step in steps if freeu_first else reversed(steps):
        step()
    scene.sample()
    scene.save()
    (both,) = pictures(server, scene)
    assert distance(both, pictures(server, portrait(PEOPLE[:2], settings))[0]) > 1, "FreeU does not show"

    alone = Scene(settings)
    freeu(alone)
    alone.sample()
    alone.save()
    assert distance(both, pictures(server, alone)[0]) > 1, "the people do not show"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="ComfyUI takes --lowvram on a GPU only")
@pytest.mark.full_size
@pytest.mark.usefixtures("full_size_scenes")
@pytest.mark.parametrize("argument", ["--lowvram", "--novram"])
def test_lowvram(argument: str, make_server: Callable[..., Server]) -> None:
    settings = Settings(steps=3)
    with make_server(FULL_SIZE, argument) as running:
        (drawn,) = pictures(running, portrait(PEOPLE[:2], settings))
        (plain,) = pictures(running, portrait([], settings))
        assert distance(drawn, plain) > 1


@pytest.fixture
def stage(tiny_adapter_file: Path) -> Stage:
    """The small model in this process: what a server on a CPU can't be told to do."""
    return Stage(tiny.tiny_patcher(), load_dynamicid(tiny_adapter_file), tiny.tiny_adapter_state())


@pytest.fixture
def _no_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The host takes the CPU for a GPU whose memory is full: weights stay behind and come, patched, when used."""
    management = comfy.model_management
    monkeypatch.setattr(management, "is_device_cpu", lambda _: False)
    monkeypatch.setattr(management, "vram_state", management.VRAMState.LOW_VRAM)
    monkeypatch.setattr(management, "get_free_memory", lambda *_, **__: (0, 0) if len(_) > 1 else 0)
    yield
    management.unload_all_models()


def test_weights_left_behind_are_patched_when_used(stage: Stage, request: pytest.FixtureRequest) -> None:
    patched = stage.ours(lora_strength=1.0)
    expected, plain = stage.sample(patched), stage.sample(stage.model)
    comfy.model_management.unload_all_models()
    request.getfixturevalue("_no_memory")
    actual = stage.sample(patched)
    assert patched.lowvram_patch_counter() > 0, "the host loaded everything"
    assert_same(actual, expected)
    assert_other(actual, plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype: torch.dtype, stage: Stage) -> None:
    """People in half precision are the people of full precision, with the rounding of the plain model."""
    patched = stage.sample(stage.ours(lora_strength=1.0))
    plain = stage.sample(stage.model)
    stage.model = tiny.tiny_patcher(dtype=dtype)
    half = stage.sample(stage.ours(lora_strength=1.0))
    rounding = float((stage.sample(stage.model) - plain).norm() / plain.norm())
    assert_same(half, patched, tolerance=max(4 * rounding, 1e-3))
    assert_other(half, plain)


def pictures(server: Server, scene: Scene) -> list[np.ndarray]:
    """Run the graph to its end, without a complaint in the log, and return its pictures, none of them of one colour."""
    before = len(server.log)
    result = server.run(scene)
    assert result.message == ""
    for complaint in ("Traceback", "invalid value encountered", "replaced DynamicID's attention"):
        assert complaint not in server.log[before:]
    for node in scene.ids("KSampler"):
        if node in result.executed:
            value, of = result.progress[node][-1]
            assert value == of, "the sampler did not tell of all steps"
    assert result.images
    for picture in result.images:
        assert picture.std() > 5, "one colour"
    return result.images


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of two pictures in levels of 0..255."""
    return float(np.abs(a.astype(float) - b).mean())
