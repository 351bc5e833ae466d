"""A seeded fuzzer: hostile files, names and values of each family meet a clear line, at little cost (see judge.py)."""

import pytest

from .families import FAMILIES
from .judge import judge

DEFAULT, FULL, BLOCK = 50, 1000, 50
"""Cases of a family by default and with --full, and how many one test runs."""


@pytest.mark.parametrize(
    "first", [pytest.param(n, marks=[pytest.mark.full] if n >= DEFAULT else []) for n in range(0, FULL, BLOCK)]
)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_hostile_input(family, first: int, tmp_path) -> None:
    """To run one case again: `judge(family, number, folder)`; the number is in the message."""
    complaints = [judge(family, number, tmp_path / str(number)) for number in range(first, first + BLOCK)]
    wrong = [complaint for complaint in complaints if complaint]
    assert not wrong, f"{len(wrong)} of {BLOCK}:\n" + "\n".join(wrong)
