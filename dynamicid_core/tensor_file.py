"""Tensors out of a PyTorch or safetensors file, told apart by content.

Nothing in a file is ever executed, and nothing stays mapped: a file may be replaced in place once it is read. What is
in a file is known, and held to limits, before anything large is allocated.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import torch_file
from .messages import about, printable, quoted, shown
from .torch_file import Content, check_name
from .torch_pickle import AGAIN, View

HEADER = 8 * 2**20  # bytes of a safetensors file's header, in which other programs keep some megabytes of notes
TENSORS = 10_000  # of a file; a whole SDXL checkpoint has 2,500
AXES = 16  # of a tensor

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class TensorFile:
    """An open file of tensors; a context manager that closes it.

    Attributes:
        tensors: by dotted names, on the meta device: shapes and dtypes without values.
        metadata: a safetensors file's, else {}.
    """

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    _file: io.BufferedReader
    _content: Content

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return tensors with their values, all of them unless `names` tells which.

        Tensors that share memory in the file share it again. Raises ValueError where the file has become shorter.
        """
        storages: dict[str, Tensor] = {}
        tensors = {}
        for name in self.tensors if names is None else names:
            view = self._content.views[name]
            if view.storage not in storages:
                storages[view.storage] = self._bytes(*self._content.storages[view.storage])
            whole = storages[view.storage].untyped_storage()
            tensors[name] = torch.empty(0, dtype=view.dtype).set_(whole, view.offset, view.shape, view.strides)
        return tensors

    def _bytes(self, position: int, length: int) -> Tensor:
        values = torch.empty(length, dtype=torch.uint8)
        with about(self.path):
            self._file.seek(position)
            if length and self._file.readinto(values.numpy().data) != length:
                raise ValueError(f"the file became shorter while it was read. {AGAIN}")
        return values


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all tensors of a file under dotted names, and a safetensors file's metadata. Raises as `open_tensors`."""
    with open_tensors(path) as file:
        return file.read(), file.metadata


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes follow from what is in it; safetensors itself has metadata in any order.

    Raises as `safetensors.torch.save_file`.
    """
    save_file(dict(tensors), path, metadata=dict(metadata))
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(size)
        assert len(ordered) == size, "safetensors no longer writes compact JSON"
        file.seek(8)
        file.write(ordered)


def open_tensors(path: Path, largest: int | None = None) -> TensorFile:
    """Open a file and find out what is in it.

    Takes safetensors, and what `torch.save` writes: nested dicts of tensors, zipped or in the format before that.

    Args:
        largest: bytes, beyond which the file is refused.

    Raises FileNotFoundError, OSError where it can't be read, or ValueError, which names the file, when it is not whole,
    not of these kinds, or beyond the limits.
    """
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(_open(path))
        with about(path):
            size = os.fstat(file.fileno()).st_size
            if largest is not None and size > largest:
                raise ValueError(f"it has {size:,} bytes, expected at most {largest:,}. Is it another kind of file?")
            content = _content(file, size)
            _check(content, size)
        tensors = {
            name: torch.empty_strided(view.shape, view.strides, dtype=view.dtype, device="meta")
            for name, view in content.views.items()
        }
        opened.pop_all()
        return TensorFile(path, tensors, content.metadata, file, content)


def kind_of(path: Path) -> str | None:
    """Return what lies at a path in place of a file with content, such as "a folder"; None where it is a file."""
    return _KINDS.get(stat.S_IFMT(path.stat().st_mode))


def _open(path: Path) -> io.BufferedReader:
    try:
        kind = kind_of(path)
        if kind is None:
            return path.open("rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{shown(path)}: there is no such file.") from error
    except OSError as error:
        raise OSError(f"{shown(path)}: the file can't be read ({error.strerror}). Check it, and its rights.") from error
    raise ValueError(f"{shown(path)}: expected a file, this is {kind}. Choose the file itself.")


def _content(file: io.BufferedReader, size: int) -> Content:
    start = file.read(512)
    if not start:
        raise ValueError(f"the file is empty (0 bytes). {AGAIN}")
    if start[8:9] == b"{":
        return _safetensors(file, size)
    if start.startswith(b"PK\x03\x04"):
        return torch_file.read_zipped(file, size)
    if not start.startswith(b"\x80"):
        raise ValueError(
            f"expected a safetensors file or a PyTorch .bin, this is neither: it begins with {start[:16]!r}. "
            "Where it was downloaded, check that the file itself came, not a web page or a Git LFS pointer."
        )
    if start[257:262] == b"ustar":
        raise ValueError("this is a tar archive, expected tensors only. It was not loaded.")
    return torch_file.read_before_zip(file, size)


def _check(content: Content, size: int) -> None:
    """Hold names and sizes to the limits."""
    _check_count(len(content.views))
    for name, view in content.views.items():
        check_name(name)
        if len(view.shape) > AXES:
            raise ValueError(f"{name} has {len(view.shape):,} axes, expected at most {AXES}. The file was badly made.")
    # tensors may share memory, as tied weights do; what works on them may not get much more than the file holds
    total, most = sum(view.nbytes for view in content.views.values()), 4 * size + 64 * 2**20
    if total > most:
        raise ValueError(
            f"its tensors have {total:,} bytes, the file {size:,}: expected at most {most:,}. The file was badly made."
        )


def _check_count(count: int) -> None:
    if count > TENSORS:
        raise ValueError(f"it holds {count:,} tensors, expected at most {TENSORS:,}. Is it another model?")


def _safetensors(file: io.BufferedReader, size: int) -> Content:
    """Return what a safetensors file holds: 8 bytes of length, a header in JSON, the tensors one after the other."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if 8 + length > size:
        raise _broken(f"its header is to have {length:,} bytes, the file has {size:,}")
    if length > HEADER:
        raise ValueError(f"the safetensors file's header has {length:,} bytes, expected at most {HEADER:,}.")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_unique)
    except RecursionError:
        raise _broken("too deep") from None
    except ValueError as error:
        raise _broken(printable(str(error))) from error
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken("expected an object of tensors, and metadata of texts")

    _check_count(len(header))
    views: dict[str, View] = {}
    storages: dict[str, tuple[int, int]] = {}
    for name, entry in header.items():
        view, begin, end = _entry(name, entry)
        views[name], storages[name] = view, (8 + length + begin, end - begin)
    at = 8 + length
    for begin, extent in sorted(storages.values()):
        if begin != at:
            raise _broken(f"a tensor begins at byte {begin:,}, expected {at:,}")
        at += extent
    if at != size:
        raise _broken(f"its tensors end at byte {at:,}, the file at {size:,}")
    return Content(views, storages, metadata)


def _entry(name: str, entry: Any) -> tuple[View, int, int]:
    """Return a tensor of a safetensors header, and where its bytes begin and end among all tensors'."""
    try:
        dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        fits = all(type(number) is int and 0 <= number < 2**62 for number in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise _broken(f"{quoted(name)} has dtype, shape and offsets {quoted(entry)}")
    view = View.contiguous(name, dtype, shape)
    if view.nbytes != end - begin:
        raise _broken(f"{quoted(name)} has {end - begin:,} bytes, its shape {quoted(shape)} needs {view.nbytes:,}")
    return view, begin, end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name comes twice")
    return entries


def _broken(reason: str) -> ValueError:
    return ValueError(f"the safetensors file is truncated or its header is broken ({reason}). {AGAIN}")
