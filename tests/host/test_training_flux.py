"""What is trained on diffusers' Flux is what the host draws with: the same prediction on the same weights."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import comfy.samplers
import pytest
import torch
from comfy.ldm.flux.model import Flux
from comfy.ops import disable_weight_init
from comfy.patcher_extension import WrappersMP
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host.apply import apply_scene
from dynamicid_pack.dynamicid_core.host.miniature import _config, _patcher
from dynamicid_pack.dynamicid_core.host.sampling_run import AttentionSettings
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.adapter import adapter_from_weights
from dynamicid_pack.dynamicid_core.saa.attention import region_terms
from dynamicid_pack.dynamicid_core.saa.regions import Region, rasterize
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.dynamicid_core.training.base_model import TextStates
from dynamicid_pack.dynamicid_core.training.flux_base import FluxBase
from dynamicid_pack.dynamicid_core.training.layers import IdentityInput
from dynamicid_pack.dynamicid_core.training.saa import SAA
from dynamicid_pack.mini.networks import FLUX, FLUX_SHIFT
from dynamicid_pack.mini.train.export import transformer
from torch import Tensor

from ..support import generated_weights
from . import probe

LEFT, RIGHT = Region(box=Box(0.0, 0.0, 0.5, 1.0)), Region(box=Box(0.5, 0.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    network = Flux(**FLUX, dtype=torch.float32, operations=disable_weight_init)
    return generated_weights({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}, seed=51)


@pytest.fixture
def base(weights: dict[str, Tensor]) -> FluxBase:
    """The network alone."""
    vae: Any = SimpleNamespace(config={"latent_channels": 4})
    nothing: Any = None
    zero = torch.zeros(1)
    return FluxBase(transformer(weights).requires_grad_(False), vae, (), (), nothing, nothing, zero, zero)


def apart(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).norm() / expected.norm())


@pytest.mark.parametrize("blocks", ["all", "double"])
@pytest.mark.parametrize(("gate", "threshold"), [(True, 0.3), (True, 0.0), (False, 0.3)])
@pytest.mark.parametrize("people", [1, 2])
def test_diffusers_and_the_host_predict_the_same(
    weights: dict[str, Tensor], base: FluxBase, people: int, gate: bool, threshold: float, blocks: str
) -> None:
    torch.manual_seed(2)
    saa = SAA.of(base.network, 4, 128, blocks)
    for name, parameter in saa.named_parameters():
        if name.endswith(("up.weight", "to_v_ip.weight")):
            torch.nn.init.normal_(parameter, std=0.05)
    saa.install(base.network)
    state = {name: tensor.detach().clone() for name, tensor in saa.state_dict().items()}
    adapter = adapter_from_weights(state, base="flux", identity_blocks=blocks)
    persons = [Identity(torch.randn(4, 128), torch.randn(4, 128)) for _ in range(people)]
    regions = [Region()] if people == 1 else [LEFT, RIGHT]
    scene = tuple(Placement(*pair) for pair in zip(persons, regions, strict=True))
    settings = AttentionSettings(layout_steps=0, gate_threshold=threshold, gate=gate)
    patched = apply_scene(_patcher(_config("Flux"), weights), adapter, scene, settings)
    inputs: list[tuple[Tensor, ...]] = []

    outputs: list[Tensor] = []

    def note(
        executor: Any, x: Tensor, times: Tensor, context: Tensor, pooled: Tensor, *rest: Any, **more: Any
    ) -> Tensor:
        options: Any = rest[-1]  # transformer_options
        inputs.append((x.clone(), times.clone(), context.clone(), pooled, torch.tensor(options["cond_or_uncond"])))
        outputs.append(executor(x, times, context, pooled, *rest, **more))
        return outputs[-1]

    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watched", note)
    text = torch.randn(1, 7, 128)
    guider = comfy.samplers.CFGGuider(patched)
    guider.set_conds(*([[states, {"pooled_output": torch.randn(1, 128)}]] for states in (text, text.flip(1))))
    guider.set_cfg(3.0)
    probe.sample(patched, None, None, size=(16, 24), steps=3, guider=guider, scheduler="simple")
    assert len(inputs) == 3 and len({float(times[0]) for _, times, *_ in inputs}) == 3
    log_share = None
    if people == 2:
        log_share = region_terms(rasterize(regions, 8, 12)).log_share
        assert log_share is not None
        log_share = log_share.repeat_interleave(4, dim=1)
    for (x, times, context, pooled, roles), expected in zip(inputs, outputs, strict=True):
        tokens = torch.stack(
            [torch.cat([p.negative_tokens if role == 1 else p.tokens for p in persons]) for role in roles.tolist()]
        )
        read = TextStates(context, pooled)
        with torch.no_grad():
            identity = IdentityInput(tokens, threshold, gate, log_share=log_share)
            predicted = base.predict(x, times, read, identity)
            nobody = base.predict(x, times, read, None)
        assert apart(predicted, expected) < 1e-4 < 1e-3 < apart(nobody, expected)


@torch.no_grad()
def test_the_beginning_is_the_plain_model_bit_for_bit(weights: dict[str, Tensor], base: FluxBase) -> None:
    """With a person, too: the values of identity tokens are zero until they learn."""
    torch.manual_seed(3)
    x, times = torch.randn(2, 4, 16, 24), torch.tensor([0.9, 0.2])
    text = TextStates(torch.randn(2, 7, 128), torch.randn(2, 128))
    plain = base.predict(x, times, text, None)
    saa = SAA.of(base.network, 4)
    saa.install(base.network)
    assert torch.equal(base.predict(x, times, text, None), plain)
    identity = IdentityInput(torch.randn(2, 4, 128))
    assert torch.equal(base.predict(x, times, text, identity), plain)
    for name, parameter in saa.named_parameters():
        if name.endswith("to_v_ip.weight"):
            torch.nn.init.normal_(parameter)
    assert not torch.allclose(base.predict(x, times, text, identity), plain)


@torch.no_grad()
def test_noise_and_what_is_predicted_are_the_hosts(weights: dict[str, Tensor], base: FluxBase) -> None:
    """The host gets clean latents back from what a perfect network predicts; times are shifted as its schedule is."""
    flow = replace(base, scheduler=FlowMatchEulerDiscreteScheduler(shift=FLUX_SHIFT))
    sampling = _patcher(_config("Flux"), weights).model.model_sampling
    latents = torch.randn(400, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    options: Any = SimpleNamespace(timestep_logit_mean=0.0, timestep_logit_std=1.0)
    noisy, target, times = flow.noise(latents, [torch.Generator().manual_seed(n) for n in range(400)], options)
    for x, v, t, clean in zip(noisy[:8], target[:8], times[:8], latents[:8], strict=True):
        assert torch.allclose(sampling.calculate_denoised(t[None], v[None], x[None])[0], clean, atol=1e-5)
        assert torch.allclose(sampling.noise_scaling(t[None], (v + clean)[None], clean[None])[0], x, atol=1e-5)
    assert times.min() > 0 and times.max() < 1
    assert float(times.median()) == pytest.approx(sampling.percent_to_sigma(0.5), abs=0.03)
