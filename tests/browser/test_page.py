"""What a user does on the page: finds a template, queues it, sees what comes of it, draws a box, reads the help."""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from ..host.server import PACK
from .page import GraphPage

pytestmark = pytest.mark.timeout(900)

TEMPLATES = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
SEVERAL = ("03_three_people_boxes", "mini_13_who_is_who")
"""Of both kinds of templates: another is queued below, and the rest is loaded with --full."""
NEWER = {"CreateBoundingBoxes"}
"""Nodes that the oldest supported host has not."""


def until(page: GraphPage, done: Callable[[], Any], seconds: float = 120) -> Any:
    """What `done` gives as soon as it gives something."""
    for _ in range(int(seconds * 5)):
        if result := done():
            return result
        page.page.wait_for_timeout(200)
    raise AssertionError(f"nothing came within {seconds:.0f} s; errors of the page: {page.errors}")


@pytest.mark.full
def test_templates_are_listed_with_their_pictures(page: GraphPage) -> None:
    page.show_templates()
    for template in TEMPLATES:
        picture = page.card(template).locator("img").first
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("image => Math.max(image.naturalWidth, image.naturalHeight)") == 512, template
    assert sorted(page.listed()) == TEMPLATES


@pytest.mark.parametrize(
    "templates", [SEVERAL, pytest.param(TEMPLATES, marks=pytest.mark.full)], ids=["several", "all"]
)
def test_templates_load_without_missing_nodes_or_errors(
    page: GraphPage, known: set[str], templates: Sequence[str]
) -> None:
    for template in templates:
        page.load(template)
        nodes = page.nodes()
        assert len(nodes) > 5, template
        missing = {node["type"] for node in nodes if not node["known"]}
        assert missing <= NEWER - known, template
        assert page.errors == [], template


@pytest.mark.smoke
def test_a_newcomer_queues_a_picture_in_a_few_clicks(page: GraphPage) -> None:
    page.load("mini_02_two_people")
    page.queue()
    assert page.clicks < 10
    titles: set[str] = set()
    saved = page.node("SaveImage")

    def drawn() -> list[str]:
        titles.add(page.page.title())
        return page.picture_of(saved)

    shown = until(page, drawn)
    assert len(shown) == 2
    assert any(re.search(r"\d+%", title) for title in titles), f"no progress in the title: {titles}"
    picture = np.asarray(Image.open(io.BytesIO(page.page.request.get(shown[0]).body())).convert("RGB"))
    assert picture.shape == (128, 256, 3) and picture.std() > 20
    assert page.errors == []


@pytest.mark.full
def test_boxes_drawn_on_the_canvas_arrive_in_auto_layout(page: GraphPage, known: set[str]) -> None:
    if "CreateBoundingBoxes" not in known:
        pytest.skip("this host has no Create Bounding Boxes")
    page.load("mini_03_three_people_boxes")
    page.use_new_nodes()
    drawing, layout = page.node("CreateBoundingBoxes"), page.node("DynamicIDLayout")
    page.centre_on(drawing)
    editor = page.page.locator(f'[data-node-id="{drawing["id"]}"]')
    editor.get_by_role("button", name="Clear all").click()
    editor.get_by_role("button", name="Grid").click()  # boxes no longer snap to it
    canvas = editor.locator("canvas")
    area = canvas.bounding_box()
    assert area is not None
    wanted = [(0.02, 0.1, 0.3, 0.6), (0.36, 0.3, 0.64, 0.95), (0.7, 0.05, 0.98, 0.5)]
    for left, top, right, bottom in wanted:
        page.page.mouse.move(area["x"] + left * area["width"], area["y"] + top * area["height"])
        page.page.mouse.down()
        page.page.mouse.move(area["x"] + right * area["width"], area["y"] + bottom * area["height"], steps=4)
        page.page.mouse.up()
    page.queue()
    (shown, *_) = until(page, lambda: page.picture_of(layout))
    preview = np.asarray(Image.open(io.BytesIO(page.page.request.get(shown).body())).convert("RGB")).astype(int)
    height, width, _ = preview.shape
    paper = preview[0, 0]
    for left, top, _, bottom in wanted:
        middle = preview[round((top + bottom) / 2 * height), round((left + 0.03) * width)]
        assert np.abs(middle - paper).max() > 40, "a drawn box is missing from Auto Layout's preview"
    for x, y in ((0.15, 0.85), (0.5, 0.12), (0.85, 0.8)):
        assert np.abs(preview[round(y * height), round(x * width)] - paper).max() < 10
    assert page.errors == []


@pytest.mark.full
def test_the_help_of_a_node_opens(page: GraphPage) -> None:
    page.load("mini_01_one_person")
    page.select(page.node("DynamicIDMini"))
    page.page.get_by_test_id("info-button").click()
    shown = page.page.get_by_text("Usual mistakes", exact=True)
    expect(shown).to_be_visible()
    assert page.errors == []


BLUEPRINTS = {
    "Person with an Expression": (
        {"DynamicIDEncode", "DynamicIDEditMotion"},
        {"expression", "yaw", "pitch", "strength"},
    ),
    "Redraw Two People": (
        {"CLIPTextEncode", "DynamicIDRedraw"},
        {"seed", "steps", "cfg", "denoise", "only_below", "passes"},
    ),
}
"""Name -> the nodes that it holds, and widgets that it offers."""


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_nodes_that_go_together_come_as_one_blueprint(page: GraphPage, blueprints: set[str], name: str) -> None:
    """Added from the page's node search, it holds its nodes, and offers their main widgets."""
    if name not in blueprints:
        pytest.skip("this host serves no blueprints of packs")
    page.page.evaluate("() => app.graph.clear()")
    page.add(name)
    (added,) = until(
        page,
        lambda: page.page.evaluate(
            "() => app.graph.nodes.map(n => ({title: n.title, widgets: (n.widgets ?? []).map(w => w.name),"
            " sockets: n.inputs.map(i => i.name), inside: (n.subgraph?.nodes ?? []).map(m => ({type: m.type,"
            " wired: m.inputs.filter(i => i.link != null).map(i => i.name)}))}))"
        ),
    )
    nodes, widgets = BLUEPRINTS[name]
    assert added["title"] == name
    assert {node["type"] for node in added["inside"]} == nodes
    assert widgets <= set(added["widgets"])
    if name == "Redraw Two People":
        assert [socket for socket in added["sockets"] if socket in ("first", "second")] == ["first", "second"]
        (redraw,) = (node for node in added["inside"] if node["type"] == "DynamicIDRedraw")
        assert {"image", "people.person_0", "people.person_1", "model", "positive"} <= set(redraw["wired"]), redraw
    assert page.errors == []
