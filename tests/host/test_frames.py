"""Regions that move with a batch: each row is drawn with the region of the frame that it shows."""

import itertools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import comfy.samplers
import comfy_extras.nodes_context_windows as windows
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from dynamicid_pack.benchmarks.counting import computing, counted_calls
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host import rows
from dynamicid_pack.dynamicid_core.host.layout import CANVAS
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.nodes.layout import AutoLayout
from dynamicid_pack.nodes.place import PlaceIdentity
from dynamicid_pack.nodes.preview import MOMENTS
from torch import Tensor

from . import fakes, probe, tiles, tiny
from .stage import Stage, assert_other, assert_same, conditioning, text

FRAMES = 4
FLOAT_NOISE = 1e-5
GRIDS = 3  # of the small model's cross-attentions
RIGHT = Region(box=Box(0.6, 0.25, 1.0, 1.0))


@pytest.fixture(autouse=True)
def one_step(stage: Stage) -> None:
    """In the layout phase and after it."""
    stage.sampling |= {"size": (8, 12), "steps": 2}


def walk(*columns: int | None, wide: int = 4) -> Tensor:
    """Masks (frames, 8, 12) of somebody whose left edge is at these columns; None: not in the picture."""
    masks = torch.zeros(len(columns), 8, 12)
    for mask, column in zip(masks, columns, strict=True):
        if column is not None:
            mask[1:, column : column + wide] = 1
    return masks


WALK = walk(0, 3, 5, 8)


def person(seed: int) -> Identity:
    drawn = tiny.identity_tensors(seed)
    return Identity(drawn["tokens"], drawn["negative_tokens"])


def scene(*regions: Region | None) -> dict[str, Any]:
    """Person 1, 2 ... in these regions; None: left out."""
    placed = [Placement(person(seed), region) for seed, region in enumerate(regions, start=1) if region is not None]
    return {"person_0": tuple(placed)}


def sample(stage: Stage, model: Any, frames: slice = slice(None), **changed: Any) -> Tensor:
    """A batch of frames, or some of it, each from its own noise."""
    settings = {**stage.sampling, **changed}
    noise = torch.randn((FRAMES, 4, *settings["size"]), generator=torch.Generator().manual_seed(3))[frames]
    sigmas = comfy.samplers.KSampler(
        model, steps=settings["steps"], device=model.load_device, sampler="euler", scheduler="normal", denoise=1.0
    ).sigmas
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(conditioning("p"), conditioning("n"))
    guider.set_cfg(settings.get("cfg", 7.0))
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, seed=1, disable_pbar=True)


def one_by_one(
    stage: Stage,
    people: Callable[[int], dict[str, Any] | None],
    prepared: Callable[[Any], Any] = lambda m: m,
    **ours: Any,
) -> Tensor:
    """Each frame by itself, with the people who stand still in it as `people` tells; None: nobody."""
    drawn = []
    for frame in range(FRAMES):
        there = people(frame)
        model = stage.model if there is None else stage.ours(people=there, **ours)
        drawn.append(sample(stage, prepared(model), slice(frame, frame + 1)))
    return torch.cat(drawn)


def walking(frame: int) -> dict[str, Any]:
    return scene(Region(mask=WALK[frame]), RIGHT)


MOVING: dict[str, Any] = {"people": scene(Region(mask=WALK), RIGHT)}


@pytest.mark.parametrize("settings", [{}, {"gate": False}, {"layout_steps": 0}], ids=["all", "no gate", "no layout"])
def test_each_frame_has_its_own_region(stage: Stage, settings: dict[str, Any]) -> None:
    moving = sample(stage, stage.ours(**MOVING, **settings))
    assert_same(moving, one_by_one(stage, walking, **settings), FLOAT_NOISE)
    still = sample(stage, stage.ours(people=walking(0), **settings))
    assert_same(moving[:1], still[:1], FLOAT_NOISE)
    assert_other(moving[1:], still[1:])


PACKS: dict[str, Callable[[Any], Any]] = {
    "halves apart": fakes.apart,
    "the other order": lambda model: fakes.ordered(model, [0, 1]),
    "the list repeated": lambda model: tiles.repeating(model, 2),
    "tiles": lambda model: tiles.tiled(model, 2),
    "couple": lambda model: fakes.attention_couple(model, [text("left"), text("right")], None),
    "couple over tiles": lambda model: fakes.attention_couple(
        tiles.tiled(model, 2), [text("left")], "cond_or_uncond_couple"
    ),
}


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS)
def test_whatever_other_packs_do_to_the_batch(stage: Stage, pack: Callable[[Any], Any]) -> None:
    stage.sampling["steps"] = 1
    moving = sample(stage, pack(stage.ours(**MOVING)))
    assert_same(moving, one_by_one(stage, walking, pack), FLOAT_NOISE)


