"""Whatever other nodes hand over, through the host's executor: taken as it is meant, or refused in one clear line."""

from typing import Any

import numpy as np
import pytest
import torch

from .bench import FACES, NODES, PICTURE, Bench, assert_refused
from .executor import Executor

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("node", NODES)
def test_right_values_pass(bench: Bench, node: str) -> None:
    assert bench.run(node).message == ""


IMAGES: dict[str, tuple[Any, str]] = {
    "gray": (PICTURE[..., :1], ""),
    "gray with alpha": (PICTURE[..., :2], ""),
    "transparent": (torch.cat([PICTURE, torch.ones_like(PICTURE[..., :1])], -1), ""),
    "uint8": ((PICTURE * 255).byte(), ""),
    "half": (PICTURE.half(), ""),
    "double": (PICTURE.double(), ""),
    "bool": (PICTURE > 0.5, ""),
    "no channels": (PICTURE[..., :0], "got shape (1, 128, 256, 0)"),
    "five channels": (torch.cat([PICTURE, PICTURE[..., :2]], -1), "got shape (1, 128, 256, 5)"),
    "channels first": (PICTURE.movedim(-1, 1), "got shape (1, 3, 128, 256)"),
    "an empty batch": (PICTURE[:0], "got shape (0, 128, 256, 3)"),
    "no batch": (PICTURE[0], "got shape (128, 256, 3)"),
    "int64": ((PICTURE * 255).long(), "int64"),
    "NaN": (PICTURE * NAN, "NaN"),
    "infinity": (PICTURE / 0, "infinity"),
    "an array": (PICTURE.numpy(), "ndarray"),
    "a latent": ({"samples": PICTURE}, "dict"),
}
"""Case -> what another node hands over as an image, and what the error says; "" where it is taken."""

TAKES_IMAGES = {
    "DynamicIDEncode": "image",
    "DynamicIDActivationMap": "image",
    "DynamicIDWhoIsWho": "image",
    "DynamicIDRedraw": "image",
    "DynamicIDLayout": "layout.picture",
    "DynamicIDEditMotion": "driving_image",
    "DynamicIDAnimate": "driving_images",
}


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("node", TAKES_IMAGES)
def test_images(bench: Bench, node: str, case: str) -> None:
    image, says = IMAGES[case]
    name = TAKES_IMAGES[node]
    more: dict[str, Any] = {"no_face": "skip"} if node == "DynamicIDEncode" else {}
    if node == "DynamicIDLayout":
        more = FACES | {"layout.dynamicid": bench.miniature.dynamicid}
    ran = bench.run(node, **more | {name: image})
    if says:
        assert_refused(ran, node, name.split(".")[-1], says)
    else:
        assert ran.message == "" or "no face was found" in ran.message


MASK = torch.zeros(64, 128)
MASK[16:48, 20:90] = 1
MASKS: dict[str, tuple[Any, str]] = {
    "one": (MASK, ""),
    "half": (MASK.half(), ""),
    "double": (MASK.double(), ""),
    "bool": (MASK > 0, ""),
    "bytes": (MASK.byte() * 255, ""),
    "bytes of 0 and 1": (MASK.byte(), ""),
    "black": (MASK * 0, ""),
    "an image": (PICTURE, "got shape"),
    "a row": (MASK[0], "got shape (128,)"),
    "empty": (MASK[:0], "got shape (0, 128)"),
    "an empty batch": (MASK[None][:0], "got shape (0, 64, 128)"),
    "NaN": (MASK * NAN, "NaN"),
    "int32": (MASK.int(), "int32"),
    "complex": (MASK.to(torch.complex64), "complex64"),
    "a list": ([MASK], "list"),
}


