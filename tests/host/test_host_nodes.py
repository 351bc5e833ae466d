"""The host's own nodes around ours, before and after: the same picture as the reference's, and nobody left out."""

import functools
from collections.abc import Callable
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import comfy.sd
import comfy_extras.nodes_custom_sampler as custom_sampler
import comfy_extras.nodes_easycache as easycache
import comfy_extras.nodes_freelunch as freelunch
import comfy_extras.nodes_hypertile as hypertile
import comfy_extras.nodes_model_advanced as model_advanced
import comfy_extras.nodes_model_downscale as downscale
import comfy_extras.nodes_nag as nag
import comfy_extras.nodes_pag as pag
import comfy_extras.nodes_perpneg as perpneg
import comfy_extras.nodes_sag as sag
import comfy_extras.nodes_tomesd as tomesd
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from dynamicid_pack.dynamicid_core.host.sampling_run import STEP
from torch import Tensor

import nodes

from ..support import generated_weights
from . import fakes, probe, reference, shapes
from .stage import ABSENT, CONFIGS, Stage, assert_other, assert_same, conditioning, text

Node = Callable[[Any], Any]


def _first(output: Any) -> Any:
    """What a node's first output gives, of V3 and of older nodes."""
    return (output.args if hasattr(output, "args") else output)[0]


def _quieter(func: Callable, *args: Any, **kwargs: Any) -> Tensor:
    return 0.8 * func(*args, **kwargs)


def attention_override(model: Any) -> Any:
    """What packs with their own attention kernels do: every attention that the host's function computes passes here."""
    patched = model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = _quieter
    return patched


def unet_wrapper(model: Any) -> Any:
    """A pack that runs the UNet itself and changes its answer."""
    patched = model.clone()
    patched.set_model_unet_function_wrapper(lambda run, args: run(args["input"], args["timestep"], **args["c"]) * 0.9)
    return patched


def model_sampling(model: Any, kind: str, zsnr: bool) -> Any:
    return _first(model_advanced.ModelSamplingDiscrete().patch(model, kind, zsnr))


def deep_shrink(model: Any) -> Any:
    node = downscale.PatchModelAddDownscale
    return _first(node.execute(model, 1, 2.0, 0.0, 0.35, True, "bicubic", "bicubic"))


NODES: dict[str, Node] = {
    "FreeU": lambda model: _first(freelunch.FreeU.execute(model, 1.1, 1.2, 0.9, 0.2)),
    "FreeU_V2": lambda model: _first(freelunch.FreeU_V2.execute(model, 1.3, 1.4, 0.9, 0.2)),
    "HyperTile": lambda model: _first(hypertile.HyperTile.execute(model, 32, 2, 1, False)),
    "TomePatchModel": lambda model: _first(tomesd.TomePatchModel.execute(model, 0.3)),
    "PerturbedAttentionGuidance": lambda model: _first(pag.PerturbedAttentionGuidance.execute(model, 3.0)),
    "SelfAttentionGuidance": lambda model: _first(sag.SelfAttentionGuidance.execute(model, 0.5, 2.0)),
    "NAGuidance": lambda model: _first(nag.NAGuidance.execute(model, 5.0, 0.5, 1.5)),
    "RescaleCFG": lambda model: _first(model_advanced.RescaleCFG().patch(model, 0.7)),
    "PatchModelAddDownscale": deep_shrink,
    "ModelSamplingDiscrete v": lambda model: _first(
        model_advanced.ModelSamplingDiscrete().patch(model, "v_prediction", True)
    ),
    "ModelSamplingDiscrete lcm": lambda model: _first(
        model_advanced.ModelSamplingDiscrete().patch(model, "lcm", False)
    ),
    "LazyCache": lambda model: _first(easycache.LazyCacheNode.execute(model, 0.2, 0.15, 0.95, False)),
    "EasyCache": lambda model: _first(easycache.EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False)),
    "attention override": attention_override,
    "UNet wrapper": unet_wrapper,
    "chunks apart": fakes.apart,
    "chunks in another order": lambda model: fakes.ordered(model, [0, 1]),
}
WITHOUT_EFFECT = {"chunks apart", "chunks in another order", "EasyCache", "LazyCache"}
"""They change how the UNet is called, not what comes out (the caches' thresholds are not met in two steps)."""


@pytest.mark.parametrize("name", NODES)
def test_node_around_ours(stage: Stage, name: str) -> None:
    node = NODES[name]
    result = stage.sample(node(stage.ours()))
    assert_same(result, stage.sample(node(stage.reference())))
    assert_same(stage.sample(stage.ours(node(stage.model))), result)
    without_people = stage.sample(node(stage.model))
    assert_other(result, without_people)
    if name not in WITHOUT_EFFECT:
        assert_other(result, stage.alone())
    assert torch.equal(stage.sample(node(stage.ours(**ABSENT))), without_people), "nobody there: nothing of ours"


