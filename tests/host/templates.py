"""The pack's templates."""

from typing import Any

from dynamicid_pack.tests.support import ROOT

from .conftest import PEOPLE, PHOTOGRAPHS
from .graphs import CONTROLNET, EXPRESSION_MODEL, FULL_SIZE, MINIATURE, VISION, Models

TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
OF_MINIATURE = [template for template in TEMPLATES if template.stem.startswith("mini_")]
OF_FULL_SIZE = [template for template in TEMPLATES if template not in OF_MINIATURE]
OF_SDXL = [template for template in OF_FULL_SIZE if template.stem.endswith("_sdxl")]
"""Those whose base model is SDXL; that of the others is SD1.5."""
OF_FACEID = [template for template in OF_FULL_SIZE if "_faceid" in template.stem]
"""Those that draw with IP-Adapter FaceID's files, which tests have under their publisher's names."""


def at_hand(graph: dict[str, Any], models: Models = FULL_SIZE, size: tuple[int, int] = (128, 64)) -> dict[str, Any]:
    """A full-size template's graph with the models that the tests' server has, a small picture and two steps.

    The miniature's base model and CLIP vision come from a node "miniature": ComfyUI's loaders know no smaller ones. It
    stands for SDXL, too, and as it has one text encoder, an ordinary node encodes the text.

    Args:
        size: the picture's width and height.
    """
    people, photographs = iter(PEOPLE), iter(PHOTOGRAPHS)
    changes: dict[str, dict[str, Any]] = {
        "CheckpointLoaderSimple": {"ckpt_name": models.checkpoint},
        "ControlNetLoader": {"control_net_name": CONTROLNET},
        "EmptyLatentImage": dict(zip(("width", "height"), size, strict=True)),
        "KSampler": {"steps": 2},
        "DynamicIDRedraw": {"steps": 2, "size": 64},
    }
    encodes = any(node["class_type"] == "DynamicIDEncode" for node in graph.values())
    edits = any(
        node["class_type"] in ("DynamicIDEditMotion", "DynamicIDAnimate") or "layout.clip" in node["inputs"]
        for node in graph.values()
    )
    for node in graph.values():
        changed = changes.get(node["class_type"], {})
        if node["class_type"] == "DynamicIDLoadIdentity":
            changed = {"name": next(people)}
        elif node["class_type"] == "LoadImage":
            changed = {"image": next(photographs)}
        elif node["class_type"] == "DynamicIDLoader":
            changed = {} if "faceid" in node["inputs"]["saa"] else {"saa": models.adapter}
            changed |= {"imr": models.imr} if edits else {}
            changed |= {"clip_vision": "None" if models is MINIATURE else VISION} if encodes else {}
            reads = node["inputs"].get("expression_model", "None") != "None"
            changed |= {"expression_model": EXPRESSION_MODEL} if reads else {}
        assert changed.keys() <= node["inputs"].keys()
        node["inputs"] |= changed
    return _with_miniature(graph) if models is MINIATURE else graph


def _with_miniature(graph: dict[str, Any]) -> dict[str, Any]:
    checkpoints = {name for name, node in graph.items() if node["class_type"] == "CheckpointLoaderSimple"}
    changed = {name: node for name, node in graph.items() if name not in checkpoints}
    for node in changed.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in checkpoints:
                node["inputs"][name] = ["miniature", value[1]]
        if node["class_type"] == "DynamicIDEncode":
            node["inputs"]["dynamicid"] = ["miniature", 3]
        elif node["class_type"] == "CLIPTextEncodeSDXL":
            inputs = node["inputs"]
            node |= {"class_type": "CLIPTextEncode", "inputs": {"text": inputs["text_g"], "clip": inputs["clip"]}}
    miniature: dict[str, Any] = {"class_type": "DynamicIDMini", "inputs": {}}
    for node in graph.values():
        if node["class_type"] == "DynamicIDLoader" and "faceid" in node["inputs"]["saa"]:
            miniature["inputs"]["adapter"] = node["inputs"]["saa"]  # Encode Identity's as well
    return changed | {"miniature": miniature}
