"""Weight files: what is read, what is written, and what is said of every kind of file that is not right."""

import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import Checkpoint, load_checkpoint, parts_of, save_checkpoint
from dynamicid_pack.dynamicid_core.checkpoint_cli import main
from dynamicid_pack.dynamicid_core.identity.encoder import FaceEncoder
from dynamicid_pack.dynamicid_core.imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from dynamicid_pack.dynamicid_core.saa.adapter import adapter_from_weights
from dynamicid_pack.dynamicid_core.state_dict import fingerprint, shapes
from dynamicid_pack.tests.support import GOLDEN, ROOT, generated_weights
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Weights = dict[str, Tensor]
TEXT, TOKEN, RANK = 12, 16, 3


def _saa_shapes(widths: tuple[int, ...] = (8, 10)) -> dict[str, tuple[int, ...]]:
    """A small adapter: one transformer block, of two layers, for each width."""
    named: dict[str, tuple[int, ...]] = {}
    for index, width in enumerate(width for width in widths for _ in range(2)):
        for name in ("to_q", "to_k", "to_v", "to_out"):
            source = TEXT if index % 2 and name in ("to_k", "to_v") else width
            named[f"{index}.{name}_lora.down.weight"] = (RANK, source)
            named[f"{index}.{name}_lora.up.weight"] = (width, RANK)
        if index % 2:
            named[f"{index}.to_k_ip.weight"] = named[f"{index}.to_v_ip.weight"] = (width, TOKEN)
    return named


SAA = generated_weights(_saa_shapes(), seed=1)
ENCODER = generated_weights(
    shapes(FaceEncoder(6, hidden_dim=8, clip_dim=10, dim=TOKEN, tokens=2, depth=1, dim_head=8)), seed=2
)
IMR = generated_weights(
    shapes(IdentityMotionReconfigurator(TOKEN, motion_dim=7, dim=8, latents=3, depth=2, dim_head=8)), seed=3
)
KEYPOINTS = generated_weights(shapes(KeypointEncoder((2, 4), (1, 2), output_dim=5)), seed=4)
PARTS = {"SAA_module": SAA, "proj_module": ENCODER, "imr": IMR, "keypoint_encoder": KEYPOINTS}


def _flat(parts: dict[str, Weights]) -> Weights:
    return {f"{part}.{name}": tensor for part, weights in parts.items() for name, tensor in weights.items()}


def _equal(ours: Any, theirs: Weights) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs
    )


def _holds(checkpoint: Checkpoint, parts: dict[str, Weights]) -> bool:
    found = parts_of(checkpoint)
    return found.keys() == parts.keys() and all(_equal(found[part], parts[part]) for part in parts)