@pytest.mark.parametrize("name", NODES)
def test_weight_and_lora_zero_is_the_nodes_own_result(stage: Stage, name: str) -> None:
    patched = NODES[name](stage.model)
    assert stage.ours(patched, weight=0.0, lora_strength=0.0) is patched


def test_everything_at_once(stage: Stage) -> None:
    names = ("FreeU_V2", "HyperTile", "PerturbedAttentionGuidance", "RescaleCFG", "PatchModelAddDownscale")
    every = functools.reduce(lambda model, name: NODES[name](model), [*names, "UNet wrapper"], stage.ours())
    expected = functools.reduce(lambda model, name: NODES[name](model), [*names, "UNet wrapper"], stage.reference())
    assert_same(stage.sample(every), stage.sample(expected))


def test_self_attention_guidance_draws_nobody_in_its_negative(stage: Stage) -> None:
    """It runs the negative alone, as chunk 0, the number of the plain guider's positive."""
    watched, calls = probe.watched(NODES["SelfAttentionGuidance"](stage.ours()))
    result = stage.sample(watched)
    assert [options["cond_or_uncond"] for options in calls.options] == [[1, 0], [0]] * 2
    assert_same(result, stage.sample(NODES["SelfAttentionGuidance"](stage.reference())))
    stage.negatives = []
    assert_other(result, stage.sample(NODES["SelfAttentionGuidance"](stage.reference())))


def test_schedule_of_a_model_sampling_node_after_ours(stage: Stage) -> None:
    """A person's span is a part of the schedule that is sampled with, not of the one that was there when we came."""
    stage.sampling["steps"] = 6
    patched = model_sampling(stage.ours(start_at=0.19, end_at=0.7), "v_prediction", True)
    watched, calls = probe.watched(patched)
    stage.sample(watched)
    schedule, before = (model.get_model_object("model_sampling") for model in (patched, stage.model))
    start, end = (float(schedule.percent_to_sigma(part)) for part in (0.19, 0.7))
    second = float(calls.options[1]["sigmas"][0])
    assert start >= second > float(before.percent_to_sigma(0.19)), "the two schedules differ on the second step"
    for options in calls.options:
        inside = start >= float(options["sigmas"][0]) >= end
        assert options[STEP].active == ((0, 1) if inside else ())
    assert {options[STEP].active for options in calls.options} == {(0, 1), ()}


# Guiders


GUIDERS: dict[str, Callable[[Any], Any]] = {
    "CFG 1": lambda model: custom_sampler.CFGGuider.execute(model, *_texts("pn"), 1.0),
    "Basic": lambda model: custom_sampler.BasicGuider.execute(model, *_texts("p")),
    "PerpNeg": lambda model: perpneg.PerpNegGuider.execute(model, *_texts("pne"), 7.0, 1.0),
    "Dual": lambda model: _dual(model, "regular"),
    "Dual nested": lambda model: _dual(model, "nested"),
    "Dual without negative": lambda model: custom_sampler.DualCFGGuider.execute(
        model, *_texts("pmn"), 3.0, 1.0, "regular"
    ),
}
if hasattr(custom_sampler, "DualModelGuider"):
    GUIDERS["two models"] = lambda model: custom_sampler.DualModelGuider.execute(
        model, conditioning("p"), 5.0, model.clone(), conditioning("n")
    )


def _texts(names: str) -> list[Any]:
    return [conditioning(name) for name in names]


def _dual(model: Any, style: str) -> Any:
    return custom_sampler.DualCFGGuider.execute(model, *_texts("pmn"), 3.0, 5.0, style)


@pytest.mark.parametrize("name", GUIDERS)
def test_guider(stage: Stage, name: str) -> None:
    """Roles by the guider's own names: PerpNeg's empty prompt is a negative, Dual's middle one is not."""

    def run(model: Any) -> Tensor:
        return stage.sample(model, guider=_first(GUIDERS[name](model)))

    result = run(stage.ours())
    assert_same(result, run(stage.reference()))
    assert_other(result, [run(stage.model), stage.alone()])
    assert torch.equal(run(stage.ours(**ABSENT)), run(stage.model))


def test_deprecated_perp_neg_node(stage: Stage) -> None:
    """It runs its empty prompt as chunk 0 under an id that no guider knows: counted as positive, as documented."""
    stage.negatives = [text("n")]

    def run(model: Any) -> Tensor:
        return stage.sample(_first(perpneg.PerpNeg.execute(model, conditioning("e"), 1.0)))

    assert_same(run(stage.ours()), run(stage.reference()))


