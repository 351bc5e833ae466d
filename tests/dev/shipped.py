"""What the registry ships of this checkout, told by git and .comfyignore."""

import subprocess

import pathspec
from dynamicid_pack.tests.support import ROOT

LARGEST = 45e6
"""Bytes of the zip."""

LEFT_OUT = (
    *("tests/", "benchmarks/", "devtools/", "mini/train/", "mini/world/"),
    *(f"dynamicid_core/{room}/" for room in ("training", "data", "evaluation")),
)
"""Rooms of tests and training."""


def shipped_files() -> list[str]:
    """Return the tracked files that .comfyignore keeps, by the rules that the registry's tool reads it with."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.decode()
    ignored = pathspec.GitIgnoreSpec.from_lines((ROOT / ".comfyignore").read_text("utf-8").splitlines())
    return [path for path in listed.split("\0") if path and not ignored.match_file(path)]
