"""Identity files that another program made: checked whole when they are read, mended where it is clear how."""

from pathlib import Path

import pytest
import torch
from dynamicid_pack.dynamicid_core.identity.identity import FORMAT, load_identity
from safetensors.torch import save_file
from torch import Tensor


def sound() -> dict[str, Tensor]:
    return {
        "tokens": torch.ones(4, 8),
        "negative_tokens": torch.zeros(4, 8),
        "face.embedding": torch.nn.functional.normalize(torch.ones(512), dim=0),
        "face.landmarks": torch.full((106, 2), 100.0),
        "face.points68": torch.full((68, 3), 100.0),
        "face.pose": torch.tensor([3.0, -12.0, 1.0]),
        "face.box": torch.tensor([100.0, 100.0, 300.0, 320.0]),
        "face.size": torch.tensor([480, 640]),
        "thumbnail": torch.zeros(16, 16, 3, dtype=torch.uint8),
    }


def written(folder: Path, changed: dict[str, Tensor], **metadata: str) -> Path:
    path = folder / "ana.safetensors"
    save_file(sound() | changed, path, {"format": FORMAT, "name": "Ana"} | metadata)
    return path


def number(name: str, value: float) -> Tensor:
    """Return a sound tensor with its first number changed."""
    tensor = sound()[name].double()
    tensor.view(-1)[0] = value
    return tensor


def curve(tokens: Tensor, *frames: int) -> dict[str, Tensor]:
    """Return a motion over time as a file holds it."""
    return {"curve.tokens": tokens, "curve.frames": torch.tensor(frames)}


NAN, INFINITY = float("nan"), float("inf")
BAD: dict[str, tuple[dict[str, Tensor], str]] = {
    "an embedding of true and false": ({"face.embedding": torch.ones(512, dtype=torch.bool)}, "torch.bool, expected"),
    "an embedding of int16": ({"face.embedding": torch.ones(512, dtype=torch.int16)}, "torch.int16, expected floats"),
    "an embedding that is short": ({"face.embedding": torch.ones(128)}, r"\(128,\), expected \(512,\)"),
    "an embedding of two axes": ({"face.embedding": torch.ones(1, 512)}, r"\(1, 512\), expected \(512,\)"),
    "an embedding with NaN": ({"face.embedding": number("face.embedding", NAN)}, "face.embedding holds NaN"),
    "an embedding beyond float": ({"face.embedding": number("face.embedding", 1e300)}, "face.embedding holds"),
    "a size of 0": ({"face.size": torch.tensor([0, 640])}, r"face.size is \(0, 640\), expected"),
    "a size below 0": ({"face.size": torch.tensor([480, -1])}, r"face.size is \(480, -1\), expected"),
    "a size of true and false": ({"face.size": torch.ones(2, dtype=torch.bool)}, "torch.bool, expected whole numbers"),
    "an endless pose": ({"face.pose": number("face.pose", INFINITY)}, "face.pose holds NaN, infinity"),
    "a complex pose": ({"face.pose": torch.ones(3, dtype=torch.complex64)}, "torch.complex64, expected floats"),
    "a pose of 1e6 degrees": ({"face.pose": number("face.pose", 1e6)}, "face.pose holds NaN, infinity or a number"),
    "landmarks with NaN": ({"face.landmarks": number("face.landmarks", NAN)}, "face.landmarks holds NaN"),
    "another count of landmarks": ({"face.landmarks": torch.ones(68, 2)}, r"\(68, 2\), expected \(106, 2\)"),
    "points far away": ({"face.points68": number("face.points68", 1e30)}, "face.points68 holds"),
    "a box with infinity": ({"face.box": number("face.box", -INFINITY)}, "face.box holds"),
    "a gray thumbnail": ({"thumbnail": torch.zeros(16, 16, dtype=torch.uint8)}, r"\(16, 16\), expected"),
    "a thumbnail of floats": ({"thumbnail": torch.zeros(16, 16, 3)}, "torch.float32 .* expected torch.uint8"),
    "a thumbnail of nothing": ({"thumbnail": torch.zeros(0, 16, 3, dtype=torch.uint8)}, r"\(0, 16, 3\), expected"),
    "a thumbnail of a poster": ({"thumbnail": torch.zeros(2048, 4, 3, dtype=torch.uint8)}, "sides up to 1024"),
    "whole tokens": ({"tokens": torch.ones(4, 8, dtype=torch.int64)}, "must be floats, got torch.int64"),
    "complex tokens": ({"tokens": torch.ones(4, 8, dtype=torch.complex64)}, "must be floats, got torch.complex64"),
    "a curve without frames": ({"curve.tokens": torch.ones(2, 4, 8)}, "holds curve.tokens alone"),
    "a curve of other tokens": (
        curve(torch.ones(2, 3, 8), 0, 1),
        r"\(2, 3, 8\), expected floats of shape \(sets, 4, 8\)",
    ),
    "a curve of whole tokens": (curve(torch.ones(2, 4, 8).int(), 0, 1), "torch.int32 .* expected floats"),
    "a curve of too few frames": (curve(torch.ones(2, 4, 8), 0), "of at least 2 and at most 4,096 frames"),
    "a curve of too many frames": (curve(torch.ones(1, 4, 8), *[0] * 4097), "at most 4,096 frames"),
    "frames in floats": (
        {"curve.tokens": torch.ones(1, 4, 8), "curve.frames": torch.zeros(3)},
        "expected whole numbers",
    ),
    "a frame without tokens": (curve(torch.ones(2, 4, 8), 0, 2), "aren't all of 2 sets"),
    "a curve that begins elsewhere": (curve(torch.ones(2, 4, 8), 1, 0), "first of which is 0, got 1"),
    "a curve of others": (curve(torch.zeros(2, 4, 8), 0, 1), "must be those of the first frame"),
    "a curve with NaN": (curve(torch.full((2, 4, 8), NAN), 0, 1), "NaN or infinity"),
    "tokens beyond float": ({"tokens": number("tokens", 1e300)}, "tokens must be finite"),
}
"""Case -> tensors changed, what the message must say."""


