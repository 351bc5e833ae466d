"""The tiers: every test has one, the options choose by it, and a unit test that breaks its promise fails."""

import sys

import pytest

from . import tiers

pytest_plugins = ["pytester"]

FILES = {
    "tests/conftest.py": """
        import pytest
        from dynamicid_pack.tests.conftest import *
        from dynamicid_pack.tests.tiers import *

        @pytest.fixture
        def server(): ...

        @pytest.fixture
        def through(server): ...

        @pytest.fixture
        def sdxl_server(): ...
        """,
    "tests/core/test_core.py": """
        import sys, time
        import pytest
        from dynamicid_pack.tests import tiers

        def test_plain(): ...

        def test_server(through): ...

        @pytest.mark.full
        def test_long(): ...

        @pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.full_size), 2])
        def test_sizes(size, through): ...

        def test_slow(monkeypatch):
            monkeypatch.setattr(tiers, "UNIT_SECONDS", 0.01)
            begun = time.process_time()
            while time.process_time() < begun + 0.1: ...

        def test_importing(monkeypatch):
            monkeypatch.setitem(sys.modules, "comfy", tiers)
        """,
    "tests/host/test_host.py": """
        def test_host(): ...

        def test_first(sdxl_server): ...
        """,
}


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A small suite under the rules of this one."""
    for name, content in FILES.items():
        path = pytester.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(line[8:] for line in content.splitlines()))
    (pytester.path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['full: long']\n")
    return pytester


def test_each_test_has_the_tier_that_it_is_marked_with(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        assert item.get_closest_marker(tiers.tier_of(item)), item.nodeid


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("", "plain server sizes[2] slow importing host"),
        ("--fast", "plain slow importing"),
        ("--full", "first plain server long sizes[1] sizes[2] slow importing host"),
        ("-m unit", "plain slow importing"),
        ("-m host", "host"),
        ("-m server", "server sizes[2]"),
        ("-m full", "long"),
        ("-m full_size", "first sizes[1]"),
    ],
)
def test_options_choose(suite: pytest.Pytester, options: str, names: str) -> None:
    listed = suite.runpytest_inprocess("--collect-only", "-q", *options.split()).outlines
    assert [line.partition("::test_")[2] for line in listed if "::" in line] == names.split()


def test_a_unit_test_that_is_slow_or_imports_comfyui_fails(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "comfy", raising=False)  # of an earlier test on this worker
    result = suite.runpytest_inprocess("--fast", "-p", "no:xdist")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*a unit test may take 0 s of processors*", "*a unit test imported ComfyUI*"])
