"""Benchmarks of Redraw People: groups whose faces are drawn once more, and people put into pictures of others."""

import json
from pathlib import Path
from typing import Any

from ..world.caption import CaptionSpec, PersonSpec, parse_caption, to_caption

DENOISE = 0.8  # as the node's default
ALIKE = 0.6  # likeness that everybody is to reach
CURVE = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of people who are put into pictures of others

Json = dict[str, Any]


def redrawn(benchmark: Json, graph: Json, folder: Path) -> Json:
    """Return a benchmark's pictures as they are drawn, and with everybody, or who is below a likeness, redrawn.

    Args:
        graph: the benchmark's, which is written with the node to FOLDER.
    """
    variants = [
        _variant("as drawn", denoise=0.0),
        _variant("redrawn"),
        _variant("redrawn at denoise .9", denoise=0.9),
        _variant("in 3 passes", passes=3),
        _variant("below .6 in 3 passes", only_below=ALIKE, passes=3),
    ]
    return _in_graph(f"{benchmark['name']}, redrawn", with_redraw(graph), folder, benchmark, variants)


def put_into_pictures(benchmark: Json, graph: Json, folder: Path) -> Json:
    """Return people who are put into pictures that were drawn without them, by how much of the faces is new."""
    graph = with_redraw(graph)
    graph["sampler"]["inputs"]["model"] = graph.pop("apply")["inputs"]["model"]
    variants = [_variant(f"denoise {denoise:g}", denoise=denoise) for denoise in CURVE]
    return _in_graph("people put into pictures", graph, folder, benchmark, variants)


def with_redraw(graph: Json) -> Json:
    """Return a copy of a graph whose picture goes through Redraw People, by a prompt for one person, to be saved."""
    graph = json.loads(json.dumps(graph))
    sampler, apply, save = (graph[node]["inputs"] for node in ("sampler", "apply", "save"))
    people = {name: link for name, link in apply.items() if name.startswith("people.")}
    sampling = {name: sampler[name] for name in ("steps", "cfg", "sampler_name", "scheduler", "negative")}
    graph["one"] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["mini", 1], "text": ""}}
    graph["redraw"] = {
        "class_type": "DynamicIDRedraw",
        "inputs": {
            "image": save["images"], "model": ["mini", 0], "dynamicid": ["mini", 3], "positive": ["one", 0],
            "vae": ["mini", 2], "seed": 0, "denoise": DENOISE, **people, **sampling,
        },
    }  # fmt: skip
    save["images"] = ["redraw", 0]
    return dict(graph)


def one_person(prompt: str) -> str:
    """Return the caption of one person in the place of a group's: whoever they are, whatever they wear."""
    return to_caption(CaptionSpec((PersonSpec(),), parse_caption(prompt).place))


def _variant(name: str, **redraw: Any) -> Json:
    return {"name": name, "ablate": [], **({"overrides": {"redraw": redraw}} if redraw else {})}


def _in_graph(name: str, graph: Json, folder: Path, benchmark: Json, variants: list[Json]) -> Json:
    """Return a benchmark's samples in another graph, with a prompt for one person, and the sample's seed."""
    path = folder / f"{name.replace(',', '').replace(' ', '-')}.json"
    path.write_text(json.dumps(graph, indent=1) + "\n", "utf-8")
    samples = []
    for sample in benchmark["samples"]:
        own = {"one": {"text": one_person(sample["prompt"])}, "redraw": {"seed": sample["seeds"][0]}}
        samples.append({**sample, "overrides": {**sample.get("overrides", {}), **own}})
    changes = {"name": name, "template": path.name, "samples": samples, "variants": variants, "alike_from": ALIKE}
    return {**benchmark, **changes}
