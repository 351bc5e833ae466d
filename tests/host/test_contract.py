"""What users of any ComfyUI node may count on, shown on the host's own classes in miniature."""

import copy
import gc
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.lora
import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host.activation import activation_maps
from dynamicid_pack.dynamicid_core.host.apply import KEY
from dynamicid_pack.dynamicid_core.host.identity_attention import IdentityAttention
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from dynamicid_pack.dynamicid_core.host.sampling_run import RUN, STEP
from dynamicid_pack.dynamicid_core.identity.identity import Identity, load_identity, mix
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.nodes.apply import Apply, ApplyAdvanced
from dynamicid_pack.nodes.identities import MixIdentities, SaveIdentity
from dynamicid_pack.nodes.layout import AutoLayout
from dynamicid_pack.nodes.place import PlaceIdentity

from . import probe, tiny

DEFAULTS: dict[str, Any] = {
    "weight": 1.0,
    "start_at": 0.0,
    "end_at": 1.0,
    "lora_strength": 1.0,
    "layout_scale": 4.0,
    "layout_steps": 3,
    "gate_threshold": 0.3,
    "gate": True,
}


BLOCKS = {"SD1.5": 7, "SDXL": 18}
"""Base model -> transformer blocks of the small one."""


@pytest.fixture(scope="module", params=BLOCKS)
def base(request: pytest.FixtureRequest) -> str:
    """The base model: what holds for one holds for the other."""
    return str(request.param)


@pytest.fixture(scope="module")
def dynamicid(base: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_dynamicid(tiny.adapter_file(tmp_path_factory.mktemp("adapter") / "tiny.safetensors", base=base))


@pytest.fixture(scope="module")
def model(base: str) -> Iterator[Any]:
    """One model for all: no test may change it."""
    patcher = tiny.tiny_patcher(base=base)
    before = {name: tensor.clone() for name, tensor in patcher.model.state_dict().items()}
    yield patcher
    patcher.detach()
    for name, tensor in patcher.model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} of the input model was changed"
    assert patcher.patches == {} and patcher.wrappers == {} and patcher.callbacks == {}
    assert patcher.model_options == {"transformer_options": {}}


def person(seed: int) -> Identity:
    return Identity(**tiny.identity_tensors(seed), name=f"person {seed}")


TEXT = torch.randn(2, 1, 77, tiny.WIDTH, generator=torch.Generator().manual_seed(5))


def picture(model: Any, **settings: Any) -> torch.Tensor:
    return probe.sample(model, TEXT[0], TEXT[1], **settings)


def apply(model: Any, dynamicid: Any, *people: Any, **changed: Any) -> Any:
    wired = {f"person_{i}": who for i, who in enumerate(people)}
    return ApplyAdvanced.execute(model, dynamicid, wired, **DEFAULTS | changed).args[0]


def simple(model: Any, dynamicid: Any, *people: Any, weight: float = 1.0) -> Any:
    return Apply.execute(model, dynamicid, {f"person_{i}": who for i, who in enumerate(people)}, weight).args[0]


def test_defaults_of_both_nodes_agree(model: Any, dynamicid: Any) -> None:
    people = person(1), person(2)
    assert torch.equal(picture(simple(model, dynamicid, *people)), picture(apply(model, dynamicid, *people)))


def test_people_change_the_picture(model: Any, dynamicid: Any) -> None:
    one, other = (picture(simple(model, dynamicid, person(seed))) for seed in (1, 2))
    plain = picture(model)
    assert torch.isfinite(one).all()
    assert not torch.allclose(one, plain) and not torch.allclose(one, other)


def test_weight_zero_is_the_input_model(model: Any, dynamicid: Any) -> None:
    assert simple(model, dynamicid, person(1), weight=0.0) is model
    off = apply(model, dynamicid, person(1), weight=0.0, lora_strength=0.0)
    assert torch.equal(picture(off), picture(model))


def test_weight_zero_keeps_the_lora_of_the_advanced_node(base: str, model: Any, dynamicid: Any) -> None:
    lora_only = apply(model, dynamicid, person(1), weight=0.0)
    assert len(lora_only.patches) == BLOCKS[base] * 8
    assert not torch.allclose(picture(lora_only), picture(model))
    # The same with a person who adds nothing because of their own weight, not the node's.
    silent = Placement(person(1), Region(), weight=0.0)
    assert torch.equal(picture(apply(model, dynamicid, (silent,))), picture(lora_only))


