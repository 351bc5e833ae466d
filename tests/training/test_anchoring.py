"""The anchoring stage on a tiny base model: what it computes at its beginning, that it learns, that it goes on."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint
from dynamicid_pack.dynamicid_core.configuration import read_config
from dynamicid_pack.dynamicid_core.training import history, stages
from dynamicid_pack.dynamicid_core.training.__main__ import main
from dynamicid_pack.dynamicid_core.training.anchoring import Anchoring
from dynamicid_pack.dynamicid_core.training.base_model import BaseNetworks, load_base_model
from dynamicid_pack.dynamicid_core.training.config import RENAMED, AnchoringConfig, ReconfigurationConfig
from dynamicid_pack.dynamicid_core.training.denoise import predict_noise
from dynamicid_pack.dynamicid_core.training.saa import SAA
from dynamicid_pack.dynamicid_core.training.shards import Shards, numbers_of
from dynamicid_pack.dynamicid_core.training.trainer import Trainer

from .conftest import new_process

Recipes = Callable[..., Path]
GATE: Any = SimpleNamespace(gate=True, gate_threshold=0.3)


@pytest.fixture
def base(base_folder: Path) -> BaseNetworks:
    return load_base_model(base_folder)


@pytest.fixture(params=["UNet", "Flux"])
def either(request: pytest.FixtureRequest, recipe: Recipes) -> Recipes:
    """Writes a recipe as `recipe` does, for each kind of base model."""
    if request.param == "UNet":
        return recipe
    return partial(recipe, base=str(request.getfixturevalue("flux_folder")))


def stage_of(config: Path) -> Anchoring:
    settings = read_config(config, AnchoringConfig)
    base = load_base_model(settings.base, half=settings.mixed_precision == "bf16")
    return Anchoring(settings, base, Shards(settings.data))


def training_of(config: Path) -> Trainer:
    stage = stage_of(config)
    return Trainer(stage, log=lambda line: None)


def weights(training: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in training.stage.trained.state_dict().items()}


# --- what is computed ---


def test_without_a_person_the_beginning_is_the_frozen_unets_bit_for_bit(base: BaseNetworks, base_folder: Path) -> None:
    torch.manual_seed(1)
    noisy, times, text = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), base.text(["a", "b, c"])
    frozen = UNet2DConditionModel.from_pretrained(base_folder / "unet").eval()
    SAA.of(base.network, 2).install(base.network)
    with torch.no_grad():
        expected = frozen(noisy, times, text.states).sample
        assert torch.equal(predict_noise(base, noisy, times, text, None, GATE), expected)
        with_person = predict_noise(base, noisy, times, text, torch.randn(2, 2, 64), GATE)
    assert not torch.allclose(with_person, expected)


def test_people_enter_by_the_texts_own_projections(base: BaseNetworks) -> None:
    """At the beginning, a person's tokens are read as if they were words."""
    saa = SAA.of(base.network, 2)
    state, unet = saa.state_dict(), base.network.state_dict()
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    assert torch.equal(state["1.to_k_ip.weight"], unet[f"{path}.to_k.weight"])
    assert torch.equal(state["1.to_v_ip.weight"], unet[f"{path}.to_v.weight"])
    assert not any(tensor.any() for name, tensor in state.items() if name.endswith("up.weight"))
    assert all(tensor.any() for name, tensor in state.items() if name.endswith("down.weight"))


def test_dropped_people_are_nobody(recipe: Recipes) -> None:
    stage = stage_of(recipe(identity_dropout=1.0, text_dropout=0.0, joint_dropout=0.0))
    batch = stage.batch(0, range(4))
    assert not batch.embedding.any() and torch.equal(batch.states[0], stage._base.negative_states()[0])
    assert not torch.equal(batch.text.states[0], stage._base.text([""]).states[0])
    wordless = stage_of(recipe(identity_dropout=0.0, text_dropout=1.0, joint_dropout=0.0)).batch(0, range(4))
    assert wordless.embedding.any() and torch.equal(wordless.text.states[0], stage._base.text([""]).states[0])


def test_shares_that_are_dropped_are_those_asked_for(recipe: Recipes) -> None:
    stage = stage_of(recipe(identity_dropout=0.2, text_dropout=0.1, joint_dropout=0.3))
    drawn = [stage._dropped(torch.Generator().manual_seed(seed)) for seed in range(3000)]
    shares = [sum(row == kind for row in drawn) / 3000 for kind in ((True, False), (False, True), (True, True))]
    assert shares == pytest.approx([0.2, 0.1, 0.3], abs=0.03)


