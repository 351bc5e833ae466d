"""What lies where in a file of `torch.save`, found without PyTorch's reader and without running anything."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .messages import LIMIT, quoted
from .torch_pickle import AGAIN, Interpreter, View, damaged

PICKLE = 8 * 2**20  # bytes; a tensor takes some 150
_ENTRIES = 100_000  # of dicts that are looked through for tensors, those that are shared as often as they are met
_DIRECTORY = 4 * 2**20  # bytes of a zip archive's list of records
_DEPTH = 3
_OF_ZIPFILE = (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, OSError, EOFError, struct.error)
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what a file from before zip begins with


@dataclass(frozen=True)
class Content:
    """What a file holds: tensors by dotted names, and each storage's position and length in bytes."""

    views: dict[str, View]
    storages: dict[str, tuple[int, int]]
    metadata: dict[str, str] = field(default_factory=dict)


def check_name(name: str) -> None:
    """Raise ValueError unless a tensor's name prints and is of a usual length."""
    if not name.isprintable() or len(name) > LIMIT:
        raise ValueError(
            f"a tensor is called {quoted(name)} ({len(name):,} characters), expected a name that prints, of at most "
            f"{LIMIT}. The file was badly made."
        )


def read_zipped(file: io.BufferedReader, size: int) -> Content:
    """Return what an archive of `torch.save` holds. Raises ValueError where it is damaged, or no such archive."""
    try:
        with zipfile.ZipFile(_Bounded(file)) as archive:
            records = {record.filename: record for record in archive.infolist()}
    except _OF_ZIPFILE as error:
        raise damaged(error) from error
    if any(name.split("/")[-1] == "constants.pkl" for name in records):
        raise ValueError("this is a TorchScript program, expected tensors only. It was not loaded.")
    pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"expected an archive that torch.save wrote, found {len(pickles)} pickles in it. {AGAIN}")
    if sum(record.file_size for record in records.values()) > size or any(
        record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1 for record in records.values()
    ):
        raise ValueError(
            "its records are compressed, encrypted or overlap, expected them as torch.save writes them. Take the "
            "original file."
        )
    folder = pickles[0].partition("/")[0]
    places = {name: _place(file, record, size) for name, record in records.items()}
    if _record(file, places.get(f"{folder}/byteorder"), 16) not in (b"", b"little"):
        raise ValueError("the file was written by a big-endian machine, expected little-endian. Convert it there.")
    content = Interpreter().load(io.BytesIO(_record(file, places[pickles[0]], PICKLE)))
    prefix = f"{folder}/data/"
    return _laid_out(content, {name[len(prefix) :]: place for name, place in places.items() if name.startswith(prefix)})


def read_before_zip(file: io.BufferedReader, size: int) -> Content:
    """Return what a file holds that `torch.save` wrote before PyTorch 1.6: five pickles, then the storages."""
    file.seek(0)
    head = io.BytesIO(file.read(PICKLE))
    interpreter = Interpreter()
    if (interpreter.load(head), interpreter.load(head)) != (_MAGIC, _PROTOCOL):
        raise damaged("it begins otherwise")
    system, content, keys = (interpreter.load(head) for _ in range(3))
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise ValueError("the file was written by a big-endian machine, expected little-endian. Convert it there.")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise damaged("expected a list of storages")
    at, places = head.tell(), {}
    for key in keys:
        file.seek(at)
        numel = int.from_bytes(file.read(8), "little", signed=True)
        length = numel * interpreter.dtypes[key].itemsize if key in interpreter.dtypes else -1
        if not 0 <= length <= size - at - 8:
            raise damaged(f"storage {quoted(key)} is to have {numel:,} values")
        places[key] = (at + 8, length)
        at += 8 + length
    return _laid_out(content, places)


class _Bounded:
    """A file for `zipfile`, which would read as much at once as an archive tells it to."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        if count > _DIRECTORY:
            raise zipfile.BadZipFile(f"a list of records of {count:,} bytes")
        return self._file.read(count if count >= 0 else _DIRECTORY)


def _place(file: io.BufferedReader, record: zipfile.ZipInfo, size: int) -> tuple[int, int]:
    """Return position and length of a record's bytes, behind its own header of 30 bytes, name and padding."""
    file.seek(record.header_offset)
    head = file.read(30)
    begin = record.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if not head.startswith(b"PK\x03\x04") or begin + record.file_size > size:
        raise damaged(f"record {quoted(record.filename)} lies beyond its end")
    return begin, record.file_size


def _record(file: io.BufferedReader, place: tuple[int, int] | None, most: int) -> bytes:
    if place is None:
        return b""
    if place[1] > most:
        raise ValueError(f"a pickle in it has {place[1]:,} bytes, expected at most {most:,}. Is it another model?")
    file.seek(place[0])
    return file.read(place[1])


def _laid_out(content: object, places: Mapping[str, tuple[int, int]]) -> Content:
    """Return the tensors of nested dicts, each within the storage that the file has for it."""
    if not isinstance(content, dict):
        kind = "Tensor" if isinstance(content, View) else type(content).__name__.strip("_")
        raise ValueError(f"expected a dict of tensors, found {kind}. Is it another model?")
    views = dict(_views(content))
    for name, view in views.items():
        length = places.get(view.storage, (0, -1))[1]
        last = view.offset + sum((extent - 1) * stride for extent, stride in zip(view.shape, view.strides, strict=True))
        needed = 0 if 0 in view.shape else (last + 1) * view.dtype.itemsize
        if length < max(needed, view.nbytes):
            raise damaged(
                f"{quoted(name)} needs {max(needed, view.nbytes):,} bytes, its storage has {max(length, 0):,}"
            )
    used = {view.storage for view in views.values()}
    return Content(views, {key: place for key, place in places.items() if key in used})


def _views(content: dict[Any, Any]) -> Iterator[tuple[str, View]]:
    """Yield the tensors in nested dicts under dotted names; what lies beside them is left out."""
    # a pickle can hold a dict that holds itself, so the depth has an end; and one dict in a thousand places
    pending: list[tuple[str, dict[Any, Any], int]] = [("", content, 0)]
    entries = 0
    while pending:
        prefix, mapping, depth = pending.pop()
        entries += len(mapping)
        if entries > _ENTRIES:
            raise ValueError(f"its dicts have more than {_ENTRIES:,} entries, expected at most so many. Is it a model?")
        for key, value in mapping.items():
            if not isinstance(value, (View, dict)):
                continue
            check_name(name := f"{prefix}{key}")
            if isinstance(value, View):
                yield name, value
            elif depth < _DEPTH:
                pending.append((f"{name}.", value, depth + 1))
