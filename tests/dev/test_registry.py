"""What the registry ships: what its tools say of it, what is in it, and that it draws on its own."""

import ast
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from dynamicid_pack.tests.dev.loaded import ROOT, dev, registry
from dynamicid_pack.tests.dev.shipped import LARGEST, LEFT_OUT, shipped_files

if not (ROOT / ".git").exists():
    pytest.skip("not a git checkout: what the registry ships is told by git", allow_module_level=True)

SHIPPED = shipped_files()


def test_no_test_and_no_training_code_is_shipped() -> None:
    assert not [path for path in SHIPPED if path.startswith(LEFT_OUT)]
    assert {"__init__.py", "nodes/apply.py", "mini/networks.py", "pyproject.toml", "LICENSE"} <= set(SHIPPED)


def test_what_is_shipped_is_small() -> None:
    assert sum((ROOT / path).stat().st_size for path in SHIPPED) < LARGEST  # weights hardly shrink in a zip


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.endswith(".py")])
def test_all_that_a_shipped_file_imports_is_shipped(path: str) -> None:
    """A relative import of what is left out would fail on a user's machine alone."""
    package = PurePosixPath(path).parent.parts
    shipped = set(SHIPPED)
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = "/".join([*package[: len(package) - node.level + 1], *(node.module or "").split(".")]).strip("/")
            for name in (f"{base}/{alias.name}".strip("/") for alias in node.names):
                modules = {f"{name}.py", f"{name}/__init__.py", f"{base}.py", f"{base}/__init__.py".lstrip("/")}
                assert modules & shipped, f"{path} imports {name}"


@pytest.mark.parametrize(
    ("command", "output", "status"),
    [
        ("comfy", "Warning: Invalid requires-comfyui format\n✓ All validation checks passed successfully", 0),
        ("comfy", "Error: project version is empty", 1),
        ("comfy-test", "Warnings (non-blocking):\n\nnodes/notify.py:\n  Line 1", 0),
        ("comfy-test", "[SYNTAX] FAILED", 1),
    ],
)
def test_every_word_against_the_pack_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, output: str, status: int
) -> None:
    good = {"comfy": "✓ All validation checks passed", "comfy-test": "0 error(s), 0 warning(s)\n[SYNTAX] PASSED"}

    def check(says: dict[str, str], statuses: dict[str, int]) -> int:
        monkeypatch.setattr(registry, "_run", lambda _, __, name, *___: (statuses.get(name, 0), says[name]))
        return int(registry.check_packed(dev.Environment(tmp_path), tmp_path))

    def pack(tools: object, checkout: object, target: Path) -> Path:
        zipfile.ZipFile(target, "w").close()
        return target

    monkeypatch.setattr(registry, "pack", pack)
    assert check(good, {}) == 0
    assert check(good | {command: output}, {command: status}) == 1


@pytest.mark.parametrize("breaks", [False, True])
def test_a_zip_is_moved_out_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: bool) -> None:
    def run(*_: object) -> tuple[int, str]:
        (tmp_path / "node.zip").write_bytes(b"zip")
        return int(breaks), ""

    monkeypatch.setattr(registry, "_run", run)
    if breaks:
        with pytest.raises(dev.DevError, match=r"brought no node\.zip"):
            registry.pack(dev.Environment(tmp_path), tmp_path, tmp_path / "out" / "a.zip")
    else:
        assert registry.pack(dev.Environment(tmp_path), tmp_path, tmp_path / "out" / "a.zip").read_bytes() == b"zip"
    assert not (tmp_path / "node.zip").exists()


def test_the_tools_ask_nothing_and_tell_nobody(tmp_path: Path) -> None:
    tools = dev.Environment(tmp_path)
    tools.python.parent.mkdir()
    tools.python.symlink_to(sys.executable)
    script = "import os; print(os.environ['HOME'], os.environ['DO_NOT_TRACK'], repr(input()) if 0 else '')"
    status, output = registry._run(tools, tmp_path, "python", "-c", script)
    assert (status, output.split()) == (0, [str(tmp_path / "home"), "1"])
    status, output = registry._run(tools, tmp_path, "python", "-c", "input('May we track you?')")
    assert status and "EOFError" in output
