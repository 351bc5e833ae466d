"""Weight files: damaged, of another kind, or made to cost much; the door is what Load DynamicID reads them by."""

import functools
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint
from safetensors.torch import save

from ...core.weights import PARTS, flat
from ..judge import MARK, Case, Family
from .headers import headers
from .pickles import files as pickled
from .text import ODD


@functools.cache
def sound(kind: str) -> bytes:
    """Return a file that loads."""
    if kind == "safetensors":
        return save(flat(PARTS), {"format": "dynamicid-1"})
    file = io.BytesIO()
    torch.save(PARTS, file, _use_new_zipfile_serialization=kind == "zip")
    return file.getvalue()


def damaged(rng: Random, whole: bytes) -> tuple[str, bytes]:
    """Return a file cut, changed or mixed up somewhere, and words for it."""
    place = rng.choice((rng.randrange(len(whole)), rng.randrange(64), len(whole) - 1 - rng.randrange(200)))
    kinds: dict[str, Callable[[], bytes]] = {
        "cut": lambda: whole[:place],
        "a byte changed": lambda: whole[:place] + bytes([rng.randrange(256)]) + whole[place + 1 :],
        "bytes changed": lambda: bytes(b if rng.random() > 0.01 else rng.randrange(256) for b in whole),
        "zeros": lambda: whole[:place] + bytes(99) + whole[place + 99 :],
        "ones": lambda: whole[:place] + b"\xff" * 8 + whole[place + 8 :],
        "bytes lost": lambda: whole[:place] + whole[place + rng.randrange(1, 99) :],
        "bytes more": lambda: whole[:place] + bytes(rng.randrange(1, 99)) + whole[place:],
        "more at the end": lambda: whole + bytes(rng.randrange(1, 9999)),
        "twice": lambda: whole * 2,
        "noise": lambda: whole[: rng.choice((0, 1, 4, 8, 9))] + rng.randbytes(rng.choice((0, 1, 9, 500))),
    }
    words = rng.choice(list(kinds))
    return words, kinds[words]()


def no_file(rng: Random, path: Path) -> str:
    """Make something at a path that is no file with content, and return words for it."""
    kinds: dict[str, Callable[[], object]] = {
        "a folder": path.mkdir,
        "nothing": lambda: None,
        "an empty file": path.touch,
        "zeros": lambda: os.truncate(_touched(path), rng.choice((1, 8, 9, 10**6, 5 * 2**30))),
        "a link to nowhere": lambda: path.symlink_to("nowhere"),
        "a link to itself": lambda: path.symlink_to(path),
    }
    if os.name == "posix":
        kinds |= {
            "a FIFO": lambda: os.mkfifo(path),
            "a socket": lambda: _bound(path),
            "an endless device": lambda: path.symlink_to("/dev/zero"),
            "an empty device": lambda: path.symlink_to("/dev/null"),
        }
    words = rng.choice(list(kinds))
    kinds[words]()
    return words


def _touched(path: Path) -> Path:
    path.touch()
    return path


def _bound(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name.encode("utf-8", "surrogateescape"))
    os.chdir(before)


def file_name(rng: Random) -> str:
    """Return a file's name; some hold what the system takes and people can't read."""
    odd = rng.choice(("", "", *(text for text in ODD if "\0" not in text and "\ud800" not in text)))
    return f"weights{odd[:30]}.bin"


def _draw(rng: Random, folder: Path) -> Case:
    path = folder / file_name(rng)
    kind = rng.choice(("pickle", "pickle", "pickle", "header", "header", "damaged", "damaged", "no file"))
    if kind == "no file":
        words, size = no_file(rng, path), 0
    else:
        if kind == "damaged":
            of = rng.choice(("safetensors", "zip", "before zip"))
            words, content = damaged(rng, sound(of))
            words = f"{words}, {of}"
        else:
            words, content = headers(rng) if kind == "header" else pickled(rng, str(folder / MARK))
        path.write_bytes(content)
        size = len(content)
    return Case(f"{kind}: {words}", (path,), size)


WEIGHTS = Family("weights", _draw, load_checkpoint)
