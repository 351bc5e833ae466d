"""A source with known defects, and the set that is built of it once for all tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.data.pipeline import Summary
from dynamicid_pack.mini.world.render import Picture
from dynamicid_pack.tests.data.drawn import built, draw_defects, draw_person


@dataclass(frozen=True)
class Built:
    """source: the folder; good: what is true of each good picture, by its path; bad: the reason, by its path."""

    source: Path
    good: dict[str, Picture]
    bad: dict[str, str]
    out: Path
    summary: Summary


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("data")
    source, out = folder / "source", folder / "set"
    good: dict[str, Picture] = {}
    for number, name in enumerate(("anna", "bert b.", "cléo")):
        good |= {f"{name}/{file}": truth for file, truth in draw_person(source / name, number, 5).items()}
    bad = {f"anna/{file}": reason for file, reason in draw_defects(source / "anna").items()}
    (source / "anna" / "notes.md").write_text("not a picture by its name, and never looked at")
    return Built(source, good, bad, out, built(source, out))