def test_another_picture_of_the_same_person_can_be_the_reference(recipe: Recipes) -> None:
    stage = stage_of(recipe(other_reference=True))
    for number in range(len(stage._shards)):
        other = stage._reference(number, torch.Generator().manual_seed(number))
        assert other != number and stage._shards.persons[other] == stage._shards.persons[number]


def test_the_loss_weighs_each_cells_error(recipe: Recipes) -> None:
    stage = stage_of(recipe())
    batch = stage.batch(0, range(4))
    loss = stage.module(batch)["loss"]
    assert torch.allclose(stage.module(replace(batch, weight=2 * batch.weight))["loss"], 2 * loss)


def test_faces_weigh_more_where_asked(recipe: Recipes) -> None:
    weight = stage_of(recipe(face_loss_weight=3.0)).batch(0, range(4)).weight
    assert torch.allclose(weight.mean((1, 2, 3)), torch.ones(4))
    assert torch.allclose(weight.amax((1, 2, 3)), 3 * weight.amin((1, 2, 3)))
    wider = stage_of(recipe(face_loss_weight=3.0, face_loss_margin=0.4)).batch(0, range(4)).weight
    heavy, more = ((x > x.amin((1, 2, 3), keepdim=True)).sum((1, 2, 3)) for x in (weight, wider))
    assert (more > heavy).all() and (more < 5 * heavy).all()


# --- how it trains ---


def test_the_loss_falls_on_one_batch_and_all_that_is_trained_moves(either: Recipes) -> None:
    training = training_of(either(learning_rate=3e-3, identity_dropout=0.0, text_dropout=0.0, joint_dropout=0.0))
    stage = training.stage
    assert isinstance(stage, Anchoring)
    batch = stage.batch(0, range(4))
    stage.batch = lambda *_: batch  # type: ignore[method-assign]
    before = weights(training)
    losses = [training.one_step()["loss"] for _ in range(40)]
    assert losses[-1] < 0.9 * losses[0]
    still = [name for name, tensor in weights(training).items() if torch.equal(tensor, before[name])]
    assert not still
    assert not any(parameter.requires_grad for parameter in training.stage._base.network.parameters())  # type: ignore[attr-defined]


def test_going_on_after_a_kill_gives_the_same_weights(recipe: Recipes) -> None:
    whole = stages.anchor(recipe("whole"))
    for killed_at in (1, 3):
        parts = recipe(f"killed at {killed_at}")
        stages.anchor(parts, killed_at)
        killed = training_of(parts)
        assert killed.step == killed_at
        killed.one_step()  # that no checkpoint holds
        resumed = stages.anchor(parts)
        assert resumed.step == 4
        for name, tensor in weights(whole).items():
            assert torch.equal(weights(resumed)[name], tensor), name
        for file in ("losses.csv", "anchoring.safetensors"):
            assert (resumed.stage.folder / file).read_bytes() == (whole.stage.folder / file).read_bytes()


def test_a_kill_between_two_moves_loses_nothing(recipe: Recipes) -> None:
    config = recipe()
    training = stages.anchor(config, 2)
    last = training.stage.folder / "checkpoint-00000002"
    older, part = shutil.copytree(last, config.parent / "older"), last.with_name("part")
    shutil.copytree(last, part)  # of a checkpoint that was not moved to its place yet
    assert training_of(config).step == 2
    stages.anchor(config, 3)
    shutil.move(older, last)  # not removed yet
    assert training_of(config).step == 3


def test_parts_of_a_batch_give_the_step_of_the_whole(recipe: Recipes) -> None:
    whole = training_of(recipe("whole"))
    loss = whole.one_step()["loss"]
    new_process()
    parts = training_of(recipe("parts", gradient_accumulation_steps=2))
    assert parts.one_step()["loss"] == pytest.approx(loss, rel=1e-5)
    apart = [(weights(parts)[name] - tensor).norm() / tensor.norm() for name, tensor in weights(whole).items()]
    assert max(apart) < 1e-2  # Adam's first step is as long for a gradient near zero as for any


def test_half_precision_trains_alike(either: Recipes) -> None:
    exact = training_of(either("exact"))
    losses = [exact.one_step()["loss"] for _ in range(3)]
    new_process()
    halved = training_of(either("halved", mixed_precision="bf16"))
    assert [halved.one_step()["loss"] for _ in range(3)] == pytest.approx(losses, rel=0.02)
    assert {tensor.dtype for tensor in weights(halved).values()} == {torch.float32}


