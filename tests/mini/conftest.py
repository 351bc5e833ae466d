"""Fixtures for the miniature's training: workshops in which every stage is short, and the host on the CPU."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def host() -> None:
    """For tests that load a network as the host does."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("needs a host: run `python dev.py test`, or set COMFYUI_PATH to ComfyUI's folder")
    import comfy.cli_args

    comfy.cli_args.args.cpu = True


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pictures, once drawn, serve all tests."""
    return tmp_path_factory.mktemp("mini")
