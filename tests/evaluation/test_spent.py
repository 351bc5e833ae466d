"""What images cost, from their graph and what its nodes showed."""

import pytest
from dynamicid_pack.dynamicid_core.evaluation.spent import has_redraw, unet_calls
from dynamicid_pack.dynamicid_core.redraw.passes import PersonResult, report

GRAPH = {
    "1": {"class_type": "KSampler", "inputs": {"steps": 10}},
    "2": {"class_type": "VAEDecode", "inputs": {}},
    "7": {"class_type": "DynamicIDRedraw", "inputs": {"steps": 8}},
}


@pytest.mark.parametrize(
    ("texts", "calls"),
    [
        ([report([PersonResult("ann", 0, 0.1, 0.7, 3), PersonResult("ben", 1, 0.7, 0.7, 1)], 0, 8)], 10 + 4 * 8),
        ([report([PersonResult("ann", 0, 0.7, 0.7)], 2, 8)], 10),
        (["denoise 0: nobody was redrawn"], 10),
        ([report([PersonResult("ann", 0, 0.1, 0.7, drawn)], 0, 8) for drawn in (1, 2)], 10 + 3 * 8),
        ([], None),
    ],
)
def test_every_step_of_the_sampler_and_of_each_drawing_is_a_call(texts: list[str], calls: float | None) -> None:
    assert unet_calls(GRAPH, {"7": texts, "2": ["drawings of 9 steps each: 9"]}) == calls


def test_graphs_without_the_node_are_told_apart() -> None:
    plain = {name: node for name, node in GRAPH.items() if name != "7"}
    assert has_redraw(GRAPH) and not has_redraw(plain) and unet_calls(plain, {}) == 10
