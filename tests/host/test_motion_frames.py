"""Facial motion that changes with a batch: each row is drawn with the tokens of the frame that it shows."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy_extras.nodes_context_windows as windows
import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host import sampling_run
from dynamicid_pack.dynamicid_core.host.identity_attention import IdentityAttention
from dynamicid_pack.dynamicid_core.identity.curve import Curve, curve_of
from dynamicid_pack.dynamicid_core.identity.identity import Identity, mix
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from torch import Tensor

from . import fakes, tiles, tiny
from .stage import Stage, assert_other, assert_same
from .test_frames import FLOAT_NOISE, FRAMES, RIGHT, WALK, operators_by_layer, person, sample

LEFT = Region(box=Box(0.0, 0.0, 0.5, 1.0))


@pytest.fixture(autouse=True)
def two_steps(stage: Stage) -> None:
    """In the layout phase and after it."""
    stage.sampling |= {"size": (8, 12), "steps": 2}


def moving(seed: int, *sets: int) -> Identity:
    """Person `seed` with tokens of their own in each of these sets; sets of one number are equal."""
    of_set = [person(seed).tokens, *(person(100 * seed + number).tokens for number in range(1, max(sets) + 1))]
    return replace(person(seed), curve=curve_of([of_set[number] for number in sets]))


FIRST, SECOND = moving(1, 0, 1, 0, 2), moving(2, 0, 1, 2, 2)


def scene(*people: tuple[Identity, Region]) -> dict[str, Any]:
    return {"person_0": tuple(Placement(identity, region) for identity, region in people)}


BOTH = scene((FIRST, LEFT), (SECOND, RIGHT))


def still(frame: int) -> dict[str, Any]:
    return scene((FIRST.at(frame), LEFT), (SECOND.at(frame), RIGHT))


def one_by_one(stage: Stage, people: Callable[[int], dict[str, Any]], cfg: float = 7.0, **ours: Any) -> Tensor:
    """Each frame as a picture of its own: the same noise, people who don't move."""
    frames = range(FRAMES)
    return torch.cat([sample(stage, stage.ours(people=people(i), **ours), slice(i, i + 1), cfg=cfg) for i in frames])


@pytest.mark.parametrize(
    "settings", [{}, {"gate": False}, {"cfg": 1.0}], ids=["two people, two curves", "no gate", "CFG 1"]
)
def test_a_batch_is_the_single_pictures(stage: Stage, settings: dict[str, Any]) -> None:
    cfg = settings.get("cfg", 7.0)
    settings = {name: value for name, value in settings.items() if name != "cfg"}
    batch = sample(stage, stage.ours(people=BOTH, **settings), cfg=cfg)
    assert_same(batch, one_by_one(stage, still, cfg, **settings), FLOAT_NOISE)
    assert_other(batch[1:2], sample(stage, stage.ours(people=still(0), **settings), cfg=cfg)[1:2])


def test_who_moves_may_stand_beside_who_does_not_and_walk(stage: Stage) -> None:
    batch = sample(stage, stage.ours(people=scene((FIRST, Region(mask=WALK)), (person(2), RIGHT))))
    expected = one_by_one(stage, lambda i: scene((FIRST.at(i), Region(mask=WALK[i])), (person(2), RIGHT)))
    assert_same(batch, expected, FLOAT_NOISE)


def test_of_a_mixed_person_both_move(stage: Stage) -> None:
    both = mix(FIRST, SECOND, 0.4)
    assert both.frames == FRAMES and torch.equal(both.at(2).tokens, mix(FIRST.at(2), SECOND.at(2), 0.4).tokens)
    batch = sample(stage, stage.ours(people=scene((both, Region()))))
    expected = one_by_one(stage, lambda i: scene((mix(FIRST.at(i), SECOND.at(i), 0.4), Region())))
    assert_same(batch, expected, FLOAT_NOISE)


@pytest.mark.parametrize("schedule", ["standard_static", "looped_uniform"])
def test_windows_of_the_host(stage: Stage, schedule: str) -> None:
    """Two or three frames in one call; before all windows but the first the host puts a frame more."""
    node = windows.ContextWindowsManualNode
    (windowed,) = node.execute(stage.ours(people=BOTH), 2, 1, schedule, 1, False, "pyramid", 0, False).args
    assert_same(sample(stage, windowed), sample(stage, stage.ours(people=BOTH)), FLOAT_NOISE)


