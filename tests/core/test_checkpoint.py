"""Weight files: what is read, what is written, and fingerprints."""

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dynamicid_pack.dynamicid_core.saa.adapter import adapter_from_weights
from dynamicid_pack.dynamicid_core.state_dict import fingerprint
from dynamicid_pack.tests.support import GOLDEN
from safetensors import safe_open

from .weights import (
    ENCODER,
    IMR,
    KEYPOINTS,
    PARTS,
    RANK,
    SAA,
    TEXT,
    TOKEN,
    Weights,
    equal,
    flat,
    holds,
)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"proj_module": ENCODER, "SAA_module": SAA}, ("SAA_module", "proj_module")),
        ({"proj_module": ENCODER, "adapter_modules": SAA}, ("SAA_module", "proj_module")),
        ({"SAA_module": SAA, "step": 1000}, ("SAA_module",)),
        ({"proj_module": ENCODER}, ("proj_module",)),
        (IMR, ("imr",)),
        (KEYPOINTS, ("keypoint_encoder",)),
        (PARTS, tuple(PARTS)),
    ],
)
def test_pytorch_files(tmp_path: Path, content: Any, parts: tuple[str, ...], zipped: bool) -> None:
    torch.save(content, tmp_path / "a file.of any name", _use_new_zipfile_serialization=zipped)
    assert holds(load_checkpoint(tmp_path / "a file.of any name"), {part: PARTS[part] for part in parts})


def test_parameters_are_read_as_tensors(tmp_path: Path) -> None:
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in SAA.items()}, tmp_path / "plain")
    torch.save({"SAA_module": torch.load(tmp_path / "plain", weights_only=True)}, tmp_path / "SAA.bin")
    adapter = load_checkpoint(tmp_path / "SAA.bin").adapter
    assert adapter is not None
    assert not adapter.weights["0.to_q_lora.down.weight"].requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_written_and_read_again(tmp_path: Path, dtype: torch.dtype) -> None:
    cast = {
        part: {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
        for part, weights in PARTS.items()
    }
    torch.save({part: cast[part] for part in ("SAA_module", "proj_module")}, tmp_path / "SAA.bin")
    torch.save(cast["imr"], tmp_path / "IMR.bin")
    torch.save(cast["keypoint_encoder"], tmp_path / "keypoint_encoder.bin")
    merged = load_checkpoint(*(tmp_path / name for name in ("SAA.bin", "IMR.bin", "keypoint_encoder.bin")))
    save_checkpoint(merged, tmp_path / "all")
    again = load_checkpoint(tmp_path / "all")
    assert holds(again, cast)
    assert merged.adapter is not None
    assert again.adapter is not None
    assert again.adapter.fingerprint == merged.adapter.fingerprint
    assert again.adapter.encoder_fingerprint == merged.adapter.encoder_fingerprint


def test_what_the_adapter_says_of_itself() -> None:
    adapter = adapter_from_weights(SAA)
    assert (adapter.rank, adapter.token_dim, adapter.text_dim) == (RANK, TOKEN, TEXT)
    assert adapter.dims == (8, 8, 10, 10)
    assert all(adapter.weights[name] is tensor for name, tensor in SAA.items())
    assert (adapter.encoder_fingerprint, adapter.tokens) == ("", None)
    assert equal(adapter.weights, SAA)


def test_the_encoder_is_known_whichever_file_it_came_in(tmp_path: Path) -> None:
    torch.save({"SAA_module": SAA}, tmp_path / "saa")
    torch.save({"proj_module": ENCODER}, tmp_path / "encoder")
    for paths in [("saa", "encoder"), ("encoder", "saa")]:
        adapter = load_checkpoint(*(tmp_path / path for path in paths)).adapter
        assert adapter is not None
        assert (adapter.tokens, adapter.encoder_fingerprint) == (2, fingerprint(ENCODER))


def test_layers_may_differ_in_rank() -> None:
    narrow = {"1.to_k_lora.down.weight": torch.ones(1, TEXT), "1.to_k_lora.up.weight": torch.ones(8, 1)}
    assert adapter_from_weights(SAA | narrow).rank == RANK


def test_the_releases_shapes() -> None:
    with safe_open(GOLDEN / "unet_sd15.safetensors", framework="pt") as file:
        named = json.loads(file.metadata()["saa_keys"])
    adapter = adapter_from_weights({name: torch.zeros(shape, dtype=torch.float16) for name, shape in named.items()})
    assert (len(adapter.dims), adapter.rank, adapter.token_dim, adapter.text_dim) == (32, 128, 768, 768)
    down, up, middle = (320, 320, 640, 640, 1280, 1280), (1280,) * 3 + (640,) * 3 + (320,) * 3, (1280,)
    assert adapter.dims == tuple(width for width in down + up + middle for _ in range(2))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda weights: dict(reversed(weights.items())), True),
        (lambda weights: {name: tensor.T.contiguous().T for name, tensor in weights.items()}, True),
        (lambda weights: {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}, True),
        (lambda weights: {name: tensor.half() for name, tensor in weights.items()}, False),
        (lambda weights: {f"{name}x": tensor for name, tensor in weights.items()}, False),
        (lambda weights: {name: tensor.reshape(1, -1) for name, tensor in weights.items()}, False),
        (lambda weights: {name: tensor.nextafter(torch.tensor(9.0)) for name, tensor in weights.items()}, False),
    ],
    ids=["order", "strides", "parameters", "dtype", "names", "shapes", "values"],
)
def test_a_fingerprint_is_of_names_shapes_and_values(change: Callable[[Weights], Weights], same: bool) -> None:
    assert (fingerprint(change(SAA)) == fingerprint(SAA)) is same


def test_a_fingerprint_stays_what_it_is() -> None:
    weights = {"b": torch.tensor([1.0, -2.0], dtype=torch.bfloat16), "a": torch.tensor(3)}
    hashed = b"a\0int64\0()\0" + b"\3" + bytes(7) + b"b\0bfloat16\0(2,)\0" + b"\x80\x3f\x00\xc0"
    assert fingerprint(weights) == sha256(hashed).hexdigest()


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: Path, target: Path) -> None:
        raise OSError("no space left")

    torch.save(PARTS, tmp_path / "parts.bin")
    checkpoint = load_checkpoint(tmp_path / "parts.bin")
    (tmp_path / "out.safetensors").write_bytes(b"before")
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(checkpoint, tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.safetensors", "parts.bin"]


def test_tensors_that_share_memory_are_written_whole(tmp_path: Path) -> None:
    tied = SAA | {"1.to_v_ip.weight": SAA["1.to_k_ip.weight"]}
    rows = torch.randn(2 * 8, RANK)
    sliced = tied | {"0.to_q_lora.up.weight": rows[:8], "0.to_k_lora.up.weight": rows[8:]}
    save_checkpoint(Checkpoint(adapter_from_weights(sliced), None, None, None), tmp_path / "out")
    assert holds(load_checkpoint(tmp_path / "out"), {"SAA_module": sliced})


def test_the_format_is_in_the_file(tmp_path: Path) -> None:
    save_checkpoint(Checkpoint(None, ENCODER, None, None), tmp_path / "out")
    with safe_open(tmp_path / "out", framework="pt") as file:
        assert file.metadata() == {"format": "dynamicid-1"}
        assert set(file.keys()) == set(flat({"proj_module": ENCODER}))
