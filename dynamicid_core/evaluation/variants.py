"""From a template and a variant to the graph that is queued."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import Benchmark, InputRef, Overrides, SampleSpec, Variant
from .template import Graph, api_graph

Nodes = dict[str, Any]
"""The server's /object_info: what its nodes take and give."""

APPLY = _APPLY, _ADVANCED = "DynamicIDApply", "DynamicIDApplyAdvanced"
ENCODE, EDIT = "DynamicIDEncode", "DynamicIDEditMotion"
_PLACE, _LAYOUT = "DynamicIDPlace", "DynamicIDLayout"
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
        file = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not JSON: {error}.") from error
    if isinstance(file, dict) and {"nodes", "links"} <= file.keys():
        titles = {str(node["id"]): node["title"] for node in file["nodes"] if node.get("title")}
        return Template(api_graph(path, nodes), titles)
    if not isinstance(file, dict) or not all(isinstance(node, dict) and "class_type" in node for node in file.values()):
        raise ValueError(f"{path.name}: expected a graph of ComfyUI's page, or one exported for its API.")
    titles = {name: node["_meta"]["title"] for name, node in file.items() if node.get("_meta", {}).get("title")}
    graph = {name: {"class_type": node["class_type"], "inputs": dict(node["inputs"])} for name, node in file.items()}
    return Template(graph, titles)


def build_graph(
    template: Template,
    nodes: Nodes,
    benchmark: Benchmark,
    variant: Variant,
    sample: SampleSpec,
    seed: int,
    references: Mapping[Path, str],
) -> Graph:
    """Return the graph by which a variant draws a sample with a seed.

    The benchmark's overrides come first, then the sample's values, its overrides and the variant's; then what the
    variant ablates.

    Args:
        references: the server's Load Image's names for the images of people.

    Raises ValueError when a node or an input isn't there, or an ablation finds no node to change.
    """
    draft = _GraphDraft(copy.deepcopy(template.graph), template.titles, nodes)
    draft.override(benchmark.overrides)
    inputs = benchmark.inputs
    draft.put(inputs.seed, seed)
    if inputs.prompt is not None:
        draft.put(inputs.prompt, sample.prompt)
    for number, (refs, person) in enumerate(zip(inputs.people, sample.people, strict=False)):
        for key, ref, path in (
            ("reference", refs.reference, person.reference),
            ("driver", refs.driver, person.driver),
        ):
            if ref is not None and path is not None:
                load = f"{key}_{number}"
                draft.graph[load] = {"class_type": "LoadImage", "inputs": {"image": references[path]}}
                draft.put(ref, [load, 0])
        if refs.expression is not None and person.expression is not None:
            draft.put(refs.expression, person.expression)
    draft.override(sample.overrides)
    draft.override(variant.overrides)
    ablations = {
        "gate": draft.ablate_gate, "regions": draft.ablate_regions, "imr": draft.ablate_imr,
        "layout": draft.ablate_layout, "identity": draft.ablate_identity,
    }  # fmt: skip
    for name, ablate in ablations.items():  # in this order, whatever the variant's: the last takes nodes out
        if name in variant.ablate and not ablate():
            raise ValueError(
                f"The variant {variant.name!r} ablates {name}, but the template has no node that it is in."
            )
    return draft.graph