def test_without_lora_and_people_active_the_attention_is_the_hosts_own(model: Any, dynamicid: Any) -> None:
    """Patched layers with nobody active compute bit for bit what the unpatched ones do."""
    between_steps = Placement(person(1), Region(), start_at=0.6, end_at=0.6001)
    patched = apply(model, dynamicid, (between_steps,), lora_strength=0.0)
    assert patched is not model
    assert torch.equal(picture(patched, cfg=1.0), picture(model, cfg=1.0))


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (100, 37)])
def test_a_full_mask_is_no_mask_and_an_empty_mask_is_absent(model: Any, dynamicid: Any, shape: tuple) -> None:
    plain = picture(simple(model, dynamicid, person(1)))
    full = Placement(person(1), Region(mask=torch.ones(shape)))
    empty = Placement(person(2), Region(mask=torch.zeros(shape)))
    assert torch.equal(picture(simple(model, dynamicid, (full,))), plain)
    assert torch.equal(picture(simple(model, dynamicid, (full, empty))), plain)
    assert simple(model, dynamicid, (empty,)) is model


def test_second_run_equals_the_first(model: Any, dynamicid: Any) -> None:
    patched = simple(model, dynamicid, person(1), person(2))
    first = picture(patched, sampler="dpmpp_2m_sde")
    assert torch.equal(picture(patched, sampler="dpmpp_2m_sde"), first)
    assert torch.equal(picture(simple(model, dynamicid, person(1), person(2)), sampler="dpmpp_2m_sde"), first)


