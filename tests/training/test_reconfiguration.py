"""The reconfiguration stage on a tiny base model: its losses, that it learns, that it goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint
from dynamicid_pack.dynamicid_core.configuration import read_config
from dynamicid_pack.dynamicid_core.imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from dynamicid_pack.dynamicid_core.training import stages
from dynamicid_pack.dynamicid_core.training.__main__ import main
from dynamicid_pack.dynamicid_core.training.base_model import load_base_model
from dynamicid_pack.dynamicid_core.training.config import ReconfigurationConfig
from dynamicid_pack.dynamicid_core.training.reconfiguration import Reconfiguration, contrastive
from dynamicid_pack.dynamicid_core.training.shards import Shards
from dynamicid_pack.dynamicid_core.training.trainer import Trainer

from .conftest import new_process, write_recipe


@pytest.fixture(scope="module")
def anchored(tmp_path_factory: pytest.TempPathFactory, base_folder: Path, shards_folder: Path) -> Path:
    """What an anchoring of one step writes."""
    config = write_recipe(tmp_path_factory.mktemp("anchored"), base_folder, shards_folder, steps=1)
    return stages.anchor(config).stage.folder / "anchoring.safetensors"


@pytest.fixture
def editing(tmp_path: Path, recipe: Callable[..., Path], anchored: Path) -> Callable[..., Path]:
    """Writes a reconfiguration recipe after an anchoring of one step: `editing(steps=4, ...)` is its file."""
    new_process()
    shared = json.loads(recipe("shared").read_text())

    def write(name: str = "edit", **changed: Any) -> Path:
        options = {key: shared[key] for key in ("base", "data", "size", "learning_rate", "save_every", "sample_every")}
        options |= {
            "output": name, "steps": 4, "adapter": str(anchored), "targets": 3, "dim": 64, "latents": 2,
            "dim_head": 32, "keypoint_dims": [4, 4, 4, 4, 4, 8], "keypoint_depths": [1, 1, 1, 1, 1, 1],
            "keypoint_output": 8,
        }  # fmt: skip
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(options | changed))
        return path

    return write


def stage_of(config: Path, processes: int = 1) -> Reconfiguration:
    settings = read_config(config, ReconfigurationConfig)
    return Reconfiguration(settings, load_base_model(settings.base), Shards(settings.data), processes)


def training_of(config: Path) -> Trainer:
    stage = stage_of(config)
    return Trainer(stage, log=lambda line: None)


def weights(training: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in training.stage.trained.state_dict().items()}


def test_a_step_sees_one_person_and_asks_for_motions_of_theirs(editing: Callable[..., Path]) -> None:
    stage = stage_of(editing(people=2))
    shards = stage._shards
    known = {tuple(shards.array(n, "tokens").ravel().tolist()): shards.persons[n] for n in range(len(shards))}
    for step in range(4):
        batch = stage.batch(step, range(2))
        sources = [known[tuple(row.ravel().tolist())] for row in batch.source.tokens]
        targets = [known[tuple(row.ravel().tolist())] for row in batch.target.tokens]
        assert targets == [person for person in sources for _ in range(3)] and len(set(sources)) == 2
    assert batch.source.keypoints.unique().tolist() == [-1.0, 1.0] and batch.noisy.shape[0] == 6


def test_the_loss_is_tokens_and_lambda_times_what_the_unet_makes_of_them(editing: Callable[..., Path]) -> None:
    stage = stage_of(editing(consistency_weight=0.5))
    losses = stage.module(stage.batch(0, [0]))
    expected = float(losses["tokens"] + 0.5 * losses["consistency"])
    assert float(losses["loss"]) == pytest.approx(expected, rel=1e-6)
    assert losses["consistency"] > 0
    perfect = stage.batch(0, [0])
    stage.trained["imr"].entangle = lambda identity, target: perfect.target.tokens.clone()  # type: ignore[assignment]
    assert float(stage.module(perfect)["loss"]) == 0


def test_the_unet_is_asked_of_the_first_targets_of_each_person_alone(editing: Callable[..., Path]) -> None:
    stage = stage_of(editing(people=2, consistency_targets=2))
    batch = stage.batch(0, range(2))
    assert batch.target.tokens.shape[0] == 6 and batch.noisy.shape[0] == batch.timesteps.shape[0] == 4
    true = batch.target.tokens.clone()

    def consistency(wrong: int) -> float:
        """With the tokens of one target missed."""
        predicted = true.clone()
        predicted[wrong] += 1
        stage.trained["imr"].entangle = lambda identity, target: predicted  # type: ignore[assignment]
        return float(stage.module(batch)["consistency"])

    assert [consistency(wrong) > 0 for wrong in range(6)] == [True, True, False, True, True, False]


def test_frozen_parts_stay_and_edited_ones_move(editing: Callable[..., Path]) -> None:
    training = training_of(editing(learning_rate=3e-3))
    stage = training.stage
    assert isinstance(stage, Reconfiguration)
    batch = stage.batch(0, [0])
    stage.batch = lambda *_: batch  # type: ignore[method-assign]
    before, unet = weights(training), {n: p.clone() for n, p in stage._base.network.named_parameters()}
    losses = [training.one_step()["loss"] for _ in range(60)]
    assert losses[-1] < 0.7 * losses[0]
    still = [name for name, tensor in weights(training).items() if torch.equal(tensor, before[name])]
    assert not still
    assert all(torch.equal(parameter, unet[name]) for name, parameter in stage._base.network.named_parameters())


def test_going_on_after_a_kill_gives_the_same_weights(editing: Callable[..., Path]) -> None:
    whole = stages.reconfigure(editing("whole"))
    for killed_at in (1, 3):
        parts = editing(f"killed at {killed_at}")
        stages.reconfigure(parts, killed_at)
        resumed = stages.reconfigure(parts)
        for name, tensor in weights(whole).items():
            assert torch.equal(weights(resumed)[name], tensor), name
        name = "reconfiguration.safetensors"
        assert (resumed.stage.folder / name).read_bytes() == (whole.stage.folder / name).read_bytes()


def test_one_file_holds_all_parts(editing: Callable[..., Path]) -> None:
    config = editing(sample_every=2)
    assert main(["reconfigure", "--config", str(config)]) == 0
    output = config.parent / "edit"
    whole = load_checkpoint(output / "reconfiguration.safetensors")
    assert whole.adapter is not None and whole.face_encoder is not None
    assert whole.imr is not None and whole.keypoint_encoder is not None
    IdentityMotionReconfigurator.from_weights(whole.imr, dim_head=32)
    KeypointEncoder.from_weights(whole.keypoint_encoder)
    assert (output / "samples-000002.png").read_bytes().startswith(b"\x89PNG")


def test_the_contrastive_term_is_least_where_people_are_themselves() -> None:
    torch.manual_seed(0)
    people = torch.randn(5, 2, 16)
    alike, mixed = contrastive(people, people, 0.1), contrastive(people, people.roll(1, 0), 0.1)
    assert alike < 0.05 < 3 < mixed
    uniform = contrastive(torch.ones(5, 2, 16), torch.ones(5, 2, 16), 0.1)
    assert float(uniform) == pytest.approx(torch.log(torch.tensor(5.0)).item(), rel=1e-5)


def test_the_contrastive_term_joins_the_loss(editing: Callable[..., Path]) -> None:
    stage = stage_of(editing(contrastive_weight=0.3, people=2, consistency_weight=0.0))
    losses = stage.module(stage.batch(0, range(2)))
    assert float(losses["loss"]) == pytest.approx(float(losses["tokens"] + 0.3 * losses["contrast"]), rel=1e-6)
    assert "consistency" not in losses
    with pytest.raises(ValueError, match="Set people to 4 or more"):
        stage_of(editing(contrastive_weight=0.3, people=2), processes=2)


def test_an_adapter_without_its_parts_is_told(editing: Callable[..., Path], tmp_path: Path, capsys) -> None:
    config = editing(adapter=str(tmp_path / "nothing.safetensors"))
    assert main(["reconfigure", "--config", str(config)]) == 1
    assert "nothing.safetensors" in capsys.readouterr().err