@pytest.mark.parametrize("case", MASKS)
@pytest.mark.parametrize("node", ["DynamicIDPlace", "DynamicIDLayout"])
def test_masks(bench: Bench, node: str, case: str) -> None:
    mask, says = MASKS[case]
    if node == "DynamicIDPlace":
        ran, name = bench.run(node, mask=mask), "mask"
    else:
        several = torch.stack([mask, mask]) if torch.is_tensor(mask) and not says else mask
        ran, name = bench.run(node, **{"layout": "masks", "layout.masks": several}), "masks"
    if says:
        assert_refused(ran, node, name, says)
    else:
        assert ran.message == ""
        assert torch.equal(ran.values[0][0].region.mask, MASK * 0 if case == "black" else MASK)


BOX = {"x": 0, "y": 0, "width": 256, "height": 512}
BOXES: dict[str, tuple[Any, str]] = {
    "two": ([BOX, BOX], ""),
    "numbers as text": ([BOX | {"x": "8"}, BOX], ""),
    "metadata": ([BOX | {"metadata": {"desc": ""}}, BOX], ""),
    "text for a number": ([BOX | {"x": "left"}, BOX], "'left'"),
    "none for a number": ([BOX | {"width": None}, BOX], "None"),
    "NaN": ([BOX | {"y": NAN}, BOX], "nan"),
    "infinity": ([BOX | {"width": INF}, BOX], "inf"),
    "a huge number": ([BOX | {"width": 10**400}, BOX], "width"),
    "a side missing": ([{"x": 0, "y": 0, "width": 9}, BOX], "BOUNDING_BOX"),
    "text for an edge": ([{"bbox": [0, "a", 500, 500]}, BOX], "'a'"),
    "three edges": ([{"bbox": [0, 0, 500]}, BOX], "[0, 0, 500]"),
    "edges as text": ([{"bbox": "0 0 500 500"}, BOX], "'0 0 500 500'"),
    "no edges": ([{"bbox": None}, BOX], "None"),
    "metadata as text": ([BOX | {"metadata": "happy"}, BOX], "metadata"),
    "metadata as a list": ([BOX | {"metadata": ["happy"]}, BOX], "metadata"),
    "numbers in the list": ([1, 2], "BOUNDING_BOX"),
    "a tensor": (torch.zeros(2, 4), "tensor"),
    "text": (("boxes",), "'boxes'"),
    "mixed": ([[BOX], BOX], "1 boxes"),
    "empty lists": ([[], []], "none"),
    "odd text": ([BOX | {"x": "\x1b[2J\n\udc80" * 5000}, BOX], "x must be a number"),
}


@pytest.mark.parametrize("case", BOXES)
def test_boxes(bench: Bench, case: str) -> None:
    boxes, says = BOXES[case]
    layout = {"layout": "boxes", "layout.picture_width": 512, "layout.picture_height": 512, "layout.boxes": boxes}
    ran = bench.run("DynamicIDLayout", **layout)
    if says:
        assert_refused(ran, "DynamicIDLayout", "", says)
    else:
        assert ran.message == ""


NUMBERS = {
    "DynamicIDApplyAdvanced": (
        "weight", "start_at", "end_at", "lora_strength", "layout_scale", "layout_steps", "gate_threshold"
    ),
    "DynamicIDApply": ("weight",),
    "DynamicIDPlace": ("x", "y", "width", "height", "weight", "start_at", "end_at"),
    "DynamicIDEditMotion": ("yaw", "pitch", "strength", "driving_strength", "roll"),
    "DynamicIDLayout": ("margin",),
    "DynamicIDEncode": ("index",),
    "DynamicIDActivationMap": ("at",),
    "DynamicIDMix": ("mix",),
    "DynamicIDAnimate": ("frames", "strength", "driving_strength"),
}  # fmt: skip


@pytest.mark.parametrize(("node", "name"), [(node, name) for node, names in NUMBERS.items() for name in names])
def test_numbers(bench: Bench, node: str, name: str) -> None:
    """From the graph, where the host refuses what is out of range but takes NaN; from another node it takes all."""
    assert_refused(bench.run(node, **{name: NAN}), node, name, "", host_may=True)
    for value in (torch.tensor(NAN), torch.tensor(INF), torch.tensor(-1e30), [1.0], 1j):
        assert_refused(bench.run(node, **{name: value}), node, name, "got")


