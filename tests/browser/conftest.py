"""Fixtures for tests in a real browser: headless Chromium on a real server's page.

Without a browser these tests are skipped, each by its name: `python dev.py test --install-browser` installs one.
"""

import os
from collections.abc import Iterator

import pytest

if not os.environ.get("COMFYUI_PATH"):
    raise pytest.UsageError("tests/browser need a host: run `python dev.py test`, or set COMFYUI_PATH")

from playwright.sync_api import Browser, sync_playwright

from ..host.server import Server
from .page import FLAGS, GraphPage, find_browser


@pytest.fixture(scope="module")
def executable() -> str:
    """The browser."""
    browser_path = find_browser()
    if browser_path is None:
        pytest.skip("no Chromium on this machine: python dev.py test --install-browser")
    return browser_path


@pytest.fixture(scope="module")
def server(executable: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has the pack and no model files, as a newcomer's."""
    with Server(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="module")
def known(server: Server) -> set[str]:
    """The types of nodes that the server has."""
    return set(server.get("/object_info"))


@pytest.fixture(scope="module")
def blueprints(server: Server) -> set[str]:
    """The names of the blueprints that the server has; none on a host that serves none."""
    try:
        return {entry["name"] for entry in server.get("/global_subgraphs").values()}
    except (OSError, ValueError):  # no such address, or another page than JSON
        return set()


@pytest.fixture(scope="module")
def browser(executable: str, known: set[str], blueprints: set[str]) -> Iterator[Browser]:
    """Headless Chromium. While it runs, so does Playwright's event loop: the server is asked before."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def opened(browser: Browser, server: Server) -> Iterator[GraphPage]:
    """The page as a new user sees it, its first-visit dialog closed; opening it takes seconds."""
    with browser.new_context(viewport={"width": 1600, "height": 1000}) as context:
        opened = GraphPage(context.new_page(), server.url)
        opened.open()
        yield opened


@pytest.fixture
def page(opened: GraphPage) -> GraphPage:
    """The page, with no graph, and nothing counted yet."""
    opened.page.evaluate("() => app.graph.clear()")
    opened.clicks = 0
    opened.errors.clear()
    return opened
