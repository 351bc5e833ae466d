"""Names that people give to identities: the door is Save Identity, then Load Identity by the name's own words."""

import os
from pathlib import Path
from random import Random
from unittest.mock import patch

import folder_paths
import torch
from dynamicid_pack.dynamicid_core.host import folders
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.nodes.identities import LoadIdentity, SaveIdentity

from ..judge import Case, Family
from .text import ODD, odd_text

_PARTS = (
    *ODD, "", ".", "..", "...", " ", "a", "alice", "Alice", "~", "C:", "a.", "a ", " a", ".a", "-", "a.safetensors",
    "A.SAFETENSORS", "CON", "con", "NUL", "nul.txt", "COM1", "com¹", "LPT9", "AUX.b", "PRN ", "CONIN$",
    "a" * 60, "a" * 300, "ä" * 90, "愛" * 90, "a:b", "a*", "a?", 'a"', "a|b", "<a>", "a\\b", "/", "a\\..\\b",
    "%2e%2e", "a\x7f", "a\u00a0",
    "identities", ".git", "a.part", "a.1.part",
)  # fmt: skip


def _draw(rng: Random, folder: Path) -> Case:
    name = "/".join(rng.choice(_PARTS) for _ in range(rng.choice((1, 1, 2, 2, 3, 40))))
    if rng.random() < 0.1:
        name = odd_text(rng)
    return Case(ascii(name[:80]), (folder / "models", name))


def _saved(models: Path, name: str) -> None:
    known = {folders.FOLDER: ([str(models)], {".safetensors"})}
    with patch.dict(folder_paths.folder_names_and_paths, known), patch.dict(folder_paths.filename_list_cache):
        identities = models / folders.IDENTITIES
        SaveIdentity.execute(Identity(torch.ones(4, 16), torch.zeros(4, 16)), name)
        made = [path for path in models.parent.rglob("*") if not path.is_dir()]
        assert len(made) == 1 and made[0].is_relative_to(identities), f"it made {made}"
        relative = made[0].relative_to(identities).as_posix()
        assert relative == f"{name.strip()}.safetensors", f"it made {relative!r}"
        for part in relative.split("/"):
            assert part.isprintable() and len(part.encode()) <= 255 and part.strip(" .") == part, part
            assert part.split(".")[0].upper() not in ("CON", "NUL", "AUX", "PRN", "COM1", "LPT9", "COM¹", "CONIN$"), (
                part
            )
        assert not any(part.lower().endswith(".safetensors") for part in relative.split("/")[:-1]), relative
        assert len(os.fspath(relative)) <= 230, "Windows' paths end at 260 characters"
        assert folders.identity_names() == [name.strip()]
        assert isinstance(LoadIdentity.execute(name).args[0], Identity)


NAMES = Family("names", _draw, _saved)