def in_windows(model: Any, *parts: list[int]) -> Any:
    """Draw these frames in calls of their own, as AnimateDiff-Evolved does, which tells them by `sub_idxs`."""

    def run(apply_model: Callable, arguments: dict[str, Any]) -> Tensor:
        chunks = len(arguments["cond_or_uncond"])
        result = torch.empty_like(arguments["input"])
        for window in parts:
            index = torch.tensor([chunk * FRAMES + frame for chunk in range(chunks) for frame in window])
            given: dict[str, Any] = {n: x[index] if torch.is_tensor(x) else x for n, x in arguments["c"].items()}
            params = {"sub_idxs": window, "full_length": FRAMES}
            given["transformer_options"] = {**given["transformer_options"], "ad_params": params}
            result[index] = apply_model(arguments["input"][index], arguments["timestep"][index], **given)
        return result

    return tiles.wrapped(model, run)


@pytest.mark.parametrize("separate", [False, True])
def test_windows_of_animatediff(stage: Stage, separate: bool) -> None:
    model = stage.ours(people=BOTH)
    windowed = in_windows(fakes.apart(model) if separate else model, [0, 1, 2], [3])
    assert_same(sample(stage, windowed), sample(stage, model), FLOAT_NOISE)
    shifted = in_windows(model, [3, 0], [1, 2])
    assert_same(sample(stage, shifted), sample(stage, model), FLOAT_NOISE)


def test_motions_shorter_and_longer_than_the_batch_are_told(stage: Stage, warnings: list[str]) -> None:
    short, long = moving(1, 0, 1), moving(2, 0, 1, 2, 3, 4, 5)
    batch = sample(stage, stage.ours(people=scene((replace(short, name="Ana"), LEFT), (long, RIGHT))))
    told, warnings[:] = [*warnings], []
    assert len(told) == 2
    assert "Ana has 2 frames, the batch 4" in told[0] and "last one stays" in told[0] and "for 4 frames" in told[0]
    assert "person 2 has 6 frames, the batch 4" in told[1] and "first 4 are not drawn" in told[1]
    expected = one_by_one(stage, lambda i: scene((short.at(min(i, 1)), LEFT), (long.at(i), RIGHT)))
    assert_same(batch, expected, FLOAT_NOISE)


def test_equal_frames_are_projected_once(stage: Stage) -> None:
    for people, sets in ((BOTH, 3), (still(0), 1)):
        layers = list(fakes.attn2(stage.ours(people=people)).values())
        assert len(layers) == len(stage.keys)
        for layer in layers:
            assert isinstance(layer, IdentityAttention)
            assert [len(tokens.keys) for tokens in layer.tokens] == [sets + 1] * 2  # and the negative one


def test_one_table_a_layer_serves_all_windows(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[sampling_run.Run] = []
    begin = sampling_run._begin_run

    def noted(*args: Any, **kwargs: Any) -> sampling_run.Run:
        runs.append(begin(*args, **kwargs))
        return runs[-1]

    monkeypatch.setattr(sampling_run, "_begin_run", noted)
    sample(stage, in_windows(stage.ours(people=BOTH), [0, 1], [2, 3], [1, 2]))
    (run,) = runs
    tables = [value[0] for key, value in run.prepared.items() if isinstance(key, tuple) and "table" in key]
    assert len(tables) == len(stage.keys)
    assert {len(table) for table in tables} == {5}  # frames differ in four ways, and the negative tokens
    layers = fakes.attn2(stage.ours(people=BOTH)).values()
    dims = sorted(layer.tokens[0].keys.shape[-1] for layer in layers)
    # k_id and v_id of two people, and mean_key
    assert sorted(table.shape[1] for table in tables) == [(2 * 2 * tiny.TOKENS + 1) * dim for dim in dims]


def test_a_layer_takes_one_operator_more_and_only_where_motion_changes(stage: Stage) -> None:
    nothing, moving = (operators_by_layer(stage, people) for people in (still(0), BOTH))
    more = [after - before for before, after in zip(nothing, moving, strict=True)]
    assert len(more) == len(stage.keys)
    # the first layer makes the index of the call
    assert sorted(more)[:-1] == [1] * (len(more) - 1) and max(more) <= 3


def test_who_does_not_move_is_drawn_bit_for_bit_as_before(stage: Stage) -> None:
    same = curve_of([person(1).tokens] * FRAMES)
    resting = replace(person(1), curve=same)
    assert len(same.tokens) == 1 and resting.curve is None and resting.frames == 1
    people = [scene((one, LEFT), (person(2), RIGHT)) for one in (resting, person(1))]
    assert torch.equal(*(sample(stage, stage.ours(people=one)) for one in people))


def test_a_curve_has_a_set_for_every_frame() -> None:
    with pytest.raises(ValueError, match="aren't all of 1 sets"):
        Curve(torch.zeros(1, 4, 8), (0, 1))
    with pytest.raises(ValueError, match="first of which is 0"):
        Curve(torch.zeros(2, 4, 8), (1, 0))
    with pytest.raises(ValueError, match="NaN"):
        Curve(torch.full((1, 4, 8), torch.nan), (0,))
    with pytest.raises(ValueError, match="must be those of the first frame"):
        replace(FIRST, tokens=FIRST.tokens + 1)
