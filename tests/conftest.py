"""Shared by all tests: the pack is imported under one name, `dynamicid_pack`, as the host would import its folder."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _host_first_on_path() -> None:
    """The pack's `nodes` folder would shadow the host's `nodes.py` if the root came first on sys.path."""
    host = os.environ.get("COMFYUI_PATH")
    if host:
        sys.path.insert(0, host)


def _import_pack() -> None:
    spec = importlib.util.spec_from_file_location(
        "dynamicid_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dynamicid_pack"] = module
    spec.loader.exec_module(module)


_host_first_on_path()
_import_pack()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also run the tests marked `full` (long)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="long; runs with --full")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)
