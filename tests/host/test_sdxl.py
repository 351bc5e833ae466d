"""SDXL: places with several transformer blocks, each drawn as the plain reference draws it, beside other packs."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from dynamicid_pack.benchmarks.counting import FLOPS, counted_flops
from dynamicid_pack.benchmarks.steps import step_on_meta
from dynamicid_pack.benchmarks.subjects import full_size_model, random_adapter, with_people
from dynamicid_pack.dynamicid_core.host.activation import activation_maps
from dynamicid_pack.dynamicid_core.host.identity_attention import IdentityAttention

from . import fakes, tiny
from .stage import Stage, assert_other, assert_same, conditioning
from .test_frames import FLOAT_NOISE, sample
from .test_motion_frames import BOTH, one_by_one, still

BASE = "SDXL"
"""What the stage draws with."""

pytestmark = pytest.mark.usefixtures("warnings")


def test_ours_is_the_references(stage: Stage) -> None:
    ours = stage.alone()
    assert_same(ours, stage.sample(stage.reference()))
    assert_other(ours, stage.nobody())


def test_every_block_has_a_key_of_its_own(stage: Stage) -> None:
    keys = [key for key, patch in fakes.attn2(stage.ours()).items() if isinstance(patch, IdentityAttention)]
    assert keys == stage.keys and len(keys) == len(set(keys)) == 18
    assert ("input", 4, 0) not in keys and ("middle", 0, 2) in keys


def test_adder_after_us(stage: Stage) -> None:
    both = fakes.ip_adapter(stage.ours(), fakes.callback, stage.keys, strength=0.4)
    assert all(isinstance(fakes.attn2(both)[key], IdentityAttention) for key in stage.keys), "they found ours"
    expected = fakes.wrapping(stage.reference(), lambda *a: fakes.callback(*a, strength=0.4), stage.keys)
    assert_same(stage.sample(both), stage.sample(expected))


def places(keys: Sequence[Any]) -> list[Any]:
    """The keys of whole places, each once."""
    return list(dict.fromkeys(key[:2] for key in keys))


@pytest.mark.parametrize("whole_places", [False, True], ids=["each block", "whole places"])
@pytest.mark.parametrize("adds", [False, True], ids=["wraps", "adds"])
def test_others_before_us(stage: Stage, whole_places: bool, adds: bool) -> None:
    """Where they patch a whole place, the host gives all its blocks to them: each of ours wraps what is there."""
    keys = places(stage.keys) if whole_places else stage.keys
    wrapped = fakes.wrapping(stage.model, fakes.callback, keys)
    theirs = fakes.ip_adapter(stage.model, fakes.callback, keys) if adds else wrapped
    before = stage.sample(theirs)
    both = stage.ours(theirs)
    assert_same(stage.sample(both), stage.sample(stage.reference(wrapped)))
    assert_other(stage.sample(both), [before, stage.alone()])
    assert torch.equal(stage.sample(theirs), before)


def test_exchanging_one_person_leaves_the_others_region_alone(stage: Stage) -> None:
    """In the first layer; later ones read what it wrote everywhere. The gate, which listens to all people, is off."""
    outputs = []
    for second in (2, 3):
        people = stage.people()
        (placement,) = people["person_1"]
        tokens = tiny.identity_tensors(second)
        identity = type(placement.identity)(tokens["tokens"], tokens["negative_tokens"])
        people["person_1"] = (type(placement)(identity, placement.region),)
        patched = stage.ours(people=people, gate=False)
        outputs.append(first_output(stage, patched))
    a, b = outputs
    middle = a.shape[2] // 2
    assert torch.equal(a[:, :, :middle], b[:, :, :middle])
    assert not torch.allclose(a[:, :, middle:], b[:, :, middle:])


def first_output(stage: Stage, patched: Any) -> torch.Tensor:
    """What the first patched layer returns in the first step: (rows, height, width, channels)."""
    ours, outputs = fakes.attn2(patched)[stage.keys[0]], []

    def note(q: Any, k: Any, v: Any, options: Any) -> Any:
        out = ours(q, k, v, options)
        outputs.append(out.unflatten(1, options["activations_shape"][-2:]))
        return out

    patched.set_model_attn2_replace(note, *stage.keys[0])
    stage.sample(patched)
    return outputs[0]


def test_two_people_with_a_curve_each(stage: Stage) -> None:
    """Each row of a batch is drawn with its own frame's tokens, in every block of a place."""
    stage.sampling |= {"size": (8, 12), "steps": 1}
    batch = sample(stage, stage.ours(people=BOTH))
    assert_same(batch, one_by_one(stage, still), FLOAT_NOISE)
    assert_other(batch[1:2], sample(stage, stage.ours(people=still(0)))[1:2])


def test_a_map_of_one_place(stage: Stage) -> None:
    latent = {"samples": torch.zeros(1, 4, 8, 12)}
    maps = {
        layer: activation_maps(stage.ours(), conditioning("p"), latent, 0.5, layer)
        for layer in (None, ("middle", 0), ("output", 0))
    }
    assert all(each.shape == (2, 8, 12) and each.max() > 0 for each in maps.values())
    assert not torch.equal(maps["middle", 0], maps["output", 0])
    with pytest.raises(ValueError, match=r"no cross-attention layer output 11\. It has: input 3"):
        activation_maps(stage.ours(), conditioning("p"), latent, 0.5, ("output", 11))


def test_overwritten_blocks_are_named(stage: Stage, warnings: list[str]) -> None:
    stage.sample(fakes.overwriting(stage.ours(), stage.keys[:2]))
    (warning,) = (warnings.pop() for _ in range(1))
    assert f"2 of 18 layers (input {stage.keys[0][1]}.0, input {stage.keys[0][1]}.1)" in warning


@pytest.mark.full
def test_floating_point_operations() -> None:
    """Two people at 1024 x 1024 on the full-size UNet, where nothing has to be computed to be counted."""
    model = full_size_model(torch.device("meta"), torch.float32, "SDXL")
    adapter = random_adapter(model)
    assert len(adapter.dims) == 140

    def flops(patched: Any) -> int:
        with counted_flops(patched.model.diffusion_model) as tally:
            step_on_meta(patched, (1024, 1024))()
        return int(tally.total[FLOPS])

    assert 1 < flops(with_people(model, adapter, 2)) / flops(model) < 1.01
