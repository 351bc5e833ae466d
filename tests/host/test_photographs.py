"""From a photograph to a picture, through the server: what runs again, and what is told of photographs that fail."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.evaluation.template import api_graph
from dynamicid_pack.dynamicid_core.host.encode import encode
from dynamicid_pack.dynamicid_core.host.miniature import load_miniature
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from dynamicid_pack.dynamicid_core.identity.analyzer import load_analyzer
from PIL import Image
from safetensors.torch import save_file

from . import tiny
from .conftest import PHOTOGRAPHS, portrait
from .graphs import FULL_SIZE, VISION, Graph, Link, Scene
from .server import PACK, Server
from .templates import at_hand
from .test_edit import ASKED as MOTION

pytestmark = pytest.mark.timeout(900)

ENCODE = {"face": "largest", "index": 0, "crop": "whole picture", "combine": "average", "no_face": "error"}
SAMPLED = ["KSampler", "VAEDecode", "SaveImage"]


def _template(name: str, server: Server) -> dict[str, Any]:
    graph = api_graph(PACK / "workflows" / f"{name}.json", server.get("/object_info"))
    return graph if name.startswith("mini_") else at_hand(graph, Scene.models)


@pytest.mark.parametrize(
    "name", ["07_two_people_expressions", pytest.param("mini_07_two_people_expressions", marks=pytest.mark.full)]
)
def test_a_new_seed_encodes_and_edits_nobody_again(name: str, either_server: Server) -> None:
    server = either_server
    first, again = _template(name, server), _template(name, server)
    before = server.run(first)
    assert before.message == ""
    (last,) = [node for node, content in again.items() if isinstance(content["inputs"].get("model"), list)
               and again[content["inputs"]["model"][0]]["class_type"] == "DynamicIDApply"]  # fmt: skip
    again[last]["inputs"]["seed"] = 77
    after = server.run(again)
    assert [again[node]["class_type"] for node in after.executed] == SAMPLED
    assert (before.images[-1] != after.images[-1]).any()


def _person(graph: Graph, image: str, dynamicid: Link | None = None) -> Link:
    """Load Image and Encode Identity; Load DynamicID Mini, unless another loader's output is given."""
    picture = graph.add("LoadImage", image=image)
    dynamicid = dynamicid or graph.add("DynamicIDMini")[3]
    return graph.add("DynamicIDEncode", ENCODE, image=picture[0], dynamicid=dynamicid)[0]


def _image(path: Path) -> torch.Tensor:
    """A picture's file as the host's IMAGE (1, H, W, 3)."""
    return torch.from_numpy(np.array(Image.open(path)).astype(np.float32) / 255)[None]


def _black(path: Path) -> None:
    Image.new("RGB", (256, 256)).save(path)


def _tiny(path: Path) -> None:
    Image.new("RGB", (16, 16), (120, 80, 200)).save(path)


def _grey(path: Path) -> None:
    Image.new("L", (300, 200), 128).save(path)


def _huge(path: Path) -> None:
    Image.new("RGB", (6000, 4000), (90, 120, 60)).save(path)


@pytest.mark.parametrize(
    "draw",
    [_black, _tiny, _grey, pytest.param(_huge, marks=pytest.mark.full)],
    ids=lambda draw: draw.__name__.strip("_"),
)
def test_a_picture_without_a_face_is_told_or_skipped(draw: Callable[[Path], None], server: Server) -> None:
    draw(server.folder / "input" / "faceless.png")
    graph = Scene()
    person = _person(graph, "faceless.png")
    graph.apply(graph.loader(), [person])
    graph.sample()
    graph.save()
    told = server.run(graph)
    assert "no face was found" in told.message and "no_face to skip" in told.message
    graph[person[0]]["inputs"]["no_face"] = "skip"
    skipped = server.run(graph)
    assert skipped.message == "" and skipped.images[0].std() > 5


def _incomplete(folder: Path) -> Path:
    shutil.copytree(PACK / "mini" / "weights" / "face-pack", folder)
    (folder / "1k3d68.onnx").unlink()
    return folder


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    portrait(tmp_path / "portrait.png", 0)
    for missing, message in (
        ({"load_faces": partial(load_analyzer, _incomplete(tmp_path / "incomplete"))}, "1k3d68.onnx"),
        ({"load_faces": None}, "choose buffalo_l as face_pack"),
        ({"load_vision": None}, "choose one as clip_vision"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            encode(_image(tmp_path / "portrait.png"), replace(load_miniature().dynamicid, **missing))


def test_what_was_not_chosen_in_the_loader_is_named(full_size_server: Server) -> None:
    _incomplete(full_size_server.models / "insightface" / "models" / "incomplete")
    chosen = {"saa": FULL_SIZE.adapter, "imr": "None", "clip_vision": VISION, "provider": "auto"}
    for changed, message in (
        ({"face_pack": "incomplete"}, "1k3d68.onnx"),
        ({"face_pack": "None"}, "choose buffalo_l as face_pack"),
        ({"face_pack": "buffalo_l", "clip_vision": "None"}, "choose one as clip_vision"),
    ):
        graph = Graph()
        person = _person(graph, PHOTOGRAPHS[0], graph.add("DynamicIDLoader", chosen | changed)[0])
        graph.add("DynamicIDSaveIdentity", identity=person, name="nobody")
        assert message in full_size_server.run(graph).message, changed


def _edit(graph: Scene, person: Link, imr: str = Scene.models.imr, **changed: Any) -> None:
    loader = graph.loader(imr=imr)
    edited = graph.add("DynamicIDEditMotion", MOTION | changed, identity=person, dynamicid=loader, clip=graph.clip)
    graph.add("PreviewImage", images=edited[1])


def test_an_edit_without_imr_is_told(server: Server) -> None:
    graph = Scene()
    _edit(graph, _person(graph, PHOTOGRAPHS[0]), imr="None")
    assert "IMR is not loaded: choose" in server.run(graph).message


def test_an_edit_of_many_words_runs(server: Server) -> None:
    graph = Scene()
    _edit(graph, _person(graph, PHOTOGRAPHS[0]), prompt="a very happy face " * 60)
    assert server.run(graph).message == ""


def test_a_driving_picture_is_followed_or_told(server: Server) -> None:
    _black(server.folder / "input" / "black.png")
    for picture, message in ((PHOTOGRAPHS[1], ""), ("black.png", "driving_image: no face was found")):
        graph = Scene()
        driving = graph.add("LoadImage", image=picture)
        person = _person(graph, PHOTOGRAPHS[0])
        loader = graph.add(
            "DynamicIDLoader", saa=graph.models.adapter, imr=graph.models.imr, face_pack="buffalo_l", provider="auto"
        )
        edited = graph.add(
            "DynamicIDEditMotion", MOTION, identity=person, dynamicid=loader[0], clip=graph.clip,
            driving_image=driving[0],
        )  # fmt: skip
        graph.add("PreviewImage", images=edited[1])
        error = server.run(graph).message
        assert error.startswith(message) and bool(error) == bool(message)


def test_clip_vision_of_another_width_is_refused(tmp_path: Path) -> None:
    portrait(tmp_path / "portrait.png", 0)
    save_file(tiny.tiny_adapter_state(embedding=512), tmp_path / "adapter.safetensors")
    miniature = load_miniature()
    loaded = load_dynamicid(tmp_path / "adapter.safetensors", None, load_faces=miniature.dynamicid.load_faces)
    with pytest.raises(ValueError, match="CLIP ViT-H"):
        encode(_image(tmp_path / "portrait.png"), loaded, clip_vision=miniature.dynamicid.vision)