@pytest.mark.parametrize("case", BAD)
def test_what_would_break_later_is_refused(case: str, tmp_path: Path) -> None:
    changed, says = BAD[case]
    with pytest.raises(ValueError, match=rf"ana\.safetensors: .*{says}.*(again\.)$"):
        load_identity(written(tmp_path, changed))


@pytest.mark.parametrize("shares", ["nan,nan", "inf,1", "-0.5,1.5", "1e999,1"])
def test_shares_that_are_none(shares: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shares must be finite and not negative"):
        load_identity(written(tmp_path, {}, shares=shares))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    changed = {name: tensor.to(dtype) for name, tensor in sound().items() if tensor.is_floating_point()}
    person = load_identity(written(tmp_path, changed))
    face = person.face
    assert face is not None and face.embedding is not None and face.landmarks is not None and face.points68 is not None
    for tensor in (person.tokens, person.negative_tokens, face.embedding, face.landmarks, face.points68):
        assert tensor.dtype == torch.float32
    assert face.pose == pytest.approx((3.0, -12.0, 1.0)) and face.size == (480, 640)


def test_a_motion_over_time(tmp_path: Path) -> None:
    sets = torch.stack([torch.ones(4, 8), torch.full((4, 8), 2.0)])
    person = load_identity(written(tmp_path, curve(sets.half(), 0, 1, 1)))
    assert person.frames == 3 and [float(person.at(frame).tokens[0, 0]) for frame in range(4)] == [1, 2, 2, 2]
    assert load_identity(written(tmp_path, curve(torch.ones(1, 4, 8), 0, 0))).curve is None


def test_a_size_in_floats_becomes_whole(tmp_path: Path) -> None:
    face = load_identity(written(tmp_path, {"face.size": torch.tensor([480.0, 640.0])})).face
    assert face is not None and face.size == (480, 640) and all(type(side) is int for side in face.size)


def test_tensors_that_a_later_version_adds_are_left_alone(tmp_path: Path) -> None:
    person = load_identity(written(tmp_path, {"face.mood": torch.full((3,), NAN), "more": torch.ones(2, 2)}))
    assert person.name == "Ana" and person.face is not None


@pytest.mark.parametrize(
    ("key", "text"), [("face_prompt", "a\nb"), ("face_prompt", "a" * 2000), ("encoder", "\x1b[2J")]
)
def test_texts_that_do_not_print(key: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"the metadata `{key}` is .* characters that print"):
        load_identity(written(tmp_path, {}, **{key: text}))
