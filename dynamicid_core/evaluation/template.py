"""Graph files of ComfyUI's page, read into what its API takes, as the page does it when a graph is queued."""

import json
from pathlib import Path
from typing import Any

Graph = dict[str, Any]
"""node id -> class and inputs, ready for POST /prompt"""

# Widgets that the page adds behind an input with one of these options, and doesn't send.
_PAGE_ONLY = ("control_after_generate", "image_upload")
_NOTES = ("Note", "MarkdownNote")
_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def api_graph(template: Path, nodes: dict[str, Any]) -> Graph:
    """Turn a graph file into what POST /prompt takes.

    Args:
        nodes: the server's /object_info.

    Raises:
        ValueError: the template and the nodes don't fit: an unknown node, input or output, or too many or too few
            widget values.
    """
    page = json.loads(template.read_text("utf-8"))
    links = {link[0]: link for link in page["links"]}
    by_id = {node["id"]: node for node in page["nodes"]}
    graph: Graph = {}
    for node in page["nodes"]:
        if node["type"] in _NOTES:
            continue
        if node["type"] not in nodes:
            raise ValueError(f"{template.name}: the host has no node {node['type']}")
        info = nodes[node["type"]]
        inputs: dict[str, Any] = _widget_values(template, node, info)
        for slot in node["inputs"]:
            _check_slot(template, node, slot["name"], info)
            if slot["link"] is None:
                continue
            _, source, output, target, _, kind = links[slot["link"]]
            made = nodes[by_id[source]["type"]]["output"][output]
            if target != node["id"] or made != kind or kind not in slot["type"].split(","):
                raise ValueError(f"{template.name}: link {slot['link']} brings {made} as {kind} into {slot['name']}")
            inputs[slot["name"]] = [str(source), output]
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def _widget_values(template: Path, node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    values = list(node["widgets_values"])
    found: dict[str, Any] = {}
    for group in ("required", "optional"):
        for name in info["input_order"].get(group, []):
            kind, *options = info["input"][group][name]
            if not (isinstance(kind, list) or kind in _WIDGETS):
                continue
            if not values:
                raise ValueError(f"{template.name}: {node['type']} has no value for {name}")
            found[name] = values.pop(0)
            if options and any(options[0].get(option) for option in _PAGE_ONLY):
                values.pop(0)
    if values:
        raise ValueError(f"{template.name}: {node['type']} has values too many: {values}")
    return found


def _check_slot(template: Path, node: dict[str, Any], name: str, info: dict[str, Any]) -> None:
    known = {key: value for group in info["input"].values() for key, value in group.items()}
    grown, _, child = name.partition(".")
    growing = known.get(grown, [None])[0] == "COMFY_AUTOGROW_V3" and child.startswith(
        known[grown][1]["template"]["prefix"]
    )
    if name not in known and not growing:
        raise ValueError(f"{template.name}: {node['type']} has no input {name}")
