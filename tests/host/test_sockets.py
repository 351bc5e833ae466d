"""Sockets and widgets in graphs that were saved before, or whose nodes are muted: what is left out has a meaning."""

from typing import Any

import pytest
import torch

from .bench import FACES, NODES, PICTURE, Bench, assert_refused, person

GROWING = ("DynamicIDApply", "DynamicIDApplyAdvanced", "DynamicIDLayout", "DynamicIDWhoIsWho", "DynamicIDRedraw")
SLOW = ("DynamicIDWhoIsWho", "DynamicIDRedraw")
"""Nodes without widgets, or whose defaults would draw for long."""
WIDGETS = (str, int, float, bool)


@pytest.mark.parametrize("node", GROWING)
def test_the_first_person_may_be_muted(bench: Bench, node: str) -> None:
    """The page leaves out what a muted or bypassed node would give."""
    ran = bench.run(node, **{"people.person_0": ...})
    assert ran.message == ""
    if node == "DynamicIDLayout":
        (placed,) = ran.values[0]
        assert placed.region.box is None, "one alone has the whole picture"


@pytest.mark.parametrize("left", [(0, 2), (1, 2), (2,), (7, 49)])
def test_anybody_may_be_muted_and_the_others_keep_their_order(bench: Bench, left: tuple[int, ...]) -> None:
    people = {number: person(number + 1) for number in left}
    sockets: dict[str, Any] = {"people.person_0": ..., "people.person_1": ...}
    sockets |= {f"people.person_{number}": one for number, one in reversed(people.items())}
    ran = bench.run("DynamicIDLayout", **sockets)
    assert ran.message == ""
    assert [placed.identity for placed in ran.values[0]] == [*people.values()]


@pytest.mark.parametrize("node", GROWING)
def test_nobody_at_all_is_told_in_words(bench: Bench, node: str) -> None:
    ran = bench.run(node, **{"people.person_0": ..., "people.person_1": ...})
    assert_refused(ran, node, "", "needs at least one person")


@pytest.mark.parametrize("node", [node for node in NODES if node not in SLOW])
def test_a_graph_saved_before_a_widget_was_there_runs_with_its_default(bench: Bench, node: str) -> None:
    """Each widget alone, and all together, left out of a graph in the API's format."""
    widgets = [name for name, value in bench.right(node).items() if isinstance(value, WIDGETS) and name != "layout"]
    whole = bench.run(node)
    assert whole.message == "" and widgets
    for left_out in [widgets, *([name] for name in widgets)]:
        ran = bench.run(node, **dict.fromkeys(left_out, ...))
        assert ran.message == "", left_out
        for one, other in zip(ran.values, whole.values, strict=True):
            if torch.is_tensor(one):
                assert torch.equal(one, other), left_out


def test_widgets_of_a_layout_may_be_left_out(bench: Bench) -> None:
    box = {"x": 0, "y": 0, "width": 256, "height": 512}
    ran = bench.run("DynamicIDLayout", **{"layout": "boxes", "layout.boxes": [box, box], "margin": ...})
    assert ran.message == "" and [placed.region.box.width for placed in ran.values[0]] == [0.5, 0.5]
    faces = FACES | {"layout.picture": PICTURE, "layout.dynamicid": bench.miniature.dynamicid}
    short = bench.run("DynamicIDLayout", **faces | {"layout.order": ..., "layout.reach": ...})
    for one, other in zip(short.values[0], bench.run("DynamicIDLayout", **faces).values[0], strict=True):
        assert one.region.box == other.region.box


def page_graph(node: str, inside: bool, links: list[Any], sockets: list[Any]) -> dict[str, Any]:
    """The page's own graph around one node (70), whose sockets hold these links; as a subgraph where that is told."""
    shown = {
        "id": 70,
        "type": node,
        "inputs": [{"name": f"people.person_{i}", "link": link} for i, link in enumerate(sockets)],
    }
    if not inside:
        return {"nodes": [{"id": 1, "type": "Other"}, shown], "links": links}
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    within = {"nodes": [shown], "links": [dict(zip(keys, link, strict=True)) for link in links]}
    return {"nodes": [{"id": 3, "type": "a subgraph"}], "links": [], "definitions": {"subgraphs": [within]}}


IDENTITY, APPLY = "DYNAMICID_IDENTITY", {"id": 70, "type": "DynamicIDApply"}
THREE = [[50, 27, 0, 70, 0, IDENTITY], [51, 27, 1, 70, 0, IDENTITY], [52, 27, 2, 70, 1, "DYNAMICID_PLACEMENTS"]]
OTHERS = [[32, 18, 2, 70, 2, "ARRAY"], [60, 1, 0, 8, 0, IDENTITY]]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("node", GROWING)
def test_people_whose_links_the_page_lost_are_told_of(bench: Bench, node: str, inside: bool) -> None:
    """As the page leaves its graph when the sources of three people are put into a subgraph: one link is held."""
    told = {}
    for case, sockets in {"lost": [51, None], "whole": [50, 51, 52, None]}.items():
        workflow = page_graph(node, inside, THREE + OTHERS, sockets)
        told[case] = [note for note in bench.run(node, as_id="70", workflow=workflow).notes if "don't arrive" in note]
    assert len(told["lost"]) == 1 and "don't arrive (2)" in told["lost"][0] and not told["whole"]


@pytest.mark.parametrize(
    "workflow",
    [[], {"nodes": None}, {"nodes": [3, {"id": 70}]}, {"nodes": [APPLY], "links": {"1": 2}},
     {"definitions": [], "nodes": [APPLY | {"inputs": 3}], "links": [[1], 2, ["x"] * 6, {}]},
     {"nodes": [APPLY | {"inputs": [{"link": [1]}, 3]}], "links": [[5, 1, 0, 8, 0, IDENTITY]]}],
    ids=lambda workflow: str(workflow)[:30],
)  # fmt: skip
def test_whatever_is_sent_as_the_pages_graph_stops_nothing(bench: Bench, workflow: Any) -> None:
    ran = bench.run("DynamicIDApply", as_id="70", workflow=workflow)
    assert ran.message == "" and not ran.notes