@pytest.mark.parametrize("schedule", ["standard_static", "looped_uniform"])
def test_windows_of_the_host(stage: Stage, schedule: str) -> None:
    """Two or three frames in one call; before all windows but the first the host puts a frame more."""
    node = windows.ContextWindowsManualNode
    (windowed,) = node.execute(stage.ours(**MOVING), 2, 1, schedule, 1, False, "pyramid", 0, False).args
    watched, calls = probe.watched(windowed)
    result = sample(stage, watched)
    assert len(calls.options) > 2
    assert_same(result, sample(stage, stage.ours(**MOVING)), FLOAT_NOISE)


@pytest.mark.parametrize("apart", [False, True])
def test_windows_of_animatediff(stage: Stage, apart: bool) -> None:
    def run(apply_model: Callable, arguments: dict[str, Any]) -> Tensor:
        chunks = len(arguments["cond_or_uncond"])
        result = torch.empty_like(arguments["input"])
        for window in ([0, 1, 2], [3]):
            index = torch.tensor([chunk * FRAMES + frame for chunk in range(chunks) for frame in window])
            given: dict[str, Any] = {n: x[index] if torch.is_tensor(x) else x for n, x in arguments["c"].items()}
            params = {"sub_idxs": window, "full_length": FRAMES}
            given["transformer_options"] = {**given["transformer_options"], "ad_params": params}
            result[index] = apply_model(arguments["input"][index], arguments["timestep"][index], **given)
        return result

    model = tiles.wrapped(fakes.apart(stage.ours(**MOVING)) if apart else stage.ours(**MOVING), run)
    assert_same(sample(stage, model), sample(stage, stage.ours(**MOVING)), FLOAT_NOISE)


def test_the_last_mask_stays_and_those_beyond_the_batch_are_not_used(stage: Stage) -> None:
    short = sample(stage, stage.ours(people=scene(Region(mask=WALK[:2]), RIGHT)))
    assert_same(short, one_by_one(stage, lambda frame: walking(min(frame, 1))), FLOAT_NOISE)
    long = sample(stage, stage.ours(people=scene(Region(mask=torch.cat([WALK, WALK.flip(0)])), RIGHT)))
    assert torch.equal(long, sample(stage, stage.ours(**MOVING)))


def test_two_people_move_each_as_long_as_their_masks(stage: Stage) -> None:
    second = walk(7, 3, 0)
    result = sample(stage, stage.ours(people=scene(Region(mask=WALK), Region(mask=second))))
    assert_same(
        result,
        one_by_one(stage, lambda i: scene(Region(mask=WALK[i]), Region(mask=second[min(i, 2)]))),
        FLOAT_NOISE,
    )


@pytest.mark.parametrize("settings", [{}, {"gate": False}], ids=["all", "no gate"])
def test_who_comes_later_is_absent_until_then(stage: Stage, settings: dict[str, Any]) -> None:
    """A black mask among others; the other person, or nobody, has the frame."""
    coming = walk(None, 4, 6, None)

    def there(frame: int, *others: Region) -> dict[str, Any] | None:
        own = Region(mask=coming[frame])
        people = scene(None if own.is_empty else own, *others)
        return people if people["person_0"] else None

    def assert_absent_until_then(*others: Region) -> None:
        result = sample(stage, stage.ours(people=scene(Region(mask=coming), *others), **settings))
        assert_same(result, one_by_one(stage, lambda frame: there(frame, *others), **settings), FLOAT_NOISE)

    assert_absent_until_then(RIGHT)
    assert_absent_until_then()


def test_one_mask_is_no_batch(stage: Stage) -> None:
    """To the bit, whether the mask comes as one picture or as a batch of one."""
    still = sample(stage, stage.ours(people=scene(Region(mask=WALK[2]), RIGHT)))
    assert torch.equal(sample(stage, stage.ours(people=scene(Region(mask=WALK[2:3]), RIGHT))), still)
    repeated = WALK[2].expand(FRAMES, 8, 12)
    assert_same(sample(stage, stage.ours(people=scene(Region(mask=repeated), RIGHT))), still, FLOAT_NOISE)


