#!/usr/bin/env python3
"""The developer's one command: makes an environment with ComfyUI and runs this pack's tests, server, benchmarks in it.

Needs Python 3.10 to 3.13 with its venv module, and nothing else. Everything is kept in a cache folder that all
checkouts share (DYNAMICID_DEV_HOME chooses another); no environment of the user's is ever installed into.

    python dev.py demo [--json]  draws pictures with ComfyUI and the pack's own miniature, and says where they are
    python dev.py check          ruff, the format, mypy and the registry's tools
    python dev.py test [ARGS]    check, then the tests that a change is likely to break (minutes); --fast: those
                                 without ComfyUI (seconds); --full: all. Other ARGS go to pytest, which runs alone;
                                 --install-browser installs Chromium first, for the tests in a browser
    python dev.py env            make the environment and print {"python": ..., "comfyui": ..., "version": ...}
    python dev.py serve [ARGS]   ComfyUI with the pack, in the browser. ARGS go to ComfyUI's main.py
    python dev.py bench [ARGS]   the benchmarks. ARGS go to benchmarks/run.py
    python dev.py pictures       makes the pictures of templates, README and help anew; needs Chromium
    python dev.py pack FILE      writes what the registry ships, a zip, by the registry's own tool
    python dev.py lock           chooses the packages of all environments anew and writes them to devtools/locks

The host is the ComfyUI in COMFYUI_PATH, or the one that the pack is installed under, or else a published one that is
fetched; --host always takes the published one. The first run downloads some 3 GB. A run that was interrupted goes on
where it stopped. Packages are those of a lock file, by sha256, from wherever pip is set to fetch; for a ComfyUI of the
user's own that no lock file was made for, and with --unlocked, pip chooses them.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devtools.environment import (
    PYTHONS,
    THIS_PYTHON,
    DevError,
    Environment,
    Step,
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
from devtools.lock import (
    HASHED,
    TOOLS,
    TORCH,
    answers,
    lock_file,
    pack_requirements,
    require_answer,
    requirement_lines,
    write_lock,
)
from devtools.registry import check_packed, pack, prepare_tools

ROOT = Path(os.path.abspath(__file__)).parent  # not resolved: a checkout may be linked into a ComfyUI's custom_nodes

PACK_NAME = "dynamicid"  # under which ComfyUI shows the pack, whatever the checkout's folder is called
MODULE_NAME = "dynamicid_pack"  # under which tests import it
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


def prepare(version: str, interpreter: str, host: Host, home: Path, unlocked: bool = False) -> Environment:
    """The environment for a Python and a host, made or completed where needed.

    Packages come from the host's lock file; where there is none for a host of the user's own, or `unlocked`, pip
    chooses them, and the title of the step says so.
    """
    name = f"python-{version}-comfyui-{host.version}"
    env = Environment(home / "environments" / name)
    lock, pack_list, host_file = lock_file(host.version), pack_requirements(ROOT), host.path / "requirements.txt"

    def packages(name: str, title: str, *requirements: str | Path) -> Step:
        return Step(name, title, requirements, lambda: pip_install(env, *requirements))

    def host_list() -> list[str]:
        return requirement_lines(host_file.read_text(encoding="utf-8"))

    def fetch() -> None:
        fetch_host(env, host, home)
        if host.release and not unlocked:
            require_answer(lock, host=host_list(), pack=pack_list)

    def check() -> None:
        install_command(env.python, "-c", "import torch, torchvision, torchaudio")
        install_command(env.python, "-m", "pip", "check")

    venv = Step(
        *("venv", f"virtual environment of Python {version} (seconds)", (version,)),
        run=lambda: make_venv(interpreter, env),
        intact=lambda: runs(env.python),
    )
    source = Step(
        *("host", f"ComfyUI {host.version} (12 MB, seconds)", (str(host.path),)),
        run=fetch,
        intact=lambda: is_comfyui(host.path),
    )
    size = "up to 3.5 GB to download and 7 GB on disk, some minutes"
    if host.release and not unlocked:
        require_answer(lock, pack=pack_list)
    if not unlocked and (host.release or answers(lock, host=host_list(), pack=pack_list)):
        steps = [
            venv,
            packages("packages", f"PyTorch, ComfyUI's and this pack's packages ({size})", *HASHED, lock),
            source,
        ]
    else:
        reason = "--unlocked" if unlocked else f"no lock file was made for the ComfyUI in {host.path}"
        title = f"ComfyUI's and this pack's packages, chosen by pip, unchecked: {reason}"
        first = packages("torch", f"PyTorch, unchecked: {reason} ({size})", *TORCH)
        steps = [venv, first, source, packages("chosen", title, *TORCH, "-r", host_file, *pack_list)]
    with locked(home / "locks" / f"{name}.lock"):
        run_steps(
            [*steps, Step("check", "check that the packages fit together (seconds)", (), check)],
            env.folder / "dev-stamps",
        )
    return env


def renew_locks(tools: Environment, home: Path) -> int:
    """Make every lock file anew; the hosts are fetched for their lists."""
    write_lock(tools, lock_file("tools"), listed=TOOLS)
    for version, release in RELEASES.items():
        host = Host(home / "hosts" / f"comfyui-{version}", version, release)
        fetch_host(tools, host, home)
        listed = requirement_lines((host.path / "requirements.txt").read_text(encoding="utf-8"))
        write_lock(tools, lock_file(version), host=listed, pack=pack_requirements(ROOT))
        say(f"{lock_file(version)} is written")
    return 0


# The commands


@dataclass(frozen=True)
class Workplace:
    """An environment, its host, and a ComfyUI base directory in which this checkout is a custom node.

    `tools` makes the environment of the registry's tools, or completes it.
    """

    env: Environment
    host: Host
    base: Path
    tools: Callable[[], Environment]

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

    def registry_verdict(self) -> int:
        """0 where the registry's tools have nothing against the checkout and what is shipped of it."""
        return check_packed(self.tools(), ROOT)


