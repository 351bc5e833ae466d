"""ComfyUI's page, worked as a user does: by what can be seen and clicked."""

import os
import shutil
from typing import Any

from playwright.sync_api import ConsoleMessage, FloatRect, Locator, Page, TimeoutError, expect

# Headless and without calls home; the sandbox does not start for root, as whom CI runs.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_browser() -> str | None:
    """A Chromium's executable: DYNAMICID_BROWSER, or one that is on PATH."""
    return os.environ.get("DYNAMICID_BROWSER") or next(filter(None, map(shutil.which, _BROWSERS)), None)


class GraphPage:
    """One tab. `errors` gathers what goes wrong in it: uncaught errors, and the console's errors about the pack.

    `pack` is the pack's folder among the server's custom nodes, by which the page calls it.
    """

    def __init__(self, page: Page, url: str, pack: str = "dynamicid"):
        self.page, self.url, self.pack = page, url, pack
        self.errors: list[str] = []
        self.clicks = 0
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        told = f"{message.text} {message.location.get('url', '')}"
        # The page asks for a help page in its own language first, and takes the general one where there is none.
        if message.type == "error" and self.pack in told.lower() and not told.endswith("/en.md"):
            self.errors.append(told)

    def open(self) -> None:
        """Load the page and wait until a graph can be built in it; a first visit's dialog is closed if it can be."""
        self.page.goto(self.url, wait_until="domcontentloaded")
        self.page.wait_for_function("() => window.app?.graph && document.querySelector('[data-testid=queue-button]')")
        self.page.wait_for_timeout(2500)
        if self.dialog.is_visible():  # older pages' takes no key
            self.page.keyboard.press("Escape")
            self.page.wait_for_timeout(1000)
        self.errors.clear()  # of the host's own start

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog").filter(has_text="Templates")

    def click(self, target: Locator) -> None:
        target.click()
        self.clicks += 1

    def show_templates(self) -> None:
        """Open the templates, at the pack's."""
        if not self.dialog.is_visible():
            self.click(self.page.get_by_role("button", name="Templates", exact=True).first)
        self.click(self.dialog.get_by_text(self.pack, exact=True).first)
        expect(self.dialog.get_by_test_id("template-workflow-01_one_person")).to_be_attached(timeout=60_000)

    def listed(self) -> list[str]:
        """The names of the templates, as far as they are shown: more come as the list is scrolled."""
        cards = self.dialog.locator("[data-testid^=template-workflow-]")
        return [str(card.get_attribute("data-testid")).removeprefix("template-workflow-") for card in cards.all()]

    def card(self, template: str) -> Locator:
        """A template's card, scrolled to."""
        card = self.dialog.get_by_test_id(f"template-workflow-{template}")
        self.dialog.get_by_test_id(f"template-workflow-{self.listed()[0]}").hover()
        for _ in range(60):
            if card.count():
                break
            self.page.mouse.wheel(0, 400)
            self.page.wait_for_timeout(250)
        card.scroll_into_view_if_needed()
        return card

    def load(self, template: str) -> None:
        """Choose a template by clicking its card, and wait for its graph."""
        self.show_templates()
        self.click(self.card(template))
        expect(self.dialog).to_be_hidden()
        self.page.wait_for_timeout(500)

    def nodes(self) -> list[dict[str, Any]]:
        """Each node of the graph: id, type, title, and whether the page knows its type."""
        return list(
            self.page.evaluate(
                "() => app.graph.nodes.map(n => ({id: n.id, type: n.type, title: n.title, "
                "known: n.type in LiteGraph.registered_node_types || n.type === 'MarkdownNote'}))"
            )
        )

    def node(self, kind: str) -> dict[str, Any]:
        """The one node of this type."""
        (node_of_kind,) = (node for node in self.nodes() if node["type"] == kind)
        return node_of_kind

    def picture_of(self, node: dict[str, Any]) -> list[str]:
        """Addresses of the pictures that a node shows: drawn on the canvas, or elements of a node of Nodes 2.0."""
        return list(
            self.page.evaluate(
                """id => {
                    const drawn = (app.graph.getNodeById(id).imgs ?? []).map(image => image.src)
                    const elements = document.querySelectorAll(`[data-node-id="${id}"] img[src*="/view"]`)
                    return drawn.length ? drawn : [...elements].map(image => image.src)
                }""",
                node["id"],
            )
        )

    def use_new_nodes(self) -> None:
        """Switch Nodes 2.0 on, which the canvas for boxes needs."""
        self.page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")

    def centre_on(self, node: dict[str, Any]) -> tuple[float, float]:
        """Bring a node to the middle of the screen; where its title then is, in pixels of the page."""
        spot = self.page.evaluate(
            """id => {
                const node = app.graph.getNodeById(id), view = app.canvas.ds, box = app.canvas.canvas
                view.scale = 1
                view.offset[0] = box.clientWidth / 2 - node.pos[0] - node.size[0] / 2
                view.offset[1] = box.clientHeight / 2 - node.pos[1] - node.size[1] / 2
                app.canvas.setDirty(true, true)
                const edge = box.getBoundingClientRect()
                return [edge.left + node.pos[0] + view.offset[0] + node.size[0] / 2,
                        edge.top + node.pos[1] + view.offset[1] - 12]
            }""",
            node["id"],
        )
        self.page.wait_for_timeout(300)
        return float(spot[0]), float(spot[1])

    def fit(self) -> None:
        """Bring the whole graph into view, with all that is written in it."""
        self.page.evaluate("() => app.extensionManager.setting.set('LiteGraph.Canvas.MinFontSizeForLOD', 0)")
        self.page.evaluate(
            """() => {
                const nodes = app.graph.nodes, view = app.canvas.ds, box = app.canvas.canvas
                const left = Math.min(...nodes.map(n => n.pos[0])), top = Math.min(...nodes.map(n => n.pos[1])) - 40
                const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]))
                const bottom = Math.max(...nodes.map(n => n.pos[1] + n.size[1]))
                const wide = box.clientWidth - 120, high = box.clientHeight - 120
                view.scale = Math.min(wide / (right - left), high / (bottom - top))
                view.offset[0] = 80 / view.scale - left
                view.offset[1] = 80 / view.scale - top
                app.canvas.setDirty(true, true)
            }"""
        )
        self.page.wait_for_timeout(1500)

    def extent(self) -> FloatRect:
        """Where the graph lies on the page."""
        x, y, width, height = self.page.evaluate(
            """() => {
                const nodes = app.graph.nodes, view = app.canvas.ds, edge = app.canvas.canvas.getBoundingClientRect()
                const left = Math.min(...nodes.map(n => n.pos[0])), top = Math.min(...nodes.map(n => n.pos[1])) - 36
                const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]))
                const bottom = Math.max(...nodes.map(n => n.pos[1] + n.size[1]))
                const x = edge.left + (left + view.offset[0]) * view.scale
                const y = edge.top + (top + view.offset[1]) * view.scale
                return [x, y, (right - left) * view.scale, (bottom - top) * view.scale]
            }"""
        )
        return {"x": x - 6, "y": y - 6, "width": width + 12, "height": height + 12}

    def select(self, node: dict[str, Any]) -> None:
        """Click a node's title."""
        self.page.mouse.click(*self.centre_on(node))
        self.clicks += 1

    def add(self, name: str) -> None:
        """Add a node, or a blueprint, by the search that a double click on free canvas opens."""
        box = self.page.get_by_role("dialog").get_by_role("combobox")
        for _ in range(10):
            self.page.keyboard.press("Escape")  # what was added before may still follow the pointer
            self.page.mouse.dblclick(800, 700)
            try:
                box.fill(name, timeout=5000)
                expect(self.page.get_by_role("option").first).to_contain_text(name, timeout=5000)
                break
            except (TimeoutError, AssertionError):  # a busy page takes no double click, or closes the search late
                continue
        else:
            raise AssertionError(f"the page's search does not offer {name!r} first")
        self.page.keyboard.press("Enter")

    def queue(self) -> None:
        self.click(self.page.get_by_test_id("queue-button"))
