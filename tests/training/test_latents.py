"""Latents that are encoded once are those that every step would have encoded."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from dynamicid_pack.dynamicid_core.training import stages
from dynamicid_pack.dynamicid_core.training.base_model import BaseNetworks, load_base_model
from dynamicid_pack.dynamicid_core.training.latents import Latents
from dynamicid_pack.dynamicid_core.training.rng import seeded_generator
from dynamicid_pack.dynamicid_core.training.shards import Shards


def said_nothing(line: str) -> None: ...


def drawn(latents: Latents, numbers: list[int]) -> torch.Tensor:
    return latents.sample(numbers, [seeded_generator(0, 0, number) for number in numbers])


@pytest.fixture
def shards(shards_folder: Path, tmp_path: Path) -> Shards:
    shutil.copytree(shards_folder, tmp_path / "shards")
    return Shards(tmp_path / "shards")


@pytest.fixture(params=["plain", "variational"])
def base(request: pytest.FixtureRequest, base_folder: Path, tmp_path: Path) -> BaseNetworks:
    if request.param == "plain":
        return load_base_model(base_folder)
    shutil.copytree(base_folder, tmp_path / "base")
    shutil.rmtree(tmp_path / "base" / "vae")
    torch.manual_seed(1)
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(tmp_path / "base" / "vae")  # fmt: skip
    return load_base_model(tmp_path / "base")


def test_kept_latents_are_those_of_the_pictures(base: BaseNetworks, shards: Shards, tmp_path: Path) -> None:
    kept = Latents(base, shards, 32, tmp_path / "latents")
    kept.encode(said_nothing)
    numbers = [len(shards) - 1, 0, 5]
    fresh = drawn(Latents(base, shards, 32), numbers)
    assert fresh.shape == (3, 4, 4, 4) and fresh.std() > 0
    assert torch.allclose(drawn(kept, numbers), fresh, atol=2e-3 * float(fresh.abs().max()))


def test_a_variational_encoders_latents_are_drawn_anew(base: BaseNetworks, shards: Shards, tmp_path: Path) -> None:
    kept = Latents(base, shards, 32, tmp_path / "latents")
    kept.encode(said_nothing)
    one, other = (kept.sample([0], [seeded_generator(0, step, -1)]) for step in (1, 2))
    assert torch.equal(one, other) == (type(base.vae).__name__ == "AutoencoderTiny")


def test_shards_are_encoded_once_and_again_when_they_change(base: BaseNetworks, shards: Shards, tmp_path: Path) -> None:
    told: list[str] = []
    for process in (0, 1):
        Latents(base, shards, 32, tmp_path / "latents").encode(told.append, process, 2)
    assert len(told) == len(shards.numbers)
    Latents(base, shards, 32, tmp_path / "latents").encode(told.append)
    assert len(told) == len(shards.numbers)
    first = next(iter(shards.numbers))
    first.write_bytes(first.read_bytes() + bytes(1024))
    Latents(base, shards, 32, tmp_path / "latents").encode(told.append)
    assert told[len(shards.numbers) :] == [f"encoding {first.name}, 1 of 1"]


def test_a_training_takes_them_from_its_cache(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.anchor(recipe("first", latent_cache=str(tmp_path / "latents")), 1)

    def refuse(*_: Any) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Latents, "_write", refuse)
    assert stages.anchor(recipe("second", latent_cache=str(tmp_path / "latents")), 1).step == 1
