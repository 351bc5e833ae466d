"""Tensors out of a PyTorch or safetensors file, told apart by content; nothing in a file is ever executed."""

import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_DEPTH = 3
_AGAIN = "Download or copy it again."
# what PyTorch's restricted unpickler says of anything but tensors, in its several versions
_NOT_TENSORS = re.compile(r"(?:GLOBAL|class|function|global) [`'\"]?([\w.]+)")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all tensors of a file under dotted names, and a safetensors file's metadata.

    Takes safetensors, and what `torch.save` writes: nested dicts of tensors, zipped (memory-mapped) or in the format
    before that. Raises FileNotFoundError, or ValueError when the file is not whole or not of these kinds.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file.")
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, this is a folder.")
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise ValueError(f"{path}: the file is empty (0 bytes). {_AGAIN}")
    if start[8:9] == b"{":
        return read_safetensors(path)
    zipped = start.startswith(b"PK\x03\x04")
    if zipped:
        _refuse_torchscript(path)
    elif not start.startswith(b"\x80"):
        raise ValueError(
            f"{path}: expected a safetensors file or a PyTorch .bin, this is neither: it begins with {start!r}. "
            "Where it was downloaded, check that the file itself came, not a web page or a Git LFS pointer."
        )
    # PyTorch also knows an old tar format, which it used to unpack outside of weights_only's protection
    elif tarfile.is_tarfile(path):
        raise ValueError(f"{path}: this is a tar archive, expected tensors only. It was not loaded.")
    return _flat(path, _load(path, mmap=zipped)), {}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file. Raises ValueError where it is not whole."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path}: the safetensors file is truncated or its header is broken ({error}). {_AGAIN}"
        ) from error


def _refuse_torchscript(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: the PyTorch file is truncated or damaged ({error}). {_AGAIN}") from error
    # older PyTorch hands such an archive to TorchScript, whatever weights_only says
    if any(name.split("/")[-1] == "constants.pkl" for name in names):
        raise ValueError(f"{path}: this is a TorchScript program, expected tensors only. It was not loaded.")


def _load(path: Path, mmap: bool) -> Any:
    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    except MemoryError:
        raise
    except Exception as error:  # what a damaged pickle makes the reader raise is anyone's guess
        refused = _NOT_TENSORS.search(str(error)) if isinstance(error, UnpicklingError) else None
        if refused:
            raise ValueError(
                f"{path}: the file asks for {refused[1]}, expected tensors only. It was refused and nothing in it was "
                "run. Get the weights from a source that you trust."
            ) from error
        lines = str(error).split("WeightsUnpickler error:")[-1].strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise ValueError(
            f"{path}: the PyTorch file is truncated, damaged or not made by torch.save ({reason}). {_AGAIN}"
        ) from error


def _flat(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the tensors in nested dicts under dotted names; what lies beside them is left out."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a dict of tensors, found {type(content).__name__}. Is it another model?")
    tensors: dict[str, Tensor] = {}
    # a pickle can hold a dict that holds itself, so the depth has an end
    pending: list[tuple[str, Mapping[Any, Any], int]] = [("", content, 0)]
    while pending:
        prefix, mapping, depth = pending.pop()
        for key, value in mapping.items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}{key}"] = value.detach()
            elif isinstance(value, Mapping) and depth < _DEPTH:
                pending.append((f"{prefix}{key}.", value, depth + 1))
    return tensors
