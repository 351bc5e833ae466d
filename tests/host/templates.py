"""The pack's templates."""

from typing import Any

from dynamicid_pack.tests.support import ROOT

from .conftest import PEOPLE, PHOTOGRAPHS
from .graphs import ADAPTER, CHECKPOINT, CONTROLNET, IMR, VISION

TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
MINIATURE = [template for template in TEMPLATES if template.stem.startswith("mini_")]
FULL_SIZE = [template for template in TEMPLATES if template not in MINIATURE]


def at_hand(graph: dict[str, Any]) -> dict[str, Any]:
    """A full-size template's graph with the files that the tests' server has, a small picture and two steps."""
    people, photographs = iter(PEOPLE), iter(PHOTOGRAPHS)
    changes: dict[str, dict[str, Any]] = {
        "CheckpointLoaderSimple": {"ckpt_name": CHECKPOINT},
        "ControlNetLoader": {"control_net_name": CONTROLNET},
        "EmptyLatentImage": {"width": 128, "height": 64},
        "KSampler": {"steps": 2},
    }
    loads_photographs = any(node["class_type"] == "DynamicIDEncode" for node in graph.values())
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
            changed = {"saa": ADAPTER} | ({"imr": IMR} if edits else {})
            changed |= {"clip_vision": VISION} if loads_photographs else {}
        assert changed.keys() <= node["inputs"].keys()
        node["inputs"] |= changed
    return graph
