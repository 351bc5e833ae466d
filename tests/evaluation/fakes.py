"""A server that draws what a graph asks for with the renderer, so that what is measured of it is known."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynamicid_pack.mini.world.person import Person
from PIL import Image

from .drawings import draw, stranger


def _floats(**defaults: float) -> dict[str, Any]:
    return {name: ["FLOAT", {"default": value}] for name, value in defaults.items()}


REDRAW = "DynamicIDRedraw"
NODES: dict[str, Any] = {
    "Model": {"input": {"required": {}}, "output": ["MODEL"]},
    "CLIPTextEncode": {"input": {"required": {"text": ["STRING", {}]}}, "output": ["CONDITIONING"]},
    "LoadImage": {"input": {"required": {"image": [["a.png"], {}]}}, "output": ["IMAGE", "MASK"]},
    "KSampler": {
        "input": {"required": {"model": ["MODEL"], "positive": ["CONDITIONING"], "seed": ["INT", {"default": 0}]}},
        "output": ["LATENT"],
    },
    "SaveImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": []},
    "DynamicIDEncode": {
        "input": {"required": {"image": ["IMAGE"]}},
        "output": ["DYNAMICID_IDENTITY", "IMAGE"],
        "display_name": "Encode Identity",
    },
    "DynamicIDEditMotion": {
        "input": {
            "required": {"identity": ["DYNAMICID_IDENTITY"], "expression": [["happy"]], **_floats(strength=1.0)},
            "optional": {"driving_image": ["IMAGE"]},
        },
        "output": ["DYNAMICID_IDENTITY", "IMAGE"],
        "display_name": "Edit Facial Motion",
    },
    "DynamicIDPlace": {
        "input": {
            "required": {
                "identity": ["DYNAMICID_IDENTITY"],
                **_floats(x=0.0, y=0.0, width=0.5, height=1.0, weight=1.0, start_at=0.0, end_at=1.0),
            },
            "optional": {"mask": ["MASK"], "placements": ["DYNAMICID_PLACEMENTS"]},
        },
        "output": ["DYNAMICID_PLACEMENTS", "MASK", "IMAGE"],
    },
    "DynamicIDLayout": {
        "input": {"required": {"people": ["COMFY_AUTOGROW_V3", {}]}},
        "output": ["DYNAMICID_PLACEMENTS"],
    },
    "DynamicIDApply": {
        "input": {"required": {"model": ["MODEL"], "people": ["COMFY_AUTOGROW_V3", {}], **_floats(weight=1.0)}},
        "output": ["MODEL"],
    },
    "DynamicIDApplyAdvanced": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "people": ["COMFY_AUTOGROW_V3", {}],
                **_floats(weight=1.0, layout_scale=4.0, layout_steps=3, gate_threshold=0.3),
                "gate": ["BOOLEAN", {"default": True}],
            }
        },
        "output": ["MODEL"],
    },
    REDRAW: {
        "input": {"required": {"image": ["IMAGE"], **_floats(denoise=0.8)}},
        "output": ["IMAGE", "STRING", "IMAGE"],
    },
}
"""What /object_info says, as far as it is read."""


def graph(people: int) -> dict[str, Any]:
    """An API graph for that many people, each from a reference with an expression."""
    made: dict[str, Any] = {
        "1": {"class_type": "Model", "inputs": {}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": ""}, "_meta": {"title": "Positive prompt"}},
        "3": {"class_type": "DynamicIDApply", "inputs": {"model": ["1", 0], "weight": 0.9}},
        "4": {"class_type": "KSampler", "inputs": {"model": ["3", 0], "positive": ["2", 0], "seed": 0}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0]}},
    }
    for i in range(people):
        made[f"1{i}"] = {"class_type": "DynamicIDEncode", "inputs": {"image": ["none", 0]}}
        edit = {"identity": [f"1{i}", 0], "expression": "neutral", "strength": 1.0}
        made[f"2{i}"] = {"class_type": "DynamicIDEditMotion", "inputs": edit, "_meta": {"title": f"Edit {i}"}}
        made["3"]["inputs"][f"people.person_{i}"] = [f"2{i}", 0]
    return made


class DrawingHost:
    """Draws the people whose references a graph loads, as it asks; strangers where there is no Apply node.

    Without regions people stand in each other's places, without IMR they are neutral. `seed` chooses the place, the
    first pixel shows the weight.

    Args:
        known: reference pictures and who they show.
        fails_after: graphs after which the connection is lost.

    Attributes:
        report: what Redraw People shows; it changes nothing.
    """

    report = ""

    def __init__(self, known: Mapping[Path, Person], fails_after: int = 1000):
        self.known = {path.read_bytes(): person for path, person in known.items()}
        self.left, self.uploaded, self.queued = fails_after, dict[str, Person](), list[dict[str, Any]]()
        self._saved: dict[str, bytes] = {}

    def get(self, path: str) -> Any:
        assert path == "/object_info"
        return NODES

    def upload(self, name: str, data: bytes) -> str:
        self.uploaded[name] = self.known[data]
        return name

    def outputs(self, graph: Mapping[str, Any], timeout: float = 600.0) -> dict[str, dict[str, Any]]:
        if not self.left:
            raise OSError("the connection is lost")
        self.left -= 1
        self.queued.append(json.loads(json.dumps(graph)))
        seed = next(node["inputs"]["seed"] for node in graph.values() if node["class_type"] == "KSampler")
        people, expressions = self._asked(graph)
        places = ("in a room", "in a park", "at the beach", "at night")
        picture = draw(people, [(name, 0, 0) for name in expressions], seed, places[seed % 4])
        for node in graph.values():
            if node["class_type"].startswith("DynamicIDApply"):
                picture.image[0, 0] = round(100 * node["inputs"]["weight"])
        data = io.BytesIO()
        Image.fromarray(picture.image).save(data, "PNG")
        name = f"{len(self._saved)}.png"
        self._saved[name] = data.getvalue()
        shown = {node: {"text": [self.report]} for node, entry in graph.items() if entry["class_type"] == REDRAW}
        return {**shown, "5": {"images": [{"filename": name, "subfolder": "", "type": "output"}]}}

    def fetch(self, saved: Mapping[str, str]) -> bytes:
        return self._saved[saved["filename"]]

    def _asked(self, graph: Mapping[str, Any]) -> tuple[Sequence[Person], Sequence[str]]:
        edits = [node["inputs"] for node in graph.values() if node["class_type"] == "DynamicIDEditMotion"]
        applied = [node["inputs"] for node in graph.values() if node["class_type"].startswith("DynamicIDApply")]
        if not applied:
            return [stranger(90 + i) for i in range(len(edits))], ["neutral"] * len(edits)
        links = [graph[edit["identity"][0]]["inputs"]["image"][0] for edit in edits]
        people = [self.uploaded[graph[link]["inputs"]["image"]] for link in links]
        if any(node["class_type"] == "DynamicIDPlace" for node in graph.values()):
            people = [*people[1:], people[0]]
        return people, [edit["expression"] if edit["strength"] else "neutral" for edit in edits]
