"""Auto Layout by the faces of a picture: each person's region lies about the face that is meant."""

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.faces import Face
from dynamicid_pack.dynamicid_core.host.encode import Choice, encode
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.identity import Identity
from dynamicid_pack.mini.world import World
from dynamicid_pack.nodes.place import FACES, AutoLayout
from torch import Tensor

WORLD = World(seed=9, held_out_people=True)
TRIO = WORLD.sample(0, 3).picture()


@pytest.fixture(scope="module")
def miniature() -> Miniature:
    return load_miniature()


def image(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).float().div(255)[None]


def unknown() -> Identity:
    return Identity(torch.randn(4, 128), torch.randn(4, 128))


def placed(miniature: Miniature, people: list, picture: Tensor, order: str, reach: float = 0.0) -> list[tuple]:
    """The people's boxes in fractions."""
    layout = {
        "layout": FACES, "picture": picture, "dynamicid": miniature.dynamicid, "order": order, "reach": reach,
    }  # fmt: skip
    wired = {f"person_{i}": person for i, person in enumerate(people)}
    scene, masks, _ = AutoLayout.execute(wired, layout).result
    assert len(masks) == len(people)
    assert [placement.identity for placement in scene] == [person for person in people if person is not None]
    return [placement.region.box for placement in scene]


def assert_about(box: tuple, face, reach: float = 0.0) -> None:
    true = np.array(face.box) / [256, 128, 256, 128]
    grown = reach * np.array([true[0] - true[2], true[1] - true[3], true[2] - true[0], true[3] - true[1]])
    assert np.abs(np.array(box) - np.clip(true + grown, 0, 1)).max() < 0.05


def test_from_the_left(miniature: Miniature) -> None:
    for reach in (0.0, 0.5):
        boxes = placed(miniature, [unknown(), unknown(), unknown()], image(TRIO.image), "left to right", reach)
        for box, face in zip(boxes, sorted(TRIO.faces, key=lambda face: face.box[0]), strict=True):
            assert_about(box, face, reach)


def test_who_was_skipped_keeps_their_face(miniature: Miniature) -> None:
    boxes = placed(miniature, [None, unknown(), None], image(TRIO.image), "left to right")
    assert_about(boxes[0], sorted(TRIO.faces, key=lambda face: face.box[0])[1])


def test_the_largest_first(miniature: Miniature) -> None:
    portrait = WORLD.sample(3).picture()
    both = np.concatenate([portrait.image, TRIO.image], axis=1)
    (box,) = placed(miniature, [unknown()], image(both), "largest first")
    assert box[2] < 128 / 384 and box[2] - box[0] > 0.1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_whoever_resembles_it_most(miniature: Miniature, order: tuple[int, ...]) -> None:
    faces = sorted(TRIO.faces, key=lambda face: face.box[0])
    people = [encode(image(TRIO.image), miniature.dynamicid, Choice("left to right", i)).identity for i in order]
    mirrored = image(TRIO.image[:, ::-1].copy())
    for box, index in zip(placed(miniature, people, image(TRIO.image), "most similar"), order, strict=True):
        assert_about(box, faces[index])
    for box, index in zip(placed(miniature, people[:2], mirrored, "most similar"), order[:2], strict=True):
        x0, _, x1, _ = box
        assert (x0 + x1) / 2 == pytest.approx(1 - (faces[index].box[0] + faces[index].box[2]) / 512, abs=0.05)


def test_what_does_not_go_is_told(miniature: Miniature) -> None:
    with pytest.raises(ValueError, match="3 faces for 4 people"):
        placed(miniature, [unknown()] * 4, image(TRIO.image), "left to right")
    with pytest.raises(ValueError, match=r"Person 1 .* remembers no face"):
        placed(miniature, [Identity(torch.zeros(4, 128), torch.zeros(4, 128), face=Face())], image(TRIO.image), "most similar")  # fmt: skip # noqa: E501
