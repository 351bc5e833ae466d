"""Encode Identity for FaceID's kinds, on rendered people: the miniature's own weights, under FaceID's names."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import save_checkpoint
from dynamicid_pack.dynamicid_core.host import vision
from dynamicid_pack.dynamicid_core.host.apply import apply_scene
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.host.sampling_run import AttentionSettings
from dynamicid_pack.dynamicid_core.identity.encoding import ENCODINGS, RELEASE
from dynamicid_pack.dynamicid_core.identity.identity import Identity, load_identity, save_identity
from dynamicid_pack.dynamicid_core.saa.scene import arrange
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.nodes.apply import Apply
from dynamicid_pack.nodes.encode import EncodeIdentity
from insightface.utils import face_align
from torch import Tensor

from .test_miniature import sampled

WORLD = World(seed=9, held_out_people=True)
WIDGETS = {"face": "largest", "index": 0, "crop": "auto", "combine": "average", "no_face": "error"}
KINDS = [kind for kind in ENCODINGS if kind != RELEASE.kind]


@pytest.fixture(scope="module")
def ours() -> Miniature:
    return load_miniature()


@pytest.fixture(scope="module")
def files(ours: Miniature, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The miniature's adapter and face encoder as a file of each kind; FaceID's has no resampler."""
    folder, paths = tmp_path_factory.mktemp("faceid"), {}
    parts = ours.dynamicid.checkpoint
    assert parts.face_encoder is not None
    for kind in KINDS:
        paths[kind] = folder / f"{kind}.safetensors"
        encoder = {
            name: tensor
            for name, tensor in parts.face_encoder.items()
            if ENCODINGS[kind].crop != "none" or not name.startswith("perceiver_resampler.")
        }
        save_checkpoint(replace(parts, imr=None, keypoint_encoder=None, face_encoder=encoder, kind=kind), paths[kind])
    return paths


def photograph(index: int = 3) -> Tensor:
    return torch.from_numpy(WORLD.sample(index, 1).picture().image).float().div(255)[None]


def encoded(miniature: Miniature, image: Tensor, **changed: str) -> tuple[Identity, Tensor]:
    identity, faces = EncodeIdentity.execute(image, miniature.dynamicid, **WIDGETS | changed).args
    return identity, faces


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_encoder_is_shown_what_its_kind_was_trained_on(kind: str, ours: Miniature, files: dict[str, Path]) -> None:
    theirs, image = load_miniature(adapter=files[kind]), photograph()
    identity, faces = encoded(theirs, image)
    assert identity.encoding == ENCODINGS[kind] and identity.encoder == theirs.dynamicid.adapter.encoder_fingerprint
    pixels = image[0].mul(255).round().byte().numpy()
    (detection,) = theirs.dynamicid.faces.detect(pixels)
    upright = face_align.norm_crop(pixels, detection.keypoints, 224)
    states = vision.states(ours.dynamicid.vision, torch.from_numpy(upright).float().div(255)[None])
    network, shortcut = theirs.dynamicid.face_encoder.network, ENCODINGS[kind].shortcut
    assert identity.face is not None and identity.face.embedding is not None
    assert torch.allclose(identity.tokens, network(identity.face.embedding[None], states, shortcut)[0], atol=1e-5)
    if kind == "FaceID":
        assert torch.equal(faces[..., -40:, -40:, :], image[..., -40:, -40:, :]), "CLIP saw nothing"
        assert torch.allclose(identity.negative_tokens, network(torch.zeros(1, 512), None)[0], atol=1e-5)
    else:
        assert not torch.equal(faces[..., -40:, -40:, :], image[..., -40:, -40:, :]), "what CLIP saw"
        bgr = vision.states(ours.dynamicid.vision, torch.from_numpy(upright[..., ::-1].copy()).float().div(255)[None])
        as_bgr = network(identity.face.embedding[None], bgr, shortcut)[0]
        assert not torch.allclose(identity.tokens, as_bgr, atol=1e-3), "CLIP sees RGB, unlike in the publisher's demo"
        whole, _ = encoded(ours, image, crop="whole picture")
        assert not torch.allclose(identity.tokens, whole.tokens, atol=1e-2)
        assert whole.face is not None and whole.face.embedding is not None
        assert torch.allclose(identity.face.embedding, whole.face.embedding, atol=1e-6)


def test_the_aligned_crop_is_insightfaces(files: dict[str, Path]) -> None:
    from dynamicid_pack.dynamicid_core.identity.analyzer import aligned_face

    pixels = photograph(5)[0].mul(255).round().byte().numpy()
    (detection,) = load_miniature(adapter=files["FaceID Plus"]).dynamicid.faces.detect(pixels)
    expected = face_align.norm_crop(pixels, detection.keypoints, 224)
    assert (aligned_face(pixels, detection.keypoints, 224) == expected).all()


def test_crop_does_not_act_and_that_is_said(files: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    plus = load_miniature(adapter=files["FaceID Plus"])
    first, _ = encoded(plus, photograph())
    assert not caplog.messages
    again, _ = encoded(plus, photograph(), crop="face")
    assert torch.equal(first.tokens, again.tokens) and "crop does not act on FaceID Plus" in caplog.text


def test_plus_and_plus_v2_are_not_mistaken_for_one_another(files: dict[str, Path]) -> None:
    """One image, one encoder: nothing that is remembered of one is taken for the other's."""
    plus, v2 = (load_miniature(adapter=files[kind]) for kind in ("FaceID Plus", "FaceID Plus v2"))
    one, other = (encoded(miniature, photograph())[0] for miniature in (plus, v2))
    assert one.encoder == other.encoder and not torch.allclose(one.tokens, other.tokens)
    assert not torch.allclose(one.negative_tokens, other.negative_tokens)


def test_the_same_identity_gives_the_same_picture_to_the_bit(
    ours: Miniature, files: dict[str, Path], tmp_path: Path
) -> None:
    """By DynamicID's loader with the gate off, and by FaceID's, whose gate is off."""
    theirs = load_miniature(adapter=files["FaceID Plus"])
    save_identity(encoded(ours, photograph())[0], tmp_path / "ana.safetensors")
    identity = load_identity(tmp_path / "ana.safetensors")
    settings = AttentionSettings(layout_steps=0, gate=False)
    expected = apply_scene(ours.model, ours.dynamicid.adapter, arrange([identity]), settings)
    as_theirs = replace(identity, encoding=ENCODINGS["FaceID Plus"])
    (patched,) = Apply.execute(theirs.model, theirs.dynamicid, {"person_0": as_theirs}, 1.0).args
    assert torch.equal(sampled(patched, theirs, steps=3), sampled(expected, ours, steps=3))
    gated = apply_scene(ours.model, ours.dynamicid.adapter, arrange([identity]), AttentionSettings(layout_steps=0))
    assert not torch.equal(sampled(gated, ours, steps=3), sampled(expected, ours, steps=3))
