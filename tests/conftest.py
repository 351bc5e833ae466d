"""Shared by all tests: the pack under one name, `dynamicid_pack`, as the host imports its folder; tiers (tiers.py)."""

import importlib.util
import os
import sys
from collections.abc import Generator
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

from dynamicid_pack.tests import tiers  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="run the tier `unit` alone, and import no ComfyUI")
    parser.addoption("--full", action="store_true", help="also run the tier `full_size` and tests marked `full` (long)")


def pytest_configure(config: pytest.Config) -> None:
    for tier, needs in tiers.TIERS.items():
        config.addinivalue_line("markers", f"{tier}: needs {needs} (told by itself, see tests/tiers.py)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --fast, folders and files of other tiers are not even imported."""
    if not config.getoption("--fast") or not collection_path.is_relative_to(config.rootpath / "tests"):
        return None
    return tiers.tier_of_path(collection_path, config) != "unit" or None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark each test with its tier, and with the group that shares a worker."""
    item.add_marker(tiers.tier_of(item))
    item.add_marker(pytest.mark.xdist_group(tiers.group_of(item)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what the options choose; what must run first does; of several workers' groups the longest begin first."""
    kept = [item for item in items if tiers.is_chosen(item, config)]
    if dropped := [item for item in items if item not in set(kept)]:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept
    items.sort(key=lambda item: tiers.FIRST not in getattr(item, "fixturenames", ()))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: tiers.group_of(item) not in tiers.SHARED + tiers.TOGETHER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a unit test that took too long, or that imported ComfyUI."""
    begun = tiers.processor_seconds()
    yield
    if failure := tiers.broken_promise(item, tiers.processor_seconds() - begun):
        pytest.fail(failure, pytrace=False)
