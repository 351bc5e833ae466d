"""Lock files: each package of an environment by version and sha256, for every Python and system that is supported."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from .environment import PYTHONS, DevError, Environment

LOCKS = Path(os.path.abspath(__file__)).parent / "locks"

# torchaudio's wheels stop at 2.11 and refuse a torch that was built for another CUDA: the three are held together.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")

TOOLS = ("comfy-cli>=1.23,<2", "comfy-test>=0.4.15,<0.5", "uv>=0.13", "setuptools>=69")
"""The registry's own tools, what makes lock files, and what pip needs for the metadata of a host's archive."""

HASHED = ("--require-hashes", "--no-deps", "--only-binary", ":all:", "-r")
"""pip's options before a lock file: what it doesn't name is not installed, and nothing is built."""


def requirement_lines(text: str) -> list[str]:
    """Return the requirements in a requirements.txt's text, without comments."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def developer_requirements(pyproject: str) -> list[str]:
    """Return the extras of a pyproject.toml's text that development takes: flat lists (Python 3.10 reads no TOML)."""
    wanted: list[str] = []
    for extra in ("training", "scale", "dev"):
        found = re.search(rf"^{extra} = (\[.*?^\])", pyproject, re.MULTILINE | re.DOTALL)
        if found is None:
            raise DevError(f"pyproject.toml has no list `{extra}` among its optional dependencies: restore the file.")
        wanted += ast.literal_eval(found[1])
    return wanted


def pack_requirements(root: Path) -> list[str]:
    """Return what an environment takes beside its host's own list."""
    listed = requirement_lines((root / "requirements.txt").read_text(encoding="utf-8"))
    return [*TORCH, *listed, *developer_requirements((root / "pyproject.toml").read_text(encoding="utf-8"))]


def lock_file(name: str) -> Path:
    """Return the path of a host version's lock file, or of "tools"."""
    return LOCKS / (f"{name}.txt" if name == "tools" else f"comfyui-{name}.txt")


def answers(lock: Path, **lists: Iterable[str]) -> bool:
    """Return whether a lock file was made of these lists of requirements (`host`, `pack`), as its first lines say."""
    if not lock.is_file():
        return False
    head = lock.read_text(encoding="utf-8")[:500].splitlines()
    return all(_source(name, requirements) in head for name, requirements in lists.items())


def require_answer(lock: Path, **lists: Iterable[str]) -> None:
    """Raise DevError where a lock file was made of other requirements."""
    if not answers(lock, **lists):
        raise DevError(f"{lock.name} was made of other requirements than {' and '.join(lists)} has now: dev.py lock")


def _source(name: str, requirements: Iterable[str]) -> str:
    return f"# {name}: {hashlib.sha256(chr(10).join(requirements).encode()).hexdigest()}"


def write_lock(tools: Environment, lock: Path, **lists: Sequence[str]) -> None:
    """Make a lock file anew with the newest versions that these requirements allow: wheels alone, from pip's index."""
    asked = [str(tools.command("uv")), "pip", "compile", "--universal", "--generate-hashes", "--python-version"]
    asked += [PYTHONS[0], "--only-binary", ":all:", "--no-annotate", "--no-header", "--quiet", "-"]
    wanted = "\n".join(line for requirements in lists.values() for line in requirements)
    made = subprocess.run(asked, input=wanted, stdout=subprocess.PIPE, encoding="utf-8", env=_index_of_pip(tools))
    if made.returncode:
        raise DevError(f"uv could not resolve the requirements of {lock.name}: see its message above.")
    heads = ["# Made by `python dev.py lock`, for all Pythons and systems. What it was made of, by sha256:"]
    heads += [_source(name, requirements) for name, requirements in lists.items()]
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("\n".join([*heads, made.stdout]), encoding="utf-8")


def _index_of_pip(tools: Environment) -> dict[str, str]:
    """Return the process's variables with the index that pip is set to, for uv, which reads pip's settings nowhere."""
    variables = dict(os.environ)
    asked = [str(tools.python), "-m", "pip", "config", "list"]
    settings = subprocess.run(asked, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout
    for name, variable in (("index-url", "UV_DEFAULT_INDEX"), ("cert", "SSL_CERT_FILE")):
        if found := re.findall(rf"^\S*\.{name}='(.*)'$", settings, re.MULTILINE):
            variables.setdefault(variable, found[-1])
    return variables
