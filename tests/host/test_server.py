"""The pack in a real ComfyUI server: it loads, lists its nodes, draws two people. And the tests' own client."""

from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from .conftest import PEOPLE
from .graphs import MINIATURE, Graph, Scene, Settings, portrait
from .server import Server

pytestmark = pytest.mark.timeout(900)

CONTRACT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "DynamicIDLoader": (("saa", "imr"), ("DYNAMICID",)),
    "DynamicIDLoadIdentity": (("name",), ("DYNAMICID_IDENTITY",)),
    "DynamicIDSaveIdentity": (("identity", "name"), ("DYNAMICID_IDENTITY",)),
    "DynamicIDMix": (("identity_a", "identity_b", "mix"), ("DYNAMICID_IDENTITY",)),
    "DynamicIDPlace": (
        ("identity", "x", "y", "width", "height", "weight", "start_at", "end_at", "mask", "placements"),
        ("DYNAMICID_PLACEMENTS", "MASK", "IMAGE"),
    ),
    "DynamicIDLayout": (("people", "layout", "margin"), ("DYNAMICID_PLACEMENTS", "MASK", "IMAGE")),
    "DynamicIDApply": (("model", "dynamicid", "people", "weight"), ("MODEL",)),
    "DynamicIDApplyAdvanced": (
        (
            *("model", "dynamicid", "people", "weight", "start_at", "end_at", "lora_strength"),
            *("layout_scale", "layout_steps", "gate_threshold", "gate", "lora_middle"),
        ),
        ("MODEL",),
    ),
    "DynamicIDEncode": (
        (*("image", "dynamicid", "face", "index", "crop", "combine", "no_face"), "clip_vision", "face_analysis"),
        ("DYNAMICID_IDENTITY", "IMAGE"),
    ),
    "DynamicIDEditMotion": (
        (
            *("identity", "dynamicid", "clip", "expression", "yaw", "pitch", "strength", "prompt"),
            *("source_expression", "source_prompt", "driving_strength", "driving_image", "landmarks"),
        ),
        ("DYNAMICID_IDENTITY", "IMAGE"),
    ),
    "DynamicIDAnimate": (
        (
            *("identity", "dynamicid", "clip", "keyframes", "frames", "easing", "strength", "source_expression"),
            *("driving_strength", "driving_images"),
        ),
        ("DYNAMICID_IDENTITY", "IMAGE"),
    ),
    "DynamicIDMini": (("adapter",), ("MODEL", "CLIP", "VAE", "DYNAMICID")),
    "DynamicIDWhoIsWho": (("image", "people", "dynamicid"), ("STRING", "IMAGE", "FLOAT")),
    "DynamicIDRedraw": (
        (
            *("image", "people", "model", "dynamicid", "positive", "negative", "vae", "seed", "steps", "cfg"),
            *("sampler_name", "scheduler", "denoise", "size", "margin", "feather", "only_below", "passes"),
        ),
        ("IMAGE", "STRING", "IMAGE"),
    ),
    "DynamicIDActivationMap": (("model", "positive", "latent", "at", "layer", "image"), ("IMAGE", "MASK")),
}
"""Node id -> its inputs in order, its outputs' types. Graph files store widgets by position: new ones come last."""


@pytest.fixture(scope="module")
def nodes(server: Server) -> dict[str, Any]:
    """What the page knows of all nodes."""
    return server.get("/object_info")


@pytest.mark.smoke
def test_pack_loads_without_complaint(server: Server) -> None:
    log = server.log
    assert "custom_nodes/dynamicid" in log.replace("\\", "/"), "the server did not look at the pack"
    assert "DynamicID could not be loaded" not in log
    assert "IMPORT FAILED" not in "".join(line for line in log.splitlines() if "dynamicid" in line)


@pytest.mark.smoke
@pytest.mark.parametrize("node", CONTRACT)
def test_node_is_as_graphs_expect_it(node: str, nodes: dict[str, Any]) -> None:
    inputs, outputs = CONTRACT[node]
    info = nodes[node]
    order = [name for group in ("required", "optional") for name in info["input_order"].get(group, [])]
    assert tuple(name for name in order if name in inputs) == inputs
    assert tuple(info["output"]) == outputs
    assert info["category"].split("/")[0] == "DynamicID"
    assert info["description"] and info["display_name"]


@pytest.mark.parametrize("node", CONTRACT)
def test_every_input_has_a_tooltip(node: str, nodes: dict[str, Any]) -> None:
    bare = []
    for group in ("required", "optional"):
        for name, (_, *options) in nodes[node]["input"].get(group, {}).items():
            given = options[0] if options else {}
            # what users see of a growing input are its sockets
            sockets = given.get("template", {}).get("input", {}).get("required", {"itself": ["", given]})
            if not all(socket[1].get("tooltip") for socket in sockets.values()):
                bare.append(name)
    assert not bare


def test_lists_offer_what_lies_in_the_models_folder(nodes: dict[str, Any]) -> None:
    assert set(PEOPLE) <= set(options(nodes, "DynamicIDLoadIdentity", "name"))
    assert MINIATURE.adapter in options(nodes, "DynamicIDLoader", "saa")
    assert options(nodes, "DynamicIDLoader", "imr")[0] == "None"