def base_directory(home: Path, checkout: Path = ROOT) -> Path:
    """Make a base directory for this checkout alone: two checkouts never share one."""
    base = home / "checkouts" / f"{checkout.name}-{hashlib.sha256(str(checkout).encode()).hexdigest()[:12]}"
    for folder in ("custom_nodes", "input", "output", "temp", "user", *(f"models/{name}" for name in MODEL_FOLDERS)):
        (base / folder).mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        (base / "custom_nodes" / MODULE_NAME).unlink()  # of earlier versions: the host would load the pack twice
    link_checkout(checkout, base / "custom_nodes" / PACK_NAME)
    link_checkout(checkout, base / "modules" / MODULE_NAME)
    return base


def link_checkout(checkout: Path, link: Path) -> None:
    """Link to the checkout, if that isn't done."""
    link.parent.mkdir(exist_ok=True)
    if os.name == "nt":
        if not os.path.lexists(link):  # a junction: for a symbolic link users lack the rights
            subprocess.run(["cmd", "/c", "mklink", "/J", str(link), str(checkout)], stdout=sys.stderr, check=True)
    else:
        with contextlib.suppress(FileExistsError):
            link.symlink_to(checkout, target_is_directory=True)


def check_code(place: Workplace) -> list[int]:
    """Exit statuses of the linter, the formatter, the type checker and the registry's tools."""
    ruff, mypy, links = place.env.command("ruff"), place.env.command("mypy"), place.base / "modules"
    say("ruff check")
    lint = place.run(ruff, "check", ".")
    say("ruff format --check")
    layout = place.run(ruff, "format", "--check", ".")
    say("mypy")  # through the link, which gives the pack a name that relative imports can start from
    options = ("--config-file", ROOT / "pyproject.toml", "--cache-dir", place.env.folder / "mypy-cache")
    typed = [f"{MODULE_NAME}/{name}" for name in CHECKED_TYPES if (ROOT / name).exists()]
    types = place.run(mypy, *options, *typed, cwd=links, MYPYPATH=str(links))
    own_types = place.run(mypy, *options, "dev.py", "devtools")  # under the names that it has when it runs
    return [lint, layout, types, own_types, place.registry_verdict()]


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
TOOL_COMMANDS = ("pack", "lock")
"""Those that need the registry's tools alone."""


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our own options, and the rest, for the program that the command runs."""
    parser = argparse.ArgumentParser(
        "dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("command", choices=(*COMMANDS, *TOOL_COMMANDS))
    parser.add_argument("--host", choices=RELEASES, help=f"a published ComfyUI (default: {DEFAULT_HOST})")
    parser.add_argument("--python", metavar="VERSION", default=THIS_PYTHON, help=f"one of {', '.join(PYTHONS)}")
    parser.add_argument("--unlocked", action="store_true", help="let pip choose the packages: no sha256 is checked")
    options, rest = parser.parse_known_args(argv)
    if rest and options.command in ("check", "env", "lock"):
        parser.error(f"{options.command} takes no further arguments, but got: {' '.join(rest)}")
    if len(rest) != 1 and options.command == "pack":
        parser.error("pack takes the name of the file to write")
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
    tools = partial(prepare_tools, options.python, interpreter, home)
    if options.command == "pack":
        pack(tools(), ROOT, Path(rest[0]).absolute())
        return 0
    if options.command == "lock":
        return renew_locks(tools(), home)
    host = find_host(options.host, os.environ.get("COMFYUI_PATH"), home)
    env = prepare(options.python, interpreter, host, home, options.unlocked)
    return COMMANDS[options.command](Workplace(env, host, base_directory(home), tools), rest)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exit that ends the running command too
    try:
        sys.exit(main(sys.argv[1:]))
    except DevError as error:
        say(f"error: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
