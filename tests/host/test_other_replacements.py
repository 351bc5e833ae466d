"""Attention replacements of other packs that can't be added to, in every place and way, and what is overwritten."""

from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.host.identity_attention import IdentityAttention
from torch import Tensor

from . import fakes, tiny
from .stage import ABSENT, Stage, assert_other, assert_same

# Objects without `add`, other keys


@pytest.mark.parametrize("way", ["object", "closure", "partial"])
def test_replacement_without_add_before_us_is_wrapped(stage: Stage, way: str) -> None:
    theirs = fakes.wrapping(stage.model, fakes.callback, stage.keys, way)
    both = stage.ours(theirs)
    assert_same(stage.sample(both), stage.sample(stage.reference(theirs)))
    assert_other(stage.sample(both), [stage.sample(theirs), stage.alone()])
    assert torch.equal(stage.sample(stage.ours(theirs, **ABSENT)), stage.sample(theirs))


@pytest.mark.parametrize("way", fakes.WRAPPINGS)
def test_replacement_after_us_that_wraps_ours(stage: Stage, way: str) -> None:
    stage.sampling["steps"] = 1
    expected = stage.once(
        "wrapped", lambda: stage.sample(fakes.wrapping(stage.reference(), fakes.callback, stage.keys))
    )
    assert_same(stage.sample(fakes.wrapping(stage.ours(), fakes.callback, stage.keys, way)), expected)


@pytest.mark.parametrize("way", fakes.WRAPPINGS)
def test_replacement_after_us_that_wraps_their_object_with_ours(stage: Stage, way: str) -> None:
    stage.sampling["steps"] = 1
    both = stage.ours(fakes.ip_adapter(stage.model, fakes.second, stage.keys))
    drawn = stage.reference(fakes.wrapping(stage.model, fakes.second, stage.keys))
    expected = stage.once("wrapped both", lambda: stage.sample(fakes.wrapping(drawn, fakes.callback, stage.keys)))
    assert_same(stage.sample(fakes.wrapping(both, fakes.callback, stage.keys, way)), expected)


def test_wrapped_replacement_is_served_by_the_host_as_before(stage: Stage) -> None:
    """Moved with `.to`, loaded through `.models()`, cleaned up: all that the host does with what is at a key."""
    key, small = stage.keys[0], tiny.tiny_patcher()
    moved: list[Any] = []
    cleaned: list[Any] = []

    def noting(out: Tensor, *others: Any, targets: tuple[Any, ...] = (), **kwargs: Any) -> Tensor:
        moved[:] = targets
        return fakes.callback(out, *others)

    class Served(fakes.Wrapper):
        def to(self, target: Any) -> "Served":
            return Served(self.previous, self.change, targets=(*self.settings.get("targets", ()), target))

        def models(self) -> list[Any]:
            return [small]

        def cleanup(self) -> None:
            cleaned.append(key)

    theirs = stage.model.clone()
    theirs.set_model_attn2_replace(Served(fakes.plain, noting), *key)
    both = stage.ours(theirs)
    assert both.model_patches_models() == [small]
    both.model_patches_to(torch.device("cpu"))
    both.model_patches_to(torch.float32)
    if hasattr(both, "model_patches_call_function"):  # not on the older host
        both.model_patches_call_function("cleanup")
        assert cleaned == [key]
    result = stage.sample(both)
    assert moved[:2] == [torch.device("cpu"), torch.float32], "what `.to` gave back is what runs"
    assert_same(result, stage.sample(stage.reference(theirs)))


def test_key_of_three_is_wrapped_where_it_is(stage: Stage) -> None:
    key = ("input", 1, 0)
    theirs = fakes.wrapping(stage.model, fakes.callback, [key])
    both = stage.ours(theirs)
    assert set(fakes.attn2(both)) == {key, *stage.keys[1:]}
    assert isinstance(fakes.attn2(both)[key], IdentityAttention)
    assert_same(stage.sample(both), stage.sample(stage.reference(theirs)))
    assert_other(stage.sample(both), [stage.sample(theirs), stage.alone()])
    assert list(fakes.attn2(theirs)) == [key]


def test_key_of_three_beside_a_key_of_two(stage: Stage) -> None:
    """The host looks up the longer one first, and so do we: the other never fires."""
    key = ("input", 1, 0)
    theirs = fakes.wrapping(fakes.ip_adapter(stage.model, fakes.second, [key[:2]]), fakes.callback, [key])
    both = stage.ours(theirs)
    assert fakes.attn2(both)[key[:2]].callback == [fakes.second]
    assert_same(stage.sample(both), stage.sample(stage.reference(theirs)))


