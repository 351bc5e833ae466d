"""The tiers of the tests: each test belongs to the heaviest of what its folder, its fixtures and its marks need."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TIERS = {  # lightest first
    "unit": "neither ComfyUI's modules nor long",
    "host": "ComfyUI in this process, or its tokenizer",
    "train": "diffusers or transformers, a short training, a set of pictures, or another Python process",
    "server": "a running ComfyUI server, which draws with the miniature",
    "browser": "a browser on a server's page",
    "full_size": "generated weights of full size: SD1.5's (5 GB, kept) or SDXL's (8.4 GB, for the length of a test)",
}
"""Tier -> what its tests need."""

SHARED = ("server", "browser", "full_size")
"""The tiers whose tests share what takes long to start, so that each runs on one worker."""

TOGETHER = ("data", "training")
"""Folders whose tests share what takes long to make or to import, so that each runs on one worker."""

FIRST = "sdxl_server"
"""The fixture whose tests run before all others: the server takes 16 GB, and no other large one may run beside it."""

FULL = "full"
"""The mark of what only --full runs, besides the tier full_size."""

UNIT_SECONDS = 5.0
"""What a unit test may take of processors, its own and its children's: the tier must stay quick enough to run after
each change, and what else a machine does must not fail it."""

FOLDERS = {"host": "host", "fuzz": "host", "browser": "browser", "training": "train"}
"""Folder of tests -> the tier that all its tests need."""

FIXTURES = {
    "host": "host",
    "judge": "host",
    "finished": "train",
    "base_folder": "train",
    "trained": "train",
    "make_server": "server",
    "server": "server",
    "generated": "full_size",
    "full_size_server": "full_size",
    "sdxl_server": "full_size",
}
"""Fixture -> the tier of whatever asks for it, directly or through other fixtures."""


def tier_of_path(path: Path, config: pytest.Config) -> str:
    """Return what everything under a path of tests needs at least: by its folder, or by the mark of a whole file."""
    parts = path.relative_to(config.rootpath / "tests").parts
    if parts and parts[0] in FOLDERS:
        return FOLDERS[parts[0]]
    text = path.read_text("utf-8") if path.suffix == ".py" else ""
    mark = re.search(r"^pytestmark = \[?pytest\.mark\.(\w+)", text, re.M)
    return mark[1] if mark and mark[1] in TIERS else "unit"


def tier_of(item: pytest.Item) -> str:
    """Return the tier that a test belongs to."""
    return max(_needs(item), key=list(TIERS).index)


def _needs(item: pytest.Item) -> Iterator[str]:
    yield tier_of_path(item.path, item.config)
    yield from (FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES)
    yield from (mark.name for mark in item.iter_markers() if mark.name in TIERS)


def is_chosen(item: pytest.Item, config: pytest.Config) -> bool:
    """Return whether a test runs with these options: what is long, with --full or where -m names why it is."""
    marks = {mark.name for mark in item.iter_markers()}
    long = bool(marks & {"full_size", FULL})
    if config.getoption("--fast"):
        return tier_of(item) == "unit" and not long
    named = marks & {"full_size", FULL} & set(re.findall(r"\w+", config.getoption("markexpr")))
    return not long or bool(config.getoption("--full") or named)


def processor_seconds() -> float:
    """Return what this process and those that it waited for have taken of processors so far."""
    return sum(os.times()[:4])


def broken_promise(item: pytest.Item, seconds: float) -> str | None:
    """Return what a unit test did that its tier forbids, None where it kept to it."""
    if tier_of(item) != "unit":
        return None
    if seconds > UNIT_SECONDS:
        return f"a unit test may take {UNIT_SECONDS:.0f} s of processors and took {seconds:.1f} s: see tests/tiers.py"
    if item.config.getoption("--fast") and "comfy" in sys.modules:
        return "a unit test imported ComfyUI: ask for the fixture `host`, see tests/tiers.py"
    return None


def group_of(item: pytest.Item) -> str:
    """Return what runs on one worker: the tests that share a server or a folder's fixtures, else those of one file."""
    tier, folder = tier_of(item), item.path.parent.name
    return tier if tier in SHARED else folder if folder in TOGETHER else str(item.path)
