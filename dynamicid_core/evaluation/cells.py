"""From a template and a cell to the graph that is queued."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import Cell, Inputs, Sample, Socket, Table
from .template import Graph, api_graph

Nodes = dict[str, Any]
"""The server's /object_info: what its nodes take and give."""

_APPLY, _ADVANCED = "DynamicIDApply", "DynamicIDApplyAdvanced"
_EDIT, _PLACE, _LAYOUT = "DynamicIDEditMotion", "DynamicIDPlace", "DynamicIDLayout"
_WHOLE = {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0}


@dataclass(frozen=True)
class Template:
    """A graph, and the titles that its page shows, by node id."""

    graph: Graph
    titles: dict[str, str]


def read_template(path: Path, nodes: Nodes) -> Template:
    """Read a graph file of ComfyUI's page, or one that it exported for its API.

    Raises ValueError when it is neither.
    """
    try:
        said = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not JSON: {error}.") from error
    if isinstance(said, dict) and {"nodes", "links"} <= said.keys():
        titles = {str(node["id"]): node["title"] for node in said["nodes"] if node.get("title")}
        return Template(api_graph(path, nodes), titles)
    if not isinstance(said, dict) or not all(isinstance(node, dict) and "class_type" in node for node in said.values()):
        raise ValueError(f"{path.name}: expected a graph of ComfyUI's page, or one exported for its API.")
    titles = {name: node["_meta"]["title"] for name, node in said.items() if node.get("_meta", {}).get("title")}
    graph = {name: {"class_type": node["class_type"], "inputs": dict(node["inputs"])} for name, node in said.items()}
    return Template(graph, titles)


def build_graph(
    template: Template,
    nodes: Nodes,
    table: Table,
    cell: Cell,
    sample: Sample,
    seed: int,
    references: Mapping[Path, str],
) -> Graph:
    """The graph by which a cell draws a sample with a seed: changes of the table, the sample, the cell; then switches.

    Args:
        references: the pictures of people by what the server's Load Image calls them.

    Raises ValueError when a node or an input isn't there, or there is nothing that a switch could switch off.
    """
    draft = _Draft(copy.deepcopy(template.graph), template.titles, nodes)
    draft.change(table.set)
    draft.put(table.wires.seed, seed)
    if table.wires.prompt is not None:
        draft.put(table.wires.prompt, sample.prompt)
    for number, (wires, person) in enumerate(zip(table.wires.people, sample.people, strict=False)):
        for key, path in (("reference", person.reference), ("driver", person.driver)):
            socket = getattr(wires, key)
            if socket is not None and path is not None:
                loads = f"{key}_{number}"
                draft.graph[loads] = {"class_type": "LoadImage", "inputs": {"image": references[path]}}
                draft.put(socket, [loads, 0])
        if wires.expression is not None and person.expression is not None:
            draft.put(wires.expression, person.expression)
    draft.change(sample.set)
    draft.change(cell.set)
    switch_off = {
        "gate": draft.without_gate, "regions": draft.without_regions, "imr": draft.without_imr,
        "layout": draft.without_layout, "identity": draft.without_identity,
    }  # fmt: skip
    for name, switch in switch_off.items():  # in this order, whatever the cell's: the last takes nodes out
        if name in cell.without and not switch():
            raise ValueError(f"The cell {cell.name!r} is without {name}, but the template has no node that it is in.")
    return draft.graph


