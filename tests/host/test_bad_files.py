"""Files that are none: an error that says what was expected, what came and what to do, and a server that lives."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from . import model_files, shapes, tiny
from .conftest import PEOPLE
from .graphs import Scene, portrait
from .refusals import QUICK, refusal, still_samples  # noqa: F401 (a fixture)
from .server import Server

pytestmark = pytest.mark.timeout(900)

State = dict[str, torch.Tensor]
LARGER = shapes.TINY | {
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 0, 0, 0],
}
"""Eleven cross-attentions, where the miniature has seven."""


@pytest.fixture
def fingerprint(server: Server) -> str:
    """Of the server's face encoder."""
    return model_files.encoder_fingerprint(server.models / "dynamicid" / Scene.models.adapter)


# Weight files


def written(change: Callable[[State], object]) -> Callable[[Path], None]:
    """Writes the small model's adapter after a change to it."""

    def write(path: Path) -> None:
        state = tiny.tiny_adapter_state()
        change(state)
        save_file(state, path)

    return write


def cut(path: Path) -> None:
    save_file(tiny.tiny_adapter_state(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_bin(path: Path) -> None:
    torch.save({"SAA_module": tiny.tiny_adapter_state()}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


WEIGHTS: dict[str, tuple[str, Callable[[Path], object], tuple[str, ...]]] = {
    "truncated": ("t.safetensors", cut, ("truncated", "again")),
    "truncated bin": ("t.bin", cut_bin, ("truncated", "again")),
    "empty": ("e.safetensors", lambda path: path.write_bytes(b""), ("empty", "again")),
    "broken header": (
        "h.safetensors",
        lambda path: path.write_bytes(b"\x20" + bytes(7) + b"{" * 32),
        ("header", "again"),
    ),
    "header of a huge length": (
        "l.safetensors",
        lambda path: path.write_bytes(b"\xff" * 7 + b"\x00" + b"{}" * 16),
        ("header", "again"),
    ),
    "a web page": (
        "w.safetensors",
        lambda path: path.write_bytes(b"<!DOCTYPE html><html>404"),
        ("neither", "web page"),
    ),
    "a list": ("l.bin", lambda path: torch.save([1, 2], path), ("expected a dict", "list")),
    "wrong shape": (
        "s.safetensors",
        written(lambda state: state.update({"SAA_module.3.to_k_ip.weight": torch.zeros(7, 5)})),
        ("3.to_k_ip.weight", "(7, 5)", "expected"),
    ),
    "wrong rank": (
        "r.safetensors",
        written(lambda state: state.update({"SAA_module.2.to_q_lora.up.weight": torch.zeros(128, 3)})),
        ("2.to_q_lora", "(128, 3)", "expected"),
    ),
    "missing key": (
        "m.safetensors",
        written(lambda state: state.pop("SAA_module.5.to_v_ip.weight")),
        ("5.to_v_ip.weight",),
    ),
    "extra key": (
        "x.safetensors",
        written(lambda state: state.update({"SAA_module.0.to_k_ip.weight": torch.zeros(64, 128)})),
        ("0.to_k_ip.weight",),
    ),
    "a stranger among the keys": (
        "y.safetensors",
        written(lambda state: state.update({"other.weight": torch.zeros(1)})),
        ("other.weight",),
    ),
    "NaN": (
        "n.safetensors",
        written(lambda state: state["SAA_module.1.to_k_ip.weight"].fill_(float("nan"))),
        ("1.to_k_ip.weight", "NaN", "finite"),
    ),
    "another model": (
        "o.safetensors",
        lambda path: save_file({"lora_unet_x.lora_down.weight": torch.zeros(2, 2)}, path),
        ("SAA_module", "lora_unet_x.lora_down.weight", "LoRA"),
    ),
    # the host's log can't encode it: raw, it ended all work
    "a surrogate in a key": (
        "u.bin",
        lambda path: torch.save({"SAA_module.\ud800\n": torch.zeros(1)}, path),
        (r"SAA_module.\ud800\n", "expected a name that prints"),
    ),
    "a bytearray of 3 GB": (
        "b.bin",
        lambda path: path.write_bytes(b"\x80\x02cbuiltins\nbytearray\n(\x8a\x04\0^\xd0\xb2tR."),
        ("not made by torch.save",),
    ),
    "a named pipe": ("f.bin", lambda path: os.mkfifo(path), ("named pipe", "expected a file")),
    "only a face encoder": (
        "p.safetensors",
        written(lambda state: [state.pop(name) for name in list(state) if name.startswith("SAA_module")]),
        ("no SAA", "Choose"),
    ),
}
"""Case -> file name, how it is written, what the error must say."""


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_are_none(case: str, server: Server) -> None:
    name, write, says = WEIGHTS[case]
    path = server.models / "dynamicid" / name
    write(path)
    scene = Scene(QUICK)
    scene.apply(scene.loader(saa=name), [scene.identity(PEOPLE[0])])
    scene.sample()
    scene.save()
    try:
        message = refusal(server, scene, "DynamicIDLoader")
    finally:
        path.unlink()
    assert name in message
    for phrase in says:
        assert phrase in message


class Payload:
    """Runs a command where it is unpickled without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def saved_plainly(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def saved_as_before_zip(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, saved_plainly, saved_as_before_zip])
def test_a_pickle_that_runs_code_is_refused(save: Callable[[Any, Path], None], server: Server, tmp_path: Path) -> None:
    path, mark = server.models / "dynamicid" / "evil.bin", tmp_path / "ran"
    save({"SAA_module": {"0.to_q_lora.up.weight": Payload(mark)}}, path)
    scene = Scene(QUICK)
    scene.apply(scene.loader(saa=path.name), [scene.identity(PEOPLE[0])])
    scene.sample()
    scene.save()
    try:
        message = refusal(server, scene, "DynamicIDLoader")
    finally:
        path.unlink()
    assert not mark.exists(), "it ran"
    assert "mkdir" in message
    assert "refused" in message
    assert "evil.bin" in message


def test_an_adapter_for_another_model(server: Server) -> None:
    path = server.models / "dynamicid" / "larger.safetensors"
    save_file(tiny.tiny_adapter_state(config=LARGER), path)
    scene = Scene(QUICK)
    scene.apply(scene.loader(saa=path.name), [scene.identity(PEOPLE[0])])
    scene.sample()
    scene.save()
    try:
        message = refusal(server, scene, "DynamicIDApply")
    finally:
        path.unlink()
    assert "7 cross-attention layers" in message
    assert "11 cross-attention layers" in message


# Identities


def identity(**given: Any) -> Callable[[Path, str], object]:
    """Writes an identity that differs from a sound one in what is given."""
    sound: dict[str, Any] = {"width": tiny.WIDTH}
    return lambda path, encoder: tiny.identity_file(path, 1, **{"encoder": encoder} | sound | given)


def raw(content: bytes) -> Callable[[Path, str], object]:
    return lambda path, _: path.write_bytes(content)


def tensors(**given: torch.Tensor) -> Callable[[Path, str], object]:
    return lambda path, _: save_file(given, path, metadata={"format": "dynamicid-identity-1"})


LOAD, APPLY = "DynamicIDLoadIdentity", "DynamicIDApply"
TOKENS = torch.zeros(4, tiny.WIDTH)

IDENTITIES: dict[str, tuple[Callable[[Path, str], object], str, tuple[str, ...]]] = {
    "of another encoder": (identity(encoder="f" * 64), APPLY, ("another face encoder", "f" * 12, "Encode")),
    "of another width": (identity(width=256), APPLY, ("dim 256", "128", "Encode")),
    "with NaN": (identity(changed={"tokens": TOKENS / 0}), LOAD, ("tokens", "NaN", "finite")),
    "with infinity": (identity(changed={"negative_tokens": TOKENS + torch.inf}), LOAD, ("negative_tokens", "infinity")),
    "with one axis": (identity(changed={"tokens": TOKENS[0].clone()}), LOAD, ("(128,)", "(4, 768)")),
    "with unlike halves": (
        identity(changed={"negative_tokens": torch.zeros(3, tiny.WIDTH)}),
        LOAD,
        ("(4, 128)", "(3, 128)"),
    ),
    "of another format": (
        identity(metadata={"format": "dynamicid-identity-9"}),
        LOAD,
        ("dynamicid-identity-1", "dynamicid-identity-9", "Save Identity"),
    ),
    "with shares that are no numbers": (
        identity(metadata={"shares": "half,half"}),
        LOAD,
        ("shares", "half,half", "numbers"),
    ),
    "with shares that don't divide its tokens": (identity(metadata={"shares": "0.1,0.2,0.7"}), LOAD, ("4 tokens", "3")),
    "without negative tokens": (tensors(tokens=TOKENS), LOAD, ("negative_tokens", "missing")),
    "another model": (tensors(weight=torch.zeros(2)), LOAD, ("tokens", "missing")),
    "of a million tokens": (
        tensors(tokens=torch.zeros(10**6, 4), negative_tokens=torch.zeros(10**6, 4)),
        LOAD,
        ("at most 4,096 tokens", "(1000000, 4)"),
    ),
    "whose face has NaN": (
        tensors(tokens=TOKENS, negative_tokens=TOKENS.clone(), **{"face.embedding": torch.full((512,), torch.nan)}),
        LOAD,
        ("face.embedding holds NaN", "finite"),
    ),
    "broken header": (raw(b"\x20" + bytes(7) + b"{" * 32), LOAD, ("safetensors", "again")),
    "empty": (raw(b""), LOAD, ("safetensors", "again")),
    "a web page": (raw(b"<!DOCTYPE html><html>404"), LOAD, ("safetensors", "neither", "web page")),
}
"""Case -> how the file is written, which node must refuse it, what the error must say."""


@pytest.mark.parametrize("case", IDENTITIES)
def test_identities_that_are_none(case: str, server: Server, fingerprint: str) -> None:
    write, node, says = IDENTITIES[case]
    path = server.models / "dynamicid" / "identities" / "odd.safetensors"
    write(path, fingerprint)
    try:
        message = refusal(server, portrait(["odd"], QUICK), node)
    finally:
        path.unlink()
    assert "odd" in message
    for phrase in says:
        assert phrase in message


def test_two_encoders_in_one_mix(server: Server, fingerprint: str) -> None:
    path = tiny.identity_file(
        server.models / "dynamicid" / "identities" / "stranger.safetensors", 5, encoder="a" * 64, width=tiny.WIDTH
    )
    scene = Scene(QUICK)
    pair = {"identity_a": scene.identity(PEOPLE[0]), "identity_b": scene.identity("stranger")}
    scene.apply(scene.loader(), [scene.add("DynamicIDMix", pair, mix=0.5)[0]])
    scene.sample()
    scene.save()
    try:
        message = refusal(server, scene, "DynamicIDMix")
    finally:
        path.unlink()
    assert "stranger" in message
    assert "a" * 12 in message
    assert fingerprint[:12] in message
