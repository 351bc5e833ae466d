"""dev.py and what it imports, without a place on sys.path: there the checkout's `nodes` would hide the host's."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from dynamicid_pack.tests.support import ROOT


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


_load("devtools", ROOT / "devtools" / "__init__.py")
dev = _load("dynamicid_dev", ROOT / "dev.py")
making, hosts, locks, registry = (
    importlib.import_module(f"devtools.{name}") for name in ("environment", "host", "lock", "registry")
)
