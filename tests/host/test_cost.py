"""What people in a picture cost: counted, never timed."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.lora
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from dynamicid_pack.benchmarks.counting import FLOPS, VIEWS, Tally, computing, counted_calls, counted_flops
from dynamicid_pack.benchmarks.steps import step_on_meta
from dynamicid_pack.benchmarks.subjects import full_size_model, random_adapter, with_people
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host import identity_attention
from dynamicid_pack.dynamicid_core.host.models import DynamicID, load_dynamicid
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.regions import Region, columns
from dynamicid_pack.dynamicid_core.saa.scene import Placement, arrange
from dynamicid_pack.nodes.apply import Apply, ApplyAdvanced
from torch.utils._python_dispatch import TorchDispatchMode

from . import probe, tiny

# In each cross-attention layer, operators that compute something, beyond those of the unpatched layer. On a GPU each is
# one launch. In half precision one casts the queries, since the gate's scores are float32.
ADDED_CALLS = {torch.float32: 9, torch.bfloat16: 10}
# Beside those, operators that only show a tensor in another shape.
ADDED_VIEWS = {torch.float32: 8, torch.bfloat16: 7}

READ_BACKS = ("aten.item", "aten._local_scalar_dense", "aten.is_nonzero", "aten.equal", "aten.nonzero")

LAYERS, LINEARS, GRIDS = 7, 8, 3  # of the tiny model: cross-attentions; LoRA'd linears per block; sizes of grid
STEPS, STEPS_IN_LAYOUT = 5, 3
LAYOUT_STEPS = 30  # of the release's 50


@pytest.fixture(scope="module")
def dynamicid(tiny_adapter_file: Path) -> DynamicID:
    return replace(load_dynamicid(tiny_adapter_file), layout_steps=LAYOUT_STEPS)


def person(seed: int) -> Identity:
    return Identity(**tiny.identity_tensors(seed))


SCENES = {
    "one person, whole picture": [person(1)],
    "two people in columns": [person(1), person(2)],
    "four people in columns": [person(seed) for seed in range(1, 5)],
}


@pytest.mark.parametrize(("people", "size"), [(2, (512, 512)), (4, (768, 512))])
def test_floating_point_operations(people: int, size: tuple[int, int]) -> None:
    """On the full-size UNet, where nothing has to be computed to be counted."""
    model = full_size_model(torch.device("meta"), torch.float32)
    adapter = random_adapter(model)

    def flops(patched: Any) -> Tally:
        with counted_flops(patched.model.diffusion_model) as tally:
            step_on_meta(patched, size)()
        return tally

    without, with_them = flops(model), flops(with_people(model, adapter, people))
    assert len(without.layers) == len(with_them.layers) == 16
    assert all(with_them.layers[name].counts[FLOPS] > layer.counts[FLOPS] for name, layer in without.layers.items())
    assert 1 < with_them.total[FLOPS] / without.total[FLOPS] < 1.01


@pytest.mark.parametrize(
    ("people", "dtype"),
    [pytest.param(people, torch.float32, id=name) for name, people in SCENES.items()]
    + [pytest.param(SCENES["two people in columns"], torch.bfloat16, id="half precision")],
)
def test_operator_calls_added_per_layer(people: list[Identity], dtype: torch.dtype, dynamicid: DynamicID) -> None:
    """The first call of a run prepares what all later ones reuse; those are counted."""
    model = tiny.tiny_patcher(dtype=dtype)
    unpatched = counted_run(model)
    patched = counted_run(model, lambda model: apply(model, dynamicid, people))
    for step in range(1, STEPS):
        before, after = unpatched[step].layers, patched[step].layers
        assert len(before) == len(after) == LAYERS
        added = {computing(after[name].counts) - computing(before[name].counts) for name in before}
        assert added == {ADDED_CALLS[dtype] + (step < STEPS_IN_LAYOUT)}  # the layout phase takes one more
        views = {after[name].counts[VIEWS] - before[name].counts[VIEWS] for name in before}
        assert views == {ADDED_VIEWS[dtype]}


def test_nothing_is_read_back_inside_a_layer(tiny_model: Any, dynamicid: DynamicID) -> None:
    """One number per call of the UNet, its noise level, before the first layer."""
    assert all(read_backs(call.total) == 0 for call in counted_run(tiny_model))
    calls = counted_run(tiny_model, lambda model: apply(model, dynamicid, SCENES["two people in columns"]))
    for call in calls[1:]:
        assert read_backs(call.total) == 1
        assert all(read_backs(layer.counts) == 0 for layer in call.layers.values())


def test_identities_are_projected_once(tiny_model: Any, dynamicid: DynamicID) -> None:
    """When the node runs, not while sampling."""
    weights = [tensor for name, tensor in dynamicid.adapter.weights.items() if name.endswith("_ip.weight")]
    with uses_of(weights) as uses:
        patched = apply(tiny_model, dynamicid, SCENES["two people in columns"])
    assert len(weights) == 2 * LAYERS
    assert uses["aten.matmul"] >= len(weights), "the meter does not see the projections"
    with uses_of(weights) as uses:
        sample(patched)
    assert not uses


def test_regions_are_rasterized_once_per_run_and_grid(
    tiny_model: Any, dynamicid: DynamicID, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids: list[tuple[int, int]] = []
    original = identity_attention.rasterize

    def counted(regions: Sequence[Region], height: int, width: int) -> torch.Tensor:
        grids.append((height, width))
        return original(regions, height, width)

    monkeypatch.setattr(identity_attention, "rasterize", counted)
    patched = apply(tiny_model, dynamicid, SCENES["two people in columns"])
    sample(patched)
    assert len(grids) == len(set(grids)) == GRIDS
    sample(patched, size=(24, 16))
    assert len(grids) == len(set(grids)) == 2 * GRIDS


@pytest.mark.parametrize("people", [1, 3, 5, 7])
def test_masks_are_aligned_once(
    people: int, tiny_model: Any, dynamicid: DynamicID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory-efficient attention copies masks in each call whose rows aren't multiples of 8 elements apart."""
    masks: list[torch.Tensor] = []
    original = identity_attention.saa

    def noted(out: Any, q: Any, k_id: Any, v_id: Any, mean_key: Any, log_share: torch.Tensor, *rest: Any) -> Any:
        masks.append(log_share)
        return original(out, q, k_id, v_id, mean_key, log_share, *rest)

    monkeypatch.setattr(identity_attention, "saa", noted)
    box = Region(box=Box(0.0, 0.0, 0.5, 1.0))
    sample(apply(tiny_model, dynamicid, [Placement(person(seed), box) for seed in range(people - 1)] + [person(9)]))
    if people == 1:
        assert all(mask is None for mask in masks)  # one alone needs none
        return
    assert {mask.shape[-1] for mask in masks} == {people * tiny.TOKENS}
    assert all(mask.stride(-1) == 1 and mask.stride(-2) % 8 == 0 for mask in masks)
    assert len({mask.data_ptr() for mask in masks}) == GRIDS


