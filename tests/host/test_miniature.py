"""The shipped miniature: the host's own objects hold it, and the pack's nodes work on it."""

import shutil
from pathlib import Path

import comfy.sample
import comfy.samplers
import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import Checkpoint, save_checkpoint
from dynamicid_pack.dynamicid_core.host import folders
from dynamicid_pack.dynamicid_core.host.apply import apply_scene
from dynamicid_pack.dynamicid_core.host.lora import LoraStrength
from dynamicid_pack.dynamicid_core.host.miniature import WEIGHTS, Miniature, bases, load_miniature
from dynamicid_pack.dynamicid_core.host.sampling_run import AttentionSettings
from dynamicid_pack.dynamicid_core.identity.encoder import FaceEncoder
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.adapter import adapter_from_weights
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.dynamicid_core.state_dict import fingerprint
from dynamicid_pack.mini.networks import FLUX, FLUX_SHIFT
from dynamicid_pack.mini.quantize import dequantize, quantize
from dynamicid_pack.mini.train.experiments import LORA
from dynamicid_pack.mini.train.ship import keep_dynamicid
from dynamicid_pack.nodes.apply import Apply
from dynamicid_pack.nodes.load import LoadDynamicIDMini
from safetensors.torch import load_file, save_file
from torch import Tensor

from .probe import lora_strengths

PROMPT = "a portrait of a person in a red hoodie, at the beach, in a happy expression, in front view"


@pytest.fixture(scope="module")
def miniature() -> Miniature:
    return load_miniature()


def sampled(model, miniature: Miniature, prompt: str = PROMPT, steps: int = 8) -> Tensor:
    """Sample one latent (1, 4, 16, 16) from a model and the miniature's text encoder."""
    clip, latent = miniature.clip, torch.zeros(1, 4, 16, 16)
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (prompt, ""))
    noise = comfy.sample.prepare_noise(latent, 7)
    return comfy.sample.sample(
        model, noise, steps, 4.0, "euler", "normal", positive, negative, latent, disable_pbar=True
    )  # fmt: skip


def test_its_networks_are_the_hosts_in_small(miniature: Miniature) -> None:
    unet = miniature.model.model.diffusion_model
    assert sum(weight.numel() for weight in unet.parameters()) == 12_634_244
    heads = {block.attn1.heads for block in unet.modules() if hasattr(block, "attn1")}
    assert heads == {4}  # as trained; the host's class would take eight
    states, pooled = miniature.clip.encode_from_tokens(miniature.clip.tokenize(PROMPT), return_pooled=True)
    assert states.shape == (1, 77, 128) and pooled.shape == (1, 128)
    picture = torch.rand(1, 128, 256, 3)
    latent = miniature.vae.encode(picture)
    assert latent.shape == (1, 4, 16, 32) and miniature.vae.decode(latent).shape == picture.shape


def test_unknown_words_all_mean_the_same(miniature: Miniature) -> None:
    zebra, photo, person = (
        miniature.clip.encode_from_tokens(miniature.clip.tokenize(word)) for word in ("zebra", "photo", "person")
    )
    assert torch.equal(zebra, photo) and not torch.allclose(zebra, person)


def test_its_dynamicid_has_all_parts_and_draws_other_people_by_other_tokens(miniature: Miniature) -> None:
    dynamicid = miniature.dynamicid
    adapter, checkpoint = dynamicid.adapter, dynamicid.checkpoint
    assert adapter.tokens == 4 and adapter.token_dim == 128
    assert checkpoint.imr is not None and checkpoint.keypoint_encoder is not None
    drawn = [sampled(miniature.model, miniature)]
    for seed in (1, 2):
        torch.manual_seed(seed)
        person = Identity(torch.randn(4, 128), torch.randn(4, 128), adapter.encoder_fingerprint)
        patched = apply_scene(miniature.model, adapter, (Placement(person, Region()),), AttentionSettings())
        drawn.append(sampled(patched, miniature))
    assert all((one - other).abs().mean() > 0.05 for i, one in enumerate(drawn) for other in drawn[:i])


@pytest.mark.parametrize("people", [1, 2, 3])
def test_several_people_are_drawn_without_the_lora_in_the_middle_block(miniature: Miniature, people: int) -> None:
    dynamicid = miniature.dynamicid
    someone = Identity(torch.randn(4, 128), torch.randn(4, 128), dynamicid.adapter.encoder_fingerprint)
    everybody = {f"person_{number}": someone for number in range(people)}
    applied = Apply.execute(miniature.model, dynamicid, everybody, 1.0).result[0]
    assert lora_strengths(applied) == ({0.75 if people == 3 else 1.0}, {1.0} if people == 1 else set())
    as_drawn = LoraStrength(LORA[people]["lora_strength"], LORA[people]["lora_middle"])
    assert dynamicid.lora_for(people) == as_drawn, "the experiments draw groups as Apply DynamicID does"
    assert dynamicid.lora_for(4) == dynamicid.lora_for(3)