def _says(path: Path, *expected: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        load_checkpoint(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert all(part in str(raised.value) for part in expected), str(raised.value)


# ---- what is read


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
    assert _holds(load_checkpoint(tmp_path / "a file.of any name"), {part: PARTS[part] for part in parts})


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
    assert _holds(again, cast)
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
    assert _equal(adapter.weights, SAA)


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


# ---- fingerprints


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


# ---- files that are not right

SAFETENSORS_HEAD = (2**40).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"<!DOCTYPE html><html>", "expected a safetensors file or a PyTorch .bin, this is neither"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"PK\x03\x04 and no more", "truncated or damaged"),
        (b"\x80\x02 and no more", "truncated, damaged or not made by torch.save"),
        (b"\x80", "truncated, damaged or not made by torch.save"),
        (SAFETENSORS_HEAD + b'{"a":', "the safetensors file is truncated or its header is broken"),
        ((5).to_bytes(8, "little") + b'{"a":', "its header is broken"),
        ((64).to_bytes(8, "little") + b'{"a":', "its header is broken"),
        ((2).to_bytes(8, "little") + b"{}", "found no tensors"),
    ],
)
def test_bytes_of_something_else(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "file.bin").write_bytes(content)
    _says(tmp_path / "file.bin", says)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / "whole"
    if kind == "safetensors":
        save_file(_flat(PARTS), path)
    else:
        torch.save(PARTS, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    _says(path, "truncated", "Download or copy it again")


def test_no_file_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_checkpoint(tmp_path / "none")
    _says(tmp_path, "expected a file, this is a folder")


class _Runs:
    """Unpickled without care, it would call `function(*arguments)`."""

    def __init__(self, function: Callable[..., Any], *arguments: str) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return self.call


@pytest.mark.parametrize("function", ["os.system", "exec"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle 2", "pickle 4", "pickle 5"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, kind: str, function: str) -> None:
    ran, path = tmp_path / "ran", tmp_path / "SAA.bin"
    call = (
        _Runs(os.system, f'echo > "{ran}"')
        if function == "os.system"
        else _Runs(exec, f"open({str(ran)!r}, 'w').close()")
    )
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps({"proj_module": call}, protocol=int(kind[-1])))
        _says(path, "Get the weights from a source that you trust" if kind == "pickle 2" else "not made by torch.save")
    else:
        torch.save({"SAA_module": SAA, "proj_module": call}, path, _use_new_zipfile_serialization=kind == "zip")
        _says(path, "nothing in it was run. Get the weights from a source that you trust")
    assert not ran.exists()

    # to be sure that it would have run
    pickle.loads(path.read_bytes()) if kind.startswith("pickle") else torch.load(path, weights_only=False)
    assert ran.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "file.bin")
    _says(tmp_path / "file.bin", "TorchScript program", "not loaded")


def test_a_tar_archive_that_begins_like_a_pickle_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "file.bin", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("\x80\x02storages"))
    _says(tmp_path / "file.bin", "tar archive", "not loaded")


# ---- tensors that are not right


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            {"state_dict": {"model.diffusion_model.out.2.bias": torch.zeros(4)}},
            "state_dict.model.diffusion_model.out.2",
        ),
        (
            {"image_proj": {"proj.weight": torch.zeros(4)}, "ip_adapter": {"1.to_k_ip.weight": torch.zeros(4)}},
            "IP-Adapter",
        ),
        ({f"lora_unet_{i}.alpha": torch.zeros(()) for i in range(7)}, "lora_unet_4.alpha and 2 more. Is it"),
        ({"blocks.0.attn.weight": torch.zeros(4)}, "found blocks.0.attn.weight"),
        ({"proj_module": {}}, "found no tensors"),
        ([torch.zeros(2)], "expected a dict of tensors, found list"),
        (torch.zeros(2), "expected a dict of tensors, found Tensor"),
        ({"SAA_module": SAA, "adapter_modules": SAA}, "are the same part"),
        ({"SAA_module": SAA, "unet": {"weight": torch.zeros(4)}}, "tensors of no part of DynamicID (unet.weight)"),
    ],
)
def test_other_models(tmp_path: Path, content: Any, says: str) -> None:
    torch.save(content, tmp_path / "file.bin")
    _says(tmp_path / "file.bin", says)


def test_a_dict_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["a"] = content
    torch.save(content, tmp_path / "file.bin")
    _says(tmp_path / "file.bin", "found no tensors")


@pytest.mark.parametrize("made_as", ["dynamicid-2", "dynamicid-identity-1"])
def test_another_format_of_ours(tmp_path: Path, made_as: str) -> None:
    save_file({"tokens": torch.zeros(4, 8)}, tmp_path / "file", metadata={"format": made_as})
    _says(tmp_path / "file", f"expected weights of format dynamicid-1, this is a file of format {made_as}")