def test_moving_a_box_or_a_weight_merges_nothing_again(
    tiny_model: Any, dynamicid: DynamicID, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged: list[str] = []
    original = comfy.lora.calculate_weight

    def counted(patches: Any, weight: torch.Tensor, key: str, *args: Any, **kwargs: Any) -> torch.Tensor:
        merged.append(key)
        return original(patches, weight, key, *args, **kwargs)

    monkeypatch.setattr(comfy.lora, "calculate_weight", counted)

    def merges(patched: Any) -> int:
        merged.clear()
        sample(patched)
        return len(merged)

    left, right = columns(2)
    here = [Placement(person(1), left), Placement(person(2), right)]
    moved = [Placement(person(1), Region(box=Box(0.1, 0.2, 0.4, 0.9))), here[1]]
    weaker = [Placement(person(1), left, weight=0.5), here[1]]
    everything = LAYERS * LINEARS
    assert merges(apply(tiny_model, dynamicid, here)) == everything
    assert merges(apply(tiny_model, dynamicid, moved)) == 0
    assert merges(apply(tiny_model, dynamicid, weaker)) == 0
    assert merges(apply(tiny_model, dynamicid, here, weight=1.5)) == 0
    assert merges(apply(tiny_model, dynamicid, here, lora_strength=0.5)) == everything
    assert merges(apply(tiny_model, dynamicid, here)) == everything


def apply(
    model: Any,
    dynamicid: DynamicID,
    people: Sequence[Identity | Placement],
    *,
    weight: float = 1.0,
    lora_strength: float | None = None,
) -> Any:
    """The model out of Apply DynamicID, or out of the advanced one where a strength of the LoRA is given."""
    wired = {"person_0": arrange(people)}
    if lora_strength is None:
        return Apply.execute(model, dynamicid, wired, weight).args[0]
    return ApplyAdvanced.execute(
        model,
        dynamicid,
        wired,
        weight=weight,
        start_at=0.0,
        end_at=1.0,
        lora_strength=lora_strength,
        layout_scale=4.0,
        layout_steps=LAYOUT_STEPS,
        gate_threshold=0.3,
        gate=True,
    ).args[0]


def sample(model: Any, size: tuple[int, int] = (16, 16)) -> None:
    generator = torch.Generator().manual_seed(5)
    positive, negative = torch.randn(2, 1, 77, tiny.WIDTH, generator=generator)
    probe.sample(model, positive, negative, size=size, steps=STEPS)


def counted_run(model: Any, patch: Callable[[Any], Any] = lambda model: model) -> list[Tally]:
    """Sample with the patched model; the operator calls of each call of the UNet, our own wrapper's included."""
    tallies = []

    def count(executor: Any, *args: Any, **kwargs: Any) -> Any:
        with counted_calls(model.model.diffusion_model) as tally:
            out = executor(*args, **kwargs)
        tallies.append(tally)
        return out

    watched = model.clone()
    # Before the patch, so that its wrapper comes to lie inside this one.
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "count", count)
    sample(patch(watched))
    assert len(tallies) == STEPS
    return tallies


def read_backs(counts: Counter[str]) -> int:
    return sum(counts[name] for name in READ_BACKS)


@contextmanager
def uses_of(weights: Sequence[torch.Tensor]) -> Iterator[Counter[str]]:
    """Counts the operators that are given one of these tensors, or a view of one, by name."""
    seen: Counter[str] = Counter()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
            alias = torch._C._is_alias_of  # type: ignore[attr-defined]
            if any(alias(tensor, weight) for tensor in tensors for weight in weights):
                seen[str(func.overloadpacket)] += 1
            return func(*args, **(kwargs or {}))

    with Watch():
        yield seen
