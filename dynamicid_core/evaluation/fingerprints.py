"""Digests of JSON values and of files with their names."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import sha256_of_file


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value in hex, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def files_fingerprint(paths: Sequence[Path]) -> str:
    """Return the sha256 in hex of all files, and of all files in folders, with their names there but not their own."""
    digests = []
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        digests.append([[file.relative_to(path).as_posix(), sha256_of_file(file)] for file in files])
    return digest(digests)
