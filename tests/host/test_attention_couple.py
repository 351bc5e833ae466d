"""Regional prompts of other packs inside the attention: each row of the grown batch is drawn with its side's tokens."""

from typing import Any

import comfy.hooks
import comfy_extras.nodes_custom_sampler as custom_sampler
import comfy_extras.nodes_perpneg as perpneg
import pytest
import torch

from . import fakes, probe
from .stage import ABSENT, Stage, assert_other, assert_same, conditioning, text

KEYS = ["cond_or_uncond_couple", "cond_or_uncond_hook_couple", None]
"""Where packs tell the chunks of after; some tell nobody."""

PROMPTS = [text("left"), text("right")]


@pytest.mark.parametrize("tell", KEYS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("order", ["as the host", "other", "apart"])
def test_any_order_and_batch(stage: Stage, tell: str | None, batch: int, order: str) -> None:
    """`U C C C` while the host's list says `[1, 0]`, `C C C U`, and each side by itself."""
    stage.sampling |= {"batch": batch}

    def prepared(model: Any) -> Any:
        coupled = fakes.attention_couple(model, PROMPTS, tell)
        if order == "other":
            return fakes.ordered(coupled, [0, 1])
        return fakes.apart(coupled) if order == "apart" else coupled

    watched, calls = probe.watched(prepared(stage.ours()))
    result = stage.sample(watched)
    expected = {"as the host": [[1, 0]] * 2, "other": [[0, 1]] * 2, "apart": [[1], [0]] * 2}[order]
    assert [options["cond_or_uncond"] for options in calls.options] == expected
    assert_same(result, stage.once(f"couple {order}", lambda: stage.sample(prepared(stage.reference()))))


@pytest.mark.parametrize("tell", KEYS[:2])
def test_who_tells_is_believed(stage: Stage, tell: str) -> None:
    """`U U U C C C`: the number of rows alone would mean `U C C C C C`."""
    result = stage.sample(fakes.attention_couple(stage.ours(), PROMPTS, tell, both=True))
    drawn = fakes.attention_couple(stage.reference(), PROMPTS, None, both=True)
    assert_same(result, stage.once("couple both", lambda: stage.sample(drawn)))


@pytest.mark.parametrize("tell", KEYS)
def test_before_and_after_ours(stage: Stage, tell: str | None) -> None:
    coupled = fakes.attention_couple(stage.model, PROMPTS, tell)
    without_people = stage.sample(coupled)
    before, after = stage.ours(coupled), fakes.attention_couple(stage.ours(), PROMPTS, tell)
    assert torch.equal(stage.sample(before), stage.sample(after))
    assert_other(stage.sample(before), [without_people, stage.alone(), stage.nobody()])
    assert torch.equal(stage.sample(stage.ours(coupled, **ABSENT)), without_people)


@pytest.mark.parametrize("tell", KEYS)
def test_together_with_an_adder(stage: Stage, tell: str | None) -> None:
    """An IP-Adapter before, the couple after: its callback sees the grown batch too."""

    def halved(out: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return out * -0.5

    ours = stage.ours(fakes.ip_adapter(stage.model, halved, stage.keys))
    drawn = stage.reference(fakes.wrapping(stage.model, halved, stage.keys))
    expected = stage.once("couple, adder", lambda: stage.sample(fakes.attention_couple(drawn, PROMPTS, None)))
    assert_same(stage.sample(fakes.attention_couple(ours, PROMPTS, tell)), expected)


@pytest.mark.parametrize("tell", KEYS)
@pytest.mark.parametrize("batch", [1, 2])
def test_as_a_hook_of_the_positive(stage: Stage, tell: str | None, batch: int) -> None:
    """The host's hooks put the patches on one conditioning: the negative is run without them, in a call of its own."""
    couple = fakes.AttentionCouple(PROMPTS, tell)
    patches = {"attn2_patch": [couple.attn2_patch], "attn2_output_patch": [couple.attn2_output_patch]}
    hook = comfy.hooks.TransformerOptionsHook({"patches": patches}, hook_scope=comfy.hooks.EnumHookScope.HookedOnly)
    group = comfy.hooks.HookGroup()
    group.add(hook)
    positive = comfy.hooks.set_hooks_for_conditioning(conditioning("p"), hooks=group)

    def run(model: Any) -> torch.Tensor:
        (guider,) = custom_sampler.CFGGuider.execute(model, positive, conditioning("n"), 7.0).args
        return stage.sample(model, guider=guider, batch=batch)

    watched, calls = probe.watched(stage.ours())
    result = run(watched)
    assert sorted(options["cond_or_uncond"] for options in calls.options) == [[0], [0], [1], [1]]
    assert_same(result, stage.once("couple hook", lambda: run(stage.reference()), batch=batch))
    assert_other(result, [run(stage.model), stage.alone(batch=batch)])


@pytest.mark.parametrize("tell", KEYS)
@pytest.mark.parametrize("kind", ["PerpNeg", "Dual"])
def test_under_other_guiders(stage: Stage, tell: str | None, kind: str) -> None:
    """The packs know numbers only and repeat every chunk that is not number 1: PerpNeg's empty, Dual's negative too."""
    stage.sampling["steps"] = 1

    def run(model: Any) -> torch.Tensor:
        model = fakes.attention_couple(model, PROMPTS, tell)
        texts = [conditioning(name) for name in ("pne" if kind == "PerpNeg" else "pmn")]
        if kind == "PerpNeg":
            (guider,) = perpneg.PerpNegGuider.execute(model, *texts, 7.0, 1.0).args
        else:
            (guider,) = custom_sampler.DualCFGGuider.execute(model, *texts, 3.0, 5.0, "regular").args
        return stage.sample(model, guider=guider)

    assert_same(run(stage.ours()), run(stage.reference()))
