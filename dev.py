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
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools.environment import (
    PYTHONS,
    THIS_PYTHON,
    DevError,
    Environment,
    Step,
    developer_requirements,
    find_python,
    install_command,
    locked,
    make_venv,
    pip_install,
    run_steps,
    runs,
    say,
)
from devtools.host import DEFAULT_HOST, RELEASES, Host, fetch_host, find_host, is_comfyui

ROOT = Path(os.path.abspath(__file__)).parent  # not resolved: a checkout may be linked into a ComfyUI's custom_nodes

# torchaudio's wheels stop at 2.11 and refuse a torch that was built for another CUDA: the three are held together.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")

PACK_NAME = "dynamicid_pack"  # a module's name, whatever the checkout's folder is called
CHECKED_TYPES = ("__init__.py", "nodes", "dynamicid_core", "mini", "benchmarks", "tests")
MODEL_FOLDERS = ("checkpoints", "clip_vision", "controlnet", "dynamicid/identities", "insightface", "loras", "vae")


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


# Making the environment


def prepare(version: str, interpreter: str, host: Host, home: Path) -> Environment:
    """The environment for a Python and a host, made or completed where needed."""
    name = f"python-{version}-comfyui-{host.version}"
    env = Environment(home / "environments" / name)

    def packages(name: str, title: str, *requirements: str | Path) -> Step:
        return Step(name, title, requirements, lambda: pip_install(env, *requirements))

    def check() -> None:
        install_command(env.python, "-c", "import torch, torchvision, torchaudio")

    host_list, own_list = host.path / "requirements.txt", ROOT / "requirements.txt"
    developer = developer_requirements((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    steps = [
        Step(
            *("venv", f"virtual environment of Python {version} (seconds)", (version,)),
            run=lambda: make_venv(interpreter, env),
            intact=lambda: runs(env.python),
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
    own_types = place.run(mypy, *options, "dev.py", "devtools")  # under the names that it has when it runs
    return [lint, layout, types, own_types]


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
    pytest: list[str | Path] = [place.env.command("pytest"), "--durations=25", *chosen]
    if not set(chosen) <= {"--fast", "--full"}:
        return place.run(*pytest)
    workers = os.cpu_count() or 1
    checked = check(place, ())
    tested = place.run(*pytest, f"--numprocesses={workers}", "--dist=loadgroup", OMP_NUM_THREADS="1")
    return checked or tested


def env(place: Workplace, arguments: Sequence[str]) -> int:
    """Print where the environment's Python and the host are, as one line of JSON."""
    paths = {"python": str(place.env.python), "comfyui": str(place.host.path), "version": place.host.version}
    print(json.dumps(paths), flush=True)
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
