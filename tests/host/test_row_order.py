"""Rows in another order than the host lists: each is drawn with the tokens of the side whose text it reads."""

from typing import Any

import comfy_extras.nodes_custom_sampler as custom_sampler
import pytest
import torch
from dynamicid_pack.dynamicid_core.host import rows
from torch import Tensor

from . import fakes, probe, tiles
from .stage import Stage, assert_other, assert_same, conditioning, text

LIKE_THE_PLAIN_MODEL = 2e-6
"""How far batches of tiles are from one tile at a time without any people."""

PROMPTS = [text("left"), text("right")]
KEY = "cond_or_uncond_couple"
KEYS = [KEY, "cond_or_uncond_hook_couple", None]


@pytest.fixture(autouse=True)
def wide_latent(stage: Stage) -> None:
    """Four tiles, one step."""
    stage.sampling |= {"size": (8, 20), "steps": 1}


def sampled(stage: Stage, model: Any, positive: Tensor, negative: Tensor, **changed: Any) -> Tensor:
    return probe.sample(model, positive, negative, **{**stage.sampling, **changed})


@pytest.mark.parametrize("batch", [1, 2])
def test_batches_of_tiles(stage: Stage, batch: int) -> None:
    one_by_one = stage.sample(tiles.tiled(stage.ours(), 1), batch=batch)
    assert_same(one_by_one, stage.sample(tiles.tiled(stage.reference(), 1), batch=batch))
    assert_other(one_by_one, stage.sample(tiles.tiled(stage.model, 1), batch=batch))
    for tile_batch in (2, 3, 4):
        result = stage.sample(tiles.tiled(stage.ours(), tile_batch), batch=batch)
        assert_same(result, one_by_one, LIKE_THE_PLAIN_MODEL)


def test_the_whole_list_repeated(stage: Stage) -> None:
    for times in (2, 3):
        assert_same(stage.sample(tiles.repeating(stage.ours(), times)), stage.alone(), LIKE_THE_PLAIN_MODEL)


@pytest.mark.parametrize("order", [[1, 0, 3, 2], [2, 0, 3, 1], [3, 2, 1, 0]])
def test_rows_exchanged_without_a_word(stage: Stage, order: list[int]) -> None:
    result = stage.sample(tiles.permuted(stage.ours(), order), batch=2)
    assert_same(result, stage.alone(batch=2), LIKE_THE_PLAIN_MODEL)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_chunks_exchanged_at_equal_shape(stage: Stage, order: list[int]) -> None:
    """With their list, over tiles: what was remembered of one order is not taken for the other's."""
    result = stage.sample(fakes.ordered(stage.ours(), order), batch=2)
    assert_same(result, stage.alone(batch=2), LIKE_THE_PLAIN_MODEL)
    over_tiles = tiles.wrapped(tiles.tiled(stage.ours(), 4), turning())
    assert_same(
        stage.sample(over_tiles, steps=2), stage.sample(tiles.tiled(stage.ours(), 1), steps=2), LIKE_THE_PLAIN_MODEL
    )


def turning() -> Any:
    """A UNet wrapper that exchanges the two chunks at every second call."""
    calls: list[bool] = []

    def run(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        calls.append(True)
        if len(calls) % 2:
            return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])
        options = arguments["c"]["transformer_options"]
        turned = {**options, **{name: options[name][::-1] for name in ("cond_or_uncond", "uuids")}}
        given = {n: torch.cat(x.chunk(2)[::-1]) if torch.is_tensor(x) else x for n, x in arguments["c"].items()}
        x, timestep = (torch.cat(arguments[name].chunk(2)[::-1]) for name in ("input", "timestep"))
        return torch.cat(apply_model(x, timestep, **{**given, "transformer_options": turned}).chunk(2)[::-1])

    return run


@pytest.mark.parametrize("apart", [fakes.apart, tiles.halved], ids=["with their own lists", "with the whole list"])
def test_halves_in_separate_calls(stage: Stage, apart: Any) -> None:
    """They have one shape."""
    assert_same(stage.sample(apart(stage.ours()), steps=2), stage.alone(steps=2), LIKE_THE_PLAIN_MODEL)


def test_equal_prompts(stage: Stage) -> None:
    """Text tells nothing then: in a plain call the list does, and tiles lie as the host makes them, in turn."""

    def run(model: Any) -> Tensor:
        # People are all that the sides differ by, and guidance multiplies float noise with them.
        return sampled(stage, model, text("p"), text("p"), batch=2, cfg=2.0)

    stage.negatives = []
    ours = run(stage.ours())
    assert_other(ours, run(stage.reference()))  # for it, nobody is negative
    assert_same(run(fakes.ordered(stage.ours(), [0, 1])), ours, LIKE_THE_PLAIN_MODEL)
    assert_same(run(tiles.tiled(stage.ours(), 4)), run(tiles.tiled(stage.ours(), 1)), LIKE_THE_PLAIN_MODEL)


