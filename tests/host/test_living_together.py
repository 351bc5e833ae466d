"""Other packs at the same attention: whoever comes first, each one's part is drawn and nobody's objects change."""

import copy
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.host.identity_attention import IdentityAttention
from torch import Tensor

from . import fakes
from .stage import ABSENT, Stage, assert_other, assert_same, text


def test_the_reference_can_tell(stage: Stage) -> None:
    """The comparison that all tests here rest on: people show, and so does any mistake in who is negative."""
    ours = stage.alone()
    assert_same(ours, stage.sample(stage.reference()))
    assert_other(ours, stage.nobody())
    for negatives in ([], [text("p")], [text("p"), text("n")]):
        stage.negatives = negatives
        assert_other(ours, stage.sample(stage.reference()))


# IP-Adapter, InstantID, PuLID


def test_adder_after_us(stage: Stage) -> None:
    both = fakes.ip_adapter(stage.ours(), fakes.callback, stage.keys, strength=0.4)
    assert all(isinstance(fakes.attn2(both)[key], IdentityAttention) for key in stage.keys), "they found ours"
    expected = fakes.wrapping(stage.reference(), lambda *a: fakes.callback(*a, strength=0.4), stage.keys)
    assert_same(stage.sample(both), stage.sample(expected))
    assert_other(stage.sample(both), [stage.alone(), stage.nobody()])


def test_adder_before_us(stage: Stage) -> None:
    theirs = fakes.ip_adapter(stage.model, fakes.callback, stage.keys, strength=0.4)
    for patch in fakes.attn2(theirs).values():
        patch.to(torch.device("cpu"))
    before, alone, moved = fakes.held(theirs), stage.sample(theirs), fakes.attn2(theirs)[stage.keys[0]].multigpu_kwargs
    both = stage.ours(theirs)
    for key in stage.keys:
        fork, original = fakes.attn2(both)[key], fakes.attn2(theirs)[key]
        assert isinstance(fork, fakes.Adder)
        assert fork is not original
        assert fork.multigpu_kwargs == {}, "made from the keywords of before"
        assert set(fork.kwargs[-1]) == {"sigma_start", "sigma_end"}
        assert fork.kwargs[:-1] == original.kwargs
    expected = stage.reference(fakes.wrapping(stage.model, lambda *a: fakes.callback(*a, strength=0.4), stage.keys))
    assert_same(stage.sample(both), stage.sample(expected))
    assert_other(stage.sample(both), [alone, stage.alone()])
    assert fakes.held(theirs) == before
    assert fakes.attn2(theirs)[stage.keys[0]].multigpu_kwargs is moved
    assert moved
    assert torch.equal(stage.sample(theirs), alone)


def test_adders_before_and_after_us(stage: Stage) -> None:
    first = fakes.ip_adapter(stage.model, fakes.callback, stage.keys)
    all_three = fakes.ip_adapter(stage.ours(first), fakes.second, stage.keys)
    expected = fakes.wrapping(
        stage.reference(fakes.wrapping(stage.model, fakes.callback, stage.keys)), fakes.second, stage.keys
    )
    assert_same(stage.sample(all_three), stage.sample(expected))
    assert_other(stage.sample(all_three), stage.sample(stage.ours(first)))


def test_adders_stack_in_their_order(stage: Stage) -> None:
    two = fakes.ip_adapter(fakes.ip_adapter(stage.ours(), fakes.callback, stage.keys), fakes.second, stage.keys)
    expected = fakes.wrapping(fakes.wrapping(stage.reference(), fakes.callback, stage.keys), fakes.second, stage.keys)
    swapped = fakes.wrapping(fakes.wrapping(stage.reference(), fakes.second, stage.keys), fakes.callback, stage.keys)
    assert_same(stage.sample(two), stage.sample(expected))
    assert_other(stage.sample(two), stage.sample(swapped))