@pytest.mark.smoke
def test_two_people_side_by_side(server: Server) -> None:
    """The main job: checkpoint, adapter, two identities, a sampler, a picture in the output folder."""
    settings = Settings(128, 128, steps=3)
    graph = portrait(PEOPLE[:2], settings)
    result = server.run(graph)
    assert result.message == ""
    assert set(result.executed) | set(result.cached) == set(graph)
    (sampler,) = graph.ids("KSampler")
    assert result.progress[sampler][-1] == (settings.steps, settings.steps)
    (picture,) = result.images
    assert picture.shape == (settings.height, settings.width, 3)
    assert picture.std() > 5, "one colour"
    (saved,) = result.outputs[graph.ids("SaveImage")[0]]["images"]
    with Image.open(server.folder / "output" / saved["subfolder"] / saved["filename"]) as file:
        assert file.size == (settings.width, settings.height)
    (plain,) = server.run(portrait([], settings)).images
    assert abs(picture.astype(float) - plain).mean() > 1, "the people did not change the picture"


def test_a_new_seed_runs_the_sampler_alone(server: Server) -> None:
    assert not server.run(portrait(PEOPLE[:2], Settings(seed=1))).error
    graph = portrait(PEOPLE[:2], Settings(seed=2))
    result = server.run(graph)
    assert [graph[node]["class_type"] for node in result.executed] == ["KSampler", "VAEDecode", "SaveImage"]


def test_a_moved_box_runs_nothing_before_it_again(server: Server) -> None:
    def graph(x: float) -> Scene:
        scene = Scene()
        loader = scene.loader()
        first = scene.place(scene.identity(PEOPLE[0]), width=0.5)
        both = scene.place(scene.identity(PEOPLE[1]), first[0], x=x, width=0.4)
        scene.apply(loader, [both[0]])
        scene.sample()
        scene.save()
        return scene

    before = server.run(graph(0.5))
    moved = graph(0.6)
    after = server.run(moved)
    ran = [moved[node]["class_type"] for node in after.executed]
    assert ran == ["DynamicIDPlace", "DynamicIDApply", "KSampler", "VAEDecode", "SaveImage"]
    assert (before.images[0] != after.images[0]).any()


def test_a_saved_identity_is_loaded_and_draws_the_same_person(server: Server) -> None:
    saving = Graph()
    loaded = saving.add("DynamicIDLoadIdentity", name=PEOPLE[3])
    saving.add("DynamicIDSaveIdentity", identity=loaded[0], name="friends/copy")
    assert server.run(saving).message == ""
    assert "friends/copy" in options(server.get("/object_info"), "DynamicIDLoadIdentity", "name")
    (copy,) = server.run(portrait(["friends/copy"])).images
    (original,) = server.run(portrait([PEOPLE[3]])).images
    assert (copy == original).all()


def test_a_mix_is_a_third_person(server: Server) -> None:
    settings = Settings(cfg=1.0)

    def picture(mix: float) -> Any:
        scene = Scene(settings)
        pair = [scene.identity(PEOPLE[0]), scene.identity(PEOPLE[1])]
        mixed = scene.add("DynamicIDMix", identity_a=pair[0], identity_b=pair[1], mix=mix)
        scene.apply(scene.loader(), [mixed[0]])
        scene.sample()
        scene.save()
        result = server.run(scene)
        assert result.message == ""
        return result.images[0]

    first, middle, second = (picture(mix) for mix in (0.0, 0.5, 1.0))
    assert (first == server.run(portrait([PEOPLE[0]], settings)).images[0]).all()
    assert (second == server.run(portrait([PEOPLE[1]], settings)).images[0]).all()
    assert (middle != first).any()
    assert (middle != second).any()


def test_activation_map_shows_each_person(server: Server) -> None:
    scene = Scene()
    scene.cast(PEOPLE[:2])
    scene.sample()
    maps = scene.add(
        "DynamicIDActivationMap",
        {"model": scene.model, "positive": scene.positive, "latent": scene.latent, "at": 0.5, "layer": "average"},
    )
    scene.add("SaveImage", images=maps[0], filename_prefix="map")
    result = server.run(scene)
    assert result.message == ""
    pictures = [picture for picture in result.images if picture.std() > 0]
    assert len(pictures) == 2, "a picture per person"


def test_auto_layout_in_columns_is_what_people_alone_get(server: Server) -> None:
    scene = Scene()
    people = {f"people.person_{i}": scene.identity(name) for i, name in enumerate(PEOPLE[:2])}
    layout = scene.add("DynamicIDLayout", {**people, "layout": "columns", "margin": 0.0})
    scene.apply(scene.loader(), [layout[0]])
    scene.sample()
    scene.save()
    result = server.run(scene)
    assert result.message == ""
    (plainly,) = server.run(portrait(PEOPLE[:2])).images
    # the preview of Auto Layout is no output picture
    assert (result.images[0] == plainly).all()


def test_client_tells_what_the_server_refuses(server: Server) -> None:
    graph = Graph()
    graph.add("VAEDecode", samples=["9", 0], vae=["9", 1])
    assert server.run(graph).message
    broken = portrait([], Settings(sampler="no such sampler"))
    result = server.run(broken)
    assert set(result.node_errors) == set(broken.ids("KSampler"))
    assert "no such sampler" in result.message
    assert not result.executed


def test_client_tells_why_a_server_does_not_start(make_server: Callable[..., Server]) -> None:
    broken = make_server(MINIATURE, "--no-such-argument")
    with pytest.raises(RuntimeError, match="no-such-argument"):
        broken.start()
    assert not broken.alive


def options(nodes: dict[str, Any], node: str, name: str) -> list[str]:
    """The choices of a combo; hosts write them in one of two ways."""
    inputs = nodes[node]["input"]
    kind, *given = (inputs["required"] | inputs.get("optional", {}))[name]
    return kind if isinstance(kind, list) else given[0]["options"]
