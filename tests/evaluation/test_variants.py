"""From a template to the graph of a variant: what is put where, and what each ablation takes out."""

import json
from pathlib import Path
from typing import Any

import pytest
from dynamicid_pack.dynamicid_core.evaluation.config import (
    Benchmark,
    PersonInputs,
    SampleInputs,
    SampleSpec,
    TargetPerson,
    Variant,
)
from dynamicid_pack.dynamicid_core.evaluation.variants import Template, build_graph, read_template

from . import fakes

REFERENCES = {Path("ann.png"): "ann on the server.png", Path("bob.png"): "bob on the server.png"}
PEOPLE = tuple(
    TargetPerson(reference=path, expression=expression)
    for path, expression in zip(REFERENCES, ("happy", "sad"), strict=True)
)
INPUTS = SampleInputs(
    people=tuple(PersonInputs(reference=(f"1{i}", "image"), expression=(f"Edit {i}", "expression")) for i in range(2)),
)


@pytest.fixture
def template(tmp_path: Path) -> Template:
    path = tmp_path / "two.json"
    path.write_text(json.dumps(fakes.graph(2)))
    return read_template(path, fakes.NODES)


def _sample(people: Any = PEOPLE, overrides: Any = None) -> SampleSpec:
    return SampleSpec(name="park", prompt="two people, in a park", seeds=(7,), people=people, overrides=overrides or {})


def _benchmark(sample: SampleSpec, variant: Variant, inputs: SampleInputs, overrides: Any = None) -> Benchmark:
    return Benchmark(
        name="two", template=Path("two.json"), samples=(sample,), variants=(variant,), inputs=inputs,
        overrides=overrides or {},
    )  # fmt: skip


def _variant(*ablate: Any, **overrides: Any) -> Variant:
    return Variant(name="c", ablate=ablate, overrides=overrides)


def _graph(template: Template, variant: Variant, of_benchmark: Any = None, of_sample: Any = None) -> dict[str, Any]:
    sample = _sample(overrides=of_sample)
    benchmark = _benchmark(sample, variant, INPUTS, of_benchmark)
    return build_graph(template, fakes.NODES, benchmark, variant, sample, 7, REFERENCES)


def test_what_a_sample_says_arrives_and_the_template_stays(template: Template) -> None:
    before = json.dumps(template.graph)
    graph = _graph(template, _variant())
    assert graph["4"]["inputs"]["seed"] == 7
    assert graph["2"]["inputs"]["text"] == "two people, in a park"
    for i, (name, expression) in enumerate(zip(REFERENCES.values(), ("happy", "sad"), strict=True)):
        node, slot = graph[f"1{i}"]["inputs"]["image"]
        assert (graph[node]["class_type"], slot) == ("LoadImage", 0)
        assert graph[node]["inputs"]["image"] == name
        assert graph[f"2{i}"]["inputs"]["expression"] == expression
    assert "_meta" not in json.dumps(graph)
    assert json.dumps(template.graph) == before


def test_a_driving_picture_arrives_where_it_is_linked(template: Template) -> None:
    ann, bob = REFERENCES
    sample = _sample((TargetPerson(reference=ann, driver=bob), TargetPerson(reference=bob)))
    inputs = SampleInputs(
        people=tuple(
            PersonInputs(reference=(f"1{i}", "image"), driver=(f"Edit {i}", "driving_image")) for i in range(2)
        )
    )
    benchmark = _benchmark(sample, _variant(), inputs)
    graph = build_graph(template, fakes.NODES, benchmark, _variant(), sample, 7, REFERENCES)
    loads = graph[graph["20"]["inputs"]["driving_image"][0]]
    assert loads == {"class_type": "LoadImage", "inputs": {"image": "bob on the server.png"}}
    assert "driving_image" not in graph["21"]["inputs"]


def test_the_variant_has_the_last_word_then_the_sample_then_the_benchmark(template: Template) -> None:
    by_benchmark = {"DynamicIDApply": {"weight": 0.1}, "20": {"strength": 0.1}, "Edit 1": {"strength": 0.1}}
    by_sample = {"20": {"strength": 0.2}, "Edit 1": {"strength": 0.2}}
    graph = _graph(template, _variant(**{"Edit 1": {"strength": 0.3}}), by_benchmark, by_sample)
    assert graph["3"]["inputs"]["weight"] == 0.1
    assert (graph["20"]["inputs"]["strength"], graph["21"]["inputs"]["strength"]) == (0.2, 0.3)


