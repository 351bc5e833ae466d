"""Redraw People in the real host, on drawn people: who is redrawn where, what stays, and what it costs."""

from dataclasses import replace
from typing import Any

import comfy.lora
import comfy.model_management
import pytest
import torch
from comfy.controlnet import T2IAdapter
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host.redraw import Redraw
from dynamicid_pack.dynamicid_core.identity.assignment import NO_MATCH
from dynamicid_pack.dynamicid_core.identity.curve import curve_of
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.redraw.conditioning import cut_conditioning
from dynamicid_pack.dynamicid_core.saa.regions import Region, columns
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.nodes.apply import Apply
from torch import Tensor

from .room import OTHERS, PAIR, Room, changed, picture, rows


def test_each_face_is_redrawn_and_the_rest_stays_to_the_bit(room: Room) -> None:
    before = picture(PAIR)
    after, report, both = room.redraw(before)
    assert after.shape == before.shape and both.shape == (1, 256, 256, 3), "wide pictures one above the other"
    outside = torch.ones(128, 256, dtype=torch.bool)
    for face in PAIR.faces:
        side = (0.5 + room.widgets["margin"]) * max(face.box[2] - face.box[0], face.box[3] - face.box[1]) + 6
        x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        square = [max(0, int(edge)) for edge in (x - side, y - side, x + side, y + side)]
        outside[square[1] : square[3], square[0] : square[2]] = False
        inside = tuple(round(edge) for edge in face.box)
        assert float((after - before)[0, inside[1] : inside[3], inside[0] : inside[2]].abs().mean()) > 0.01
    assert int(outside.sum()) > 1000 and torch.equal(after[0][outside], before[0][outside])
    assert {name: row[0] for name, row in rows(report).items()} == {"ann": "1", "ben": "2"}
    again = room.redraw(before)[0]
    assert torch.equal(after, again), "the same seed gives the same picture"
    assert not torch.equal(after, room.redraw(before, seed=4)[0])


def test_denoise_0_gives_the_picture_to_the_bit_and_needs_nothing(kept: Room) -> None:
    before = torch.rand(2, 50, 70, 3)
    blind = replace(kept.mini.dynamicid, load_faces=None)
    after, report, _ = kept.redraw(before, denoise=0.0, dynamicid=blind)
    assert torch.equal(after, before) and "denoise 0" in report


def test_only_what_is_better_is_kept(kept: Room) -> None:
    """One step draws nobody: the faces that came are the people's own."""
    before = picture(PAIR)
    after, report, _ = kept.redraw(before, steps=1, denoise=0.9)
    assert torch.equal(after, before) and report.count("as it was") == 2
    assert all(float(row[1]) > 0.95 and row[1] == row[2] for row in rows(report).values())


def test_without_a_face_the_picture_stays_and_it_is_told(kept: Room, warnings: list[str]) -> None:
    blank = torch.full((1, 64, 96, 3), 0.5)
    after, report, _ = kept.redraw(blank)
    assert torch.equal(after, blank) and report == "No face was found."
    assert "no face is left for ann, ben" in warnings.pop()


def test_more_people_than_faces_and_more_faces_than_people(room: Room, warnings: list[str]) -> None:
    carl = Identity(room.people[0].tokens, room.people[0].negative_tokens, name="carl")
    before = picture(PAIR)
    _, report, _ = room.redraw(before, [*room.people, carl])
    assert rows(report)["carl"][0] == "-" and "no face is left for carl" in warnings.pop()
    after, report, _ = room.redraw(before, [room.people[1]])
    assert not changed(after, before)[:100].any() and changed(after, before)[140:].any()
    assert "left as they were: 1" in report


def test_who_gets_which_face(room: Room) -> None:
    before, (ann, ben) = picture(PAIR), room.people
    faces = {name: row[0] for name, row in rows(room.redraw(before, [ben, ann])[1]).items()}
    assert faces == {"ann": "1", "ben": "2"}, "by likeness"
    left, right = columns(2)
    placed = [(Placement(ann, right), Placement(ben, left))]
    faces = {name: row[0] for name, row in rows(room.redraw(before, placed)[1]).items()}
    assert faces == {"ann": "2", "ben": "1"}, "by region"


