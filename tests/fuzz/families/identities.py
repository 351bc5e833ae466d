"""Identity files: the door loads one, and does with it what a graph does."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.identity.assignment import reference_embedding
from dynamicid_pack.dynamicid_core.identity.identity import FORMAT, Identity, load_identity, mix, save_identity
from dynamicid_pack.dynamicid_core.imr.landmarks import keypoint_image
from dynamicid_pack.dynamicid_core.imr.motion import source_motion, target_motion
from dynamicid_pack.dynamicid_core.messages import LIMIT
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement, names_of
from dynamicid_pack.nodes.preview import scene_preview
from torch import Tensor

from ..judge import Case, Family
from .headers import headers
from .text import odd_text
from .weights import damaged, file_name, no_file

_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.complex64: "C64", torch.float8_e4m3fn: "F8_E4M3",
}  # fmt: skip


_ENCODINGS = (
    *('{"kind": "FaceID"}', '{"kind": []}', '{"kind": {"kind": 1}}', "[]", "3", '"FaceID"', "null", "{", "[" * 190),
    '{"kind": "FaceID Plus v2", "channels": "BGR", "crop": "aligned", "shortcut": NaN}',
    '{"kind": "FaceID Plus v2", "channels": "BGR", "crop": "aligned", "shortcut": 1e999}',
)


_FRAMES = (
    (), (1, 0), (0, 3), (0, -1), (0, 2**62), (0, 1, 2, 2**31), (0,) * 4097, tuple(range(4097)), (0, 1, 2) * 1365,
)  # fmt: skip
"""Numbers of frames' token sets, of which a curve has three."""


def sound(rng: Random) -> dict[str, Tensor]:
    """Return the tensors of an identity that has a face; of some, the motion changes by frame."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    sets = drawn(3, 4, 16)
    curve = {"curve.tokens": sets, "curve.frames": torch.tensor([0, 1, 2, 1, 0])}
    return {
        "tokens": sets[0],
        "negative_tokens": drawn(4, 16),
        "face.embedding": torch.nn.functional.normalize(drawn(512), dim=0),
        "face.landmarks": 200 + 50 * drawn(106, 2),
        "face.points68": 200 + 50 * drawn(68, 3),
        "face.pose": torch.tensor([3.0, -12.0, 1.0]),
        "face.box": torch.tensor([100.0, 100.0, 300.0, 320.0]),
        "face.size": torch.tensor([480, 640]),
        "thumbnail": torch.zeros(128, 128, 3, dtype=torch.uint8),
        **(curve if rng.random() < 0.5 else {}),
    }


def written(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write a safetensors file without its own library's care."""
    header: dict[str, Any] = {"__metadata__": metadata}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def _wide(number: float) -> torch.dtype:
    return torch.float64 if number == 1e300 else torch.float32


