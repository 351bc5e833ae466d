"""What Redraw People hands to the host's sampler: one person at full strength, and a square's share of everything."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from comfy.controlnet import T2IAdapter
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host.apply import KEY
from dynamicid_pack.dynamicid_core.host.redraw import Redraw, RedrawSettings, Sampling
from dynamicid_pack.dynamicid_core.identity.assignment import NO_MATCH
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.redraw.crops import FaceCrop, face_crops
from dynamicid_pack.dynamicid_core.saa.regions import Region, columns
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from torch import Tensor

from .probe import lora_strengths
from .room import OTHERS, PAIR, Room, changed, picture, rows

Runs = list[dict[str, Any]]


def boxes_of(room: Room, image: Tensor) -> list[Box]:
    """The faces as the face pack finds them, from left to right."""
    (pixels,) = image.mul(255).round().byte().numpy()
    return sorted((face.box for face in room.mini.dynamicid.faces.detect(pixels)), key=lambda box: box.x0)


def crops(room: Room, image: Tensor) -> list[FaceCrop]:
    height, width = image.shape[1:3]
    return face_crops(boxes_of(room, image), height, width, room.widgets["margin"], room.widgets["feather"])


def scene_of(run: dict[str, Any]) -> list[Placement]:
    return list(run["model"].get_attachment(KEY).scene)


def test_each_is_drawn_alone_everywhere_at_full_strength_and_as_the_weights_ask(room: Room, handed: Runs) -> None:
    left, right = columns(2)
    ann, ben = room.people
    gentle = replace(room.mini.dynamicid, layout_steps=7)
    assert gentle.lora_for(2).middle == 0, "what groups take is not what is taken here"
    people = [(Placement(ann, left, 0.7, 0.1, 0.9), Placement(ben, right))]
    room.redraw(picture(PAIR), people, dynamicid=gentle, cfg=3.5, scheduler="karras", sampler_name="euler", steps=7)
    assert [[person.identity.name for person in scene_of(run)] for run in handed] == [["ann"], ["ben"]]
    (first,), (second,) = map(scene_of, handed)
    assert first.region.is_whole and second.region.is_whole
    assert (first.weight, first.start_at, first.end_at, second.weight) == (0.7, 0.1, 0.9, 1.0)
    for run in handed:
        settings = run["model"].get_attachment(KEY).settings
        assert settings.layout_steps == 7 and settings.gate
        assert lora_strengths(run["model"]) == ({1.0}, {1.0})
        told = {name: run[name] for name in ("steps", "cfg", "sampler", "scheduler", "denoise")}
        assert told == {"steps": 7, "cfg": 3.5, "sampler": "euler", "scheduler": "karras", "denoise": 0.8}


@pytest.mark.parametrize(("size", "cells"), [(0, 16), (92, 12), (3, 1)])
def test_a_square_is_drawn_at_the_size_that_is_asked_for_in_whole_cells(
    room: Room, handed: Runs, size: int, cells: int
) -> None:
    room.redraw(picture(PAIR), size=size)
    assert [run["latent"]["samples"].shape[-2:] for run in handed] == [(cells, cells)] * 2


def test_what_is_not_pasted_is_not_drawn_either(room: Room, handed: Runs) -> None:
    before = picture(PAIR)
    room.redraw(before)
    for run, crop in zip(handed, crops(room, before), strict=True):
        mask = run["latent"]["noise_mask"]
        assert torch.equal(mask, (crop.mask > 0).float()[None])
        side = mask.shape[-1]
        assert mask[0, side // 2, side // 2] == 1 and 0.2 < float(mask.mean()) < 0.9


def test_the_square_holds_its_own_face_as_it_is_in_the_image(room: Room, handed: Runs) -> None:
    before = picture(PAIR)
    room.redraw(before, size=128)
    for run, crop in zip(handed, crops(room, before), strict=True):
        x, y, side = crop.square.x, crop.square.y, crop.square.side
        seen = room.mini.vae.decode(run["latent"]["samples"]).reshape(1, 128, 128, 3)
        small = torch.nn.functional.interpolate(seen.movedim(-1, 1), (side, side), mode="area")[0].movedim(0, -1)
        assert float((small - before[0, y : y + side, x : x + side]).abs().mean()) < 0.06
        elsewhere = before.flip(2)[0, y : y + side, x : x + side]
        assert float((small - elsewhere).abs().mean()) > 0.1


def test_hints_and_masks_are_cut_to_each_face_for_both_prompts(room: Room, handed: Runs) -> None:
    """A hint that says where each of its pixels lies; a negative prompt for either half and each picture."""
    across = torch.linspace(0, 1, 256).expand(1, 3, 128, 256).clone()
    adapter = T2IAdapter(None, 3, 8, "nearest-exact", torch.device("cpu")).set_cond_hint(across, 0.7)
    text = torch.zeros(1, 7, 128)
    left, right = (region.rasterize(16, 32) for region in columns(2))
    turns = [[text + 1, {"mask": torch.stack([left, right])}], [text + 2, {"mask": torch.stack([right, left])}]]
    before = picture(PAIR).expand(2, -1, -1, -1)
    room.redraw(before, positive=[[text, {"control": adapter}]], negative=turns)
    assert [[int(one[0][0, 0, 0]) for one in run["negative"]] for run in handed] == [[1], [2], [2], [1]]
    for run, crop in zip(handed, crops(room, before[:1]) * 2, strict=True):
        hint = run["positive"][0][1]["control"].cond_hint_original
        window = crop.window(128, 256)
        assert hint.shape[-1] == crop.square.side
        assert float(hint.min()) == pytest.approx(window.x0, abs=0.01)
        assert float(hint.max()) == pytest.approx(window.x1, abs=0.01)


def test_places_may_change_from_picture_to_picture(room: Room, handed: Runs) -> None:
    left, right = (region.rasterize(8, 16) for region in columns(2))
    wanders = Placement(room.people[0], Region(mask=torch.stack([left, right])))
    room.redraw(picture(PAIR).expand(2, -1, -1, -1), [(wanders,)])
    assert len(handed) == 2
    latents = [run["latent"]["samples"] for run in handed]
    assert not torch.equal(*latents)
    for number, crop in enumerate(crops(room, picture(PAIR))):
        assert torch.equal(handed[number]["latent"]["noise_mask"], (crop.mask > 0).float()[None])


def test_overlapping_squares_leave_the_neighbors_half_alone(room: Room, handed: Runs) -> None:
    before = picture(PAIR)
    after, _, _ = room.redraw(before, room.people[1:], margin=3.0, feather=0.0)
    left, right = boxes_of(room, before)
    middle = (left.x1 + right.x0) / 2
    here = changed(after, before)
    assert not here[: int(middle)].any() and here[int(middle) + 1 : int(right.x1)].all()
    (run,) = handed
    assert run["latent"]["noise_mask"].shape[-1] == 128, "the square is as high as the image"


@pytest.fixture(name="redraw", scope="module")
def redraw_for_all_tests(kept: Room) -> Redraw:
    sampling = Sampling((), (), 0, 1, 1.0, "ddim", "ddim_uniform", 1.0)
    scene = [Placement(person, Region()) for person in kept.people]
    scene.append(Placement(Identity(scene[0].identity.tokens, scene[0].identity.negative_tokens), Region()))
    settings = RedrawSettings(0, 0.4, 0.1, 1.0, 1)
    return Redraw(kept.mini.model, kept.mini.vae, kept.mini.dynamicid, scene, sampling, settings)


def test_a_drawing_is_judged_by_the_face_in_the_old_ones_place(kept: Room, redraw: Redraw) -> None:
    before = picture(PAIR)[0]
    _, faces = redraw._faces(before)
    look = partial(redraw._look, before)
    for person in (0, 1):
        own, count = look(faces[person], person)
        other, _ = look(faces[1 - person], person)
        assert own is not None and other is not None and own > 0.95 > 0.6 > other and count == 2
    assert look(faces[0], 2) == (None, 2), "without an embedding nothing is measured"


def test_a_face_that_is_gone_is_no_match_whoever_else_is_there(redraw: Redraw) -> None:
    drawn = picture(PAIR)[0].clone()
    _, faces = redraw._faces(drawn)
    drawn[:, :128] = 0.5
    assert redraw._look(drawn, faces[0], 0) == (NO_MATCH, 1)


def test_pictures_with_transparency_and_gray_ones_are_taken(room: Room, handed: Runs) -> None:
    before = torch.cat([picture(OTHERS), torch.ones(1, 128, 256, 1)], dim=-1)
    after, report, _ = room.redraw(before)
    assert after.shape == (1, 128, 256, 3) and len(handed) == 2 == len(rows(report))