def test_who_cant_be_measured_goes_by_order_and_is_drawn_once(kept: Room, runs: list[dict[str, Any]]) -> None:
    ann, ben = kept.people
    mixed = Identity(ben.tokens, ben.negative_tokens, name="mixed")
    _, report, _ = kept.redraw(picture(PAIR), [mixed, ann], only_below=0.5, passes=3, denoise=0.3)
    assert rows(report) == {"mixed": ["2", "?", "?", "1"], "ann": ["1", *rows(report)["ann"][1:3], "0"]}
    assert "not measurable" in report and len(runs) == 1


def test_only_below_and_passes_choose_who_is_drawn_how_often(
    kept: Room, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = picture(PAIR)
    assert torch.equal(kept.redraw(before, only_below=0.5, passes=3)[0], before) and not runs
    looks = iter([(0.3, 2), (0.5, 2), (0.4, 2), (0.9, 3), (NO_MATCH, 1), (0.7, 2)])
    drafts: list[Tensor] = []
    monkeypatch.setattr(Redraw, "_look", lambda self, drawn, *_: (drafts.append(drawn), next(looks))[1])
    monkeypatch.setattr(Redraw, "_similarity", lambda self, faces: torch.tensor([[0.31, 0.0], [0.0, 0.95]]).numpy())
    after, report, _ = kept.redraw(before, only_below=0.65, passes=6)
    assert rows(report)["ann"] == ["1", "0.31", "0.70", "6"] and rows(report)["ben"] == ["2", "0.95", "0.95", "0"]
    assert len({run["seed"] for run in runs}) == 6 and runs[0]["seed"] == 3
    assert torch.equal(after[0], drafts[-1]) and not torch.equal(drafts[-1], drafts[1])


@pytest.mark.parametrize("where", ["border", "overlap", "odd", "small"])
def test_faces_at_the_border_squares_that_overlap_and_sizes_of_all_kinds(room: Room, where: str) -> None:
    before = picture(PAIR)
    changes: dict[str, Any] = {}
    if where == "border":
        left = int(min(face.box[0] for face in PAIR.faces)) + 4
        before = before[:, :, left:]
    elif where == "overlap":
        changes = {"margin": 3.0}
    elif where == "odd":
        before = before[:, 3:, 5:252]
        changes = {"size": 92}
    else:
        before = torch.nn.functional.interpolate(before.movedim(-1, 1), (77, 155), mode="area").movedim(1, -1)
    after, report, _ = room.redraw(before, **changes)
    assert after.shape == before.shape and torch.isfinite(after).all() and float(after.min()) >= 0
    assert [row[3] for row in rows(report).values()] == ["1", "1"]
    assert changed(after, before)[: before.shape[2] // 2].any() and changed(after, before)[before.shape[2] // 2 :].any()


def test_nobody_and_people_without_weight_leave_the_picture_alone(
    kept: Room, runs: list[dict[str, Any]], warnings: list[str]
) -> None:
    before = picture(PAIR)
    after, report, _ = kept.redraw(before, [None])
    assert torch.equal(after, before) and report == "Nobody is left to redraw."
    assert "the picture passes through unchanged" in warnings.pop()
    after, report, _ = kept.redraw(before, [(Placement(kept.people[0], Region(), weight=0.0),)])
    assert torch.equal(after, before) and "weight 0" in report and not runs
    with pytest.raises(ValueError, match="Redraw People needs at least one person"):
        kept.redraw(before, [])


def test_every_picture_of_a_batch_is_redrawn_with_its_own_seed(room: Room, runs: list[dict[str, Any]]) -> None:
    batch = torch.cat([picture(PAIR), picture(OTHERS)])
    after, report, both = room.redraw(batch, passes=2)
    assert "picture 1" in report and "picture 2" in report and len(both) == 2
    assert [run["seed"] for run in runs] == [3, 3, 4, 4, 5, 5, 6, 6]
    assert all(not torch.equal(one, other) for one, other in zip(after, batch, strict=True))


def test_the_lora_is_merged_once_for_all_faces_passes_and_runs(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    merged: list[str] = []
    original = comfy.lora.calculate_weight

    def counted(patches: Any, weight: Tensor, key: str, *args: Any, **kwargs: Any) -> Tensor:
        merged.append(key)
        return original(patches, weight, key, *args, **kwargs)

    monkeypatch.setattr(comfy.lora, "calculate_weight", counted)
    comfy.model_management.unload_all_models()
    room.redraw(picture(PAIR), passes=2)
    assert merged and len(merged) == len(set(merged)), "each weight once for four drawings"
    merged.clear()
    room.redraw(picture(OTHERS), room.people[:1], seed=9)
    assert not merged, "another person, picture and seed merge nothing"


def test_an_interruption_ends_it_at_once(
    room: Room, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = comfy.model_management.InterruptProcessingException
    original = comfy.model_management.throw_exception_if_processing_interrupted
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(stop):
        room.redraw(picture(PAIR))
    assert not runs and original() is None, "it is raised once"

    def after_the_first_face(self: Any, *_: Any) -> tuple[float, int]:
        comfy.model_management.interrupt_current_processing(True)
        return 2.0, 0

    monkeypatch.setattr(Redraw, "_look", after_the_first_face)
    with pytest.raises(stop):
        room.redraw(picture(PAIR))
    assert len(runs) == 1


def test_the_model_of_apply_dynamicid_is_refused(kept: Room) -> None:
    applied = Apply.execute(kept.mini.model, kept.mini.dynamicid, {"person_0": kept.people[0]}, 1.0).args[0]
    with pytest.raises(ValueError, match="Connect the model from before Apply DynamicID"):
        kept.redraw(picture(PAIR), model=applied)


def test_a_persons_own_prompt_goes_alone_and_the_surroundings_stay(room: Room, runs: list[dict[str, Any]]) -> None:
    left, right = (region.rasterize(16, 32)[None] for region in columns(2))
    prompts = [
        [torch.full((1, 7, 128), float(i)), {**({} if mask is None else {"mask": mask})}]
        for i, mask in enumerate((None, left, right))
    ]
    room.redraw(picture(PAIR), positive=prompts)
    assert [[int(one[0][0, 0, 0]) for one in run["positive"]] for run in runs] == [[1], [2]]
    assert all("mask" not in one[1] for run in runs for one in run["positive"])
    assert all(run["latent"]["noise_mask"].shape[0] == 1 for run in runs)


def test_a_hint_of_the_hosts_own_adapter_is_cut_and_gligen_is_named(room: Room, warnings: list[str]) -> None:
    hint = torch.rand(1, 3, 128, 256)
    adapter = T2IAdapter(None, 3, 8, "nearest-exact", torch.device("cpu")).set_cond_hint(hint, 0.7)
    entries = [[torch.zeros(1, 7, 128), {"control": adapter}]]
    ((_, options),) = cut_conditioning(entries, Box(0.5, 0, 1, 1), Box(0.6, 0.2, 0.9, 0.8), 128, 256).entries
    made = options["control"]
    assert isinstance(made, T2IAdapter) and made.strength == 0.7 and adapter.cond_hint_original is hint
    assert torch.allclose(made.cond_hint_original, hint[..., 128:], atol=1e-5)
    text_, options = room.prompts["positive"][0]
    room.redraw(picture(PAIR), positive=[[text_, {**options, "gligen": ("position", None, [])}]])
    assert "GLIGEN can't be cut" in warnings.pop()


def test_who_moves_shows_each_pictures_motion(room: Room) -> None:
    first = room.people[0]
    moving = replace(first, curve=curve_of([first.tokens, first.tokens.flip(0).mul(1.5)]))
    pair = picture(PAIR).expand(2, -1, -1, -1)
    both, _, _ = room.redraw(pair, [moving])
    for frame in (0, 1):
        alone, _, _ = room.redraw(pair, [moving.at(frame)])
        assert torch.equal(both[frame], alone[frame])
    assert not torch.equal(both[1], room.redraw(pair, [first])[0][1])
