"""The pack's templates."""

from typing import Any

from dynamicid_pack.tests.support import ROOT

from .conftest import PEOPLE, PHOTOGRAPHS
from .graphs import CONTROLNET, FULL_SIZE, VISION, Models

TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
OF_MINIATURE = [template for template in TEMPLATES if template.stem.startswith("mini_")]
OF_FULL_SIZE = [template for template in TEMPLATES if template not in OF_MINIATURE]


def at_hand(graph: dict[str, Any], models: Models = FULL_SIZE) -> dict[str, Any]:
    """A full-size template's graph with the models that the tests' server has, a small picture and two steps.

    The miniature's base model and CLIP vision come from a node "miniature": ComfyUI's loaders know no smaller ones.
    """
    people, photographs = iter(PEOPLE), iter(PHOTOGRAPHS)
    changes: dict[str, dict[str, Any]] = {
        "CheckpointLoaderSimple": {"ckpt_name": models.checkpoint},
        "ControlNetLoader": {"control_net_name": CONTROLNET},
        "EmptyLatentImage": {"width": 128, "height": 64},
        "KSampler": {"steps": 2},
    }
    encodes = any(node["class_type"] == "DynamicIDEncode" for node in graph.values())
    edits = any(
        node["class_type"] == "DynamicIDEditMotion" or "layout.clip" in node["inputs"] for node in graph.values()
    )
    for node in graph.values():
        changed = changes.get(node["class_type"], {})
        if node["class_type"] == "DynamicIDLoadIdentity":
            changed = {"name": next(people)}
        elif node["class_type"] == "LoadImage":
            changed = {"image": next(photographs)}
        elif node["class_type"] == "DynamicIDLoader":
            changed = {"saa": models.adapter} | ({"imr": models.imr} if edits else {})
            changed |= {"clip_vision": VISION if models is FULL_SIZE else "None"} if encodes else {}
        assert changed.keys() <= node["inputs"].keys()
        node["inputs"] |= changed
    return graph if models is FULL_SIZE else _with_miniature(graph)


def _with_miniature(graph: dict[str, Any]) -> dict[str, Any]:
    checkpoints = {name for name, node in graph.items() if node["class_type"] == "CheckpointLoaderSimple"}
    changed = {name: node for name, node in graph.items() if name not in checkpoints}
    for node in changed.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in checkpoints:
                node["inputs"][name] = ["miniature", value[1]]
        if node["class_type"] == "DynamicIDEncode":
            node["inputs"]["dynamicid"] = ["miniature", 3]
    return changed | {"miniature": {"class_type": "DynamicIDMini", "inputs": {}}}
