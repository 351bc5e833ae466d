"""Both stages on a tiny Flux: from its folder to the pack's own file, as on a UNet."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint
from dynamicid_pack.dynamicid_core.configuration import read_config
from dynamicid_pack.dynamicid_core.training import stages
from dynamicid_pack.dynamicid_core.training.__main__ import main
from dynamicid_pack.dynamicid_core.training.anchoring import Anchoring
from dynamicid_pack.dynamicid_core.training.base_model import load_base_model
from dynamicid_pack.dynamicid_core.training.config import AnchoringConfig
from dynamicid_pack.dynamicid_core.training.denoise import predict_noise
from dynamicid_pack.dynamicid_core.training.shards import Shards
from dynamicid_pack.dynamicid_core.training.trainer import Trainer

from .conftest import WIDTH, new_process

Recipes = Callable[..., Path]
GATE: Any = SimpleNamespace(gate=True, gate_threshold=0.3)


@pytest.fixture
def anchor(recipe: Recipes, flux_folder: Path) -> Recipes:
    """Writes an anchoring recipe of a few small steps on Flux."""

    def write(name: str = "run", **changed: Any) -> Path:
        return recipe(name, base=str(flux_folder), **changed)

    return write


@pytest.fixture
def reconfigure(anchor: Recipes, tmp_path: Path) -> Recipes:
    """Writes a reconfiguration recipe on Flux after an anchoring of one step."""
    adapter = stages.anchor(anchor("anchored", steps=1)).stage.folder / "anchoring.safetensors"
    new_process()
    shared = json.loads((tmp_path / "anchored.json").read_text())
    options = {key: shared[key] for key in ("base", "data", "size", "learning_rate", "save_every", "sample_every")}
    options |= {
        "steps": 4, "adapter": str(adapter), "targets": 3, "dim": 64, "latents": 2, "dim_head": 32,
        "keypoint_dims": [4, 4, 4, 4, 4, 8], "keypoint_depths": [1, 1, 1, 1, 1, 1], "keypoint_output": 8,
    }  # fmt: skip

    def write(name: str = "run", **changed: Any) -> Path:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(options | {"output": name} | changed))
        return path

    return write


def anchoring_of(config: Path) -> Trainer:
    settings = read_config(config, AnchoringConfig)
    return Trainer(Anchoring(settings, load_base_model(settings.base), Shards(settings.data)), log=lambda line: None)


# --- the folder ---


@torch.no_grad()
def test_one_text_encoder_is_read_twice(flux_folder: Path) -> None:
    base = load_base_model(flux_folder)
    ids = base.tokenizers[0](["a"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    own, text = base.text_encoders[0](ids), base.text(["a", "b, c"])
    assert torch.allclose(text.states[0], own.last_hidden_state[0], atol=1e-6)
    assert torch.allclose(text.pooled[0], own.pooler_output[0], atol=1e-6)
    assert base.base == "flux" and base.token_dim == base.pooled_dim == WIDTH


@torch.no_grad()
def test_states_are_t5s_and_pooled_text_is_clips(t5_folder: Path) -> None:
    base = load_base_model(t5_folder)
    clip, t5 = base.text_encoders
    ids = base.tokenizers[1](["a b"], padding="max_length", max_length=12, return_tensors="pt").input_ids
    text = base.text(["a b"])
    assert text.states.shape == (1, 12, WIDTH)
    assert torch.allclose(text.states, t5(ids).last_hidden_state, atol=1e-6)
    words = base.tokenizers[0](["a b"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    assert torch.allclose(text.pooled, clip(words).pooler_output, atol=1e-6)
    halved = load_base_model(t5_folder, half=True)
    assert {p.dtype for part in (halved.network, halved.text_encoders[1]) for p in part.parameters()} == {
        torch.bfloat16
    }


@torch.no_grad()
def test_the_beginning_is_the_frozen_flux_bit_for_bit(anchor: Recipes, flux_folder: Path) -> None:
    base = load_base_model(flux_folder)
    torch.manual_seed(1)
    noisy, times, text = torch.randn(2, 4, 8, 12), torch.tensor([0.1, 0.9]), base.text(["a", "b, c"])
    frozen = predict_noise(base, noisy, times, text, None, GATE)
    stage = anchoring_of(anchor()).stage
    assert isinstance(stage, Anchoring)
    assert torch.equal(predict_noise(stage._base, noisy, times, text, None, GATE), frozen)
    assert torch.equal(predict_noise(stage._base, noisy, times, text, torch.randn(2, 2, WIDTH), GATE), frozen)
    assert isinstance(stage._base.network, FluxTransformer2DModel) and frozen.abs().mean() > 0


@pytest.mark.parametrize(
    ("base", "option"),
    [("flux", {"max_loss_weight": 2.0}), ("flux", {"min_snr_gamma": 5.0}), ("unet", {"timestep_logit_mean": 0.5}),
     ("unet", {"identity_blocks": "double"})],
)  # fmt: skip
def test_what_a_base_has_no_use_for_is_refused_by_name(
    base: str, option: dict[str, Any], recipe: Recipes, base_folder: Path, flux_folder: Path, capsys: Any
) -> None:
    folder, title = (flux_folder, "Flux.1") if base == "flux" else (base_folder, "a Stable Diffusion UNet")
    assert main(["anchor", "--config", str(recipe(base=str(folder), **option))]) == 1
    (name,) = option
    assert f"{name}: not for {title}, as the base is; remove it." in capsys.readouterr().err


def test_another_scheduler_is_refused(flux_folder: Path, base_folder: Path, tmp_path: Path) -> None:
    for part in flux_folder.iterdir():
        (tmp_path / part.name).symlink_to((base_folder if part.name == "scheduler" else flux_folder) / part.name)
    with pytest.raises(ValueError, match="expected Flux's FlowMatchEulerDiscreteScheduler, got DDPMScheduler"):
        load_base_model(tmp_path)


# --- how it trains ---


@pytest.mark.parametrize("blocks", ["all", "double"])
def test_the_commands_lead_to_the_packs_own_file(
    blocks: str, anchor: Recipes, tmp_path: Path, base_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["anchor", "--config", str(anchor("anchored", steps=2, identity_blocks=blocks, sample_every=2))]) == 0
    anchored = tmp_path / "anchored" / "anchoring.safetensors"
    adapter = load_checkpoint(anchored).adapter
    assert adapter is not None and (adapter.base, adapter.identity_blocks) == ("flux", blocks)
    assert len(adapter.identity_layers) == {"all": 2, "double": 1}[blocks] and adapter.token_dim == WIDTH
    assert adapter.weights["0.to_v_ip.weight"].any() and adapter.weights["1.to_out_lora.up.weight"].any()
    assert (tmp_path / "anchored" / "samples-000002.png").is_file()
    shared = json.loads((tmp_path / "anchored.json").read_text())
    options = {key: shared[key] for key in ("base", "data", "size")} | {
        "output": "edited", "steps": 2, "adapter": str(anchored), "targets": 2, "dim": 64, "dim_head": 32,
        "keypoint_dims": [4, 4, 4, 4, 4, 8], "keypoint_depths": [1, 1, 1, 1, 1, 1], "keypoint_output": 8,
    }  # fmt: skip
    (tmp_path / "edited.json").write_text(json.dumps(options))
    assert main(["reconfigure", "--config", str(tmp_path / "edited.json")]) == 0
    whole = load_checkpoint(tmp_path / "edited" / "reconfiguration.safetensors")
    assert whole.imr is not None and whole.adapter is not None and whole.adapter.base == "flux"
    (tmp_path / "other.json").write_text(json.dumps(options | {"base": str(base_folder), "output": "other"}))
    assert main(["reconfigure", "--config", str(tmp_path / "other.json")]) == 1
    assert "was trained for Flux.1" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["anchor", "reconfigure"])
def test_going_on_after_a_kill_gives_the_same_bytes_and_so_does_a_second_run(
    stage: str, request: pytest.FixtureRequest
) -> None:
    recipe, run = request.getfixturevalue(stage), stages.STAGES[stage]
    whole = run(recipe("whole"), None).stage.folder
    run(recipe("again"), None)
    for killed_at in (1, 3):
        parts = recipe(f"killed at {killed_at}")
        run(parts, killed_at)
        run(parts, None)
    written = f"{'anchoring' if stage == 'anchor' else 'reconfiguration'}.safetensors"
    for other in ("again", "killed at 1", "killed at 3"):
        for file in ("losses.csv", written):
            assert (whole.parent / other / file).read_bytes() == (whole / file).read_bytes(), (other, file)
