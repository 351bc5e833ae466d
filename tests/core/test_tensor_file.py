"""Files of tensors: read as PyTorch and safetensors read them, and let go of."""

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint
from dynamicid_pack.dynamicid_core.tensor_file import open_tensors, read_tensors
from dynamicid_pack.tests.support import ROOT
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..fuzz.judge import BYTES, Case, Family, judge
from .weights import PARTS, flat

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]
_ROWS = torch.arange(60.0).reshape(6, 10)
CONTENTS: dict[str, Any] = {
    "dtypes": {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES},
    "views": {"rows": _ROWS[2:4], "columns": _ROWS[:, 3], "turned": _ROWS.T, "step": _ROWS[::2, 1::3], "all": _ROWS},
    "shapes": {"none": torch.zeros(0, 3), "number": torch.tensor(5.0), "many": torch.ones(1, 2, 1, 3, 1)},
    "parameters": {"a": torch.nn.Parameter(torch.ones(2)), "b": torch.nn.Parameter(torch.ones(2), requires_grad=False)},
    "a state dict": torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict(),
    "nested": {"a": {"b": {"c": torch.ones(2), "d": {"too deep": {"x": torch.ones(1)}}}}, 3: torch.ones(1)},
    "beside them": {
        "step": 1000, "rate": 1e-4, "big": 2**40, "text": "größe", "none": None, "yes": True, "bytes": b"\x00\xff",
        "list": [1, (2, 3), {4}], "size": torch.Size([2]), "dtype": torch.float16, "device": torch.device("cpu"),
        "complex": 1j, "weights": OrderedDict(x=torch.ones(2)), "tensors in a list": [torch.ones(2)],
    },
}  # fmt: skip


def expected(content: Any, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """Return the tensors of nested dicts."""
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{key}"] = value.detach()
        elif isinstance(value, dict) and depth < 3:
            tensors |= expected(value, f"{prefix}{key}.", depth + 1)
    return tensors


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and ours[name].shape == tensor.shape, name
        assert ours[name].stride() == tensor.stride(), name
        assert ours[name].device.type == "cpu" and not ours[name].requires_grad
        whole = (t.contiguous().reshape(-1).view(torch.uint8) for t in (ours[name], tensor))
        assert torch.equal(*whole), name


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before zip"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_what_torch_reads(kind: str, zipped: bool, tmp_path: Path) -> None:
    # PyTorch itself doesn't read 8-bit floats from before zip
    content = {name: value for name, value in CONTENTS[kind].items() if zipped or name != "torch.float8_e4m3fn"}
    torch.save(content, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    theirs = torch.load(tmp_path / "file", weights_only=True)
    ours, metadata = read_tensors(tmp_path / "file")
    assert_equal(ours, expected(theirs))
    assert metadata == {}
    with open_tensors(tmp_path / "file") as file:
        assert {name: (t.shape, t.dtype) for name, t in file.tensors.items()} == {
            name: (t.shape, t.dtype) for name, t in ours.items()
        }
        assert all(tensor.is_meta for tensor in file.tensors.values())


def test_tensors_that_share_memory_share_it_again(tmp_path: Path) -> None:
    torch.save({"rows": _ROWS[2:4], "all": _ROWS, "other": _ROWS.clone()}, tmp_path / "file")
    tensors, _ = read_tensors(tmp_path / "file")
    tensors["all"].zero_()
    assert not tensors["rows"].any() and tensors["other"].any()


def test_what_safetensors_reads(tmp_path: Path) -> None:
    tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES} | CONTENTS["shapes"]
    save_file(tensors, tmp_path / "file", {"a": "größe"})
    ours, metadata = read_tensors(tmp_path / "file")
    assert_equal(ours, load_file(tmp_path / "file"))
    assert metadata == {"a": "größe"}


FORMS = ["safetensors", "zip", "before zip"]


def written(form: str, path: Path, content: dict[str, dict[str, Tensor]]) -> Path:
    if form == "safetensors":
        save_file(flat(content), path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
@pytest.mark.parametrize("form", FORMS)
def test_nothing_stays_mapped_or_open(form: str, tmp_path: Path) -> None:
    path = written(form, tmp_path / "weights", PARTS)
    kept = load_checkpoint(path)
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert str(path) not in [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
    assert kept.imr


_TOUCH = """
import sys
from dynamicid_core.checkpoint import load_checkpoint, parts_of
from dynamicid_core.identity.identity import load_identity

kept = [load_checkpoint(path) for path in sys.argv[1:4]]
person = load_identity(__import__("pathlib").Path(sys.argv[4]))
for path in sys.argv[1:]:
    open(path, "r+b").truncate(0)
total = sum(float(t.double().sum()) for c in kept for w in parts_of(c).values() for t in w.values())
print(total, float(person.tokens.sum() + person.negative_tokens.sum() + person.face.embedding.sum()))
"""


@pytest.mark.train  # another Python imports torch
def test_files_replaced_in_place_while_they_are_in_use(tmp_path: Path) -> None:
    from dynamicid_pack.dynamicid_core.identity.faces import Face
    from dynamicid_pack.dynamicid_core.identity.identity import Identity, save_identity

    paths = [written(form, tmp_path / form, PARTS) for form in FORMS]
    person = Identity(torch.ones(64, 768), torch.zeros(64, 768), face=Face(torch.ones(512)))
    save_identity(person, tmp_path / "ana.safetensors")
    command = [sys.executable, "-c", _TOUCH, *map(str, paths), str(tmp_path / "ana.safetensors")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    total, face = map(float, done.stdout.split())
    assert total == pytest.approx(3 * sum(float(t.double().sum()) for t in flat(PARTS).values()))
    assert face == 64 * 768 + 512


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_cut_while_it_is_read(form: str, tmp_path: Path) -> None:
    path = written(form, tmp_path / "weights", {"imr": {"large": torch.ones(2**18)}})
    with open_tensors(path) as file:
        os.truncate(path, 2**18)
        with pytest.raises(ValueError, match="became shorter while it was read"):
            file.read()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_takes_its_own_size_of_memory(form: str, tmp_path: Path) -> None:
    tensors = {"imr": {f"{i}": torch.zeros(2**21) for i in range(8)}}
    path = written(form, tmp_path / "weights", tensors)
    size = path.stat().st_size

    def measured(path: Path) -> None:
        assert len(read_tensors(path)[0]) == 8

    # judged as if it might take its size and 16 MiB in all
    case = Case("zeros", (path,), size + 2**24 - BYTES)
    assert judge(Family("memory", lambda _, __: case, measured), 0, tmp_path / "case") is None
