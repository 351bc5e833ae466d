"""The growing sockets of people on the page: saved graphs keep their links, anybody may be muted."""

import json
from typing import Any

import pytest

from ..host.server import PACK
from .page import GraphPage

pytestmark = pytest.mark.timeout(900)

GROWING = ("DynamicIDApply", "DynamicIDApplyAdvanced", "DynamicIDLayout", "DynamicIDWhoIsWho", "DynamicIDRedraw")
SAVED = [path for path in sorted((PACK / "workflows").glob("*.json")) if '"people.' in path.read_text("utf-8")]
SEVERAL = (
    "mini_02_two_people_references", "mini_03_three_people_boxes", "mini_13_who_is_who", "mini_16_redraw_two_people",
)  # fmt: skip


def sockets_of(workflow: dict[str, Any]) -> dict[str, list[int]]:
    """Which nodes' outputs each growing socket of a saved graph gets: [node, output]."""
    sources = {link[0]: link[1:3] for link in workflow["links"]}
    return {
        f"{node['id']} {socket['name']}": sources[socket["link"]]
        for node in workflow["nodes"]
        if node["type"] in GROWING
        for socket in node["inputs"]
        if socket["name"].startswith("people.") and socket.get("link") is not None
    }


def queued(page: GraphPage) -> dict[str, Any]:
    """What the page would queue: the graph to run, and its own."""
    return dict(page.page.evaluate("async () => await app.graphToPrompt()"))


def people_of(graph: dict[str, Any], kind: str) -> dict[str, list[Any]]:
    (inputs,) = (node["inputs"] for node in graph.values() if node["class_type"] == kind)
    return {name: value for name, value in inputs.items() if name.startswith("people.")}


@pytest.mark.parametrize(
    "templates", [SEVERAL, pytest.param([path.stem for path in SAVED], marks=pytest.mark.full)], ids=["several", "all"]
)
def test_saved_graphs_reload_with_the_same_links(page: GraphPage, templates: list[str]) -> None:
    for template in templates:
        saved = json.loads((PACK / "workflows" / f"{template}.json").read_text("utf-8"))
        expected = sockets_of(saved)
        assert expected, template
        page.load(template)
        assert sockets_of(queued(page)["workflow"]) == expected, template
        page.page.evaluate("async saved => await app.loadGraphData(saved)", queued(page)["workflow"])
        page.page.wait_for_timeout(500)
        assert sockets_of(queued(page)["workflow"]) == expected, f"{template}, saved again"
        assert page.errors == []


@pytest.mark.parametrize("mode", [2, 4], ids=["muted", "bypassed"])
def test_the_first_person_may_be_left_out(page: GraphPage, mode: int) -> None:
    """The page leaves the socket out of the graph; the server takes it and draws the other person."""
    page.load("mini_02_two_people_references")
    before = people_of(queued(page)["output"], "DynamicIDApply")
    page.page.evaluate(
        "mode => { app.graph.getNodeById(app.graph.nodes.find(n => n.type === 'DynamicIDEncode').id).mode = mode }",
        mode,
    )
    graph = queued(page)["output"]
    left = people_of(graph, "DynamicIDApply")
    assert len(left) == len(before) - 1 and set(left) < set(before)
    told = page.page.evaluate(
        """async prompt => {
            const answer = await fetch('/api/prompt', {method: 'POST', body: JSON.stringify({prompt, partial: true}),
                                                       headers: {'Content-Type': 'application/json'}})
            return [answer.status, await answer.json()]
        }""",
        graph,
    )
    assert told[0] == 200 and not told[1].get("node_errors"), told


def test_a_new_node_has_sockets_for_people(page: GraphPage) -> None:
    for kind in GROWING:
        names = page.page.evaluate(
            "kind => { const node = LiteGraph.createNode(kind); app.graph.add(node);"
            " return node.inputs.map(input => input.name) }",
            kind,
        )
        assert [name for name in names if name.startswith("people.")][:1] == ["people.person_0"], kind


@pytest.mark.full
def test_links_that_the_page_loses_in_a_subgraph_are_in_what_it_sends(page: GraphPage) -> None:
    """The warning rests on it: the link is in the page's graph, and no socket holds it."""
    page.load("mini_03_three_people_boxes")
    page.page.evaluate(
        "() => { app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(n => n.type === 'DynamicIDEncode'))) }"
    )
    page.page.wait_for_timeout(1500)
    sent = queued(page)
    arrive = people_of(sent["output"], "DynamicIDLayout")
    (layout,) = (node for node in sent["workflow"]["nodes"] if node["type"] == "DynamicIDLayout")
    held = {socket["link"] for socket in layout["inputs"]}
    drawn = [link for link in sent["workflow"]["links"] if link[3] == layout["id"] and link[5] == "DYNAMICID_IDENTITY"]
    assert len(arrive) + sum(link[0] not in held for link in drawn) == 3