def test_cfg_one_is_the_positive_alone(stage: Stage) -> None:
    basic = stage.alone(guider=_first(GUIDERS["Basic"](stage.ours())))
    watched, calls = probe.watched(stage.ours())
    assert torch.equal(stage.sample(watched, cfg=1.0), basic)
    assert [options["cond_or_uncond"] for options in calls.options] == [[0], [0]]


def test_batch(stage: Stage) -> None:
    """Each picture of a batch is drawn as if it were alone: the gate's range is a row's own."""
    noise = torch.randn(3, 4, 8, 12, generator=torch.Generator().manual_seed(5))
    together = _denoised(stage, noise)
    assert_same(together, torch.cat([_denoised(stage, noise[i : i + 1]) for i in range(3)]), tolerance=1e-3)
    assert_other(together[0], [together[1], together[2]])
    assert_same(stage.alone(batch=3), stage.sample(stage.reference(), batch=3))


def _denoised(stage: Stage, noise: Tensor) -> Tensor:
    """Sampling from given noise: it is added to an empty latent."""
    guider = _first(custom_sampler.CFGGuider.execute(stage.ours(), *_texts("pn"), 7.0))
    sampler = comfy.samplers.sampler_object("euler")
    sigmas = comfy.samplers.KSampler(stage.model, 2, stage.model.load_device, "euler", "normal", 1.0).sigmas
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True)


# Conditioning by area and mask


def _area(positive: Any, x: int, width: int) -> Any:
    """Pixels; the small pictures are 96 x 64."""
    return nodes.ConditioningSetArea().append(positive, width, 64, x, 0, 1.0)[0]


def _masked(positive: Any, area: str) -> Any:
    mask = torch.zeros(1, 64, 96)
    mask[..., :40] = 1
    return nodes.ConditioningSetMask().append(positive, mask, area, 1.0)[0]


PARTS: dict[str, Callable[[], Any]] = {
    "areas": lambda: _area(conditioning("p"), 0, 64) + _area(conditioning("m"), 32, 64),
    "area over the whole": lambda: conditioning("p") + _area(conditioning("m"), 0, 64),
    "mask": lambda: conditioning("p") + _masked(conditioning("m"), "default"),
    "mask bounds": lambda: conditioning("p") + _masked(conditioning("m"), "mask bounds"),
}


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("around", ["CFG", "SAG", "PerpNeg", "Dual"])
def test_conditioning_by_area(stage: Stage, parts: str, around: str) -> None:
    """The host copies an area to the other side, with the id of where it came from: the copy is still a negative."""
    positive = PARTS[parts]()
    stage.sampling["steps"] = 1

    def run(model: Any) -> Tensor:
        if around == "SAG":
            model = NODES["SelfAttentionGuidance"](model)
        if around == "PerpNeg":
            guider = perpneg.PerpNegGuider.execute(model, positive, *_texts("ne"), 7.0, 1.0)
        elif around == "Dual":
            guider = custom_sampler.DualCFGGuider.execute(model, positive, *_texts("mn"), 3.0, 5.0, "regular")
        else:
            guider = custom_sampler.CFGGuider.execute(model, positive, *_texts("n"), 7.0)
        return stage.sample(model, guider=_first(guider))

    result = run(stage.ours())
    assert_same(result, run(stage.reference()))
    assert_other(result, run(stage.model))


# Control


@pytest.fixture(scope="module")
def controlnet() -> Any:
    """A ControlNet for the small model, of the host's own classes."""
    own = {k: v for k, v in CONFIGS["SD1.5"].items() if k not in ("out_channels", "transformer_depth_output")}
    net = comfy.cldm.cldm.ControlNet(
        **own, hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    net.load_state_dict(generated_weights(shapes.controlnet(CONFIGS["SD1.5"]), 41))
    return comfy.controlnet.ControlNet(net.eval(), load_device=torch.device("cpu"))


class _SmallAdapter(torch.nn.Module):
    """A T2I-Adapter's network: a picture to one feature map, for the UNet's second input block."""

    unshuffle_amount, input_channels = 8, 3

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3 * 64, CONFIGS["SD1.5"]["model_channels"], 3, padding=1)
        self.load_state_dict(generated_weights({n: tuple(t.shape) for n, t in self.state_dict().items()}, 42))

    def forward(self, hint: Tensor) -> dict[str, list[Tensor | None]]:
        return {"input": [self.conv(torch.nn.functional.pixel_unshuffle(hint, 8)), None]}


@pytest.fixture(scope="module")
def t2i_adapter() -> Any:
    return comfy.controlnet.T2IAdapter(_SmallAdapter(), 3, 8, "nearest-exact", device=torch.device("cpu"))


