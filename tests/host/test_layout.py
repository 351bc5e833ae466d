"""Auto Layout by the faces of a picture: each person's region lies about the face that is meant."""

from typing import Any

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host.encode import Choice, encode
from dynamicid_pack.dynamicid_core.host.layout import FACES
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.identity.faces import Face
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.regions import regions_about
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.nodes.layout import AutoLayout
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


def assert_about(box: tuple, face) -> None:
    assert np.abs(np.array(box) - np.array(face.box) / [256, 128, 256, 128]).max() < 0.05


def test_from_the_left(miniature: Miniature) -> None:
    boxes = placed(miniature, [unknown(), unknown(), unknown()], image(TRIO.image), "left to right")
    for box, face in zip(boxes, sorted(TRIO.faces, key=lambda face: face.box[0]), strict=True):
        assert_about(box, face)


@pytest.mark.parametrize("reach", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_regions_cover_their_faces_and_no_others(miniature: Miniature, count: int, reach: float) -> None:
    for number in range(3):
        picture = WORLD.sample(number, count).picture()
        height, width = picture.image.shape[:2]
        boxes = np.array(placed(miniature, [unknown()] * count, image(picture.image), "left to right", reach))
        for box, face in zip(boxes, sorted(picture.faces, key=lambda face: face.box[0]), strict=True):
            true = np.array(face.box) / [width, height, width, height]
            off = 0.06 if reach == 0 else 0.0  # what a detector's box differs by
            assert (box[:2] <= true[:2] + off).all() and (box[2:] >= true[2:] - off).all()
        assert (boxes[1:, 0] >= boxes[:-1, 2] - 1e-6).all()


def test_faces_one_above_the_other_are_parted_between_them() -> None:
    faces = [Box(0.40, 0.10, 0.60, 0.30), None, Box(0.44, 0.50, 0.64, 0.70)]
    first, none, second = (region.box for region in regions_about(faces, 1.0))
    assert none == (0, 0, 0, 0)
    assert first == pytest.approx((0.2, 0.0, 0.8, 0.4)) and second == pytest.approx((0.24, 0.4, 0.84, 0.9))


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


def test_too_few_faces_leave_people_absent_and_too_many_are_told(
    miniature: Miniature, caplog: pytest.LogCaptureFixture
) -> None:
    people = [unknown() for _ in range(5)]
    for order in ("left to right", "largest first"):
        boxes = placed(miniature, people, image(TRIO.image), order)
        assert [box[2] > box[0] for box in boxes] == [True, True, True, False, False]
    assert "will be absent" in caplog.text
    placed(miniature, people[:1], image(TRIO.image), "left to right")
    assert "2 of the picture's faces belong to nobody" in caplog.text


def test_who_remembers_no_face_is_not_compared(miniature: Miniature) -> None:
    stranger = Identity(torch.zeros(4, 128), torch.zeros(4, 128), face=Face())
    with pytest.raises(ValueError, match=r"Person 1 .* remembers no face"):
        placed(miniature, [stranger], image(TRIO.image), "most similar")


def boxed(miniature: Miniature, people: list, boxes: list, **connected: Any) -> list[Identity]:
    layout = {"layout": "boxes", "boxes": boxes, "picture_width": 256, "picture_height": 128} | connected
    scene, _, _ = AutoLayout.execute({f"person_{i}": person for i, person in enumerate(people)}, layout).result
    return [placement.identity for placement in scene]


LEFT, RIGHT = [0, 0, 1000, 500], [0, 500, 1000, 1000]


@pytest.mark.parametrize("kind", ["elements", "boxes"])
def test_what_is_written_at_a_box_is_its_persons_expression(miniature: Miniature, kind: str) -> None:
    boxes: list[dict[str, Any]] = [{"bbox": LEFT, "desc": " Happy "}, {"bbox": RIGHT, "desc": ""}]
    if kind == "boxes":
        boxes = [
            {"x": 0, "y": 0, "width": 128, "height": 128, "metadata": {"desc": "happy"}},
            {"x": 128, "y": 0, "width": 128, "height": 128, "metadata": {}},
        ]
    people = [unknown(), unknown()]
    happy, other = boxed(miniature, people, boxes, clip=miniature.clip, dynamicid=miniature.dynamicid)
    assert happy.face_prompt == "in a happy expression, in front view"
    assert other is people[1]


def test_several_words_at_a_box_are_a_prompt(miniature: Miniature) -> None:
    boxes: list[dict[str, Any]] = [{"bbox": LEFT, "desc": "laughing, facing up"}]
    (person,) = boxed(miniature, [unknown()], boxes, clip=miniature.clip, dynamicid=miniature.dynamicid)
    assert person.face_prompt == "laughing, facing up"


def test_who_was_skipped_gets_no_expression(miniature: Miniature) -> None:
    boxes: list[dict[str, Any]] = [{"bbox": LEFT, "desc": "happy"}, {"bbox": RIGHT, "desc": "sad"}]
    (sad,) = boxed(miniature, [None, unknown()], boxes, clip=miniature.clip, dynamicid=miniature.dynamicid)
    assert "sad" in sad.face_prompt


def test_expressions_that_cannot_be_given_are_told(miniature: Miniature, caplog: pytest.LogCaptureFixture) -> None:
    person = unknown()
    assert boxed(miniature, [person], [{"bbox": LEFT, "desc": "happy"}]) == [person]
    assert "(happy)" in caplog.text and "connect clip and dynamicid" in caplog.text