NAN, INFINITE = torch.full((8, RANK), float("nan")), torch.full((8, RANK), float("inf"))


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("SAA_module", {"1.to_k_ip.weight": None}, "1 missing (1.to_k_ip.weight)"),
        ("SAA_module", {"0.to_k_ip.weight": torch.zeros(8, TOKEN)}, "1 not expected (0.to_k_ip.weight)"),
        ("SAA_module", {"0.to_q_lora.alpha": torch.zeros(())}, "1 not expected (0.to_q_lora.alpha)"),
        ("SAA_module", {"4.to_q_lora.up.weight": torch.zeros(8, 3)}, "17 missing (4.to_k_lora.down.weight, "),
        ("SAA_module", {"9999.to_q_lora.up.weight": torch.zeros(8, 3)}, "1 not expected (9999.to_q_lora.up.weight)"),
        ("SAA_module", dict.fromkeys(name for name in SAA if name.startswith("3.")), "10 missing (3.to_k_ip.weight, "),
        ("SAA_module", dict.fromkeys(name for name in SAA if name.startswith("1.")), "and 5 more"),
        (
            "SAA_module",
            {"0.to_v_lora.up.weight": torch.zeros(8, 2)},
            "0.to_v_lora.up.weight has shape (8, 2), expected (8, 3)",
        ),
        (
            "SAA_module",
            {"0.to_v_lora.up.weight": torch.zeros(9, 3)},
            "0.to_v_lora.up.weight has shape (9, 3), expected (8, 3)",
        ),
        ("SAA_module", {"2.to_k_lora.down.weight": torch.zeros(3, 9)}, "(3, 9), expected (3, 10)"),
        ("SAA_module", {"3.to_k_lora.down.weight": torch.zeros(3, 10)}, "(3, 10), expected (3, 12)"),
        (
            "SAA_module",
            {"3.to_v_ip.weight": torch.zeros(10, 15)},
            "3.to_v_ip.weight has shape (10, 15), expected (10, 16)",
        ),
        (
            "SAA_module",
            {"0.to_q_lora.down.weight": torch.zeros(3)},
            "0.to_q_lora.down.weight has shape (3,), expected 2 axes",
        ),
        ("SAA_module", {"0.to_q_lora.down.weight": torch.zeros(3, 8, 1, 1)}, "(3, 8, 1, 1), expected 2 axes"),
        ("SAA_module", {"0.to_q_lora.up.weight": NAN}, "0.to_q_lora.up.weight holds NaN or infinite values"),
        ("SAA_module", {"0.to_q_lora.up.weight": INFINITE}, "0.to_q_lora.up.weight holds NaN or infinite values"),
        ("SAA_module", {"0.to_q_lora.up.weight": torch.zeros(8, RANK, dtype=torch.int8)}, "is torch.int8"),
        (
            "SAA_module",
            {"0.to_q_lora.up.weight": torch.zeros(8, 0), "0.to_q_lora.down.weight": torch.zeros(0, 8)},
            "0.to_q_lora.down.weight has shape (0, 8), which holds nothing",
        ),
        ("proj_module", {"norm.bias": None}, "1 missing (norm.bias)"),
        ("proj_module", {"proj.2.bias": torch.zeros(31)}, "proj.2.bias has shape (31,), expected (32,)"),
        ("imr", {"proj_out.bias": None}, "1 missing (proj_out.bias)"),
        ("imr", {"entangleNet.1.2.1.weight": torch.zeros(1, 8)}, "(1, 8), expected (32, 8)"),
        ("keypoint_encoder", {"blocks.0.0.conv_block.0.bias": None}, "1 missing (blocks.0.0.conv_block.0.bias)"),
        ("keypoint_encoder", {"blocks.2.1.conv_block.0.weight": torch.zeros(5, 4, 3, 3)}, "expected (5, 4, 1, 1)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, part: str, change: dict[str, Tensor | None], says: str
) -> None:
    weights = {name: tensor for name, tensor in (PARTS[part] | change).items() if tensor is not None}
    torch.save({**PARTS, part: weights}, tmp_path / "file.bin")
    _says(tmp_path / "file.bin", f": {part}: ", says)


def test_a_part_that_comes_twice(tmp_path: Path) -> None:
    for name in ("first", "second"):
        torch.save({"SAA_module": SAA}, tmp_path / name)
    with pytest.raises(ValueError, match=r"second: holds SAA_module, which came from .*first already"):
        load_checkpoint(tmp_path / "first", tmp_path / "second")


def test_an_adapter_of_another_encoder(tmp_path: Path) -> None:
    wide = shapes(FaceEncoder(6, hidden_dim=8, clip_dim=10, dim=24, tokens=2, depth=1, dim_head=8))
    torch.save({"SAA_module": SAA, "proj_module": generated_weights(wide, seed=5)}, tmp_path / "file")
    _says(tmp_path / "file", f"takes identity tokens of {TOKEN}", "makes tokens of 24")


