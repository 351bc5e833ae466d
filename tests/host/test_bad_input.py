"""What users get wrong: an error that says what was expected, what came and what to do, and a server that lives."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import pytest
import torch
from dynamicid_pack.dynamicid_core.host import folders
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.nodes.apply import Apply
from dynamicid_pack.nodes.layout import AutoLayout
from dynamicid_pack.nodes.place import PlaceIdentity

from . import shapes, tiny
from .conftest import PEOPLE
from .graphs import Graph, Scene, portrait, several
from .refusals import QUICK, refusal, still_samples  # noqa: F401 (a fixture)
from .server import Server

pytestmark = pytest.mark.timeout(900)

# Names


OUTSIDE = ["../{}", "a/../../{}", "..\\{}", "{}/../../../x", "/tmp/{}", "C:\\{}", "~/../{}", "", " ", "a:b", "nul\0"]


@pytest.mark.parametrize("pattern", OUTSIDE)
def test_no_identity_is_saved_outside_its_folder(pattern: str, server: Server, tmp_path: Path) -> None:
    name = pattern.format("escaped")
    graph = Graph()
    loaded = graph.add("DynamicIDLoadIdentity", name=PEOPLE[0])
    graph.add("DynamicIDSaveIdentity", identity=loaded[0], name=name, overwrite=False)
    identities = server.models / "dynamicid" / "identities"
    before = set(identities.rglob("*"))
    message = refusal(server, graph, "DynamicIDSaveIdentity")
    assert repr(name.strip()) in message
    assert "plain file name" in message
    assert set(identities.rglob("*")) == before
    around = [server.folder, *server.folder.parents[:2], Path("/tmp")]
    assert not [path for folder in around for path in folder.glob("*escaped*")]


@pytest.mark.parametrize(
    "name", ["../generated_dynamicid", "../../checkpoints/generated_sd15", "/etc/passwd", "nobody"]
)
def test_no_identity_is_read_from_elsewhere(name: str, server: Server) -> None:
    message = refusal(server, portrait([name], QUICK), "DynamicIDLoadIdentity")
    assert name in message
    assert PEOPLE[0] in message, "what there is instead"


@pytest.mark.parametrize("name", ["../checkpoints/generated_sd15.safetensors", "/etc/passwd", "missing.safetensors"])
@pytest.mark.parametrize("field", ["saa", "imr"])
def test_no_weights_are_read_from_elsewhere(field: str, name: str, server: Server) -> None:
    scene = Scene(QUICK)
    scene.apply(scene.loader(**{field: name}), [scene.identity(PEOPLE[0])])
    scene.sample()
    scene.save()
    message = refusal(server, scene, "DynamicIDLoader")
    assert name in message


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "..\\secret", "/secret", "{}/secret"])
def test_folders_hold_where_no_list_does(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host checks names against its lists; a wired name passes it, and must still not leave the folder."""
    import folder_paths

    root = tmp_path / "models" / "dynamicid"
    (root / "identities").mkdir(parents=True)
    for place in (tmp_path, tmp_path / "models"):
        tiny.identity_file(place / "secret.safetensors", 1)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, folders.FOLDER, ([str(root)], {".safetensors"}))
    name = name.format(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)):
        folders.identity_path(name)
    with pytest.raises((ValueError, FileNotFoundError)):
        folders.adapter_path(f"{name}.safetensors")


# Values


def placed(**changed: Any) -> Scene:
    scene = Scene(QUICK)
    scene.apply(scene.loader(), [scene.place(scene.identity(PEOPLE[0]), **changed)[0]])
    scene.sample()
    scene.save()
    return scene


PLACES: dict[str, tuple[dict[str, float], tuple[str, ...]]] = {
    "start after end": ({"start_at": 0.8, "end_at": 0.2}, ("start_at 0.8", "end_at 0.2", "Swap")),
    "over the right edge": ({"x": 0.7, "width": 0.6}, ("0.7", "1.3", "within the picture")),
    "over the lower edge": ({"y": 0.9, "height": 0.2}, ("0.9", "1.1", "within the picture")),
    "left of the picture": ({"x": -0.5}, ("-0.5", "x")),
    "wider than the picture": ({"width": 1.5}, ("1.5", "width")),
    "negative weight": ({"weight": -1.0}, ("-1.0", "weight")),
    "end after the end": ({"end_at": 1.2}, ("1.2", "end_at")),
}
"""Case -> inputs of Place Identity, what the error must say."""


@pytest.mark.parametrize("case", PLACES)
def test_places_that_are_none(case: str, server: Server) -> None:
    changed, says = PLACES[case]
    message = refusal(server, placed(**changed), "DynamicIDPlace")
    for phrase in says:
        assert phrase in message


