"""Files written whole or not at all, and digests of what they hold."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 2**20  # bytes read at a time
_PART = re.compile(r"(?P<name>.+)\.(?:(?P<machine>[\w-]+)-)?(?P<process>\d+)\.part", re.S)
_ABANDONED = 24 * 3600.0  # seconds without a change, after which another machine's part is nobody's


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file to, and move that file to `path` at the end.

    A kill leaves the old file or the new one at `path`, never a part of it; an error leaves the old one and removes the
    part. What a kill leaves beside it `remove_stale_parts` removes. Folders that are missing are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{_machine()}-{os.getpid()}.part")
    _writing.add(part)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        _writing.discard(part)


def remove_stale_parts(folder: Path, suffix: str) -> None:
    """Remove what `atomic_path` left in a folder and those below it where it was killed while it wrote `*<suffix>`."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if (match := _PART.fullmatch(name)) and match["name"].endswith(suffix):
                part = Path(parent, name)
                with contextlib.suppress(OSError):  # another process removes it, or has just finished
                    if _is_stale(part, match["machine"], int(match["process"])):
                        part.unlink()


def _is_stale(part: Path, machine: str | None, process: int) -> bool:
    if part in _writing:
        return False
    if machine != _machine():  # a folder may be shared with machines whose processes can't be seen
        return time.time() - part.stat().st_mtime > _ABANDONED
    # in a container a server has the same number after each start
    return process == os.getpid() or not _is_alive(process)


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where signal 0 would end it; a file that is open there can't be removed anyway
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def _machine() -> str:
    return re.sub(r"[^\w-]", "", platform.node(), flags=re.A)[:40] or "machine"


_writing: set[Path] = set()
"""The parts that this process is writing."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file's whole content, text as UTF-8, through `atomic_path`."""
    with atomic_path(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes in hex, reading it in parts. Raises OSError where it can't be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