def _changed(rng: Random, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    """Change something, and return words for it."""
    name = rng.choice(list(tensors))
    tensor = tensors[name]
    number = rng.choice((float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 1e300, 0.0, -1.0))
    key = rng.choice(("format", "encoder", "name", "name", "face_prompt", "shares", "encoding", "expression"))
    shape = rng.choice(
        ((), (0,), (1,), (511,), (513,), (512, 1), (4, 16, 1), (3, 0), (2**20, 1), (1, 2**20), (128, 128, 4))
    )

    def one() -> Tensor:
        odd = tensor.to(_wide(number)).clone()
        odd.view(-1)[rng.randrange(odd.numel())] = number
        return odd

    kinds: dict[str, Callable[[], Any]] = {
        "dtype": lambda: tensors.update({name: tensor.to(rng.choice(list(_DTYPES)))}),
        "one number": lambda: tensors.update({name: one()}),
        "all numbers": lambda: tensors.update({name: torch.full(tensor.shape, number, dtype=_wide(number))}),
        "shape": lambda: tensors.update({name: torch.zeros(shape, dtype=tensor.dtype)}),
        "gone": lambda: tensors.pop(name),
        "more": lambda: tensors.update({f"face.{odd_text(rng, 10**5)}": tensor}),
        "tokens": lambda: tensors.update(
            {key: torch.zeros(rng.choice((3, 4097, 10**6)), 16) for key in list(tensors)[:2]}
        ),
        "dim": lambda: tensors.update({key: torch.zeros(4, rng.choice((1, 5000, 10**6))) for key in list(tensors)[:2]}),
        "metadata": lambda: metadata.update({key: odd_text(rng)}),
        "metadata that is no text": lambda: metadata.update({key: rng.choice((None, 3, [], {}))}),
        "shares": lambda: metadata.update(
            shares=rng.choice(("nan,nan", "inf", "-1", "1e999,1", "0,0,0,0", "1," * 10**5, "", "½", "1_0", "\ud800"))
        ),
    }
    kinds["encoding"] = lambda: metadata.update(encoding=rng.choice(_ENCODINGS))
    kinds["expression"] = lambda: metadata.update(
        expression=rng.choice(("sad", "auto", "Sad", "smug", "", "s" * 10**5))
    )
    if "curve.frames" in tensors:
        kinds["frames"] = lambda: tensors.update(
            {"curve.frames": torch.tensor(rng.choice(_FRAMES), dtype=rng.choice((torch.int64, torch.float32)))}
        )
        kinds["sets"] = lambda: tensors.update(
            {"curve.tokens": torch.zeros(rng.choice(((0, 4, 16), (3, 4, 15), (3, 5, 16), (3, 64), (5000, 4, 16))))}
        )
        kinds["one curve tensor gone"] = lambda: tensors.pop(rng.choice(("curve.frames", "curve.tokens")))
        kinds["another first frame"] = lambda: tensors.update({"curve.tokens": tensors["curve.tokens"].flip(0)})
    words = rng.choice(list(kinds))
    kinds[words]()
    return f"{words} of {key if 'metadata' in words else name}"


def _draw(rng: Random, folder: Path) -> Case:
    path = folder / file_name(rng).replace(".bin", ".safetensors")
    kind = rng.choice(("changed", "changed", "changed", "changed", "header", "damaged", "no file"))
    tensors, metadata = sound(rng), {"format": FORMAT, "name": "Ana", "encoder": "ab" * 32, "shares": "1.0"}
    if kind == "header":
        words, content = headers(rng, "tokens")
        path.write_bytes(content)
    elif kind == "no file":
        words = no_file(rng, path)
    else:
        words = " and ".join(
            _changed(rng, tensors, metadata) for _ in range(rng.choice((1, 1, 2)) * (kind == "changed"))
        )
        written(path, tensors, metadata)
        if kind == "damaged":
            words, content = damaged(rng, path.read_bytes())
            path.write_bytes(content)
    size = path.stat().st_size if path.is_file() and "zeros" not in words else 0
    return Case(f"{kind}: {words}", (path,), size)


def _used(path: Path) -> None:
    """Load an identity; compare, edit, draw, mix, save and show it."""
    identity = load_identity(path)
    assert len(repr(identity)) <= LIMIT and repr(identity).isprintable()
    scene = [Placement(identity, Region(box=Box(0.0, 0.0, 0.5, 1.0)))]
    assert all(name.isprintable() and len(name) <= LIMIT for name in names_of(scene))
    assert torch.isfinite(scene_preview(scene, 256, 256)).all()
    frames = range(0, identity.frames, max(1, identity.frames // 16))
    for frame in (*frames, identity.frames - 1, 2**40):
        assert torch.isfinite(identity.at(frame).tokens).all() and identity.at(frame).curve is None
    face = identity.face
    if face is not None and face.embedding is not None:
        assert torch.isfinite(reference_embedding(identity, 0) @ torch.ones(512))
    for motion in (source_motion(face), target_motion(face, "happy", yaw=20.0, driver=face)):
        if motion.landmarks is not None:
            keypoint_image(motion.landmarks)
    assert torch.isfinite(identity.token_shares).all()
    again = path.with_name("again.safetensors")
    save_identity(mix(identity, identity, 0.25), again)
    loaded = load_identity(again)
    assert isinstance(loaded, Identity) and loaded.frames == identity.frames
    assert loaded.expression == identity.expression


IDENTITIES = Family("identities", _draw, _used)
