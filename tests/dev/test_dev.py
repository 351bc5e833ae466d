"""dev.py's parts that need no network: what it chooses, refuses, resumes and leaves alone."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dynamicid_pack.tests.dev.loaded import ROOT, dev, making


def _comfyui(folder: Path, version: str = "0.30.0") -> Path:
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    if version:
        (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return folder


# Where things are


@pytest.mark.parametrize(
    ("variables", "platform", "expected"),
    [
        ({"DYNAMICID_DEV_HOME": "/d", "XDG_CACHE_HOME": "/x"}, "linux", Path("/d")),
        ({"XDG_CACHE_HOME": "/x"}, "linux", Path("/x/dynamicid-dev")),
        ({}, "linux", Path.home() / ".cache/dynamicid-dev"),
        ({"XDG_CACHE_HOME": "/x"}, "darwin", Path.home() / "Library/Caches/dynamicid-dev"),
        ({"LOCALAPPDATA": "/l"}, "win32", Path("/l/dynamicid-dev")),
        ({}, "win32", Path.home() / "AppData/Local/dynamicid-dev"),
    ],
)
def test_cache_home(variables: dict[str, str], platform: str, expected: Path) -> None:
    assert dev.cache_home(variables, platform) == expected.absolute()


def test_the_host_is_the_configured_one_then_the_one_around_the_pack_then_the_published(tmp_path: Path) -> None:
    configured, around = _comfyui(tmp_path / "a", "0.29.1"), _comfyui(tmp_path / "b", "0.16.3")
    installed, alone = around / "custom_nodes" / "pack", tmp_path / "c" / "pack"

    def chosen(requested: str | None, variable: str | None, checkout: Path) -> tuple[Path, str, bool]:
        host = dev.find_host(requested, variable, tmp_path / "home", checkout)
        return host.path, host.version, host.release is not None

    fetched = tmp_path / "home" / "hosts" / "comfyui-0.30.0"
    assert chosen(None, str(configured), installed) == (configured, "0.29.1", False)
    assert chosen(None, None, installed) == (around, "0.16.3", False)
    assert chosen(None, None, alone) == (fetched, "0.30.0", True)
    assert chosen("0.30.0", str(configured), installed) == (fetched, "0.30.0", True)
    assert chosen("0.16.3", None, alone)[1] == "0.16.3"


def test_a_folder_that_is_no_comfyui_is_refused(tmp_path: Path) -> None:
    with pytest.raises(dev.DevError, match=r"COMFYUI_PATH is .*lacks the main\.py.*unset it"):
        dev.find_host(None, str(tmp_path), tmp_path)


@pytest.mark.parametrize("version", ["0.3.64", "0.15.9", "0.16.2", ""])
def test_an_old_host_is_refused(tmp_path: Path, version: str) -> None:
    own = _comfyui(tmp_path / "own", version)
    with pytest.raises(dev.DevError, match=f"version {version or 'unknown'}, and the pack needs 0.16.3 or later"):
        dev.find_host(None, str(own), tmp_path)


def test_the_running_python_is_found_and_a_missing_one_is_not() -> None:
    assert dev.find_python(dev.THIS_PYTHON) == sys.executable
    assert dev.find_python("3.99") is None


@pytest.mark.skipif(os.name == "nt", reason="shims are shell scripts")
def test_a_shim_of_nothing_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = "9.9"
    working = tmp_path / "pyenv" / "versions" / "9.9.1" / "bin" / "python"
    for path, script in [
        (tmp_path / "shims" / "python9.9", "exit 127"),
        (working.parent.parent.parent / "9.9.2" / "bin" / "python", "echo 9.8; echo /wrong"),
        (working, f"echo {version}; echo {working}"),
    ]:
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "shims"), prepend=os.pathsep)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    assert dev.find_python(version) == str(working)


# Making the environment


class _Recorder:
    """Steps that write down that they ran; `failing` ones fail."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failing: set[str] = set()

    def step(self, name: str, *inputs: str | Path, intact: Callable[[], bool] = lambda: True) -> object:
        def run() -> None:
            self.ran.append(name)
            if name in self.failing:
                raise subprocess.CalledProcessError(1, ["pip", "install"])

        return dev.Step(name, f"title of {name}", inputs, run, intact)

    def run(self, stamps: Path, *steps: object) -> list[str]:
        self.ran = []
        dev.run_steps(steps, stamps)
        return self.ran