def test_a_dynamicid_that_was_trained_for_it_takes_the_place_of_the_shipped_one(
    miniature: Miniature, tmp_path: Path
) -> None:
    trained = dict(miniature.dynamicid.adapter.weights)
    trained["1.to_v_ip.weight"] = torch.randn(trained["1.to_v_ip.weight"].shape)
    encoder = miniature.dynamicid.checkpoint.face_encoder
    assert encoder is not None
    adapter = adapter_from_weights(trained, fingerprint(encoder), 4)
    save_checkpoint(Checkpoint(adapter, encoder, None, None), tmp_path / "trained.safetensors")
    chosen = load_miniature(adapter=tmp_path / "trained.safetensors").dynamicid
    assert chosen.adapter.fingerprint == adapter.fingerprint and chosen.load_faces is not None

    shutil.copytree(WEIGHTS, tmp_path / "weights")
    keep_dynamicid(tmp_path / "trained.safetensors", tmp_path / "weights")
    shipped = load_miniature(tmp_path / "weights").dynamicid
    values = shipped.adapter.weights["1.to_v_ip.weight"]
    assert values is not None and torch.allclose(values, trained["1.to_v_ip.weight"], atol=0.03)
    FaceEncoder.from_weights(shipped.checkpoint.face_encoder or {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="text"):
        load_miniature(tmp_path)


def test_all_files_together_stay_small() -> None:
    sizes = {file.name: file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()}
    transformer = sum(size for name, size in sizes.items() if "flux" in name)
    assert transformer < 15_000_000 and sum(sizes.values()) - transformer < 30_000_000


# --- the transformer ---


@pytest.fixture(scope="module")
def with_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped files, and a Flux whose weights are random, as `python -m mini ship` writes it."""
    from comfy.ldm.flux.model import Flux
    from comfy.ops import disable_weight_init

    folder = tmp_path_factory.mktemp("with-flux")
    for file in WEIGHTS.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "flux.safetensors").unlink(missing_ok=True)
    (folder / "dynamicid-flux.safetensors").unlink(missing_ok=True)
    torch.manual_seed(0)
    network = Flux(**FLUX, dtype=torch.float32, operations=disable_weight_init)
    state = {name: 0.05 * torch.randn(weight.shape) for name, weight in network.state_dict().items()}
    save_file(quantize(state), folder / "flux.safetensors", {"format": "dynamicid-mini-1"})
    return folder


def test_its_transformer_is_the_hosts_in_small_and_flows(with_flux: Path) -> None:
    from comfy.ldm.flux.model import Flux
    from comfy.ops import disable_weight_init

    patcher = load_miniature(with_flux, base="Flux").model
    patcher.model.to(torch.float32)
    network = Flux(**FLUX, dtype=torch.float32, operations=disable_weight_init)
    network.load_state_dict(dequantize(load_file(with_flux / "flux.safetensors")))
    x, states, pooled = torch.randn(1, 4, 16, 32), torch.randn(1, 77, 128), torch.randn(1, 128)
    sampling = patcher.model.model_sampling
    time = FLUX_SHIFT * 0.5 / (1 + (FLUX_SHIFT - 1) * 0.5)
    assert sampling.percent_to_sigma(0.5) == pytest.approx(time) and float(sampling.sigma_max) == 1
    at = torch.tensor([time])
    with torch.inference_mode():
        denoised = patcher.model.apply_model(x, at, c_crossattn=states, y=pooled)
        velocity = network(x, at, states, pooled)
    assert velocity.std() > 0.01
    assert torch.allclose(denoised, x - time * velocity, atol=1e-4)


def test_the_hosts_sampler_draws_with_the_transformer(with_flux: Path) -> None:
    loaded = load_miniature(with_flux, base="Flux")
    latent = sampled(loaded.model, loaded, steps=2)
    assert latent.shape == (1, 4, 16, 16) and latent.isfinite().all()
    assert not torch.equal(latent, sampled(loaded.model, loaded, "a portrait of a person", steps=2))
    assert loaded.vae.decode(latent).shape == (1, 128, 128, 3)


def test_a_transformer_that_does_not_ship_is_missed_by_name(with_flux: Path, tmp_path: Path) -> None:
    for file in with_flux.iterdir():
        if file.name != "flux.safetensors":
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(FileNotFoundError, match=r"flux\.safetensors.*Choose UNet as base.*mini train --stage flux"):
        load_miniature(tmp_path, base="Flux")
    assert load_miniature(tmp_path).model.model.diffusion_model is not None


def test_without_a_dynamicid_for_the_transformer_the_unets_comes_with_a_warning(
    with_flux: Path, miniature: Miniature, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load_miniature(with_flux, base="Flux")
    assert loaded.dynamicid.adapter.fingerprint == miniature.dynamicid.adapter.fingerprint
    assert "ships no DynamicID for the miniature's Flux" in caplog.text
    (with_flux / "dynamicid-flux.safetensors").symlink_to(WEIGHTS / "dynamicid.safetensors")
    caplog.clear()
    load_miniature(with_flux, base="Flux")
    (with_flux / "dynamicid-flux.safetensors").unlink()
    assert not caplog.text


def test_the_base_is_the_last_widget_and_offers_what_is_there(with_flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.register()
    *_, last = LoadDynamicIDMini.define_schema().inputs
    assert last.id == "base" and last.default == "UNet" and last.options == bases() and last.optional
    assert bases()[0] == "UNet" and bases(with_flux) == ["UNet", "Flux"]
    assert ("Flux" in last.options) == (WEIGHTS / "flux.safetensors").is_file()
