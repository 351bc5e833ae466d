"""The pages for developers name files and functions that exist."""

import re

import pytest
from dynamicid_pack.tests.support import ROOT

DOCS = (f"docs/{page}.md" for page in ("architecture", "evaluation", "glossary", "training", "scale"))
PAGES = ("README.md", "CONTRIBUTING.md", *DOCS)
PATH = re.compile(r"`((?:dynamicid_core|nodes|mini|tests|docs|web|benchmarks)/[\w./-]*\w(?:\.\w+)?/?)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)\)")


def _rows() -> list[str]:
    """Return the map's table rows that name a Python file by its whole path."""
    lines = (ROOT / "docs/architecture.md").read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith("|") and any(p.endswith(".py") for p in PATH.findall(line))]


@pytest.mark.parametrize("page", PAGES)
def test_every_path_and_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    missing = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    missing += [link for link in LINK.findall(text) if not ((ROOT / page).parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("row", _rows())
def test_what_the_map_names_stands_in_the_files_of_its_row(row: str) -> None:
    text = "\n".join((ROOT / path).read_text("utf-8") for path in PATH.findall(row) if path.endswith(".py"))
    assert [name for name in re.findall(r"`(\w+)`", row) if not re.search(rf"\b{name}\b", text)] == []


def test_the_map_has_rows() -> None:
    assert len(_rows()) > 10