@pytest.mark.parametrize("window", [(999999999.9, 5.0), (5.0, 1.0), (1.0, 0.0), (0.001, 0.0)])
@pytest.mark.parametrize("they_are_first", [False, True])
def test_sigma_window_of_a_callback(stage: Stage, window: tuple[float, float], they_are_first: bool) -> None:
    stage.sampling["steps"] = 4
    limits = dict(zip(("sigma_start", "sigma_end"), window, strict=True))
    seen: list[float] = []

    def noting(out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any], **kwargs: Any) -> Tensor:
        assert {"sigma_start": kwargs["sigma_start"], "sigma_end": kwargs["sigma_end"]} == limits
        seen.append(float(extra_options["sigmas"][0]))
        return fakes.callback(out, q, k, v, extra_options)

    def windowed(out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor | int:
        return fakes.callback(out, q, k, v, extra_options) if fakes.in_window(extra_options, limits) else 0

    if they_are_first:
        both = stage.ours(fakes.ip_adapter(stage.model, noting, stage.keys, **limits))
        expected = stage.reference(fakes.wrapping(stage.model, windowed, stage.keys))
    else:
        both = fakes.ip_adapter(stage.ours(), noting, stage.keys, **limits)
        expected = fakes.wrapping(stage.reference(), windowed, stage.keys)
    assert_same(stage.sample(both), stage.sample(expected))
    assert all(window[0] >= sigma >= window[1] for sigma in seen)
    assert bool(seen) == (window[0] > 0.01)


def test_callback_may_return_zero(stage: Stage) -> None:
    silent = fakes.ip_adapter(stage.ours(), lambda *_, **__: 0, stage.keys)
    assert torch.equal(stage.sample(silent), stage.alone())


def test_nobody_active_leaves_their_result(stage: Stage) -> None:
    """Our part is then the int 0, for us as for their objects."""
    theirs = fakes.ip_adapter(stage.model, fakes.callback, stage.keys)
    assert torch.equal(stage.sample(stage.ours(theirs, **ABSENT)), stage.sample(theirs))
    after = fakes.ip_adapter(stage.ours(**ABSENT), fakes.callback, stage.keys)
    assert torch.equal(stage.sample(after), stage.sample(theirs))


@pytest.mark.parametrize("they_are_first", [False, True])
def test_extra_options_are_left_as_they_are(stage: Stage, they_are_first: bool) -> None:
    before: list[dict[str, Any]] = []

    def note(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, ...]:
        before.append(dict(extra_options))
        return q, k, v

    def compare(out: Tensor, extra_options: dict[str, Any]) -> Tensor:
        then = before.pop()
        assert extra_options.keys() == then.keys()
        assert all(extra_options[name] is value for name, value in then.items())
        compared.append(extra_options["block"])
        return out

    compared: list[Any] = []
    patched = fakes.ip_adapter(stage.model, fakes.callback, stage.keys) if they_are_first else stage.model
    patched = fakes.ip_adapter(stage.ours(patched), fakes.second, stage.keys)
    patched.set_model_attn2_patch(note)
    patched.set_model_attn2_output_patch(compare)
    stage.sample(patched)
    assert set(compared) == set(stage.keys)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_result_has_the_dtype_of_the_queries(stage: Stage, dtype: torch.dtype) -> None:
    """Callbacks may compute in float32, bases too."""
    taken: list[tuple[Any, ...]] = []

    def take(q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        taken.append((q, k, v, extra_options))
        return fakes.plain(q, k, v, extra_options)

    key = stage.keys[0]
    base = stage.model.clone()
    base.set_model_attn2_replace(take, *key)
    patched = fakes.ip_adapter(stage.ours(base), lambda out, *_, **__: out.float() * 0.5, [key])
    stage.sample(patched, steps=1)
    q, k, v, extra_options = taken[0]
    patch = fakes.attn2(patched)[key]
    full = patch(q, k, v, extra_options)
    half = patch(q.to(dtype), k.to(dtype), v.to(dtype), extra_options)
    assert half.dtype == dtype
    assert_same(half.float(), full, tolerance=2e-2)


def test_callback_runs_where_nobody_tells_the_noise_level(stage: Stage) -> None:
    """As in their own objects, one without `sigmas` counts as always."""
    taken: list[tuple[Any, ...]] = []
    key = stage.keys[0]
    base = fakes.wrapping(stage.model, lambda out, *rest: taken.append(rest) or 0, [key])
    patched = fakes.ip_adapter(stage.ours(base), fakes.callback, [key])
    stage.sample(patched, steps=1)
    q, k, v, extra_options = taken[0]
    bare = {name: value for name, value in extra_options.items() if "sigma" not in name and "dynamicid" not in name}
    without = stage.ours(base)
    out = fakes.attn2(without)[key](q, k, v, dict(bare))
    assert_same(fakes.attn2(patched)[key](q, k, v, dict(bare)), out + 0.5 * torch.tanh(out))


def test_host_moves_patches_between_devices_and_dtypes(stage: Stage) -> None:
    """The host calls `.to(device)` and `.to(dtype)` on what is at each key, and keeps what it returns."""
    models = [stage.ours(), stage.ours(fakes.ip_adapter(stage.model, fakes.callback, stage.keys))]
    for model in models:
        before, result = fakes.held(model), stage.sample(model)
        for target in (torch.device("cpu"), torch.float16, torch.float32):
            model.model_patches_to(target)
        assert fakes.held(model) == before
        assert torch.equal(stage.sample(model), result)


# Cached objects


@pytest.mark.parametrize("they_are_first", [False, True])
def test_fifty_reexecutions_over_a_cached_model(stage: Stage, they_are_first: bool) -> None:
    """The host keeps our output; a node after it that is run again adds to its own objects only."""
    keys = [*stage.keys, ("middle", 1)]
    upstream = fakes.ip_adapter(stage.model, fakes.callback, keys) if they_are_first else stage.model
    ours = stage.ours(upstream)
    cached, before, first = (upstream, ours), (fakes.held(upstream), fakes.held(ours)), stage.sample(ours)
    result = stage.sample(fakes.ip_adapter(ours, fakes.second, keys))
    for _ in range(50):
        again = fakes.ip_adapter(ours, fakes.second, keys)
        assert tuple(map(fakes.held, cached)) == before
        patches = fakes.attn2(again)
        assert all(fakes.second in patch.callback for patch in patches.values())
        assert {len(patches[key].callback) for key in stage.keys} == {1 + 2 * they_are_first}
    assert torch.equal(stage.sample(again), result)
    assert torch.equal(stage.sample(ours), first)


def test_fifty_reexecutions_of_our_own_node(stage: Stage) -> None:
    upstream = fakes.ip_adapter(stage.model, fakes.callback, stage.keys)
    before, result = fakes.held(upstream), stage.sample(stage.ours(upstream))
    for _ in range(50):
        again = stage.ours(upstream)
    assert fakes.held(upstream) == before
    assert {len(patch.callback) for patch in fakes.attn2(again).values()} == {2}
    assert torch.equal(stage.sample(again), result)


def test_a_clone_further_down_is_guarded_too(stage: Stage) -> None:
    """A LoRA or FreeU node between us and them clones; what it holds is cached as well."""
    ours = stage.ours(fakes.ip_adapter(stage.model, fakes.callback, stage.keys))
    between = ours.clone()
    before = fakes.held(ours), fakes.held(between)
    fakes.ip_adapter(between.clone(), fakes.second, stage.keys)
    fakes.ip_adapter(between, fakes.second, stage.keys)
    assert (fakes.held(ours), fakes.held(between)) == before


@pytest.mark.parametrize("they_are_first", [False, True])
def test_deep_copy_shares_the_weights(stage: Stage, they_are_first: bool) -> None:
    """Hosts that deep-copy a model's options on every clone: own lists, the same tensors."""
    upstream = (
        fakes.ip_adapter(stage.model, fakes.callback, stage.keys, ipadapter=None) if they_are_first else stage.model
    )
    ours = stage.ours(upstream)
    copied = copy.deepcopy(fakes.attn2(ours))
    before = fakes.held(ours)
    for key, patch in copied.items():
        original = fakes.attn2(ours)[key]
        patch.add(fakes.second, **fakes.ALWAYS)
        mine, theirs = (p.callback[1].__self__ if they_are_first else p for p in (original, patch))
        assert mine.tokens is theirs.tokens
        assert mine.applied is theirs.applied
    assert fakes.held(ours) == before