@pytest.mark.parametrize(("ablation", "name", "value"), [("gate", "gate", False), ("layout", "layout_steps", 0)])
def test_gate_and_layout_phase_are_the_advanced_nodes(ablation: str, name: str, value: Any, template: Template) -> None:
    inputs = _graph(template, _variant(ablation))["3"]
    assert inputs["class_type"] == "DynamicIDApplyAdvanced"
    defaults = {"layout_scale": 4.0, "layout_steps": 3, "gate_threshold": 0.3, "gate": True} | {name: value}
    assert {key: inputs["inputs"][key] for key in defaults} == defaults
    assert inputs["inputs"]["weight"] == 0.9 and inputs["inputs"]["people.person_1"] == ["21", 0]


def test_without_imr_identities_come_as_they_are(template: Template) -> None:
    graph = _graph(template, _variant("imr"))
    assert [graph[f"2{i}"]["inputs"]["strength"] for i in range(2)] == [0, 0]
    assert graph["3"]["class_type"] == "DynamicIDApply"


def test_without_identity_the_model_is_the_one_that_apply_was_given(template: Template) -> None:
    graph = _graph(template, _variant("identity", "gate"))
    assert "3" not in graph and graph["4"]["inputs"]["model"] == ["1", 0]


def _whole(node: dict[str, Any]) -> bool:
    sides = [node["inputs"][name] for name in ("x", "y", "width", "height")]
    return node["class_type"] == "DynamicIDPlace" and sides == [0, 0, 1, 1] and "mask" not in node["inputs"]


def test_without_regions_everybody_has_the_whole_picture(template: Template) -> None:
    graph = _graph(template, _variant("regions"))
    assert graph["3"]["inputs"]["layout_steps"] == 0
    for i in range(2):
        place = graph[graph["3"]["inputs"][f"people.person_{i}"][0]]
        assert _whole(place) and place["inputs"]["identity"] == [f"2{i}", 0]


def test_without_regions_places_and_layouts_lose_theirs(template: Template) -> None:
    half = {"x": 0.5, "y": 0.1, "width": 0.5, "height": 0.5}
    people = {"people.person_0": ["20", 0], "people.person_1": ["21", 0]}
    template.graph["6"] = {"class_type": "DynamicIDPlace", "inputs": {"identity": ["20", 0], "mask": ["9", 0], **half}}
    template.graph["7"] = {
        "class_type": "DynamicIDPlace", "inputs": {"identity": ["21", 0], "placements": ["6", 0], **half}
    }  # fmt: skip
    template.graph["8"] = {"class_type": "DynamicIDLayout", "inputs": people}
    inputs = template.graph["3"]["inputs"]
    inputs |= {"people.person_0": ["7", 0], "people.person_1": ["8", 0]}
    graph = _graph(template, _variant("regions"))
    assert _whole(graph["6"]) and _whole(graph["7"]) and graph["7"]["inputs"]["placements"] == ["6", 0]
    last = graph[graph["3"]["inputs"]["people.person_1"][0]]
    first = graph[last["inputs"]["placements"][0]]
    assert _whole(last) and _whole(first)
    assert (first["inputs"]["identity"], last["inputs"]["identity"]) == (["20", 0], ["21", 0])


@pytest.mark.parametrize("ablation", ["gate", "regions", "imr", "layout", "identity"])
def test_an_ablation_with_nothing_to_ablate_is_refused(ablation: str) -> None:
    graph = {name: node for name, node in fakes.graph(0).items() if name != "3"}
    sample = _sample(())
    benchmark = _benchmark(sample, _variant(ablation), SampleInputs(prompt=None))
    with pytest.raises(ValueError, match=f"ablates {ablation}, but"):
        build_graph(Template(graph, {}), fakes.NODES, benchmark, _variant(ablation), sample, 1, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"KSampler": {"sead": 1}}, "KSampler has no input 'sead'; it has model, positive, seed"),
        ({"No such": {"seed": 1}}, "called 'No such', got 0. .* 4 .KSampler."),
        ({"DynamicIDEncode": {"image": 1}}, "called 'DynamicIDEncode', got 2"),
    ],
)
def test_a_change_that_fits_nothing_is_refused(change: Any, message: str, template: Template) -> None:
    with pytest.raises(ValueError, match=message):
        _graph(template, _variant(**change))


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    for text, message in (("[1]", "expected a graph"), ("{", "is not JSON"), ('{"1": {}}', "expected a graph")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_template(path, fakes.NODES)
