"""From a photograph to a picture, through the server: what runs again, and what is told of photographs that fail."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.evaluation.template import api_graph
from dynamicid_pack.dynamicid_core.host.encode import encode
from dynamicid_pack.dynamicid_core.host.miniature import load_miniature
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from PIL import Image

from . import full_size
from .conftest import PHOTOGRAPHS, portrait
from .graphs import ADAPTER, IMR, VISION, Graph, Link, Scene
from .server import PACK, Server
from .templates import at_hand
from .test_edit import ASKED as MOTION

pytestmark = pytest.mark.timeout(900)

ENCODE = {"face": "largest", "index": 0, "crop": "whole picture", "combine": "average", "no_face": "error"}
SAMPLED = ["KSampler", "VAEDecode", "SaveImage"]


def _template(name: str, server: Server) -> dict[str, Any]:
    graph = api_graph(PACK / "workflows" / f"{name}.json", server.get("/object_info"))
    return graph if name.startswith("mini_") else at_hand(graph)


@pytest.mark.parametrize("name", ["07_two_people_expressions", "mini_07_two_people_expressions"])
def test_a_new_seed_encodes_and_edits_nobody_again(name: str, server: Server) -> None:
    first, again = _template(name, server), _template(name, server)
    before = server.run(first)
    assert before.message == ""
    (last,) = [node for node, content in again.items() if isinstance(content["inputs"].get("model"), list)
               and again[content["inputs"]["model"][0]]["class_type"] == "DynamicIDApply"]  # fmt: skip
    again[last]["inputs"]["seed"] = 77
    after = server.run(again)
    assert [again[node]["class_type"] for node in after.executed] == SAMPLED
    assert (before.images[-1] != after.images[-1]).any()


def _person(graph: Graph, image: str, **loaded: Any) -> Link:
    """Load Image, Load DynamicID and Encode Identity."""
    files = {"saa": ADAPTER, "imr": "None", "clip_vision": VISION, "face_pack": "buffalo_l", "provider": "auto"}
    loader = graph.add("DynamicIDLoader", files | loaded)
    picture = graph.add("LoadImage", image=image)
    return graph.add("DynamicIDEncode", ENCODE, image=picture[0], dynamicid=loader[0])[0]


def _black(path: Path) -> None:
    Image.new("RGB", (256, 256)).save(path)


def _tiny(path: Path) -> None:
    Image.new("RGB", (16, 16), (120, 80, 200)).save(path)


def _grey(path: Path) -> None:
    Image.new("L", (300, 200), 128).save(path)


def _huge(path: Path) -> None:
    Image.new("RGB", (6000, 4000), (90, 120, 60)).save(path)


@pytest.mark.parametrize("draw", [_black, _tiny, _grey, _huge], ids=lambda draw: draw.__name__.strip("_"))
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


def test_what_is_missing_is_named(server: Server) -> None:
    packs = server.models / "insightface" / "models"
    if not (packs / "incomplete").exists():
        shutil.copytree(PACK / "mini" / "weights" / "face-pack", packs / "incomplete")
        (packs / "incomplete" / "1k3d68.onnx").unlink()
    for loaded, message in (
        ({"face_pack": "incomplete"}, "1k3d68.onnx"),
        ({"face_pack": "None"}, "choose buffalo_l as face_pack"),
        ({"clip_vision": "None"}, "choose one as clip_vision"),
    ):
        graph = Graph()
        person = _person(graph, PHOTOGRAPHS[0], **loaded)
        graph.add("DynamicIDSaveIdentity", identity=person, name="nobody")
        assert message in server.run(graph).message, loaded


def _edit(graph: Scene, person: Link, imr: str = IMR, **changed: Any) -> None:
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
            "DynamicIDLoader", saa=ADAPTER, imr=IMR, clip_vision=VISION, face_pack="buffalo_l", provider="auto"
        )
        edited = graph.add(
            "DynamicIDEditMotion", MOTION, identity=person, dynamicid=loader[0], clip=graph.clip,
            driving_image=driving[0],
        )  # fmt: skip
        graph.add("PreviewImage", images=edited[1])
        found = server.run(graph).message
        assert found.startswith(message) and bool(found) == bool(message)


def test_clip_vision_of_another_width_is_refused(generated: full_size.GeneratedFiles, tmp_path: Path) -> None:
    portrait(tmp_path / "portrait.png", 0)
    miniature = load_miniature()
    loaded = load_dynamicid(generated.adapter, None, load_faces=miniature.dynamicid.load_faces)
    image = torch.from_numpy(np.array(Image.open(tmp_path / "portrait.png")).astype(np.float32) / 255)[None]
    with pytest.raises(ValueError, match="CLIP ViT-H"):
        encode(image, loaded, clip_vision=miniature.dynamicid.vision)