@dataclass
class _Draft:
    """A graph while it is changed. Switches return whether there was something to switch off."""

    graph: Graph
    titles: dict[str, str]
    nodes: Nodes

    def find(self, name: str) -> str:
        """A node's id from its id, its title or its class. Raises ValueError when that is none or several."""
        if name in self.graph:
            return name
        titled = [node for node in self.graph if self.titles.get(node) == name]
        found = titled or [node for node in self.graph if self._display(node) == name] or self._of(name)
        if len(found) != 1:
            there = ", ".join(
                f"{node} ({self.titles.get(node) or said['class_type']})" for node, said in self.graph.items()
            )
            raise ValueError(
                f"Expected one node that is called {name!r}, got {len(found)}. Name it by its id: there are {there}."
            )
        return found[0]

    def change(self, inputs: Inputs) -> None:
        for node, values in inputs.items():
            for name, value in values.items():
                self.put((node, name), value)

    def put(self, socket: Socket, value: Any) -> None:
        node = self.find(socket[0])
        said = self.graph[node]
        known = {name for group in self._info(node)["input"].values() for name in group}
        if socket[1] not in known and socket[1] not in said["inputs"]:
            raise ValueError(f"{socket[0]} has no input {socket[1]!r}; it has {', '.join(sorted(known))}.")
        said["inputs"][socket[1]] = value

    def without_gate(self) -> bool:
        for node in self._appliers():
            self._advanced(node)["gate"] = False
        return bool(self._appliers())

    def without_layout(self) -> bool:
        for node in self._appliers():
            self._advanced(node)["layout_steps"] = 0
        return bool(self._appliers())

    def without_imr(self) -> bool:
        """At strength 0 Edit Facial Motion gives the identity as it came, bit for bit."""
        for node in self._of(_EDIT):
            self.graph[node]["inputs"]["strength"] = 0.0
        return bool(self._of(_EDIT))

    def without_regions(self) -> bool:
        """Everybody has the whole picture; a layout phase, which would press people into it all, is left out."""
        for node in self._appliers():
            for name, link in list(self.graph[node]["inputs"].items()):
                if name.startswith("people."):
                    self.graph[node]["inputs"][name] = self._everywhere(link)
        return self.without_layout()

    def without_identity(self) -> bool:
        """What took the model from Apply DynamicID takes the one that it was given."""
        appliers = self._appliers()
        for node in appliers:
            given = self.graph.pop(node)["inputs"]["model"]
            for other in self.graph.values():
                for name, value in other["inputs"].items():
                    if value == [node, 0]:
                        other["inputs"][name] = given
        return bool(appliers)

    def _everywhere(self, link: list[Any]) -> list[Any]:
        """A link to the same people, each placed on the whole picture."""
        node, slot = link
        said = self.graph[node]
        if said["class_type"] == _PLACE:
            said["inputs"].update(_WHOLE)
            said["inputs"].pop("mask", None)
            if "placements" in said["inputs"]:
                said["inputs"]["placements"] = self._everywhere(said["inputs"]["placements"])
            return link
        if said["class_type"] == _LAYOUT:
            people = [person for name, person in said["inputs"].items() if name.startswith("people.")]
            placed: list[Any] | None = None
            for person in people:
                placed = self._place(person, placed)
            assert placed is not None
            return placed
        if self._info(node)["output"][slot] != "DYNAMICID_IDENTITY":
            raise ValueError(f"Regions can't be taken from what {said['class_type']} gives; use the pack's own nodes.")
        return self._place(link, None)

    def _place(self, identity: list[Any], before: list[Any] | None) -> list[Any]:
        name = f"everywhere_{identity[0]}_{identity[1]}"
        inputs = self._defaults(_PLACE) | _WHOLE | {"identity": identity}
        self.graph[name] = {"class_type": _PLACE, "inputs": inputs | ({"placements": before} if before else {})}
        return [name, 0]

    def _advanced(self, node: str) -> dict[str, Any]:
        """The inputs of an Apply DynamicID, which becomes the advanced one."""
        said = self.graph[node]
        if said["class_type"] == _APPLY:
            said["class_type"] = _ADVANCED
            said["inputs"] = self._defaults(_ADVANCED) | said["inputs"]
        inputs: dict[str, Any] = said["inputs"]
        return inputs

    def _defaults(self, kind: str) -> dict[str, Any]:
        required = self.nodes[kind]["input"].get("required", {})
        return {name: said[1]["default"] for name, said in required.items() if len(said) > 1 and "default" in said[1]}

    def _appliers(self) -> list[str]:
        return [*self._of(_APPLY), *self._of(_ADVANCED)]

    def _of(self, kind: str) -> list[str]:
        return [node for node, said in self.graph.items() if said["class_type"] == kind]

    def _display(self, node: str) -> str:
        return str(self._info(node).get("display_name") or "")

    def _info(self, node: str) -> dict[str, Any]:
        kind = self.graph[node]["class_type"]
        if kind not in self.nodes:
            raise ValueError(f"The server has no node {kind}.")
        info: dict[str, Any] = self.nodes[kind]
        return info
