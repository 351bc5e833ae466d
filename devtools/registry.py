"""The registry's own tools, in an environment of their own: what they need would disturb ComfyUI's packages.

They ask nothing, tell nobody that they ran, and keep their settings in that environment.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import zipfile
from pathlib import Path

from .environment import DevError, Environment, Step, locked, make_venv, pip_install, run_steps, runs, say
from .lock import HASHED, TOOLS, lock_file, require_answer

PACKED = "node.zip"  # what `comfy node pack` writes into the folder that it packs
SETTINGS = (".config", "AppData/Local", "Library/Application Support")  # where comfy-cli looks for a folder in a home


def prepare_tools(version: str, interpreter: str, home: Path) -> Environment:
    """Return the tools' environment for a Python, made or completed where needed."""
    name = f"python-{version}-tools"
    env, lock = Environment(home / "environments" / name), lock_file("tools")
    steps = [
        Step(
            *("venv", f"virtual environment of Python {version} for the registry's tools (seconds)", (version,)),
            run=lambda: make_venv(interpreter, env),
            intact=lambda: runs(env.python),
        ),
        Step("tools", "the registry's tools (90 MB, half a minute)", (lock,), lambda: pip_install(env, *HASHED, lock)),
    ]
    with locked(home / "locks" / f"{name}.lock"):
        run_steps(steps, env.folder / "dev-stamps")
    return env


def check_packed(tools: Environment, checkout: Path) -> int:
    """Have the registry's tools judge the checkout and what is shipped of it; 0 where they have no word against it."""
    require_answer(lock_file("tools"), listed=TOOLS)
    say("comfy node validate")
    status, output = _run(tools, checkout, "comfy", "--skip-prompt", "node", "validate")
    failed = status or bool(re.search("warning|error", output, re.IGNORECASE))
    with tempfile.TemporaryDirectory() as folder:
        shipped = Path(folder) / "pack"
        with zipfile.ZipFile(pack(tools, checkout, Path(folder) / PACKED)) as archive:
            archive.extractall(shipped)
        say("comfy-test lint, of what is shipped")
        status, output = _run(tools, shipped, "comfy-test", "lint", "--strict", ".")
        failed |= status or bool(re.search("warnings? \\(", output, re.IGNORECASE))
    return int(failed)


def pack(tools: Environment, checkout: Path, target: Path) -> Path:
    """Have the registry's own tool write what it would ship of a checkout to `target`, and return that."""
    say("comfy node pack")
    packed = checkout / PACKED
    try:
        status, _ = _run(tools, checkout, "comfy", "--skip-prompt", "node", "pack")
        if status or not packed.is_file():
            raise DevError("comfy node pack brought no node.zip: see its message above.")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(packed.read_bytes())
    finally:
        packed.unlink(missing_ok=True)
    return target


def _run(tools: Environment, folder: Path, command: str, *arguments: str) -> tuple[int, str]:
    """Run one of the tools in a folder. Return its status and what it said, which is shown too."""
    home = tools.folder / "home"
    for name in SETTINGS:
        (home / name).mkdir(parents=True, exist_ok=True)
    variables = os.environ | {"HOME": str(home), "USERPROFILE": str(home), "DO_NOT_TRACK": "1", "NO_COLOR": "1"}
    asked = [str(tools.command(command)), *arguments]
    done = subprocess.run(
        asked, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = done.stdout.decode("utf-8", "replace")
    print(output.rstrip(), flush=True)
    return done.returncode, output
