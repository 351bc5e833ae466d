"""What the page's own graph, which it sends along with the one to run, tells of a node."""

from collections.abc import Iterator
from typing import Any

from comfy_api.latest import io

from .notify import warn
from .sockets import IdentitySocket, PlacementsSocket

_PEOPLE = (IdentitySocket.io_type, PlacementsSocket.io_type)


def warn_of_lost_people(node: type[io.ComfyNode]) -> None:
    """Warn where the page has lost links of people; the node has the hidden inputs `unique_id` and `extra_pnginfo`.

    When nodes are put into a subgraph, the page moves the links of a growing socket twice: all but one stay in its
    graph, but no socket holds them, and what they brought doesn't arrive.
    """
    lost = _lost_links(node)
    if lost:
        warn(
            node,
            f"people who were connected don't arrive ({lost}): the page loses links when nodes are put into a "
            "subgraph. Connect the subgraph's outputs again, one to each socket.",
        )


def _lost_links(node: type[io.ComfyNode]) -> int:
    """Return how many links of people lead to a node without being in one of its sockets; 0 where nothing is known."""
    extra = getattr(node.hidden, "extra_pnginfo", None)
    workflow = extra.get("workflow") if isinstance(extra, dict) else None
    number, kind = str(getattr(node.hidden, "unique_id", "")).rpartition(":")[2], node.define_schema().node_id
    for graph in _graphs(workflow):
        for shown in _dicts(graph.get("nodes")):
            if str(shown.get("id")) == number and shown.get("type") == kind:
                held = [socket.get("link") for socket in _dicts(shown.get("inputs"))]
                return sum(link not in held for link in _links_of_people(graph, number))
    return 0


def _graphs(workflow: Any) -> Iterator[dict[str, Any]]:
    """Yield the page's graph and its subgraphs."""
    if isinstance(workflow, dict):
        yield workflow
        definitions = workflow.get("definitions")
        yield from _dicts(definitions.get("subgraphs") if isinstance(definitions, dict) else None)


def _links_of_people(graph: dict[str, Any], node: str) -> Iterator[int]:
    """Yield the ids of links that bring people to a node; links are lists in a graph, dicts in a subgraph."""
    links = graph.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict):
            link = [link.get(key) for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")]
        if isinstance(link, list) and len(link) == 6 and str(link[3]) == node and link[5] in _PEOPLE:
            yield link[0]


def _dicts(values: Any) -> Iterator[dict[str, Any]]:
    """Yield what is a dict in a list of the page's, whatever it sends."""
    yield from (value for value in values if isinstance(value, dict)) if isinstance(values, list) else ()
