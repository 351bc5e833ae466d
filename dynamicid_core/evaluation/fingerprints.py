"""Short names for what files hold and for what a graph asks."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CHUNK = 2**20


def digest(value: Any) -> str:
    """64 hex digits of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_fingerprint(path: Path) -> str:
    """64 hex digits of a file's bytes. Raises OSError when it can't be read."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def files_fingerprint(paths: Sequence[Path]) -> str:
    """64 hex digits of all files, and of all files in folders, with their names there but not their own."""
    found = []
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        found.append([[file.relative_to(path).as_posix(), file_fingerprint(file)] for file in files])
    return digest(found)