def test_numbers_of_a_layout(bench: Bench) -> None:
    faces = FACES | {"layout.picture": PICTURE, "layout.dynamicid": bench.miniature.dynamicid}
    for value in (NAN, torch.tensor(NAN), torch.tensor(-1.0)):
        assert_refused(bench.run("DynamicIDLayout", **faces | {"layout.reach": value}), "DynamicIDLayout", "reach", "")
    boxes = {"layout": "boxes", "layout.boxes": [BOX, BOX]}
    for side in ("picture_width", "picture_height"):
        for pixels in (torch.tensor(NAN), torch.tensor(0), [512]):
            ran = bench.run("DynamicIDLayout", **boxes | {f"layout.{side}": pixels})
            assert_refused(ran, "DynamicIDLayout", side, "")


@pytest.mark.parametrize("layout", ["rows", "", ..., {"layout": "rows"}, 3], ids=str)
def test_a_layout_that_is_unknown_or_missing(bench: Bench, layout: Any) -> None:
    ran = bench.run("DynamicIDLayout", layout=layout)
    assert_refused(ran, "DynamicIDLayout", "layout", "columns, boxes, masks, faces in a picture")


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("DynamicIDEncode", "face"), ("DynamicIDEncode", "crop"), ("DynamicIDEncode", "combine"),
        ("DynamicIDEncode", "no_face"), ("DynamicIDEditMotion", "expression"),
        ("DynamicIDEditMotion", "source_expression"), ("DynamicIDActivationMap", "layer"),
        ("DynamicIDAnimate", "easing"), ("DynamicIDAnimate", "source_expression"),
    ],
)  # fmt: skip
def test_choices_from_other_nodes(bench: Bench, node: str, name: str) -> None:
    for value in (["largest"], {"a": 1}, torch.ones(1), b"average"):
        assert_refused(bench.run(node, **{name: value}), node, name, "one of")


def landmarks(**changed: Any) -> dict[str, Any]:
    """MediaPipe's landmarks of one face, but for these entries; ... leaves one out."""
    face: dict[str, Any] = {
        "landmarks_xy": np.random.default_rng(1).uniform(100, 400, (478, 2)),
        "landmarks_3d": np.random.default_rng(2).uniform(-5, 5, (478, 3)),
        "transformation_matrix": np.eye(4),
        "blendshapes": {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9},
        "score": 0.9,
    }
    whole: dict[str, Any] = {"frames": [[face]], "image_size": (480, 640)}
    for name, value in changed.items():
        place = face if name in face else whole
        place.pop(name)
        if value is not ...:
            place[name] = value
    return whole


LANDMARKS: dict[str, tuple[Any, str]] = {
    "right": (landmarks(), ""),
    "no score": (landmarks(score=...), ""),
    "no frames": (landmarks(frames=...), "0 faces"),
    "no faces": (landmarks(frames=[[]]), "0 faces"),
    "frames as text": (landmarks(frames="frames"), "frames"),
    "frames of text": (landmarks(frames=["ab"]), "frames"),
    "frames of numbers": (landmarks(frames=[1]), "frames"),
    "no size": (landmarks(image_size=...), "image_size"),
    "no width": (landmarks(image_size=(480, 0)), "480 x 0"),
    "size as text": (landmarks(image_size="480x640"), "image_size"),
    "no points": (landmarks(landmarks_xy=...), "landmarks_xy"),
    "no depth": (landmarks(landmarks_3d=...), "landmarks_3d"),
    "flat": (landmarks(landmarks_3d=np.ones((478, 2))), "(478, 2)"),
    "ragged": (landmarks(landmarks_xy=[[1, 2], [3]]), "landmarks_xy"),
    "NaN": (landmarks(landmarks_xy=np.full((478, 2), NAN)), "finite"),
    "no matrix": (landmarks(transformation_matrix=...), "transformation_matrix"),
    "a matrix of zeros": (landmarks(transformation_matrix=np.zeros((4, 4))), "transformation_matrix"),
    "a mirror": (landmarks(transformation_matrix=np.diag([1, 1, -1, 1])), "transformation_matrix"),
    "an image": (PICTURE, "frames"),
}