def _contents(patcher: Any) -> Any:
    """What a patched model holds, tensors by their numbers."""

    def numbers(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return ("tensor", tuple(value.shape), str(value.device), float(value.double().sum()))
        if isinstance(value, (tuple, list)):
            return [numbers(item) for item in value]
        if isinstance(value, dict):
            return {key: numbers(item) for key, item in value.items()}
        if isinstance(value, IdentityAttention):
            return numbers([value.key, value.callback, value.kwargs, value.tokens, value.base])
        return id(value)

    return copy.deepcopy(numbers(patcher.model_options)), patcher.patches_uuid, sorted(map(str, patcher.patches))


def test_twenty_executions_leave_upstream_objects_alone_and_no_memory_behind(model: Any, dynamicid: Any) -> None:
    cached = simple(model, dynamicid, person(1), person(2))
    picture(cached, steps=1)
    before = _contents(cached)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    counts = []
    for execution in range(20):
        again = simple(model, dynamicid, person(1), (Placement(person(2), Region(box=Box(0.5, 0, 1, 1))),))
        downstream = cached.clone()
        if execution % 4 == 3:
            picture(again, steps=1)
            picture(downstream, steps=1)
            del again, downstream
            counts.append(tensors())
    assert _contents(cached) == before
    # The first count may still hold what tests before this one left.
    assert len(set(counts[1:])) == 1 and counts[1] <= counts[0], f"tensors after every fourth execution: {counts}"


def test_nothing_stays_in_the_patches_after_a_run(model: Any, dynamicid: Any) -> None:
    patched = simple(model, dynamicid, person(1))
    before = _contents(patched)
    picture(patched)
    assert _contents(patched) == before
    assert RUN not in patched.model_options["transformer_options"]
    assert STEP not in patched.model_options["transformer_options"]


def test_moving_a_box_or_a_weight_merges_no_weight_again(
    base: str, model: Any, dynamicid: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged: list[str] = []
    calculate = comfy.lora.calculate_weight

    def counted(patches: Any, weight: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        merged.append(key)
        return calculate(patches, weight, key, *args, **kwargs)

    monkeypatch.setattr(comfy.lora, "calculate_weight", counted)

    def merges(**changed: Any) -> int:
        merged.clear()
        box = changed.pop("box", (0, 0, 1, 1))
        patched = apply(model, dynamicid, (Placement(person(1), Region(box=box)),), **changed)
        picture(patched, steps=1)
        return len(merged)

    picture(model, steps=1)
    assert merges() == BLOCKS[base] * 8
    assert merges(box=Box(0, 0, 0.5, 1)) == 0
    assert merges(weight=0.5) == 0
    assert merges(layout_scale=0.0, gate=False) == 0
    assert merges(weight=0.0) == 0
    assert merges(lora_strength=0.5) == BLOCKS[base] * 8
    assert merges() == BLOCKS[base] * 8
    middle = sum("middle_block" in path for path in apply(model, dynamicid, person(1)).patches)
    assert middle and merges(lora_middle=0.0) == BLOCKS[base] * 8 - middle
    assert merges(lora_middle=0.0, weight=0.5) == 0


def test_the_lora_of_the_middle_block_has_a_strength_of_its_own(model: Any, dynamicid: Any) -> None:
    whole, weak, none = (apply(model, dynamicid, person(1), lora_middle=middle) for middle in (1.0, 0.5, 0.0))
    drawn = [picture(patched) for patched in (whole, weak, none)]
    assert all(not torch.allclose(one, other) for i, one in enumerate(drawn) for other in drawn[:i])
    assert probe.lora_strengths(apply(model, dynamicid, person(1), lora_strength=0.6, lora_middle=0.5)) == (
        {0.6},
        {0.3},
    )
    assert torch.equal(picture(apply(model, dynamicid, person(1))), drawn[0]), "the whole LoRA is the default"


def test_an_identity_of_another_adapter_merges_again(base: str, model: Any, dynamicid: Any, tmp_path: Path) -> None:
    other = load_dynamicid(tiny.adapter_file(tmp_path / "other.safetensors", seed=99, base=base))
    first, second = (apply(model, adapter, person(1)).patches_uuid for adapter in (dynamicid, other))
    assert first != second
    assert first == apply(model, dynamicid, person(2)).patches_uuid


@pytest.mark.parametrize("count", [1, 2, 3, 12])
@pytest.mark.parametrize("size", [(8, 8), (16, 24), (17, 13)])
def test_any_number_of_people_on_any_grid(model: Any, dynamicid: Any, count: int, size: tuple[int, int]) -> None:
    out = picture(simple(model, dynamicid, *map(person, range(count))), size=size, steps=2)
    assert out.shape == (1, 4, *size) and torch.isfinite(out).all()


def test_batch_rows_do_not_mix(model: Any, dynamicid: Any) -> None:
    """A batch of two gives each picture what it gets alone."""
    patched = simple(model, dynamicid, person(1), person(2))
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    together, calls = probe.watched(patched, lambda x, t, c, o: (noise.repeat(2, 1, 1, 1), t, c))
    probe.sample(together, TEXT[0], TEXT[1], batch=2, steps=1)
    for row in range(2):
        alone, single = probe.watched(
            patched, lambda x, t, c, o, row=row: (noise[row : row + 1].repeat(2, 1, 1, 1), t, c)
        )
        probe.sample(alone, TEXT[0], TEXT[1], steps=1)
        assert single.options[0]["cond_or_uncond"] == calls.options[0]["cond_or_uncond"]
        assert torch.allclose(calls.outputs[0][row::2], single.outputs[0], atol=1e-4)


def test_both_halves_get_their_own_tokens(model: Any, dynamicid: Any) -> None:
    """With the negative half's tokens equal to the positive's, and the texts too, both halves agree; else not."""
    same = Identity(person(1).tokens, person(1).tokens)
    for who, equal in ((same, True), (person(1), False)):
        watched, calls = probe.watched(simple(model, dynamicid, who))
        probe.sample(watched, TEXT[0], TEXT[0], steps=1)
        first, second = calls.outputs[0].chunk(2)
        assert torch.allclose(first, second, atol=1e-5) == equal


def test_a_mix_is_neither_person_and_its_ends_are_the_people(model: Any, dynamicid: Any) -> None:
    a, b = person(1), person(2)
    pictures = [picture(simple(model, dynamicid, mix(a, b, amount))) for amount in (0, 0.5, 1)]
    assert torch.equal(pictures[0], picture(simple(model, dynamicid, a)))
    assert torch.equal(pictures[2], picture(simple(model, dynamicid, b)))
    assert not torch.allclose(pictures[1], pictures[0]) and not torch.allclose(pictures[1], pictures[2])


def _steps(model: Any, **settings: Any) -> list[Any]:
    watched, calls = probe.watched(model)
    picture(watched, **settings)
    return [options[STEP] for options in calls.options]


def test_start_and_end_of_each_person(model: Any, dynamicid: Any) -> None:
    early = Placement(person(1), Region(), end_at=0.5)
    late = Placement(person(2), Region(), start_at=0.5)
    seen = [step.active for step in _steps(apply(model, dynamicid, (early, late)), steps=8)]
    assert seen[0] == (0,) and seen[-1] == (1,)
    middle = math.ceil(seen.index((1,)))
    assert all(active == (0,) for active in seen[:middle]) and all(active == (1,) for active in seen[middle:])
    halved = [step.active for step in _steps(apply(model, dynamicid, person(1), end_at=0.5), steps=8)]
    assert halved == [(0,) if active == (0,) else () for active in seen]


def test_a_person_absent_at_a_step_leaves_the_others_as_if_alone(model: Any, dynamicid: Any) -> None:
    everywhere = Placement(person(1), Region())
    never = Placement(person(2), Region(), start_at=0.6, end_at=0.6001)
    together, alone = apply(model, dynamicid, (everywhere, never)), apply(model, dynamicid, (everywhere,))
    assert torch.allclose(picture(together), picture(alone), atol=1e-5)


def test_activation_maps_follow_the_regions(model: Any, dynamicid: Any) -> None:
    patched = simple(model, dynamicid, person(1), person(2))
    before = _contents(patched)
    maps = activation_maps(patched, probe.conditioning(TEXT[0]), {"samples": torch.zeros(1, 4, 16, 16)}, at=0.5)
    assert maps.shape == (2, 16, 16) and maps.min() >= 0 and maps.max() <= 1
    left, right = maps[:, :, :7].sum(dim=(1, 2)), maps[:, :, 9:].sum(dim=(1, 2))
    assert left[0] > 10 * left[1] and right[1] > 10 * right[0]
    assert _contents(patched) == before
    again = activation_maps(patched, probe.conditioning(TEXT[0]), {"samples": torch.zeros(1, 4, 16, 16)}, at=0.5)
    assert torch.equal(maps, again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": 1.5}, "from 0"),
        ({"at": 0.5, "layer": ("output", 11)}, "no cross-attention layer output 11. It has: input "),
    ],
)
def test_activation_map_errors(model: Any, dynamicid: Any, arguments: dict[str, Any], message: str) -> None:
    patched = simple(model, dynamicid, person(1))
    with pytest.raises(ValueError, match=message):
        activation_maps(patched, probe.conditioning(TEXT[0]), {"samples": torch.zeros(1, 4, 16, 16)}, **arguments)
    for nobody in (model, apply(model, dynamicid, person(1), weight=0.0)):
        with pytest.raises(ValueError, match="no DynamicID applied"):
            activation_maps(nobody, probe.conditioning(TEXT[0]), {"samples": torch.zeros(1, 4, 16, 16)}, at=0.5)


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_applied_twice_is_refused(model: Any, dynamicid: Any, weight: float) -> None:
    """Even where only the LoRA was applied: it would be merged twice."""
    with pytest.raises(ValueError, match="Connect all people to one Apply DynamicID"):
        simple(apply(model, dynamicid, person(1), weight=weight), dynamicid, person(2))


def test_nobody_wired_is_an_error_and_nobody_left_passes_the_model(model: Any, dynamicid: Any) -> None:
    with pytest.raises(ValueError, match="at least one person"):
        Apply.execute(model, dynamicid, {}, 1.0)
    gone = Placement(person(1), Region(box=Box(0.5, 0, 0.5, 1)))
    assert apply(model, dynamicid, (gone,)) is model


def test_people_who_were_skipped_are_left_out_and_the_others_stay_where_they_are(
    model: Any, dynamicid: Any, tmp_path: Path
) -> None:
    """Encode Identity hands on None for someone it was told to skip."""
    someone = person(1)
    assert Apply.execute(model, dynamicid, {"person_0": None}, 1.0).result[0] is model
    (placed, mask, _) = PlaceIdentity.execute(None, 0.5, 0.0, 0.5, 1.0, 1.0, 0.0, 1.0).result
    assert placed == () and mask.mean() == pytest.approx(0.5, abs=0.01)
    (scene, masks, _) = AutoLayout.execute({"person_0": None, "person_1": someone}, {"layout": "columns"}).result
    assert [p.identity for p in scene] == [someone] and scene[0].region.box[0] == 0.5 and len(masks) == 2
    assert MixIdentities.execute(None, someone, 0.2).result[0] is MixIdentities.execute(someone, None, 0.2).result[0]
    assert SaveIdentity.execute(None, "nobody").result[0] is None


def test_identities_of_another_encoder_or_width_are_refused(model: Any, dynamicid: Any) -> None:
    stranger = Identity(person(1).tokens, person(1).negative_tokens, encoder="0" * 64, name="Ana")
    with pytest.raises(ValueError, match="'Ana' was made by another face encoder"):
        simple(model, dynamicid, stranger)
    wide = Identity(torch.zeros(4, 768), torch.zeros(4, 768), name="Bo")
    with pytest.raises(ValueError, match="'Bo' has tokens of dim 768, this adapter needs 128"):
        simple(model, dynamicid, wide)


def test_identity_file_through_the_host(tmp_path: Path, model: Any, dynamicid: Any) -> None:
    who = load_identity(
        tiny.identity_file(tmp_path / "p.safetensors", 1, encoder=dynamicid.adapter.encoder_fingerprint)
    )
    assert torch.equal(picture(simple(model, dynamicid, who)), picture(simple(model, dynamicid, person(1))))
    assert simple(model, dynamicid, who).get_attachment(KEY).scene[0].identity is who
