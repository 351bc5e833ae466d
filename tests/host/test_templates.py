"""The templates that users open first: they fit the nodes, say what they need, and run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from dynamicid_pack.dynamicid_core.evaluation.template import api_graph

from .conftest import PEOPLE
from .graphs import ADAPTER, CHECKPOINT
from .server import Server
from .templates import FULL_SIZE, MINIATURE, TEMPLATES

pytestmark = pytest.mark.timeout(900)

GREEN, RED = "#232", "#322"


@pytest.fixture(scope="module")
def nodes(server: Server) -> dict[str, Any]:
    return server.get("/object_info")


def test_the_page_lists_them(server: Server) -> None:
    listed = server.get("/workflow_templates")["dynamicid"]
    assert sorted(listed) == [template.stem for template in TEMPLATES]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_prompts_have_their_colours_and_a_note_names_the_files(template: Path) -> None:
    page = json.loads(template.read_text("utf-8"))
    prompts = [node for node in page["nodes"] if node["type"] == "CLIPTextEncode"]
    assert {node["title"]: node["color"] for node in prompts} == {"Positive prompt": GREEN, "Negative prompt": RED}
    (note,) = (node["widgets_values"][0] for node in page["nodes"] if node["type"] == "MarkdownNote")
    if template in MINIATURE:
        assert "Nothing to download" in note
        return
    for folder in ("models/checkpoints", "models/dynamicid", "models/dynamicid/identities"):
        assert folder in note


@pytest.mark.smoke
@pytest.mark.parametrize("template", MINIATURE, ids=lambda path: path.stem)
def test_the_miniature_draws_it(template: Path, nodes: dict[str, Any], server: Server) -> None:
    """As it is. How good the pictures are is measured in tests/mini."""
    result = server.run(api_graph(template, nodes))
    assert result.message == ""
    assert len(result.images) > 1
    for picture in result.images:
        assert picture.shape in ((128, 128, 3), (128, 256, 3))
        assert picture.std() > 20


@pytest.mark.smoke
@pytest.mark.parametrize("template", FULL_SIZE, ids=lambda path: path.stem)
def test_it_runs(template: Path, nodes: dict[str, Any], server: Server) -> None:
    """As it is, but for the model files, a smaller picture and fewer steps."""
    graph = api_graph(template, nodes)
    people = iter(PEOPLE)
    small: dict[str, dict[str, Any]] = {
        "CheckpointLoaderSimple": {"ckpt_name": CHECKPOINT},
        "DynamicIDLoader": {"saa": ADAPTER},
        "EmptyLatentImage": {"width": 128, "height": 64},
        "KSampler": {"steps": 2},
    }
    for node in graph.values():
        changed = small.get(node["class_type"], {})
        if node["class_type"] == "DynamicIDLoadIdentity":
            changed = {"name": next(people)}
        assert changed.keys() <= node["inputs"].keys()
        node["inputs"] |= changed
    result = server.run(graph)
    assert result.message == ""
    (picture,) = result.images
    assert picture.shape == (64, 128, 3)
    assert picture.std() > 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"KSampler"', '"NoSuchNode"', 1), "no node NoSuchNode"),
        (lambda text: text.replace('"people.person_0"', '"people.face_0"'), "no input people.face_0"),
        (lambda text: re.sub(r'"auto"\n', '"auto", 1\n', text), "values too many"),
    ],
)
def test_a_template_that_does_not_fit_is_told(tmp_path: Path, nodes: dict[str, Any], change: Any, message: str) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(change(FULL_SIZE[0].read_text("utf-8")), "utf-8")
    with pytest.raises(ValueError, match=message):
        api_graph(broken, nodes)
