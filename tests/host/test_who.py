"""Who Is Who on drawn people: everybody in a group is found, strangers are told apart."""

from dataclasses import replace

import pytest
import torch
from dynamicid_pack.dynamicid_core.host.encode import Choice, encode
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.identity.encoding import ENCODINGS
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.mini.world.caption import CaptionSpec, PersonSpec
from dynamicid_pack.mini.world.composition import compose
from dynamicid_pack.mini.world.render import render
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.nodes.who_is_who import WhoIsWho
from torch import Tensor

WORLD = World(seed=9, held_out_people=True)
PAIR, OTHERS = (image for image in (WORLD.sample(number, 2).picture() for number in (1, 2)))


@pytest.fixture(scope="module")
def miniature() -> Miniature:
    return load_miniature()


def image(picture) -> Tensor:
    return torch.from_numpy(picture.image).float().div(255)[None]


def people(miniature: Miniature, order: tuple[int, int] = (0, 1)) -> dict[str, Identity]:
    """The two of PAIR, ann from its left, ben from its right; wired in this order."""
    identities = [
        replace(encode(image(PAIR), miniature.dynamicid, Choice("left to right", i)).identity, name=name)
        for i, name in enumerate(("ann", "ben"))
    ]
    return {f"person_{place}": identities[i] for place, i in enumerate(order)}


def test_people_find_themselves(miniature: Miniature) -> None:
    text, annotated, worst = WhoIsWho.execute(image(PAIR), people(miniature), miniature.dynamicid).result
    assert worst > 0.9 and [line.split()[:2] for line in text.splitlines()[1:3]] == [["ann", "[1.00]"], ["ben", "0.10"]]
    assert "place" not in text
    changed = (annotated[0] - image(PAIR)[0]).abs().sum(-1) > 0.05
    assert changed[:, :128].any() and changed[:, 128:].any() and annotated.shape == (1, 128, 256, 3)


def test_strangers_match_badly_and_a_batch_tells_its_worst(miniature: Miniature) -> None:
    both = torch.cat([image(PAIR), image(OTHERS)])
    text, annotated, worst = WhoIsWho.execute(both, people(miniature), miniature.dynamicid).result
    assert worst < 0.6 and "picture 2" in text and len(annotated) == 2


def test_who_was_encoded_for_other_weights_is_told(miniature: Miniature, caplog: pytest.LogCaptureFixture) -> None:
    """Their faces were embedded in another channel order, so likeness reads less."""
    two = people(miniature)
    two["person_1"] = replace(two["person_1"], encoding=ENCODINGS["FaceID"])
    WhoIsWho.execute(image(PAIR), two, miniature.dynamicid)
    assert "ben: encoded for FaceID (BGR), compared as for DynamicID (RGB)" in caplog.text and "ann" not in caplog.text


def test_without_a_face_there_is_no_match(miniature: Miniature) -> None:
    blank = torch.full((1, 64, 64, 3), 0.5)
    text, _, worst = WhoIsWho.execute(blank, people(miniature), miniature.dynamicid).result
    assert worst == -1 and text == "No face was found."


def test_who_remembers_no_face_is_named(miniature: Miniature) -> None:
    someone = Identity(torch.zeros(4, 128), torch.zeros(4, 128), name="carl")
    with pytest.raises(ValueError, match=r"carl.* remembers no face"):
        WhoIsWho.execute(image(PAIR), {"person_0": someone}, miniature.dynamicid)
    with pytest.raises(ValueError, match="at least one person"):
        WhoIsWho.execute(image(PAIR), {"person_0": None}, miniature.dynamicid)


def test_people_in_each_others_places_are_told(miniature: Miniature) -> None:
    """Whom Apply DynamicID was given in this order stand in columns in this order."""
    text, _, worst = WhoIsWho.execute(image(PAIR), people(miniature, (1, 0)), miniature.dynamicid).result
    assert worst > 0.9
    assert "ben stands in ann's place" in text and "ann stands in ben's place" in text


def test_other_pictures_of_the_same_people_name_them(miniature: Miniature) -> None:
    right = shown = 0
    for number in range(4):
        group = World(seed=40, held_out_people=True).sample(number, 2 + number % 2).picture()
        everybody = {}
        for i, face in enumerate(sorted(group.faces, key=lambda face: face.box[0])):
            look = PersonSpec(expression="neutral", view="in front view")
            portrait = render(compose(CaptionSpec((look,)), (face.person,), 7 + number))
            everybody[f"person_{i}"] = encode(image(portrait), miniature.dynamicid).identity
        text, _, worst = WhoIsWho.execute(image(group), everybody, miniature.dynamicid).result
        right += len(everybody) - text.count("stands in") - text.count("no face is left")
        shown += len(everybody)
        assert worst > 0.7
    assert right == shown == 10
