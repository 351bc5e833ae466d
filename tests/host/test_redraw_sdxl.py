"""Redraw People on SDXL: a small one of generated weights draws, the miniature's face pack and VAE see."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from torch import Tensor

from . import tiny
from .room import PAIR, Room, changed, picture, rows
from .stage import Stage, conditioning

BASE = "SDXL"
"""What the stage draws with."""


@pytest.fixture(name="sdxl")
def room_of_sdxl(room: Room, stage: Stage) -> Room:
    """The room with SDXL's model and prompts; ann and ben are known by their faces, their tokens are generated."""
    people = []
    for seed, person in enumerate(room.people, start=1):
        tokens = tiny.identity_tensors(seed)
        people.append(Identity(tokens["tokens"], tokens["negative_tokens"], face=person.face, name=person.name))
    dynamicid = replace(stage.dynamicid, load_faces=lambda: room.mini.dynamicid.faces, size=72)
    mini = replace(room.mini, model=stage.model, dynamicid=dynamicid)
    return Room(mini, people, {"positive": conditioning("p"), "negative": conditioning("n")})


def where_faces_are(image: Tensor) -> list[slice]:
    """The columns of each face, from the left."""
    assert image.shape[2] == PAIR.image.shape[1]
    return [slice(int(face.box[0]), int(face.box[2])) for face in sorted(PAIR.faces, key=lambda face: face.box[0])]


def test_faces_are_redrawn_and_the_rest_stays_to_the_bit(sdxl: Room) -> None:
    before = picture(PAIR)
    after, report, _ = sdxl.redraw(before)
    assert {name: row[0] for name, row in rows(report).items()} == {"ann": "1", "ben": "2"}
    here = changed(after, before)
    assert all(here[columns].all() for columns in where_faces_are(before)) and not here[:4].any()
    assert torch.equal(after, sdxl.redraw(before)[0]) and torch.isfinite(after).all()
    assert not torch.equal(after, sdxl.redraw(before, seed=4)[0])


def test_who_is_drawn_and_how_strongly_changes_their_own_face_alone(sdxl: Room) -> None:
    """Set against somebody else's tokens behind the same face."""
    before = picture(PAIR)
    after, _, _ = sdxl.redraw(before)
    other = replace(sdxl.people[1], tokens=tiny.identity_tensors(3)["tokens"])
    changed_tokens, _, _ = sdxl.redraw(before, [sdxl.people[0], other])
    difference = changed(changed_tokens, after)
    left, right = where_faces_are(before)
    assert not difference[left].any() and difference[right].all()


def test_the_squares_have_the_base_models_own_size(sdxl: Room, handed: list[dict[str, Any]]) -> None:
    sdxl.redraw(picture(PAIR))
    assert [run["latent"]["samples"].shape for run in handed] == [(1, 4, 9, 9)] * 2
    assert all(run["positive"][0][1].keys() == {"pooled_output"} for run in handed), "what SDXL reads stays"


def test_nothing_to_do_leaves_the_picture_to_the_bit(sdxl: Room, warnings: list[str]) -> None:
    before, blank = picture(PAIR), torch.full((1, 64, 96, 3), 0.5)
    assert torch.equal(sdxl.redraw(before, denoise=0.0)[0], before)
    assert torch.equal(sdxl.redraw(blank)[0], blank) and "no face is left for ann, ben" in warnings.pop()


def test_a_model_that_the_weights_are_not_for_is_named(sdxl: Room, kept: Room) -> None:
    with pytest.raises(ValueError, match=r"SD1\.5|SDXL|adapter"):
        sdxl.redraw(picture(PAIR), model=kept.mini.model)
    with pytest.raises(ValueError, match=r"SD1\.5|SDXL|adapter"):
        kept.redraw(picture(PAIR), model=sdxl.mini.model)