@pytest.mark.parametrize("case", LANDMARKS)
def test_landmarks(bench: Bench, case: str) -> None:
    given, says = LANDMARKS[case]
    ran = bench.run("DynamicIDEditMotion", landmarks=given)
    if says:
        assert_refused(ran, "DynamicIDEditMotion", "", says)
    else:
        assert ran.message == ""


@pytest.mark.parametrize("blendshapes", [["a"], {"mouthSmileLeft": "much"}, {"mouthSmileLeft": NAN}, 3], ids=str)
def test_blendshapes(bench: Bench, blendshapes: Any) -> None:
    ran = bench.run("DynamicIDEditMotion", source_landmarks=landmarks(blendshapes=blendshapes))
    assert_refused(ran, "DynamicIDEditMotion", "lendshape", "")


@pytest.mark.parametrize("value", [torch.zeros(4, 768), {"tokens": 1}, (1, 2), [None]], ids=lambda v: type(v).__name__)
def test_who_is_nobody(bench: Bench, value: Any) -> None:
    """Values that an output of any type hands over as a person."""
    for node, name in (
        ("DynamicIDPlace", "identity"), ("DynamicIDPlace", "placements"), ("DynamicIDEditMotion", "identity"),
        ("DynamicIDLayout", "people.person_0"), ("DynamicIDApply", "people.person_1"),
        ("DynamicIDApply", "dynamicid"), ("DynamicIDWhoIsWho", "people.person_0"),
    ):  # fmt: skip
        assert_refused(bench.run(node, **{name: value}), node, name.split(".")[-1], "got")


@pytest.mark.parametrize(
    ("node", "name"),
    [("DynamicIDApply", "model"), ("DynamicIDActivationMap", "model"), ("DynamicIDEditMotion", "clip")],
)
def test_what_a_checkpoint_does_not_hold(bench: Bench, node: str, name: str) -> None:
    """The host's loader gives nothing for a part that a file lacks."""
    assert_refused(bench.run(node, **{name: None}), node, f"{name} is nothing", "Connect another loader")


LATENTS: dict[str, Any] = {
    "empty": {},
    "none": {"samples": None},
    "no batch": {"samples": torch.zeros(4, 16, 16)},
    "an empty batch": {"samples": torch.zeros(0, 4, 16, 16)},
    "NaN": {"samples": torch.full((1, 4, 16, 16), NAN)},
    "an image": PICTURE,
}


@pytest.mark.parametrize("case", LATENTS)
def test_latents(bench: Bench, case: str) -> None:
    ran = bench.run("DynamicIDActivationMap", latent=LATENTS[case])
    assert_refused(ran, "DynamicIDActivationMap", "latent", "got")


@pytest.mark.parametrize("positive", [[], [[]], [[1, {}]], PICTURE, [[PICTURE, {}]], [3]], ids=lambda v: ascii(v)[:12])
def test_prompts(bench: Bench, positive: Any) -> None:
    ran = bench.run("DynamicIDActivationMap", positive=positive)
    assert_refused(ran, "DynamicIDActivationMap", "positive", "got")


def test_every_node_that_takes_values_has_the_door(executor: Executor) -> None:
    """Loaders take names of files alone, which are checked where files are."""
    unchecked = {name for name, node in executor.pack.items() if not hasattr(node.execute, "__wrapped__")}
    assert unchecked == {"DynamicIDLoader", "DynamicIDMini", "DynamicIDLoadIdentity"}


def test_what_the_host_keeps_of_a_nodes_inputs_is_short(bench: Bench) -> None:
    """When a node fails, the host stores its inputs as text; hundreds of them may be listed."""
    for node in NODES:
        for name, value in bench.right(node).items():
            if not isinstance(value, (torch.Tensor, dict, list)):
                assert len(str(value)) < 400, (node, name)
