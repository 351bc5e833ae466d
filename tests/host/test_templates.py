"""The templates that users open first: they fit the nodes, say what they need, and run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from dynamicid_pack.dynamicid_core.evaluation.template import api_graph
from PIL import Image

from . import faceid
from .graphs import FULL_SIZE, MINIATURE, Scene
from .server import Result, Server
from .templates import OF_FACEID, OF_FULL_SIZE, OF_MINIATURE, OF_SDXL, TEMPLATES, at_hand

pytestmark = pytest.mark.timeout(900)

FOLDERS = {
    "CheckpointLoaderSimple": ["models/checkpoints"],
    "DynamicIDLoader": ["models/dynamicid"],
    "DynamicIDLoadIdentity": ["models/dynamicid/identities"],
    "DynamicIDEncode": ["models/clip_vision", "models/insightface"],
    "ControlNetLoader": ["models/controlnet"],
}
"""Where the files of these nodes belong."""
BOXES = next(template for template in OF_FULL_SIZE if template.stem == "03_three_people_boxes")
GREEN, RED = "#232", "#322"
PROMPTS = ("CLIPTextEncode", "CLIPTextEncodeSDXL")
SHAPES = {
    "12_second_pass": (96, 192, 3),
    "18_people_into_a_picture": (512, 512, 3),
    "19_people_into_a_picture_faceid": (512, 512, 3),
}
"""Of the full-size templates' pictures on the tests' server; else that of `at_hand`."""
SEVERAL = {"08_expression_sheet": 7, "21_expressions_mixed": 2}
"""Of the full-size templates: how many pictures are saved, all different; else one."""


NEWER = {"CreateBoundingBoxes"}
"""Nodes that templates use and the oldest supported host has not."""


def fitting(template: Path, nodes: dict[str, Any]) -> dict[str, Any]:
    """The template's graph; the test is skipped where this host is too old for it."""
    used = {node["type"] for node in json.loads(template.read_text("utf-8"))["nodes"]}
    if missing := (used & NEWER) - nodes.keys():
        pytest.skip(f"this host has no {', '.join(missing)}")
    return api_graph(template, nodes)


@pytest.fixture(scope="module")
def nodes(server: Server) -> dict[str, Any]:
    return server.get("/object_info")


def test_the_page_lists_them(server: Server) -> None:
    listed = server.get("/workflow_templates")["dynamicid"]
    assert sorted(listed) == [template.stem for template in TEMPLATES]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_they_have_pictures(template: Path, server: Server) -> None:
    with Image.open(template.with_suffix(".jpg")) as picture:
        assert max(picture.size) == 512
    assert server.fetch(f"/api/workflow_templates/dynamicid/{template.stem}.jpg").startswith(b"\xff\xd8")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_prompts_have_their_colours_and_a_note_names_the_files(template: Path) -> None:
    page = json.loads(template.read_text("utf-8"))
    prompts = [node for node in page["nodes"] if node["type"] in PROMPTS]
    for node in prompts:
        assert node["color"] == (RED if node["title"] == "Negative prompt" else GREEN), node["title"]
    if not template.stem.endswith("10_save_identity"):
        assert {node["title"] for node in prompts} >= {"Positive prompt", "Negative prompt"}
    (note,) = (node["widgets_values"][0] for node in page["nodes"] if node["type"] == "MarkdownNote")
    if template in OF_MINIATURE:
        assert "Nothing to download" in note
        return
    for node in page["nodes"]:
        for folder in FOLDERS.get(node["type"], ()):
            assert folder in note, node["type"]


@pytest.mark.parametrize("template", OF_FACEID, ids=lambda path: path.stem)
def test_faceid_templates_load_files_by_their_publishers_names(template: Path) -> None:
    """And say where each belongs, and what its licence allows."""
    page = json.loads(template.read_text("utf-8"))
    (loader,) = (node["widgets_values"] for node in page["nodes"] if node["type"] == "DynamicIDLoader")
    (note,) = (node["widgets_values"][0] for node in page["nodes"] if node["type"] == "MarkdownNote")
    base = "sdxl" if template in OF_SDXL else "sd15"
    assert loader[0] == faceid.name_of("FaceID Plus v2", base)
    files = [line for line in note.splitlines() if line.startswith("- ")]
    for name, words in (
        ("checkpoint", "models/checkpoints"),
        (loader[0], "h94/IP-Adapter-FaceID"),
        (loader[0], "models/ipadapter"),
        (loader[0], "non-commercial research only"),
        (loader[2].removesuffix(".safetensors"), "MIT"),
        (loader[3], "non-commercial research only"),
    ):
        (line,) = (line for line in files if name in line)
        assert words in line and "licence" in line, name


