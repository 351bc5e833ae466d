"""What is said of every kind of weight file that is not right."""

import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint
from dynamicid_pack.dynamicid_core.identity.encoder import FaceEncoder
from dynamicid_pack.dynamicid_core.state_dict import shapes
from dynamicid_pack.tests.support import generated_weights
from safetensors.torch import save_file
from torch import Tensor

from .weights import PARTS, RANK, SAA, TOKEN, assert_says, flat

SAFETENSORS_HEAD = (2**40).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"<!DOCTYPE html><html>", "expected a safetensors file or a PyTorch .bin, this is neither"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"PK\x03\x04 and no more", "truncated, damaged"),
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
    assert_says(tmp_path / "file.bin", says)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / "whole"
    if kind == "safetensors":
        save_file(flat(PARTS), path)
    else:
        torch.save(PARTS, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    assert_says(path, "truncated", "Download or copy it again")


def test_no_file_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        load_checkpoint(tmp_path / "none")
    assert_says(tmp_path, "expected a file, this is a folder")


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
        words = "Get the weights from a source that you trust" if kind == "pickle 2" else "not made by torch.save"
        assert_says(path, words)
    else:
        torch.save({"SAA_module": SAA, "proj_module": call}, path, _use_new_zipfile_serialization=kind == "zip")
        assert_says(path, "nothing in it was run. Get the weights from a source that you trust")
    assert not ran.exists()

    # to be sure that it would have run
    pickle.loads(path.read_bytes()) if kind.startswith("pickle") else torch.load(path, weights_only=False)
    assert ran.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "file.bin")
    assert_says(tmp_path / "file.bin", "TorchScript program", "not loaded")


def test_a_tar_archive_that_begins_like_a_pickle_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "file.bin", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        archive.addfile(tarfile.TarInfo("\x80\x02storages"))
    assert_says(tmp_path / "file.bin", "tar archive", "not loaded")


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
    assert_says(tmp_path / "file.bin", says)


def test_a_dict_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["a"] = content
    torch.save(content, tmp_path / "file.bin")
    assert_says(tmp_path / "file.bin", "found no tensors")


@pytest.mark.parametrize("made_as", ["dynamicid-2", "dynamicid-identity-1"])
def test_another_format_of_ours(tmp_path: Path, made_as: str) -> None:
    save_file({"tokens": torch.zeros(4, 8)}, tmp_path / "file", metadata={"format": made_as})
    assert_says(tmp_path / "file", f"expected weights of format dynamicid-1, this is a file of format {made_as}")


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
    assert_says(tmp_path / "file.bin", f": {part}: ", says)


def test_a_part_that_comes_twice(tmp_path: Path) -> None:
    for name in ("first", "second"):
        torch.save({"SAA_module": SAA}, tmp_path / name)
    with pytest.raises(ValueError, match=r"second: holds SAA_module, which came from .*first already"):
        load_checkpoint(tmp_path / "first", tmp_path / "second")


def test_an_adapter_of_another_encoder(tmp_path: Path) -> None:
    wide = shapes(FaceEncoder(6, hidden_dim=8, clip_dim=10, dim=24, tokens=2, depth=1, dim_head=8))
    torch.save({"SAA_module": SAA, "proj_module": generated_weights(wide, seed=5)}, tmp_path / "file")
    assert_says(tmp_path / "file", f"takes identity tokens of {TOKEN}", "makes tokens of 24")