@pytest.mark.parametrize("kind", ["controlnet", "t2i_adapter"])
@pytest.mark.parametrize("batch", [1, 2])
def test_control(stage: Stage, kind: str, batch: int, request: pytest.FixtureRequest) -> None:
    """What a control net reads and adds knows nothing of the people: its own attention is not patched."""
    picture = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(6))
    positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
        *_texts("pn"), request.getfixturevalue(kind), picture, 0.8, 0.0, 1.0
    )

    def run(model: Any) -> Tensor:
        guider = _first(custom_sampler.CFGGuider.execute(model, positive, negative, 7.0))
        return stage.sample(model, guider=guider, batch=batch)

    result = run(stage.ours())
    assert_same(result, run(stage.reference()))
    assert_other(result, [run(stage.model), stage.alone(batch=batch)])
    assert torch.equal(run(stage.ours(**ABSENT)), run(stage.model))


# LoRA


def _lora(stage: Stage) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A LoRA file on some of the weights that ours changes and on others, and its up @ down by weight."""
    block = "diffusion_model.input_blocks.1.1.transformer_blocks.0"
    names = [f"{block}.attn2.to_k", f"{block}.attn1.to_out.0", f"{block}.ff.net.2", "diffusion_model.time_embed.0"]
    weights = stage.model.model.state_dict()
    file, changes = dict[str, Tensor](), dict[str, Tensor]()
    generator = torch.Generator().manual_seed(7)
    for name in names:
        out, into = weights[f"{name}.weight"].shape
        up = torch.randn(out, 4, generator=generator) / 2
        down = torch.randn(4, into, generator=generator) / into**0.5
        lora = f"lora_unet_{name.removeprefix('diffusion_model.').replace('.', '_')}"
        file |= {f"{lora}.lora_up.weight": up, f"{lora}.lora_down.weight": down, f"{lora}.alpha": torch.tensor(4.0)}
        changes[f"{name}.weight"] = up @ down
    return file, changes


def _sampled_with(stage: Stage, model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The result, and the weights that it was sampled with."""
    weights: dict[str, Tensor] = {}

    def note(executor: Any, *args: Any, **kwargs: Any) -> Any:
        weights.update({name: tensor.clone() for name, tensor in model.model.state_dict().items()})
        return executor(*args, **kwargs)

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "note", note)
    return stage.sample(watched), weights


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_lora_loader_before_and_after_ours(stage: Stage, strength: float) -> None:
    """Both are merged into the weights, in any order: W + ours + theirs, and W again afterwards."""
    file, theirs = _lora(stage)
    ours = reference.low_rank_changes(stage.model, stage.state)
    assert len(ours) == 8 * len(stage.keys)
    plain = {name: tensor.clone() for name, tensor in stage.model.model.state_dict().items()}

    def with_lora(model: Any) -> Any:
        return comfy.sd.load_lora_for_models(model, None, dict(file), 0.7, 0.0)[0]

    stage.sampling["steps"] = 1
    after, merged_after = _sampled_with(stage, with_lora(stage.ours(lora_strength=strength)))
    before, merged_before = _sampled_with(stage, stage.ours(with_lora(stage.model), lora_strength=strength))
    for merged in (merged_after, merged_before):
        for name, tensor in plain.items():
            expected = tensor + strength * ours.get(name, torch.zeros(())) + 0.7 * theirs.get(name, torch.zeros(()))
            assert torch.allclose(merged[name], expected, atol=1e-5), name
    assert_same(before, after)

    # the same weights, changed by hand, under the reference
    by_hand = with_lora(stage.model)
    by_hand.add_patches({name: ("diff", (strength * change,)) for name, change in ours.items()})
    assert_same(after, stage.sample(stage.reference(by_hand)))
    assert_other(after, [stage.sample(stage.ours(lora_strength=strength)), stage.alone()])

    bare, merged_bare = _sampled_with(stage, stage.model)
    assert all(torch.equal(merged_bare[name], tensor) for name, tensor in plain.items())
    assert_other(after, bare)


@pytest.mark.parametrize("name", ["FreeU", "HyperTile", "attention override", "ModelSamplingDiscrete v"])
def test_node_around_ours_with_lora(stage: Stage, name: str) -> None:
    """The simple node's default: LoRA at full strength."""
    changes = reference.low_rank_changes(stage.model, stage.state)
    merged = stage.model.clone()
    merged.add_patches({weight: ("diff", (change,)) for weight, change in changes.items()})
    result = stage.sample(NODES[name](stage.ours(lora_strength=1.0)))
    assert_same(result, stage.sample(NODES[name](stage.reference(merged))))
    assert_other(result, stage.sample(NODES[name](stage.ours())))