def test_sdxls_templates_draw_at_its_size_with_its_text_nodes() -> None:
    for template in OF_SDXL:
        page = json.loads(template.read_text("utf-8"))
        kinds = {node["type"]: node["widgets_values"] for node in page["nodes"]}
        assert kinds["EmptyLatentImage"] == [1024, 1024, 1]
        assert "CLIPTextEncode" not in kinds
        for node in page["nodes"]:
            if node["type"] == "CLIPTextEncodeSDXL":
                *sizes, text_g, text_l = node["widgets_values"]
                assert sizes == [1024, 1024, 0, 0, 1024, 1024] and text_g == text_l
    assert len(OF_SDXL) == 1


@pytest.mark.smoke
@pytest.mark.parametrize("steps", [4, pytest.param(None, marks=pytest.mark.full, id="as it is")])
@pytest.mark.parametrize("template", OF_MINIATURE, ids=lambda path: path.stem)
def test_the_miniature_draws_it(template: Path, steps: int | None, nodes: dict[str, Any], server: Server) -> None:
    """In its own size, after the template that saves the person it loads. How good the pictures are: tests/mini."""

    def run(template: Path) -> Result:
        graph = fitting(template, nodes)
        for node in graph.values():
            if steps and node["class_type"] in ("KSampler", "DynamicIDRedraw"):
                node["inputs"]["steps"] = steps
            elif node["class_type"] == "DynamicIDSaveIdentity":
                node["inputs"]["overwrite"] = True  # of other steps, another person was saved
        return server.run(graph)

    if template.stem == "mini_11_saved_identity":
        assert run(template.with_stem("mini_10_save_identity")).message == ""
    result = run(template)
    assert result.message == ""
    assert len(result.images) >= {
        "mini_08_expression_sheet": 7,
        "mini_01_one_person": 4,
        "mini_14_with_and_without": 4,
        "mini_20_smile_made_sad": 2,
        "mini_21_expressions_mixed": 2,
    }.get(template.stem, 1)
    for picture in result.images:
        assert picture.shape in ((128, 128, 3), (128, 256, 3))
        assert picture.std() > 20


@pytest.mark.smoke
@pytest.mark.parametrize("template", OF_FULL_SIZE, ids=lambda path: path.stem)
def test_it_runs(template: Path, nodes: dict[str, Any], either_server: Server) -> None:
    """As it is, but for the files, a smaller picture and fewer steps."""
    server, graph = either_server, fitting(template, nodes)
    if Scene.models is FULL_SIZE and template in OF_SDXL:
        pytest.skip("this server's checkpoint is SD1.5: test_full_size_sdxl.py draws it, on a server of its own")
    if Scene.models is MINIATURE and "ControlNetLoader" in {node["class_type"] for node in graph.values()}:
        pytest.skip("ComfyUI loads no ControlNet of the miniature's size")
    result = server.run(at_hand(graph, Scene.models))
    assert result.message == ""
    if template.stem == "10_save_identity":
        assert (server.models / "dynamicid" / "identities" / "person.safetensors").is_file()
        return
    assert len(result.images) == SEVERAL.get(template.stem, 1)
    for picture in result.images:
        assert picture.shape == SHAPES.get(template.stem, (64, 128, 3))
        assert picture.std() > 5
    assert len({picture.tobytes() for picture in result.images}) == len(result.images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"KSampler"', '"NoSuchNode"', 1), "no node NoSuchNode"),
        (lambda text: text.replace('"people.person_0"', '"people.face_0"'), "no input people.face_0"),
        (lambda text: text.replace('"layout.boxes"', '"layout.picture"'), "no input layout.picture"),
        (lambda text: re.sub(r'"boxes",\n', '"hexagons",\n', text), "no layout 'hexagons'"),
        (lambda text: re.sub(r'"auto"\n', '"auto", 1, 1, 1, 1\n', text), "values too many"),
    ],
)
def test_a_template_that_does_not_fit_is_told(tmp_path: Path, nodes: dict[str, Any], change: Any, message: str) -> None:
    broken = tmp_path / "broken.json"
    fitting(BOXES, nodes)
    broken.write_text(change(BOXES.read_text("utf-8")), "utf-8")
    with pytest.raises(ValueError, match=message):
        api_graph(broken, nodes)
