"""Graph files of ComfyUI's page, read into what its API takes, as the page does it when a graph is queued."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Graph = dict[str, Any]
"""node id -> class and inputs, ready for POST /prompt"""

# Widgets that the page adds behind an input with one of these options, and doesn't send.
_PAGE_ONLY = ("control_after_generate", "image_upload")
_NOTES = ("Note", "MarkdownNote")
_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "BOUNDING_BOXES")
_DYNAMIC = "COMFY_DYNAMICCOMBO_V3"


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
    inputs = dict(_read(template, node, info["input"], values))
    if values:
        raise ValueError(f"{template.name}: {node['type']} has values too many: {values}")
    return inputs


def _read(
    template: Path, node: dict[str, Any], inputs: dict[str, Any], values: list[Any], before: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield each widget of these inputs with its value, which is taken off `values`.

    A template that was saved before an optional widget was there has no value for it: the node's default stands in.
    """
    for name, kind, options in _listed(inputs):
        if not (isinstance(kind, list) or kind in (*_WIDGETS, _DYNAMIC)):
            continue
        if not values and name in inputs.get("optional", {}):
            continue
        if not values:
            raise ValueError(f"{template.name}: {node['type']} has no value for {before}{name}")
        value = values.pop(0)
        # The server takes a bare list for a link.
        yield before + name, {"__value__": value} if isinstance(value, list) else value
        if any(options.get(option) for option in _PAGE_ONLY):
            values.pop(0)
        if kind == _DYNAMIC:
            chosen = _chosen(options, value)
            if chosen is None:
                raise ValueError(f"{template.name}: {node['type']} has no {before}{name} {value!r}")
            yield from _read(template, node, chosen, values, f"{before}{name}.")


def _listed(inputs: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield name, type and options of inputs, in their order."""
    for group in ("required", "optional"):
        for name, (kind, *options) in inputs.get(group, {}).items():
            yield name, kind, options[0] if options else {}


def _chosen(options: dict[str, Any], value: Any) -> dict[str, Any] | None:
    """Return the inputs that a dynamic combo shows for this value."""
    return next((option["inputs"] for option in options["options"] if option["key"] == value), None)


def _check_slot(template: Path, node: dict[str, Any], name: str, info: dict[str, Any]) -> None:
    inputs = {key: (kind, options) for key, kind, options in _listed(info["input"])}
    parent, _, child = name.partition(".")
    kind, options = inputs.get(parent, (None, {}))
    grows = kind == "COMFY_AUTOGROW_V3" and child.startswith(options["template"]["prefix"])
    # Which of a dynamic combo's inputs there are hangs on its value, which stands first among the node's.
    chosen = _chosen(options, node["widgets_values"][0]) if kind == _DYNAMIC else None
    is_chosen = chosen is not None and child in (key for key, _, _ in _listed(chosen))
    if name not in inputs and not grows and not is_chosen:
        raise ValueError(f"{template.name}: {node['type']} has no input {name}")
