"""Faces are private: what a graph hands on tells a history and a log who it is, and nothing of the face."""

import dataclasses
import importlib
import pkgutil
from pathlib import Path
from typing import Any

import dynamicid_pack.dynamicid_core as core
import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from dynamicid_pack.dynamicid_core.identity.faces import Face
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement

from .executor import Executor
from .graphs import Graph, several

SECRET = 0.123456
"""Every number of the face; printed, it begins with these digits."""


def person() -> Identity:
    numbers = torch.full((4, 16), SECRET)
    face = Face(
        torch.full((512,), SECRET),
        torch.full((106, 2), SECRET),
        torch.full((68, 3), SECRET),
        pose=(SECRET, SECRET, SECRET),
        box=Box(1.0, 2.0, 3.0, 4.0),
        size=(480, 640),
    )
    thumbnail = torch.full((128, 128, 3), 123, dtype=torch.uint8)
    return Identity(numbers, numbers, "ab" * 32, name="Ana", face=face, thumbnail=thumbnail)


def values() -> dict[str, Any]:
    """What nodes hand to nodes."""
    placement = Placement(person(), Region(mask=torch.full((8, 8), SECRET)))
    return {"identity": person(), "face": person().face, "placement": placement, "placements": (placement,) * 2}


@pytest.mark.parametrize("kind", ["identity", "face", "placement", "placements"])
def test_a_value_shows_who_it_is_and_nothing_of_the_face(kind: str) -> None:
    shown = str(values()[kind])
    assert "0.123" not in shown and "tensor" not in shown and "123" not in shown
    assert len(shown) <= 600 and "\n" not in shown
    if kind != "face":
        assert "Ana" in shown and "4 tokens of 16" in shown and "ab" * 6 in shown


def test_weights_are_not_shown(tiny_adapter_file: Path) -> None:
    shown = str(load_dynamicid(tiny_adapter_file))
    assert shown.startswith("DynamicID(") and len(shown) < 1000 and "tensor" not in shown


def test_no_value_of_ours_shows_arrays() -> None:
    rooms = ("identity", "imr", "saa", "host", "evaluation")
    arrays = ("Tensor", "NDArray", "Points", "Weights")
    names = [module.name for module in pkgutil.walk_packages(core.__path__, f"{core.__name__}.")]
    modules = [
        importlib.import_module(name) for name in names if name.split(".")[2] in rooms and not name.endswith("__main__")
    ]
    shown = {
        f"{cls.__name__}.{field.name}"
        for module in modules
        for cls in vars(module).values()
        if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__ == module.__name__
        # a repr of its own stands in its own file
        if cls.__repr__.__code__.co_filename != module.__file__
        for field in dataclasses.fields(cls)
        if field.repr and any(array in str(field.type) for array in arrays)
    }
    assert shown == {"FaceAssignment.similarity"}  # how alike people and faces are: numbers of no face


@pytest.mark.parametrize("node", ["DynamicIDLayout", "DynamicIDWhoIsWho"])
def test_the_history_of_a_failed_node(executor: Executor, node: str) -> None:
    graph = Graph()
    link = executor.value(graph, person())
    broken = executor.value(graph, "no image")
    if node == "DynamicIDLayout":
        faces = {"layout": "faces in a picture", "layout.picture": broken, "layout.dynamicid": broken, "margin": 0.0}
        last = graph.add(node, several([link]) | faces | {"layout.order": "left to right", "layout.reach": 0.5})
    else:
        placed = executor.value(graph, (Placement(person(), Region()),))
        last = graph.add(node, several([link, placed]), image=broken, dynamicid=broken)
    executor.keep(graph, last[0])
    ran = executor.run(graph)
    assert ran.node == node
    inputs = str(next(data for event, data in executor._runner.status_messages if event == "execution_error"))
    assert "Identity('Ana', 4 tokens of 16" in inputs, "the person is among the inputs that the history keeps"
    assert "0.123" not in inputs and "tensor(" not in inputs
