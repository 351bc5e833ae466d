"""What a graph's images cost: how often the UNet was called for them."""

from collections.abc import Mapping, Sequence

from ..redraw.passes import drawings_of
from .template import Graph

REDRAW = "DynamicIDRedraw"
_SAMPLERS = ("KSampler", "KSamplerAdvanced")


def has_redraw(graph: Graph) -> bool:
    """Return whether faces are drawn anew in a graph."""
    return any(node["class_type"] == REDRAW for node in graph.values())


def unet_calls(graph: Graph, texts: Mapping[str, Sequence[str]]) -> float | None:
    """Return UNet calls: (steps of the graph's samplers + steps of all faces drawn anew) / (images); 0 is best.

    A step is one call with the positive and the negative prompt in one batch, as with DDIM and Euler; samplers of
    second order call twice a step. Source: ours.

    Args:
        graph: of KSampler, KSampler (Advanced) and Redraw People.
        texts: what its nodes showed, by their ids: Redraw People's reports.

    Returns None where a report is missing. The number is of all the graph's images.
    """
    calls = 0.0
    for name, node in graph.items():
        if node["class_type"] in _SAMPLERS:
            calls += node["inputs"]["steps"]
        elif node["class_type"] == REDRAW:
            if not texts.get(name):
                return None
            calls += sum(steps * drawings for text in texts[name] for steps, drawings in drawings_of(text))
    return calls