def operators_by_layer(stage: Stage, people: dict[str, Any]) -> list[int]:
    """Return how many operators each layer computes in the last call of a run, in rising order."""
    model, tallies = stage.model.clone(), []

    def count(executor: Any, *args: Any, **kwargs: Any) -> Any:
        with counted_calls(model.model.diffusion_model) as tally:
            out = executor(*args, **kwargs)
        tallies.append(tally)
        return out

    # Before ours, so that our wrapper comes to lie inside this one.
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "count", count)
    sample(stage, stage.ours(model, people=people))
    return sorted(computing(layer.counts) for layer in tallies[-1].layers.values())


def test_moving_costs_a_layer_nothing(stage: Stage) -> None:
    """What differs by row is laid out once per grid and call: shares, and the layout phase's terms."""
    still, moving = (operators_by_layer(stage, people) for people in (walking(0), MOVING["people"]))
    more = [after - before for before, after in zip(still, moving, strict=True)]
    assert len(more) == len(stage.keys)
    assert sum(more) <= 4 * GRIDS


# What the nodes say


def placed(mask: Tensor, before: Sequence[Placement] = ()) -> tuple[Any, ...]:
    return PlaceIdentity.execute(person(1), 0.0, 0.0, 0.5, 1.0, 1.0, 0.0, 1.0, mask, before).result


def test_place_identity_takes_a_mask_for_each_frame() -> None:
    placements, masks, preview = placed(WALK)
    assert placements[0].region.frames == FRAMES
    assert torch.equal(masks, WALK)
    assert preview.shape == (MOMENTS, round(CANVAS * 8 / 12), CANVAS, 3)
    assert all(not torch.equal(*pair) for pair in itertools.combinations(preview, 2))
    _, own, shown = placed(WALK[0], placements)
    assert own.shape == (1, 8, 12)
    assert len(shown) == MOMENTS, "one of those before moves"
    assert len(placed(WALK[0])[2]) == 1
    assert len(placed(WALK[:2])[2]) == 2


def test_only_who_is_in_no_frame_is_told_to_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("dynamicid_pack.nodes.place.warn", lambda _, message: told.append(message))
    placed(walk(None, 3))
    assert not told
    placed(walk(None, None))
    assert len(told) == 1 and "absent" in told[0]


def test_auto_layout_still_takes_a_mask_for_each_person() -> None:
    people = {f"person_{seed}": person(seed) for seed in (1, 2)}
    placements, masks, preview = AutoLayout.execute(people, {"layout": "masks", "masks": WALK[:2]}).result
    assert [placement.region.frames for placement in placements] == [1, 1]
    assert torch.equal(masks, WALK[:2]) and len(preview) == 1


# Which frame a row shows


def window(*indices: int, anchor: int | None = None, dim: int = 0) -> dict[str, Any]:
    shown = SimpleNamespace(index_list=list(indices), dim=dim)
    if anchor is not None:
        shown.causal_anchor_index = anchor
    return {"context_window": shown}


@pytest.mark.parametrize(
    ("count", "options", "expected"),
    [
        (8, {}, [0, 1, 2, 3] * 2),
        (16, {}, [0, 1, 2, 3] * 4),  # two tiles
        (4, {"cond_or_uncond": [1]}, [0, 1, 2, 3]),
        (6, {}, [0, 1, 2] * 2),  # a part of the batch, of which nobody tells
        (4, window(2, 3), [2, 3] * 2),
        (6, window(2, 3, anchor=1), [1, 2, 3] * 2),
        (4, window(2, 3, anchor=-1), [2, 3] * 2),
        (8, window(2, 3), [2, 3] * 4),
        (8, window(2, 3, dim=2), [0, 1, 2, 3] * 2),  # of another axis
        (6, {"ad_params": {"sub_idxs": [3, 0, 1]}}, [3, 0, 1] * 2),
        (8, {"ad_params": {"sub_idxs": None}}, [0, 1, 2, 3] * 2),
        (4, {**window(1, 2), "ad_params": {"sub_idxs": [2, 3]}}, [1, 2] * 2),
    ],
)
def test_frames_of_rows(count: int, options: dict[str, Any], expected: list[int]) -> None:
    guidance = rows.Guidance({"positive": [], "negative": []}, batch=FRAMES)
    told = guidance.rows(count, None, {"cond_or_uncond": [1, 0], **options})
    assert list(told.frames) == expected
    assert len(told.roles) == count
