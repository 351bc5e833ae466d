"""The full-size SD1.5 UNet, patched by our nodes and driven by the host's sampler, against the paper's own modules."""

import json
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint, save_checkpoint
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from dynamicid_pack.dynamicid_core.host.sampling_run import STEP
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.nodes.apply import ApplyAdvanced
from dynamicid_pack.tests.support import GOLDEN, relative_error
from safetensors import safe_open
from safetensors.torch import save_file

from . import full_size, probe

TOKENS = 4


def _golden() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(GOLDEN / "unet_sd15.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["cases"])  # noqa: SIM118


TENSORS, CASES = _golden()


pytestmark = pytest.mark.full_size


@pytest.fixture(scope="module")
def model() -> Any:
    return full_size.unet_patcher(full_size.golden_unet_state())


@pytest.fixture(scope="module")
def dynamicid(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The adapter in float32, through a file as users have it."""
    path = tmp_path_factory.mktemp("golden") / "adapter.safetensors"
    save_file(full_size.adapter_state(), path)
    return load_dynamicid(path)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_release(name: str, model: Any, dynamicid: Any) -> None:
    case = CASES[name]
    tokens = TENSORS[f"{name}.id_tokens"].unflatten(1, (case["ids"], TOKENS))
    scene = tuple(
        Placement(Identity(tokens[1, person], tokens[0, person]), Region(box=Box(x0, y0, x1, y1)))
        for person, (y0, x0, y1, x1) in enumerate(case["boxes_y0x0y1x1"])
    )
    (patched,) = ApplyAdvanced.execute(
        model,
        dynamicid,
        {"person_0": scene},
        weight=1.0,
        start_at=0.0,
        end_at=1.0,
        lora_strength=1.0,
        layout_scale=4.0,
        layout_steps=1 if case["layout_scale"] else 0,
        gate_threshold=0.3,
        gate=True,
    ).args

    latent, text = TENSORS[f"{name}.latent"], TENSORS[f"{name}.text"]

    def golden_inputs(x: torch.Tensor, timesteps: torch.Tensor, context: Any, options: dict) -> tuple[Any, ...]:
        rows = [0 if chunk == 1 else 1 for chunk in options["cond_or_uncond"]]
        return latent[rows], torch.full_like(timesteps, case["timestep"]), text[rows]

    watched, calls = probe.watched(patched, golden_inputs)
    probe.sample(watched, text[1:], text[:1], size=(latent.shape[-2], latent.shape[-1]), steps=2)

    first = calls.options[0]
    assert first[STEP].in_layout == bool(case["layout_scale"])
    rows = [0 if chunk == 1 else 1 for chunk in first["cond_or_uncond"]]
    assert sorted(rows) == [0, 1], "the host ran the two halves apart"
    assert relative_error(calls.outputs[0], TENSORS[f"{name}.output"][rows]) < 1e-4


def test_converted_file_holds_the_same_adapter(tmp_path: Any) -> None:
    """What `convert` writes is what was read: the golden numbers hold for converted files too."""
    path = tmp_path / "a.safetensors"
    save_file(full_size.adapter_state(), path)
    before = load_checkpoint(path)
    save_checkpoint(before, tmp_path / "b.safetensors")
    after = load_checkpoint(tmp_path / "b.safetensors")
    assert before.adapter is not None and after.adapter is not None
    assert before.adapter.fingerprint == after.adapter.fingerprint
