"""Packages that only the building of data needs, imported where they are used."""

from importlib import import_module
from typing import Any


def require(module: str, extra: str = "training") -> Any:
    """Import a module.

    Raises ModuleNotFoundError, naming the extra of pyproject.toml that brings it, where it isn't installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed, which building data needs: python -m pip install -e .[{extra}], in the "
            "pack's folder."
        ) from error