def test_key_of_three_that_can_be_added_to(stage: Stage) -> None:
    key = ("output", 3, 0)
    theirs = fakes.ip_adapter(stage.model, fakes.callback, [key])
    both, before = stage.ours(theirs), fakes.held(theirs)
    assert set(fakes.attn2(both)) == {key, *stage.keys} - {key[:2]}
    expected = stage.reference(fakes.wrapping(stage.model, fakes.callback, [key]))
    assert_same(stage.sample(both), stage.sample(expected))
    assert fakes.held(theirs) == before


def test_we_register_keys_of_two_only(stage: Stage) -> None:
    assert set(fakes.attn2(stage.ours())) == set(stage.keys)
    assert ("middle", 0) in stage.keys


@pytest.mark.parametrize("they_are_first", [False, True])
def test_middle_key_that_never_fires(stage: Stage, they_are_first: bool) -> None:
    """A well-known pack registers the middle as block 1, where the host never looks."""
    calls: list[Any] = []

    def counted(out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **kwargs: Any) -> Tensor:
        calls.append(extra_options["block"])
        return fakes.callback(out, q, k, v, extra_options)

    keys = [key for key in stage.keys if key[0] != "middle"]
    if they_are_first:
        both = stage.ours(fakes.ip_adapter(stage.model, counted, [*keys, ("middle", 1)]))
        expected = stage.reference(fakes.wrapping(stage.model, fakes.callback, keys))
    else:
        both = fakes.ip_adapter(stage.ours(), counted, [*keys, ("middle", 1)])
        expected = fakes.wrapping(stage.reference(), fakes.callback, keys)
    assert isinstance(fakes.attn2(both)[("middle", 0)], IdentityAttention)
    assert isinstance(fakes.attn2(both)[("middle", 1)], fakes.Adder)
    assert_same(stage.sample(both), stage.sample(expected))
    assert set(calls) == set(keys)


# Overwritten, twice


@pytest.mark.parametrize("count", [1, 3, 7])
def test_overwritten_layers_are_named(stage: Stage, warnings: list[str], count: int) -> None:
    lost = stage.keys[-count:]
    stage.sample(fakes.overwriting(stage.ours(), lost))
    assert len(warnings) == 1, "once per run, not per step or layer"
    for block, number in stage.keys:
        assert (f"{block} {number}" in warnings[0]) == ((block, number) in lost)
    assert f"{count} of 7" in warnings[0]
    warnings.clear()


def test_overwritten_under_their_object(stage: Stage, warnings: list[str]) -> None:
    """Ours was in an object of theirs that somebody then replaced by a new one."""
    ours = stage.ours(fakes.ip_adapter(stage.model, fakes.callback, stage.keys))
    fresh = fakes.attn2(fakes.ip_adapter(stage.model, fakes.callback, stage.keys))
    later = ours.clone()
    later.set_model_attn2_replace(fresh[stage.keys[0]], *stage.keys[0])
    stage.sample(later)
    assert len(warnings) == 1
    assert "input 1" in warnings[0]
    warnings.clear()


def test_shadowed_by_a_key_of_three(stage: Stage, warnings: list[str]) -> None:
    later = stage.ours()
    later.set_model_attn2_replace(fakes.plain, "output", 3, 0)
    stage.sample(later)
    assert len(warnings) == 1
    assert "output 3" in warnings[0]
    warnings.clear()


def test_key_of_three_that_wraps_ours_is_no_loss(stage: Stage) -> None:
    later = stage.ours()
    ours = fakes.attn2(later)[("output", 3)]
    later.set_model_attn2_replace(fakes.Wrapper(ours, fakes.callback), "output", 3, 0)
    expected = fakes.wrapping(stage.reference(), fakes.callback, [("output", 3)])
    assert_same(stage.sample(later), stage.sample(expected))


def test_another_models_people_are_a_loss(stage: Stage, warnings: list[str]) -> None:
    """An attention of ours from another branch of the graph draws other people."""
    later, other = stage.ours(), stage.ours()
    later.set_model_attn2_replace(fakes.attn2(other)[stage.keys[0]], *stage.keys[0])
    stage.sample(later)
    assert len(warnings) == 1
    assert "input 1" in warnings[0]
    warnings.clear()


def test_two_apply_nodes_in_a_row(stage: Stage) -> None:
    with pytest.raises(ValueError, match=r"applied to this model already.*one Apply DynamicID"):
        stage.ours(stage.ours())
    through = fakes.ip_adapter(
        stage.ours(fakes.ip_adapter(stage.model, fakes.callback, stage.keys)), fakes.second, stage.keys
    )
    with pytest.raises(ValueError, match="one Apply DynamicID"):
        stage.ours(through.clone())


def test_two_branches_of_one_model(stage: Stage) -> None:
    """One loader, two Apply nodes side by side: neither knows of the other."""
    left, right = stage.ours(), stage.ours(weight=0.3)
    alone = stage.sample(left)
    assert_other(stage.sample(right), alone)
    assert torch.equal(stage.sample(left), alone)
