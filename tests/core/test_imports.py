"""Imports point one way: nodes -> dynamicid_core.host -> the rest of the core; only the first two know ComfyUI."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from dynamicid_pack.tests.support import ROOT

HOST_MODULES = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "comfy_execution",
    "comfyui_version",
    "folder_paths",
    "server",
    "execution",
    "nodes",
}
PACK = ("__init__.py", "nodes", "dynamicid_core")
MINIATURE = (("mini", "networks"), ("mini", "quantize"))  # the miniature's product half


def _files() -> list[Path]:
    files = [ROOT / PACK[0]]
    for folder in PACK[1:]:
        files += sorted((ROOT / folder).rglob("*.py"))
    return [file.relative_to(ROOT) for file in files]


def _imports(file: Path) -> Iterator[tuple[str, ...]]:
    """Every module that a file imports, as parts; relative ones from the pack's root, host's and others by name."""
    package = file.parent.parts
    for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (("", *alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                yield ("", *(node.module or "").split("."))
            else:
                base = package[: len(package) - node.level + 1]
                named = tuple((node.module or "").split(".")) if node.module else ()
                yield base + named if node.module else (*base, node.names[0].name)


@pytest.mark.parametrize("file", _files(), ids=str)
def test_direction(file: Path) -> None:
    room = file.parts[:2] if file.parts[:2] == ("dynamicid_core", "host") else file.parts[:1]
    for module in _imports(file):
        where = f"{file} imports {'.'.join(module)}"
        if module[0] == "":
            assert module[1] not in ("dynamicid_core", "mini", "tests"), f"{where}: inside the pack, import relatively"
            if module[1] in HOST_MODULES:
                assert room in (("nodes",), ("dynamicid_core", "host")), f"{where}: only nodes and host know ComfyUI"
        elif module[0] == "nodes":
            assert room in (("nodes",), ("__init__.py",)), f"{where}: nothing below may import nodes"
        elif module[:2] == ("dynamicid_core", "host"):
            assert room in (("nodes",), ("dynamicid_core", "host")), f"{where}: the core may not import its host room"
        elif module[0] == "mini":
            assert room == ("dynamicid_core", "host"), f"{where}: only the core's host room loads the miniature"
            assert module in MINIATURE, f"{where}: of the miniature, only its product half ships"


@pytest.mark.parametrize("module", MINIATURE, ids=".".join)
def test_the_miniatures_product_half_stands_apart_from_world_and_training(module: tuple[str, ...]) -> None:
    file = Path(*module).with_suffix(".py")
    within = [part for part in _imports(file) if part[0] == "mini"]
    assert not [part for part in within if part not in MINIATURE], f"{file} imports {within}"


def test_the_miniatures_world_stands_apart_from_its_training() -> None:
    for file in sorted((ROOT / "mini" / "world").glob("*.py")):
        for module in _imports(file.relative_to(ROOT)):
            assert module[:1] == ("",) or module[:2] == ("mini", "world"), f"{file} imports {'.'.join(module)}"


def test_the_files_are_found() -> None:
    assert {"attention.py", "identity_attention.py", "apply.py"} <= {file.name for file in _files()}
