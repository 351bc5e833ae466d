"""What CLIP sees of a photograph: the whole, or the face alone where others, or little, would be seen of it."""

from dataclasses import replace

import comfy.sample
import pytest
import torch
from dynamicid_pack.dynamicid_core.host.encode import AUTO, FACE, WHOLE, Choice, Encoded, encode
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.mini.world.composition import Scene
from dynamicid_pack.mini.world.render import render
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.nodes.apply import Apply
from torch import Tensor

from .bench import Bench

WORLD, LARGEST = World(seed=9, held_out_people=True), Choice()


@pytest.fixture(scope="module")
def miniature() -> Miniature:
    return load_miniature()


def shown(scene: Scene) -> Tensor:
    return torch.from_numpy(render(scene).image).float().div(255)[None]


def group(number: int = 1, count: int = 2) -> Tensor:
    return shown(WORLD.sample(number, count).scene)


def portrait(scale: float = 1.0, x: float = 0.5, width: int = 512, height: int = 512) -> Tensor:
    """(1, height, width, 3): one person, the head so many times as large as in the world's portraits, at x of it."""
    scene = WORLD.sample(7).scene
    figure = scene.figures[0]
    figure = replace(figure, x=x * width, y=height / 2, scale=figure.scale * min(width, height) / 128 * scale)
    return shown(replace(scene, width=width, height=height, figures=(figure,)))


def assert_sees(miniature: Miniature, image: Tensor, crop: str, *words: str, choice: Choice = LARGEST) -> None:
    """Auto makes the identity that this crop makes, and says so in these words, or nothing."""
    expected = encode(image, miniature.dynamicid, choice, crop).identity
    encoded = encode(image, miniature.dynamicid, choice, AUTO)
    assert torch.equal(encoded.identity.tokens, expected.tokens)
    assert len(encoded.notes) == bool(words)
    for word in words:
        assert word in encoded.notes[0]


@pytest.mark.parametrize(("width", "height"), [(512, 512), (512, 700), (700, 512)])
def test_auto_sees_the_whole_of_a_portrait(miniature: Miniature, width: int, height: int) -> None:
    assert_sees(miniature, portrait(width=width, height=height), WHOLE)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("count", [2, 3])
def test_auto_sees_the_chosen_face_of_a_group(miniature: Miniature, count: int, index: int) -> None:
    choice = Choice("left to right", index)
    assert_sees(
        miniature, group(count=count), FACE, f"{count} faces are in this picture", "not the others", choice=choice
    )


def test_auto_sees_a_small_face_alone(miniature: Miniature) -> None:
    assert_sees(miniature, portrait(0.3), FACE, "the face is small", "CLIP sees it alone")


@pytest.mark.parametrize("x", [0.12, 0.88])
def test_auto_sees_a_face_alone_that_clips_centered_square_would_cut_off(miniature: Miniature, x: float) -> None:
    assert_sees(miniature, portrait(x=x, width=1024), FACE, "at the edge")


def test_the_whole_of_a_group_is_told_of(miniature: Miniature) -> None:
    (note,) = encode(group(), miniature.dynamicid, crop=WHOLE).notes
    assert "2 faces" in note and "partly the others" in note and "auto or face" in note
    (note,) = encode(group(), miniature.dynamicid, crop=FACE).notes
    assert "2 faces" in note and "partly" not in note
    assert encode(portrait(), miniature.dynamicid, crop=WHOLE).notes == []


def test_each_picture_of_a_batch_is_seen_as_it_needs(miniature: Miniature) -> None:
    alone = torch.nn.functional.pad(portrait()[:, ::4, ::4], (0, 0, 64, 64))  # as wide as the group's
    encoded = encode(torch.cat([alone, group()]), miniature.dynamicid, crop=AUTO)
    assert [note[:33] for note in encoded.notes] == ["picture 2 of 2: 2 faces are in thi"[:33]]


def test_the_same_picture_is_told_of_each_time(miniature: Miniature) -> None:
    """What was encoded is remembered, and so are its words."""
    first, again = (encode(group(5), miniature.dynamicid, crop=AUTO) for _ in range(2))
    assert first.notes == again.notes and first.notes


def test_graphs_that_leave_crop_out_mean_the_whole_picture(bench: Bench) -> None:
    """The node's own default is auto: a new node has it; graphs in the API's format that were saved before don't."""
    left_out, whole, auto = (
        bench.run("DynamicIDEncode", crop=crop).values[0] for crop in (..., "whole picture", "auto")
    )
    assert torch.equal(left_out.tokens, whole.tokens)
    assert not torch.equal(auto.tokens, whole.tokens)
    assert any("2 faces" in note for note in bench.run("DynamicIDEncode", crop=...).notes)


def likeness(miniature: Miniature, crop: str, pictures: int) -> tuple[float, float]:
    """Mean similarity of drawings of the left person of a group to that person, and to the other one."""

    def embedding(image: Tensor) -> Tensor:
        result: Encoded = encode(image, miniature.dynamicid)
        assert result.identity.face is not None and result.identity.face.embedding is not None
        return result.identity.face.embedding

    prompts = [
        miniature.clip.encode_from_tokens_scheduled(miniature.clip.tokenize(text))
        for text in ("a portrait of a person, in a park", "")
    ]
    similarities = []
    for number in range(pictures):
        scene = WORLD.sample(number, 2).scene
        identity = encode(shown(scene), miniature.dynamicid, Choice("left to right", 0), crop).identity
        (model,) = Apply.execute(miniature.model, miniature.dynamicid, {"person_0": identity}, 1.0).args
        latent = torch.zeros(1, 4, 16, 16)
        noise = comfy.sample.prepare_noise(latent, number)
        drawn = comfy.sample.sample(model, noise, 12, 4.0, "euler", "normal", *prompts, latent, seed=number)
        face = embedding(miniature.vae.decode(drawn))
        people = [
            shown(replace(scene, width=128, figures=(replace(figure, x=64.0, scale=26.0),))) for figure in scene.figures
        ]
        similarities.append([float(face @ embedding(person)) for person in people])
    own, other = torch.tensor(similarities).mean(0).tolist()
    return own, other


@pytest.mark.full
def test_a_person_of_a_group_is_drawn_as_themselves(miniature: Miniature) -> None:
    whole, auto = (likeness(miniature, crop, 12) for crop in (WHOLE, AUTO))
    print(f"likeness to oneself and to the other: {whole} of the whole picture, {auto} with auto")
    assert auto[0] > whole[0] + 0.1 and auto[1] < whole[1]


def test_several_faces_of_a_driving_picture_are_told_of(bench: Bench) -> None:
    assert any(
        "2 faces are in driving_image" in note for note in bench.run("DynamicIDEditMotion", driving_image=group()).notes
    )
    assert not any("faces" in note for note in bench.run("DynamicIDEditMotion", driving_image=portrait()).notes)