def test_without_guidance(stage: Stage) -> None:
    """CFG 1: the host leaves the negative out."""
    watched, calls = probe.watched(tiles.tiled(stage.ours(), 4))
    result = stage.sample(watched, cfg=1.0)
    assert [options["cond_or_uncond"] for options in calls.options] == [[0]]
    assert_same(result, stage.sample(tiles.tiled(stage.ours(), 1), cfg=1.0), LIKE_THE_PLAIN_MODEL)
    assert_same(result, stage.sample(tiles.tiled(stage.reference(), 1), cfg=1.0))


def test_one_text_a_frame(stage: Stage) -> None:
    """Prompt schedules; one frame's prompt is the negative's own text."""
    positive = torch.cat([text(name) for name in "pqn"])
    stage.negatives = [text("n")]

    def run(model: Any) -> Tensor:
        return sampled(stage, model, positive, text("n"), batch=3)

    result = run(tiles.tiled(stage.ours(), 4))
    assert_same(result, run(tiles.tiled(stage.ours(), 1)), LIKE_THE_PLAIN_MODEL)
    # For the reference whatever reads the negative's text is negative: the third frame is not compared.
    assert_same(result[:2], run(tiles.tiled(stage.reference(), 1))[:2])


@pytest.mark.parametrize("lengths", [(14, 7), (7, 21), (14, 21)])
def test_texts_of_other_lengths(stage: Stage, lengths: tuple[int, int]) -> None:
    """The host repeats both to a length that both have."""
    positive, negative = (torch.randn(1, n, text("p").shape[2]) for n in lengths)

    def run(model: Any) -> Tensor:
        return sampled(stage, model, positive, negative)

    assert_same(run(tiles.tiled(stage.ours(), 4)), run(tiles.tiled(stage.ours(), 1)), LIKE_THE_PLAIN_MODEL)


@pytest.mark.parametrize("tell", KEYS)
@pytest.mark.parametrize("batch", [1, 2])
def test_couple_on_top_of_tiles(stage: Stage, tell: str | None, batch: int) -> None:
    """Couples cut the batch in two and repeat the second half, whatever lies in it."""

    def run(model: Any) -> Tensor:
        return stage.sample(fakes.attention_couple(tiles.tiled(model, 4), PROMPTS, tell), batch=batch)

    assert_same(run(stage.ours()), stage.once("couple over tiles", lambda: run(stage.reference()), batch=batch))


def test_couple_that_writes_zero_for_all_but_the_negative(stage: Stage) -> None:
    """As couples do, whose guider has three sides: number 2 is listed as 0, which is the negative's number there."""

    class Literal(fakes.AttentionCouple):
        def attn2_patch(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, ...]:
            patched = super().attn2_patch(q, k, v, extra_options)
            extra_options[KEY] = [int(number == 1) for number in extra_options[KEY]]
            return patched

    def run(model: Any) -> Tensor:
        patched, couple = model.clone(), Literal(PROMPTS, KEY)
        patched.set_model_attn2_patch(couple.attn2_patch)
        patched.set_model_attn2_output_patch(couple.attn2_output_patch)
        texts = [conditioning(name) for name in "pmn"]
        (guider,) = custom_sampler.DualCFGGuider.execute(patched, *texts, 3.0, 5.0, "regular").args
        return stage.sample(patched, guider=guider)

    assert_same(run(stage.ours()), run(stage.reference()))


def test_texts_are_compared_once_a_run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[torch.Size] = []
    original = rows._reads

    def counted(context: Tensor, one: Tensor) -> Tensor:
        compared.append(context.shape)
        return original(context, one)

    monkeypatch.setattr(rows, "_reads", counted)
    for model, shapes in ((stage.ours(), 1), (tiles.tiled(stage.ours(), 3), 2), (fakes.apart(stage.ours()), 2)):
        compared.clear()
        stage.sample(model, steps=4)
        assert len(compared) == 2 * shapes, "each shape of call with the positive's text and the negative's"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_texts_are_compared_as_the_host_casts_them(dtype: torch.dtype) -> None:
    conds = {name: [{"uuid": name, "model_conds": {"c_crossattn": Cond(text(name[0]))}}] for name in ("p", "negative")}
    guidance = rows.Guidance(conds, batch=1)
    context = torch.cat([text("n"), text("p")] * 2).to(dtype)
    options = {"cond_or_uncond": [1, 0], "uuids": ["negative", "p"]}
    assert guidance.rows(4, context, options).roles == (rows.NEGATIVE, rows.POSITIVE) * 2
    assert guidance.rows(4, context.flip(0) + 1, {**options, "uuids": []}).roles == (rows.NEGATIVE, rows.POSITIVE) * 2


class Cond:
    def __init__(self, cond: Tensor) -> None:
        self.cond = cond
