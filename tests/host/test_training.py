"""What is trained on diffusers' UNet is what the host draws with: the same noise on the same weights, the same file."""

from pathlib import Path
from types import SimpleNamespace

import comfy.cli_args
import pytest
import torch
from dynamicid_pack.dynamicid_core.host.apply import apply_scene
from dynamicid_pack.dynamicid_core.host.miniature import WEIGHTS, Miniature, load_miniature
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from dynamicid_pack.dynamicid_core.host.sampling_run import AttentionSettings
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.adapter import adapter_from_weights
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.dynamicid_core.training.anchoring import Anchoring
from dynamicid_pack.dynamicid_core.training.base_model import BaseNetworks, TextStates, load_base_model
from dynamicid_pack.dynamicid_core.training.config import AnchoringConfig
from dynamicid_pack.dynamicid_core.training.denoise import predict_noise
from dynamicid_pack.dynamicid_core.training.saa import SAA
from dynamicid_pack.mini.__main__ import main
from torch import Tensor

from . import probe

PROMPT = "a portrait of a person in a red hoodie, at the beach, in a happy expression, in front view"


@pytest.fixture(scope="module")
def miniature() -> Miniature:
    return load_miniature()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    exported = tmp_path_factory.mktemp("exported")
    assert main(["export", "--from", str(WEIGHTS), "--to", str(exported)]) == 0
    return exported


@pytest.fixture
def base(folder: Path) -> BaseNetworks:
    return load_base_model(folder)


def apart(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).norm() / expected.norm())


def test_what_is_exported_computes_as_in_the_host(base: BaseNetworks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy.cli_args.args, "fp32_text_enc", True)  # else they are in half precision
    monkeypatch.setattr(comfy.cli_args.args, "fp32_vae", True)
    miniature = load_miniature()
    states, pooled = miniature.clip.encode_from_tokens(miniature.clip.tokenize(PROMPT), return_pooled=True)
    encoded = base.text([PROMPT])
    assert apart(encoded[0], states) < 1e-5 and apart(encoded[1], pooled) < 1e-5
    pictures = torch.rand(2, 128, 128, 3)
    image = pictures.permute(0, 3, 1, 2)
    host = miniature.dynamicid.vision.encode_image(pictures)["penultimate_hidden_states"]
    assert apart(base.image_states(image), host) < 1e-4
    stored = miniature.vae.encode(pictures)  # as the host keeps latents outside of the UNet
    latents = miniature.model.model.latent_format.process_in(stored)
    assert apart(base.moments(image)[0], latents) < 1e-3
    assert apart(base.images(latents.clone()).permute(0, 2, 3, 1), miniature.vae.decode(stored)) < 1e-3


@pytest.mark.parametrize(("gate", "threshold"), [(True, 0.3), (True, 0.0), (False, 0.3)])
def test_diffusers_and_the_host_predict_the_same_noise(
    miniature: Miniature, base: BaseNetworks, gate: bool, threshold: float
) -> None:
    torch.manual_seed(2)
    saa = SAA.of(base.network, 4)
    for name, parameter in saa.named_parameters():
        if name.endswith("up.weight"):
            torch.nn.init.normal_(parameter, std=0.05)
    saa.install(base.network)
    adapter = adapter_from_weights({name: tensor.clone() for name, tensor in saa.state_dict().items()})
    person = Identity(torch.randn(4, 128), torch.randn(4, 128))
    settings = AttentionSettings(layout_steps=0, gate_threshold=threshold, gate=gate)
    patched = apply_scene(miniature.model, adapter, (Placement(person, Region()),), settings)
    given: list[tuple[Tensor, Tensor, Tensor, list[int]]] = []

    def noted(x: Tensor, times: Tensor, context: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
        given.append((x.clone(), times.clone(), context.clone(), list(options["cond_or_uncond"])))
        return x, times, context

    watched, calls = probe.watched(patched, noted)
    probe.sample(watched, torch.randn(1, 77, 128), torch.randn(1, 77, 128), size=(16, 24), steps=3)
    assert len(given) == 3
    for (x, times, context, roles), expected in zip(given, calls.outputs, strict=True):
        tokens = torch.stack([person.negative_tokens if role == 1 else person.tokens for role in roles])
        text, gating = TextStates(context, context[:, -1]), SimpleNamespace(gate=gate, gate_threshold=threshold)
        with torch.no_grad():
            predicted = predict_noise(base, x, times, text, tokens, gating)  # type: ignore[arg-type]
            nobody = predict_noise(base, x, times, text, None, gating)  # type: ignore[arg-type]
        assert apart(predicted, expected) < 1e-4 < 1e-2 < apart(nobody, expected)


def test_trained_weights_load_and_draw(miniature: Miniature, base: BaseNetworks, tmp_path: Path) -> None:
    config = AnchoringConfig(base=tmp_path, data=tmp_path, output=tmp_path, steps=1, rank=4, hidden_dim=64, depth=1)
    stage = Anchoring(config, base, shards=None)  # type: ignore[arg-type]  # no step is taken
    stage.write(stage.trained)
    loaded = load_dynamicid(tmp_path / "anchoring.safetensors")
    states = torch.randn(1, 65, base.image_encoder.config.hidden_size)
    embedding = torch.nn.functional.normalize(torch.randn(1, 512), dim=1)
    tokens = loaded.face_encoder(embedding, states)[0]
    with torch.no_grad():
        assert apart(tokens, stage.trained["face_encoder"](embedding, states)[0]) < 1e-5
    person = Identity(tokens, torch.randn(4, 128), loaded.adapter.encoder_fingerprint)
    patched = apply_scene(miniature.model, loaded.adapter, (Placement(person, Region()),), AttentionSettings())
    text, latent = torch.randn(1, 77, 128), torch.zeros(1, 4, 16, 16)
    drawn, plain = (probe.sample(model, text, text, size=(16, 16), steps=2) for model in (patched, miniature.model))
    assert drawn.isfinite().all() and latent.shape == drawn.shape and not torch.allclose(drawn, plain)
