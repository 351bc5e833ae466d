"""A graph for one person, grown to as many as a sample has."""

import copy

from .config import PersonInputs
from .template import Graph
from .variants import APPLY, EDIT, ENCODE, Template


def grow(template: Template, people: int) -> tuple[Template, tuple[PersonInputs, ...]]:
    """Return a template for so many people, and where each one's reference and requested expression go.

    What is between Apply DynamicID and a person's Encode Identity, that and Edit Facial Motion where it is there, is
    copied for each further person; all else is shared. People stand in columns, from left to right.

    Raises ValueError when the template has not one Apply DynamicID with one person, who comes from Encode Identity.
    """
    graph = copy.deepcopy(template.graph)
    inputs = [node["inputs"] for node in graph.values() if node["class_type"] in APPLY]
    slots = [name for name in inputs[0] if name.startswith("people.")] if len(inputs) == 1 else []
    if len(slots) != 1:
        raise ValueError(
            f"Expected a template with one Apply DynamicID and one person to grow, got {len(inputs)} and {len(slots)}."
        )
    chain = _chain(graph, inputs[0][slots[0]])
    prefix = slots[0].rstrip("0123456789")
    refs = []
    for number in range(people):
        names = {node: node if number == 0 else f"{node}_{number}" for node in chain}
        for node, name in names.items():
            if number:
                graph[name] = copy.deepcopy(template.graph[node])
                graph[name]["inputs"] |= {
                    key: [names[value[0]], value[1]]
                    for key, value in graph[node]["inputs"].items()
                    if isinstance(value, list) and value and value[0] in names
                }
        inputs[0][f"{prefix}{number}"] = [names[chain[0]], 0]
        edit = names[chain[0]] if len(chain) > 1 else None
        refs.append(
            PersonInputs(reference=(names[chain[-1]], "image"), expression=(edit, "expression") if edit else None)
        )
    return Template(graph, template.titles), tuple(refs)


def _chain(graph: Graph, link: list[object]) -> list[str]:
    """Return the nodes that only one person needs, from Apply's input back to Encode Identity."""
    node = str(link[0])
    kind = graph[node]["class_type"]
    if kind == ENCODE:
        return [node]
    if kind == EDIT:
        encode = str(graph[node]["inputs"]["identity"][0])
        if graph[encode]["class_type"] == ENCODE:
            return [node, encode]
    raise ValueError(
        f"Expected the person to come from Encode Identity, or from Edit Facial Motion after it, got {kind}. A person "
        "with a place can't be copied: connect the identity itself."
    )