def test_start_after_end_for_everybody(server: Server) -> None:
    scene = Scene(QUICK)
    scene.apply_advanced(scene.loader(), [scene.identity(PEOPLE[0])], start_at=0.5, end_at=0.25)
    scene.sample()
    scene.save()
    message = refusal(server, scene, "DynamicIDApplyAdvanced")
    assert "start_at 0.5" in message
    assert "end_at 0.25" in message


def test_nobody_wired(server: Server) -> None:
    scene = Scene(QUICK)
    scene.apply(scene.loader(), [])
    scene.sample()
    scene.save()
    assert "person" in refusal(server, scene, "DynamicIDApply")


def test_applied_twice(server: Server) -> None:
    scene = Scene(QUICK)
    scene.cast(PEOPLE[:1])
    scene.cast(PEOPLE[1:2])
    scene.sample()
    scene.save()
    message = refusal(server, scene, "DynamicIDApply")
    assert "already" in message
    assert "one Apply DynamicID" in message


def test_fewer_masks_than_people(server: Server) -> None:
    scene = Scene(QUICK)
    mask = scene.add("SolidMask", value=1.0, width=32, height=32)
    people = several([scene.identity(name) for name in PEOPLE[:2]])
    layout = scene.add("DynamicIDLayout", people | {"layout": "masks", "layout.masks": mask[0], "margin": 0.0})
    scene.apply(scene.loader(), [layout[0]])
    scene.sample()
    scene.save()
    message = refusal(server, scene, "DynamicIDLayout")
    assert "2 people" in message
    assert "1 masks" in message


def person() -> Identity:
    drawn = tiny.identity_tensors(1)
    return Identity(drawn["tokens"], drawn["negative_tokens"])


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (8,), (0, 8, 8), (0, 8)])
def test_masks_of_the_wrong_rank(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="got shape") as caught:
        PlaceIdentity.execute(person(), 0, 0, 1, 1, 1.0, 0, 1, mask=torch.ones(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ({"x": 600, "y": 0, "width": 50, "height": 50}, "outside the 512 x 512 picture"),
        ({"x": 0, "y": 0}, "got {'x': 0, 'y': 0}"),
        ({"bbox": [0, 900, 500, 1300]}, "x 0.9 to 1.3"),
        ("a text", "got 'a text'"),
        ([], "Draw a box"),
    ],
)
def test_boxes_that_are_none(boxes: Any, says: str) -> None:
    layout = {"layout": "boxes", "boxes": boxes, "picture_width": 512, "picture_height": 512}
    with pytest.raises(ValueError, match=re.escape(says)):
        AutoLayout.execute({"person_0": person()}, layout)


# Models


def host_model(config: Any) -> Any:
    cpu = torch.device("cpu")
    config.set_inference_dtype(torch.float32, None)
    return comfy.model_patcher.ModelPatcher(config.get_model({}, "", device=cpu), load_device=cpu, offload_device=cpu)


def sdxl() -> Any:
    return comfy.supported_models.SDXL(dict(shapes.TINY_SDXL))


def sd2() -> Any:
    return comfy.supported_models.SD20(shapes.TINY | {"context_dim": 1024, "use_linear_in_transformer": True})


def flux() -> Any:
    sizes = {"in_channels": 16, "out_channels": 16, "vec_in_dim": 32, "context_in_dim": 48, "hidden_size": 64}
    depth = {"mlp_ratio": 4.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [8, 12, 12]}
    rest = {"theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": []}
    return comfy.supported_models.Flux({"image_model": "flux"} | sizes | depth | rest)


def narrow_sd15() -> Any:
    return comfy.supported_models.SD15(shapes.TINY | {"model_channels": 32})


@pytest.mark.parametrize(
    ("config", "name"),
    [(sdxl, "SDXL"), (sd2, "SD20"), (flux, "Flux"), (narrow_sd15, "SD15")],
    ids=["SDXL", "SD20", "Flux", "narrow SD15"],
)
def test_other_models(config: Callable[[], Any], name: str, tiny_adapter_file: Path) -> None:
    model = host_model(config())
    keys = dict(model.model_options)
    with pytest.raises(ValueError, match="for the one at hand") as caught:
        Apply.execute(model, load_dynamicid(tiny_adapter_file), {"person_0": person()}, weight=1.0)
    message = str(caught.value)
    assert f"this model is {name}" in message
    assert "Load a checkpoint of the adapter's base model (SD1.5" in message
    assert model.model_options == keys