# ---- what is written


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
    assert _holds(load_checkpoint(tmp_path / "out"), {"SAA_module": sliced})


def test_the_format_is_in_the_file(tmp_path: Path) -> None:
    save_checkpoint(Checkpoint(None, ENCODER, None, None), tmp_path / "out")
    with safe_open(tmp_path / "out", framework="pt") as file:
        assert file.metadata() == {"format": "dynamicid-1"}
        assert set(file.keys()) == set(_flat({"proj_module": ENCODER}))


# ---- the command


@pytest.fixture
def release(tmp_path: Path) -> list[str]:
    torch.save({"proj_module": ENCODER, "SAA_module": SAA}, tmp_path / "SAA.bin")
    torch.save(IMR, tmp_path / "IMR.bin")
    torch.save(KEYPOINTS, tmp_path / "key_point_encoder.bin")
    return [str(tmp_path / name) for name in ("SAA.bin", "IMR.bin", "key_point_encoder.bin")]


def test_convert_and_inspect(tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "all.safetensors"
    assert main(["convert", *release, str(out)]) == 0
    assert _holds(load_checkpoint(out), PARTS)
    converted = capsys.readouterr().out
    assert main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert converted == f"{shown}written to {out}\n"

    head, *lines = (line.split() for line in shown.splitlines())
    assert head[:2] == ["part", "tensors"]
    assert [line[0] for line in lines] == list(PARTS)
    assert [line[-1] for line in lines] == [fingerprint(weights)[:12] for weights in PARTS.values()]
    # tensors, values, size (2 words), dtype, tokens, rank, depth
    assert lines[0][1] == str(len(SAA))
    assert lines[0][5:9] == ["float32", "2", str(RANK), "4"]
    assert lines[1][5:9] == ["float32", "2", "-", "1"]
    assert lines[2][5:9] == ["float32", "-", "-", "2"]
    assert "6x6 to 5" in shown


def test_inspect_a_part_alone(release: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for path, parts in zip(release, (["SAA_module", "proj_module"], ["imr"], ["keypoint_encoder"]), strict=True):
        assert main(["inspect", path]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == parts


def test_inspect_an_adapter_without_its_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"SAA_module": SAA}, tmp_path / "SAA.bin")
    assert main(["inspect", str(tmp_path / "SAA.bin")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[6] == "-"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspect", "{folder}/none"], "there is no such file"),
        (["inspect", "{folder}"], "this is a folder"),
        (["convert", "{folder}/SAA.bin", "{folder}/IMR.bin"], "IMR.bin: expected the file to write, last"),
        (["convert", "{folder}/IMR.bin", "{folder}/there.safetensors"], "there is such a file already"),
        (["convert", "{folder}/IMR.bin", "{folder}/IMR.bin", "{folder}/new.safetensors"], "holds imr, which came from"),
        (["convert", "{folder}/IMR.bin", "{folder}/none/new.safetensors"], "there is no folder"),
        (
            ["convert", "--overwrite", "{folder}/there.safetensors", "{folder}/IMR.bin", "{folder}/there.safetensors"],
            "expected a file other than those that are read",
        ),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, release: list[str], capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (tmp_path / "there.safetensors").touch()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([argument.format(folder=tmp_path) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_overwrite_when_told_to(tmp_path: Path, release: list[str]) -> None:
    out = tmp_path / "there.safetensors"
    out.touch()
    assert main(["convert", "--overwrite", release[1], str(out)]) == 0
    assert _holds(load_checkpoint(out), {"imr": IMR})


def test_runs_from_the_packs_folder_without_the_host(tmp_path: Path, release: list[str]) -> None:
    (tmp_path / "comfy.py").write_text("raise SystemExit('the host was imported')")
    done = subprocess.run(
        [sys.executable, "-m", "dynamicid_core.checkpoint", "inspect", release[1]],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith("imr")
