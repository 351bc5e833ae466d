"""Identities, their file, mixing, and scenes made of them."""

from pathlib import Path

import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.identity.faces import Face
from dynamicid_pack.dynamicid_core.identity.identity import FORMAT, Identity, load_identity, mix, save_identity
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement, adjusted, arrange
from safetensors.torch import save_file


def _person(seed: int = 0, tokens: int = 4, width: int = 8, **more) -> Identity:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, tokens, width, generator=generator)
    return Identity(drawn[0], drawn[1], **more)


def test_a_file_gives_back_all_that_was_saved(tmp_path: Path) -> None:
    pose, box, size = (1.5, -20.0, 0.25), Box(10.0, 20.0, 110.0, 140.0), (480, 640)
    face = Face(torch.randn(512), torch.rand(106, 2), torch.rand(68, 3), pose, box, size)
    saved = _person(encoder="ab" * 32, name="Ana", face_prompt="in a happy expression", face=face)
    path = tmp_path / "folder" / "ana.safetensors"
    save_identity(saved, path)
    loaded = load_identity(path)
    assert torch.equal(loaded.tokens, saved.tokens) and torch.equal(loaded.negative_tokens, saved.negative_tokens)
    assert (loaded.encoder, loaded.name, loaded.face_prompt) == (saved.encoder, "Ana", "in a happy expression")
    assert loaded.face is not None
    assert all(
        torch.equal(getattr(loaded.face, name), getattr(face, name)) for name in ("embedding", "landmarks", "points68")
    )
    assert (loaded.face.pose, loaded.face.box, loaded.face.size) == (pose, box, size)
    assert list(path.parent.iterdir()) == [path], "a temporary file was left behind"


def test_a_mixed_identity_keeps_its_shares(tmp_path: Path) -> None:
    save_identity(mix(_person(0), _person(1), 0.3), tmp_path / "m.safetensors")
    assert load_identity(tmp_path / "m.safetensors").shares == (0.7, 0.3)


def test_two_token_tensors_and_the_format_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file({"tokens": torch.ones(4, 8), "negative_tokens": torch.zeros(4, 8)}, path, {"format": FORMAT})
    loaded = load_identity(path)
    assert (loaded.encoder, loaded.shares, loaded.name, loaded.face) == ("", (1.0,), "bare", None)


def test_mixing() -> None:
    a, b, c = _person(0, name="a"), _person(1, name="b"), _person(2)
    assert mix(a, b, 0) is a and mix(a, b, 1) is b
    mixed = mix(a, b, 0.25)
    assert torch.equal(mixed.tokens, torch.cat([a.tokens, b.tokens]))
    assert mixed.token_shares.tolist() == [0.75] * 4 + [0.25] * 4
    assert mixed.name == "a + b"
    assert mix(mixed, c, 0.5).shares == (0.375, 0.125, 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mix(_person(), _person(), 1.5), "from 0"),
        (lambda: mix(_person(encoder="a"), _person(encoder="b"), 0.5), "same face encoder"),
        (lambda: mix(_person(), _person(width=16), 0.5), "dim 16"),
        (lambda: Identity(torch.zeros(4, 8), torch.zeros(4, 9)), "same shape"),
        (lambda: Identity(torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)), r"got \(1, 4, 8\)"),
        (lambda: Identity(torch.full((4, 8), float("nan")), torch.zeros(4, 8)), "NaN"),
        (lambda: Identity(torch.zeros(4, 8), torch.zeros(4, 8), shares=(0.5, 0.3, 0.2)), "3 token sets"),
        (lambda: Placement(_person(), Region(), weight=-1), "0 or more"),
        (lambda: Placement(_person(), Region(), start_at=0.8, end_at=0.2), "start_at 0.8 and end_at 0.2"),
        (lambda: Placement(_person(), Region(), end_at=1.5), "end_at 1.5"),
    ],
)
def test_bad_values_say_what_came(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def _sound() -> dict[str, torch.Tensor]:
    return {"tokens": torch.ones(4, 8), "negative_tokens": torch.zeros(4, 8)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (_sound(), {}, "expected an identity file"),
        (_sound(), {"format": "dynamicid-identity-9"}, "dynamicid-identity-9"),
        ({"tokens": torch.ones(4, 8)}, {"format": FORMAT}, "negative_tokens"),
        (_sound() | {"tokens": torch.ones(4, 9)}, {"format": FORMAT}, "same shape"),
        (_sound() | {"tokens": torch.full((4, 8), torch.inf)}, {"format": FORMAT}, "infinity"),
        (_sound(), {"format": FORMAT, "shares": "half"}, "half"),
        (_sound(), {"format": FORMAT, "shares": "0.2,0.3,0.5"}, "3 token sets"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, tensors, metadata, message) -> None:
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=rf"bad\.safetensors.*{message}"):
        load_identity(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 7, b"\xff" * 64, b"\x10\x00\x00\x00\x00\x00\x00\x00{not json......"]
)
def test_a_broken_header(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.safetensors: (the|expected a) .*(again|LFS pointer)\.$"):
        load_identity(tmp_path / "broken.safetensors")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.safetensors"
    save_identity(_person(0), path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_identity(_person(1), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_people_without_a_place_get_the_column_of_their_position() -> None:
    a, b, c = (_person(seed) for seed in range(3))
    placed = Placement(b, Region(box=Box(0, 0, 0.1, 0.1)))
    scene = arrange([a, (placed,), c])
    assert [p.identity for p in scene] == [a, b, c]
    assert [p.region.box for p in scene] == [(0, 0, 1 / 3, 1), (0, 0, 0.1, 0.1), (2 / 3, 0, 1, 1)]
    assert arrange([a])[0].region.rasterize(2, 2).min() == 1


def test_adjusting_multiplies_weights_cuts_spans_and_drops_the_absent() -> None:
    a, b, c, d = (_person(seed) for seed in range(4))
    scene = (
        Placement(a, Region(), weight=0.5, start_at=0.0, end_at=0.6),
        Placement(b, Region(mask=torch.zeros(4, 4))),
        Placement(c, Region(box=Box(0.2, 0.2, 0.2, 0.9))),
        Placement(d, Region(), start_at=0.0, end_at=0.3),
    )
    (left,) = adjusted(scene, 2.0, 0.4, 1.0)
    assert left.identity is a and (left.weight, left.start_at, left.end_at) == (1.0, 0.4, 0.6)