def test_steps_run_once_and_again_when_their_inputs_or_earlier_ones_change(tmp_path: Path) -> None:
    recorder, listed = _Recorder(), tmp_path / "requirements.txt"
    a, b, c = recorder.step("a", "1"), recorder.step("b", listed), recorder.step("c")
    listed.write_text("einops\n")
    assert recorder.run(tmp_path / "stamps", a, b, c) == ["a", "b", "c"]
    assert recorder.run(tmp_path / "stamps", a, b, c) == []
    listed.write_text("einops\nsafetensors\n")
    assert recorder.run(tmp_path / "stamps", a, b, c) == ["b", "c"]
    assert recorder.run(tmp_path / "stamps", recorder.step("a", "2"), b, c) == ["a", "b", "c"]


def test_a_step_whose_result_is_gone_runs_again(tmp_path: Path) -> None:
    recorder = _Recorder()
    recorder.run(tmp_path, recorder.step("a"), recorder.step("b"))
    assert recorder.run(tmp_path, recorder.step("a", intact=lambda: False), recorder.step("b")) == ["a"]


def test_a_failed_step_is_told_and_the_next_run_goes_on_from_it(tmp_path: Path) -> None:
    recorder = _Recorder()
    steps = [recorder.step(name) for name in "abc"]
    recorder.failing = {"b"}
    with pytest.raises(
        dev.DevError, match=r"(?s)step 2 of 3 failed: title of b.*disk space.*run the same command again"
    ):
        recorder.run(tmp_path, *steps)
    recorder.failing = set()
    assert recorder.run(tmp_path, *steps) == ["b", "c"]


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    recorder = _Recorder()
    with pytest.raises(dev.DevError, match=r"(?s)step 1 of 1 failed.*missing\.txt"):
        recorder.run(tmp_path, recorder.step("a", tmp_path / "missing.txt"))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that would have been run."""
    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(making, "install_command", lambda *command: seen.append(tuple(map(str, command))))
    return seen


def test_a_half_installed_package_is_cleared_before_pip_runs(tmp_path: Path, commands: list[tuple[str, ...]]) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.dist-info", "half-1.dist-info"):
        (packages / name).mkdir(parents=True)
        (packages / name / "METADATA").touch()
    (packages / "whole-1.dist-info" / "INSTALLER").write_text("pip\n")
    environment = dev.Environment(tmp_path)
    dev.pip_install(environment, "einops", "-r", Path("list.txt"))
    assert [path.name for path in packages.iterdir()] == ["whole-1.dist-info"]
    assert commands == [(str(environment.python), "-m", "pip", "install", "einops", "-r", "list.txt")]


def test_a_broken_environment_is_made_anew(tmp_path: Path, commands: list[tuple[str, ...]]) -> None:
    environment = dev.Environment(tmp_path / "env")
    (environment.folder / "dev-stamps").mkdir(parents=True)
    assert not dev.runs(environment.python)
    assert dev.runs(Path(sys.executable))
    dev.make_venv("python3", environment)
    assert not environment.folder.exists()
    assert commands == [("python3", "-m", "venv", str(environment.folder))]


def test_pip_settings_hold_save_those_that_lead_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}
    monkeypatch.setattr(dev.subprocess, "run", lambda *command, env, **options: given.update(env))
    for name in ("PIP_INDEX_URL", "PIP_CERT", "PIP_TARGET", "PYTHONPATH", "PIP_USER"):
        monkeypatch.setenv(name, "theirs")
    making.install_command("pip")
    assert (given["PIP_INDEX_URL"], given["PIP_CERT"], given["PIP_USER"]) == ("theirs", "theirs", "0")
    assert not given.keys() & {"PIP_TARGET", "PYTHONPATH"}


HOLDER = """
import importlib.util, pathlib, sys, time
spec = importlib.util.spec_from_file_location("dev", sys.argv[1])
dev = sys.modules["dev"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dev)
with dev.locked(pathlib.Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_makes_others_wait_and_ends_with_a_killed_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "locks" / "one.lock"
    command = [sys.executable, "-c", HOLDER, str(ROOT / "dev.py"), str(lock)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        sleep = time.sleep

        def kill_then_sleep(seconds: float) -> None:
            holder.kill()
            sleep(seconds)

        monkeypatch.setattr(making.time, "sleep", kill_then_sleep)
        with dev.locked(lock):
            assert "another dev.py is at work on one; waiting" in capfd.readouterr().err


# The commands


class _Place:
    """A workplace that writes its commands down and ends them with the statuses given."""

    def __init__(self, folder: Path, statuses: dict[str, int]) -> None:
        self.env, self.base = dev.Environment(folder), folder
        self.host = dev.Host(folder / "host", "0.30.0")
        self.statuses, self.ran = statuses, list[list[str]]()

    def run(self, *command: str | Path, cwd: Path = ROOT, **variables: str) -> int:
        self.ran.append([Path(command[0]).stem, *map(str, command[1:])])
        return self.statuses.get(self.ran[-1][0], 0)

    def registry_verdict(self) -> int:
        return self.run("registry")


@pytest.mark.parametrize(
    ("arguments", "programs"),
    [
        ([], ["ruff", "ruff", "mypy", "mypy", "registry", "pytest"]),
        (["--full"], ["ruff", "ruff", "mypy", "mypy", "registry", "pytest"]),
        (["--fast"], ["ruff", "ruff", "mypy", "mypy", "registry", "pytest"]),
        (["-m", "smoke"], ["pytest"]),
        (["--full", "-k", "mask"], ["pytest"]),
    ],
)
def test_only_a_whole_run_checks_the_code(tmp_path: Path, arguments: list[str], programs: list[str]) -> None:
    place = _Place(tmp_path, {})
    assert dev.test(place, arguments) == 0
    assert [command[0] for command in place.ran] == programs
    assert place.ran[-1][1 : 2 + len(arguments)] == ["--durations=25", *arguments]
    assert ("--dist=loadgroup" in place.ran[-1]) == (len(programs) > 1), "a set of tests runs in parallel"


def test_all_is_run_and_the_first_failure_is_the_status(tmp_path: Path) -> None:
    place = _Place(tmp_path, {"mypy": 2, "pytest": 5})
    assert dev.test(place, []) == 2
    assert place.ran[-1][0] == "pytest"


@pytest.mark.parametrize("program", ["ruff", "mypy", "registry"])
def test_the_code_can_be_checked_alone(tmp_path: Path, program: str) -> None:
    place = _Place(tmp_path, {program: 3})
    assert dev.check(place, []) == 3
    assert [command[0] for command in place.ran] == ["ruff", "ruff", "mypy", "mypy", "registry"]


@pytest.mark.parametrize(("missing", "arguments", "added"), [(0, [], 0), (1, [], 1), (1, ["--cpu"], 1)])
def test_serve_runs_on_the_cpu_where_there_is_nothing_else(
    tmp_path: Path, missing: int, arguments: list[str], added: int
) -> None:
    place = _Place(tmp_path, {"python": missing})
    dev.serve(place, [*arguments, "--port", "9000"])
    started = place.ran[-1]
    assert started.count("--cpu") == added
    assert started[started.index("--base-directory") + 1] == str(tmp_path)
    assert started[-2:] == ["--port", "9000"]


def test_env_prints_one_line_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = _Place(tmp_path, {})
    dev.env(place, [])
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed) == {
        "python": str(place.env.python),
        "comfyui": str(place.host.path),
        "version": "0.30.0",
    }


def test_each_checkout_has_a_base_directory_that_links_to_it(tmp_path: Path) -> None:
    one, two = tmp_path / "one" / "pack", tmp_path / "two" / "pack"
    for checkout in (one, two):
        checkout.mkdir(parents=True)
        (checkout / "mark").write_text(str(checkout))
    bases = [dev.base_directory(tmp_path / "home", checkout) for checkout in (one, two)]
    (bases[0] / "custom_nodes" / "dynamicid_pack").symlink_to(one)  # of an earlier version: the pack would load twice
    bases.append(dev.base_directory(tmp_path / "home", one))
    assert bases[0] == bases[2] != bases[1]
    for base, checkout in zip(bases, (one, two), strict=False):
        assert (base / "modules" / "dynamicid_pack" / "mark").read_text() == str(checkout)
        assert [path.name for path in (base / "custom_nodes").iterdir()] == ["dynamicid"]
        assert (base / "custom_nodes" / "dynamicid" / "mark").read_text() == str(checkout)
        assert (base / "models" / "dynamicid" / "identities").is_dir()


def test_our_options_are_taken_and_the_rest_is_passed_on() -> None:
    options, rest = dev.parse(["test", "--host", "0.16.3", "-m", "smoke", "--python", "3.13", "tests/core", "--ho"])
    assert (options.command, options.host, options.python) == ("test", "0.16.3", "3.13")
    assert rest == ["-m", "smoke", "tests/core", "--ho"]


@pytest.mark.parametrize(
    "argv", [["env", "extra"], ["check", "extra"], ["lock", "extra"], ["pack"], ["tset"], [], ["test", "--host", "1.0"]]
)
def test_wrong_usage_is_told(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        dev.parse(argv)
    assert ended.value.code == 2
    assert "dev.py: error:" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["3.9", "3.14", "2.7", "three"])
def test_other_pythons_are_refused(version: str) -> None:
    with pytest.raises(dev.DevError, match=f"3.10, 3.11, 3.12, 3.13 are supported, not {version}"):
        dev.main(["env", "--python", version])


def test_a_command_sees_the_host_and_no_pythonpath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    place = dev.Workplace(dev.Environment(tmp_path), dev.Host(tmp_path / "host", "0.30.0"), tmp_path, None)
    script = "import json, os; json.dump([os.environ.get(n) for n in ('COMFYUI_PATH', 'PYTHONPATH')], open('o', 'w'))"
    assert place.run(sys.executable, "-c", f"{script}; raise SystemExit(7)", cwd=tmp_path) == 7
    assert json.loads((tmp_path / "o").read_text()) == [str(tmp_path / "host"), None]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_command_ends_what_it_runs(tmp_path: Path) -> None:
    script = f"""
import importlib.util, pathlib, signal, sys
spec = importlib.util.spec_from_file_location("dev", {str(ROOT / "dev.py")!r})
dev = sys.modules["dev"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dev)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
folder = pathlib.Path({str(tmp_path)!r})
place = dev.Workplace(dev.Environment(folder), dev.Host(folder, ""), folder, None)
place.run(sys.executable, "-c", "import time; print('started', flush=True); time.sleep(60)")
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "started\n"
        parent.terminate()
        assert parent.wait(timeout=30) == 143
        started = time.monotonic()
        assert parent.stdout.read() == ""  # returns when the command, which has the pipe too, has ended
        assert time.monotonic() - started < 30


def test_a_browser_that_is_there_is_not_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev.shutil, "which", lambda name: "/usr/bin/chromium" if name == "chromium" else None)
    monkeypatch.setattr(dev.subprocess, "run", lambda *_, **__: pytest.fail("something was run"))
    dev.install_browser()


def test_a_browser_is_installed_by_debians_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(dev.shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    monkeypatch.setattr(dev.subprocess, "run", lambda command, **_: commands.append(command))
    dev.install_browser()
    assert [command[1] for command in commands] == ["update", "install"] and "chromium" in commands[1]


def test_where_no_browser_can_be_installed_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev.shutil, "which", lambda name: None)
    with pytest.raises(dev.DevError, match="DYNAMICID_BROWSER"):
        dev.install_browser()