@dataclass
class _GraphDraft:
    """A graph while it is changed. Ablations return whether there was a node to change."""

    graph: Graph
    titles: dict[str, str]
    nodes: Nodes

    def find(self, name: str) -> str:
        """Return a node's id from its id, its title or its class. Raises ValueError when it names none or several."""
        if name in self.graph:
            return name
        matches = (
            [node for node in self.graph if self.titles.get(node) == name]
            or [node for node in self.graph if self._info(node).get("display_name") == name]
            or self._of_class(name)
        )
        if len(matches) != 1:
            present = (f"{node} ({self.titles.get(node) or entry['class_type']})" for node, entry in self.graph.items())
            raise ValueError(
                f"Expected one node that is called {name!r}, got {len(matches)}. Name it by its id: there are "
                f"{', '.join(present)}."
            )
        return matches[0]

    def override(self, overrides: Overrides) -> None:
        for node, values in overrides.items():
            for name, value in values.items():
                self.put((node, name), value)

    def put(self, ref: InputRef, value: Any) -> None:
        node = self.find(ref[0])
        inputs = self.graph[node]["inputs"]
        names = {name for group in self._info(node)["input"].values() for name in group}
        if ref[1] not in names and ref[1] not in inputs:
            raise ValueError(f"{ref[0]} has no input {ref[1]!r}; it has {', '.join(sorted(names))}.")
        inputs[ref[1]] = value

    def ablate_gate(self) -> bool:
        return self._set_advanced("gate", False)

    def ablate_layout(self) -> bool:
        return self._set_advanced("layout_steps", 0)

    def ablate_imr(self) -> bool:
        """At strength 0 Edit Facial Motion gives the identity as it came, bit for bit."""
        edits = self._of_class(EDIT)
        for node in edits:
            self.graph[node]["inputs"]["strength"] = 0.0
        return bool(edits)

    def ablate_regions(self) -> bool:
        """Everybody has the whole image; the layout phase, which would press people into all of it, is left out."""
        for node in self._of_class(*APPLY):
            inputs = self.graph[node]["inputs"]
            for name, link in list(inputs.items()):
                if name.startswith("people."):
                    inputs[name] = self._everywhere(link)
        return self.ablate_layout()

    def ablate_identity(self) -> bool:
        """What took the model from Apply DynamicID takes the one that it was given."""
        appliers = self._of_class(*APPLY)
        for node in appliers:
            model = self.graph.pop(node)["inputs"]["model"]
            for other in self.graph.values():
                for name, value in other["inputs"].items():
                    if value == [node, 0]:
                        other["inputs"][name] = model
        return bool(appliers)

    def _everywhere(self, link: list[Any]) -> list[Any]:
        """Return a link to the same people, each placed on the whole image."""
        node, slot = link
        kind, inputs = self.graph[node]["class_type"], self.graph[node]["inputs"]
        if kind == _PLACE:
            inputs.update(_WHOLE)
            inputs.pop("mask", None)
            if "placements" in inputs:
                inputs["placements"] = self._everywhere(inputs["placements"])
            return link
        if kind == _LAYOUT:
            placements: list[Any] = []
            for name, person in list(inputs.items()):
                if name.startswith("people."):
                    placements = self._place(person, placements)
            return placements
        if self._info(node)["output"][slot] != "DYNAMICID_IDENTITY":
            raise ValueError(f"Regions can't be taken from what {kind} gives; use the pack's own nodes.")
        return self._place(link, [])

    def _place(self, identity: list[Any], placements: list[Any]) -> list[Any]:
        """Return a link to a new Place Identity after `placements`, which may be []."""
        name = f"everywhere_{identity[0]}_{identity[1]}"
        inputs = self._defaults(_PLACE) | _WHOLE | {"identity": identity}
        inputs |= {"placements": placements} if placements else {}
        self.graph[name] = {"class_type": _PLACE, "inputs": inputs}
        return [name, 0]

    def _set_advanced(self, name: str, value: Any) -> bool:
        """Set an input of every Apply DynamicID, which becomes the advanced one."""
        appliers = self._of_class(*APPLY)
        for entry in (self.graph[node] for node in appliers):
            if entry["class_type"] == _APPLY:
                entry |= {"class_type": _ADVANCED, "inputs": self._defaults(_ADVANCED) | entry["inputs"]}
            entry["inputs"][name] = value
        return bool(appliers)

    def _defaults(self, kind: str) -> dict[str, Any]:
        required = self.nodes[kind]["input"].get("required", {})
        return {name: spec[1]["default"] for name, spec in required.items() if len(spec) > 1 and "default" in spec[1]}

    def _of_class(self, *kinds: str) -> list[str]:
        return [node for kind in kinds for node, entry in self.graph.items() if entry["class_type"] == kind]

    def _info(self, node: str) -> dict[str, Any]:
        kind = self.graph[node]["class_type"]
        if kind not in self.nodes:
            raise ValueError(f"The server has no node {kind}.")
        info: dict[str, Any] = self.nodes[kind]
        return info