def test_memory_saved_changes_nothing(either: Recipes) -> None:
    plain, saving = training_of(either("plain")), training_of(either("saving", gradient_checkpointing=True))
    assert plain.one_step() == saving.one_step()
    for name, tensor in weights(plain).items():
        assert torch.allclose(weights(saving)[name], tensor, atol=1e-6), name


def test_what_is_written_is_the_packs_own_file(recipe: Recipes) -> None:
    assert main(["anchor", "--config", str(recipe(sample_every=2))]) == 0
    output = recipe().parent / "run"
    checkpoint = load_checkpoint(output / "anchoring.safetensors")
    assert checkpoint.adapter is not None and checkpoint.face_encoder is not None
    assert checkpoint.adapter.tokens == 2 and checkpoint.adapter.encoder_fingerprint and checkpoint.adapter.rank == 2
    assert (output / "samples-000002.png").read_bytes().startswith(b"\x89PNG")
    assert list(output.rglob("events.out.tfevents*"))


def test_pictures_left_as_they_are_are_drawn_in_their_size(recipe: Recipes) -> None:
    training = training_of(recipe(size=0))
    assert np.asarray(training.stage.samples(training.stage.trained)).shape == (2 * 128, 4 * 128, 3)


# --- what is told ---


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"stepz": 3}, "stepz is unknown"),
        ({"steps": "many"}, "steps: Input should be a valid integer"),
        ({"batch": 0}, "batch: Input should be greater than 0"),
        ({"mixed_precision": "fp8"}, "mixed_precision: Input should be 'no', 'bf16' or 'fp16'"),
        ({"data": "nowhere"}, "expected WebDataset shards"),
        ({"base": "nowhere"}, "missing unet"),
        ({"gradient_accumulation_steps": 3}, "can't be shared"),
    ],
)
def test_a_recipe_that_does_not_fit_is_told(recipe: Recipes, capsys, changed: dict, message: str) -> None:
    assert main(["anchor", "--config", str(recipe(**changed))]) == 1
    assert message in capsys.readouterr().err


def test_a_recipe_that_is_no_json_is_told(tmp_path: Path, capsys) -> None:
    (tmp_path / "recipe.json").write_text("{steps: 3}")
    assert main(["anchor", "--config", str(tmp_path / "recipe.json")]) == 1
    assert "Invalid JSON" in capsys.readouterr().err
    (tmp_path / "recipe.json").write_text(json.dumps({"steps": 3}))
    assert main(["anchor", "--config", str(tmp_path / "recipe.json")]) == 1
    assert "is missing" in capsys.readouterr().err


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_key_of_earlier_versions_is_told_its_new_name(recipe: Recipes, old: str, new: str) -> None:
    with pytest.raises(ValueError, match=rf"{old} is called {new} now"):
        read_config(recipe(**{old: 1}), ReconfigurationConfig, RENAMED)
    assert new in AnchoringConfig.model_fields or new in ReconfigurationConfig.model_fields


def test_the_losses_so_far_survive_a_kill_at_the_start_of_a_run(
    recipe: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = recipe()
    folder = stages.anchor(config, 2).stage.folder
    before = (folder / "losses.csv").read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(history, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        training_of(config).run()
    assert (folder / "losses.csv").read_bytes() == before and before.count(b"\n") == 3


def test_a_training_that_is_told_to_stop_ends_with_a_checkpoint(recipe: Recipes) -> None:
    training = training_of(recipe())
    with training.stopping_on_signals():
        signal.raise_signal(signal.SIGTERM)
        training.run()
    assert training.stopped and training.step == 0
    assert training_of(recipe()).step == 0 and (training.stage.folder / "checkpoint-00000000").is_dir()


def test_a_step_without_a_finite_gradient_changes_no_weight(recipe: Recipes) -> None:
    training = training_of(recipe())
    before = weights(training)
    true_losses = training.stage.losses
    training.stage.losses = lambda *step: {"loss": true_losses(*step)["loss"] * float("nan")}  # type: ignore[method-assign]
    training.one_step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(training).items())


def test_every_picture_is_seen_once_a_turn() -> None:
    seen = [int(number) for step in range(5) for number in numbers_of(step, 4, 10, 0)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]
    assert list(numbers_of(0, 10, 10, 1)) != seen[:10]
