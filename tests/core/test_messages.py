"""What others say never enters a message raw."""

import pytest
from dynamicid_pack.dynamicid_core.messages import LIMIT, printable, quoted

HOSTILE = {
    "newline": "a\nb\r\nc",
    "ANSI": "\x1b[31mred\x1b[0m",
    "bidirectional override": "evil\u202etxt.exe",
    "lone surrogate": "caf\udce9",
    "line separators": "a\u2028b\u2029c\x85d",
    "zero": "a\0b",
    "private use and unassigned": "\ue000\U000f0000\u0378",
    "a megabyte": "\n\ud800" * 500_000,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_one_line_of_a_bounded_length_that_prints(case: str) -> None:
    for text in (printable(HOSTILE[case]), quoted(HOSTILE[case]), quoted([{HOSTILE[case]: HOSTILE[case]}])):
        assert text.isprintable()
        assert len(text) <= LIMIT
        text.encode("utf-8")


def test_what_prints_stays_as_it_is() -> None:
    path = "C:\\models\\größe\\愛麗絲.safetensors"
    assert printable(path) == path
    assert quoted("it's größe") == repr("it's größe")
    assert quoted("..\\escaped") == repr("..\\escaped")
    assert printable("a" * LIMIT) == "a" * LIMIT
    assert printable("a" * (LIMIT + 1)) == "a" * (LIMIT - 3) + "..."
    assert printable("a" * 1000, limit=None) == "a" * 1000


def test_values_of_any_kind_are_cut() -> None:
    assert quoted({"x": 1}) == "{'x': 1}"
    assert len(quoted(list(range(10**6)))) <= LIMIT
    assert len(quoted(10**4000)) <= LIMIT
    assert quoted(10**5000) == "a int of very large numbers"


def test_whole_numbers_that_python_does_not_write_are_named() -> None:
    for value in (10**5000, [10**5000], {"x": -(10**5000)}):
        assert quoted(value) == f"a {type(value).__name__} of very large numbers"
