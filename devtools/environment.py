"""Virtual environments made step by step: a run that was interrupted goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
THIS_PYTHON = "{}.{}".format(*sys.version_info)


class DevError(Exception):
    """Something that the user can act on; its text is all they see."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that belongs to this file alone."""

    folder: Path

    def command(self, name: str) -> Path:
        return self.folder / (f"Scripts/{name}.exe" if os.name == "nt" else f"bin/{name}")

    @property
    def python(self) -> Path:
        return self.command("python")


@dataclass(frozen=True)
class Step:
    """A part of the set-up, done when its stamp tells its inputs (a path stands for its text) and earlier ones."""

    name: str
    title: str
    inputs: tuple[str | Path, ...]
    run: Callable[[], None]
    intact: Callable[[], bool] = lambda: True


def say(message: str) -> None:
    """Progress goes to stderr: stdout is for results."""
    print(f"dev.py: {message}", file=sys.stderr, flush=True)


def find_python(version: str) -> str | None:
    """A working interpreter of that version ("3.13"): this one, on PATH, by Windows' launcher, or among pyenv's."""
    if version == THIS_PYTHON:
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    newest_first = sorted(pyenv.glob(f"{version}.*"), key=lambda path: (len(path.name), path.name), reverse=True)
    candidates = [[f"python{version}"], ["py", f"-{version}"]]
    candidates += [[str(path / name)] for path in newest_first for name in ("bin/python", "python.exe")]
    return next(filter(None, (_answering(candidate, version) for candidate in candidates)), None)


def _answering(command: Sequence[str], version: str) -> str | None:
    """The interpreter behind `command` if it runs and has that version: a file may be a shim of nothing."""
    executable = shutil.which(command[0])
    if executable is None:
        return None
    question = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"
    try:
        asked = [executable, *command[1:], "-c", question]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found, _, path = answer.strip().partition("\n")
    return path if found == version else None


def run_steps(steps: Sequence[Step], stamps: Path) -> None:
    """Run the steps that are not done. Each leaves a stamp when it succeeds, so that a later run goes on from there."""
    digest = ""
    for number, step in enumerate(steps, 1):
        stamp = stamps / step.name
        try:
            inputs = [item if isinstance(item, str) else item.read_text(encoding="utf-8") for item in step.inputs]
            digest = hashlib.sha256("\n".join([digest, *inputs]).encode()).hexdigest()
            if stamp.is_file() and stamp.read_text() == digest and step.intact():
                continue
            say(f"[{number}/{len(steps)}] {step.title}")
            stamp.unlink(missing_ok=True)
            step.run()
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(digest)
        except (DevError, OSError, subprocess.CalledProcessError) as error:
            raise DevError(
                f"step {number} of {len(steps)} failed: {step.title}\n{error}\nLook at the messages above. Check the "
                f"connection, proxy settings and disk space ({_free_space(stamps)} free), then run the same command "
                "again: it goes on where it stopped."
            ) from error


def _free_space(path: Path) -> str:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return f"{shutil.disk_usage(existing).free / 1e9:.0f} GB"


def install_command(*command: str | Path) -> None:
    """Run a part of a step, its output to stderr.

    The user's pip settings hold, save those that lead out of our environment. The command inherits the lock's open
    file, and so keeps the lock where we are killed and it is not.
    """
    leading_out = ("PYTHONHOME", "PYTHONPATH", "PIP_PREFIX", "PIP_ROOT", "PIP_TARGET", "__PYVENV_LAUNCHER__")
    variables = {name: value for name, value in os.environ.items() if name not in leading_out} | {"PIP_USER": "0"}
    subprocess.run([str(part) for part in command], stdout=sys.stderr, env=variables, close_fds=False, check=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an operating system's lock: it ends with its holders, so nothing stale stays behind after a kill."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        os.set_inheritable(file.fileno(), True)
        if not _try_lock(file.fileno()):
            say(f"another dev.py is at work on {path.stem}; waiting for it to end")
            while not _try_lock(file.fileno()):
                time.sleep(0.5)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def runs(python: Path) -> bool:
    try:
        return subprocess.run([str(python), "-I", "-S", "-c", ""], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def make_venv(interpreter: str, env: Environment) -> None:
    """Make the environment anew, whatever is left of an earlier one."""
    if env.folder.exists():
        shutil.rmtree(env.folder)
    try:
        install_command(interpreter, "-m", "venv", env.folder)
    except subprocess.CalledProcessError as error:
        raise DevError(
            f"{interpreter} could not make a virtual environment. Debian and Ubuntu have what it needs in the package "
            f"python3-venv; another interpreter is chosen by --python ({', '.join(PYTHONS)})."
        ) from error


def pip_install(env: Environment, *requirements: str | Path) -> None:
    """`pip install`, after removing what a killed pip left half-installed: it would count as installed."""
    for library in ("lib/python*", "Lib"):
        for metadata in env.folder.glob(f"{library}/site-packages/*.dist-info"):
            if not (metadata / "INSTALLER").is_file():  # pip writes it after a package's own files
                shutil.rmtree(metadata)
    install_command(env.python, "-m", "pip", "install", *requirements)
