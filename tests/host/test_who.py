"""Who Is Who on drawn people: everybody in a group is found, strangers are told apart."""

import pytest
import torch
from dynamicid_pack.dynamicid_core.host.encode import Choice, encode
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.identity import Identity, renamed
from dynamicid_pack.mini.world import World
from dynamicid_pack.nodes.who import CompareFaces
from torch import Tensor

WORLD = World(seed=9, held_out_people=True)
PAIR, OTHERS = (image for image in (WORLD.sample(number, 2).picture() for number in (1, 2)))


@pytest.fixture(scope="module")
def miniature() -> Miniature:
    return load_miniature()


def image(picture) -> Tensor:
    return torch.from_numpy(picture.image).float().div(255)[None]


def people(miniature: Miniature, picture=PAIR) -> dict[str, Identity]:
    """The two of a picture, the right one first."""
    found = [encode(image(picture), miniature.dynamicid, Choice("left to right", i)).identity for i in (1, 0)]
    return {f"person_{i}": renamed(person, name) for i, (person, name) in enumerate(zip(found, ("ann", "ben"), strict=True))}  # fmt: skip # noqa: E501


def test_people_find_themselves(miniature: Miniature) -> None:
    text, annotated, worst = CompareFaces.execute(image(PAIR), people(miniature), miniature.dynamicid).result
    assert worst > 0.9 and text.splitlines()[1].startswith("ann") and text.splitlines()[1].index("[") > 15
    changed = (annotated[0] - image(PAIR)[0]).abs().sum(-1) > 0.05
    assert changed[:, :128].any() and changed[:, 128:].any() and annotated.shape == (1, 128, 256, 3)


def test_strangers_match_badly_and_a_batch_tells_its_worst(miniature: Miniature) -> None:
    both = torch.cat([image(PAIR), image(OTHERS)])
    text, annotated, worst = CompareFaces.execute(both, people(miniature), miniature.dynamicid).result
    assert worst < 0.6 and "picture 2" in text and len(annotated) == 2


def test_without_a_face_there_is_no_match(miniature: Miniature) -> None:
    blank = torch.full((1, 64, 64, 3), 0.5)
    text, _, worst = CompareFaces.execute(blank, people(miniature), miniature.dynamicid).result
    assert worst == -1 and text == "No face was found."


def test_who_remembers_no_face_is_named(miniature: Miniature) -> None:
    someone = Identity(torch.zeros(4, 128), torch.zeros(4, 128), name="carl")
    with pytest.raises(ValueError, match=r"carl.* remembers no face"):
        CompareFaces.execute(image(PAIR), {"person_0": someone}, miniature.dynamicid)
    with pytest.raises(ValueError, match="at least one person"):
        CompareFaces.execute(image(PAIR), {"person_0": None}, miniature.dynamicid)
