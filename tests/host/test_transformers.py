"""What holds for UNets holds for diffusion transformers, shown on small ones of the host's own classes."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comfy.ldm.flux.layers
import comfy.lora
import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.host.activation import activation_maps
from dynamicid_pack.dynamicid_core.host.architectures import ARCHITECTURES
from dynamicid_pack.dynamicid_core.host.architectures.override import OVERRIDE, Overridden
from dynamicid_pack.dynamicid_core.host.identity_attention import IdentityLayer
from dynamicid_pack.dynamicid_core.host.models import DynamicID, load_dynamicid
from dynamicid_pack.dynamicid_core.host.report import base_of
from dynamicid_pack.dynamicid_core.host.sampling_run import RUN, STEP
from dynamicid_pack.dynamicid_core.identity.identity import Identity
from dynamicid_pack.dynamicid_core.saa.regions import Region
from dynamicid_pack.dynamicid_core.saa.scene import Placement
from dynamicid_pack.nodes.apply import Apply, ApplyAdvanced
from torch import Tensor

from . import tiny, transformers
from .transformers import GRID, SMALL, sample

LEFT, RIGHT = Region(box=Box(0.0, 0.0, 0.5, 1.0)), Region(box=Box(0.5, 0.0, 1.0, 1.0))


@pytest.fixture(scope="module", params=SMALL)
def base(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def dynamicid(base: str, tmp_path_factory: pytest.TempPathFactory) -> DynamicID:
    return load_dynamicid(transformers.adapter_file(tmp_path_factory.mktemp("adapter") / "saa.safetensors", base))


@pytest.fixture(scope="module")
def model(base: str) -> Iterator[Any]:
    """One model for all: no test may change it."""
    patcher = transformers.model(base)
    before = {name: tensor.clone() for name, tensor in patcher.model.state_dict().items()}
    yield patcher
    patcher.detach()
    for name, tensor in patcher.model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} of the input model was changed"
    assert patcher.patches == {} and patcher.wrappers == {} and patcher.callbacks == {}
    assert patcher.model_options == {"transformer_options": {}}


@pytest.fixture(scope="module")
def plain(base: str, model: Any) -> Tensor:
    return sample(model, base)


@pytest.fixture(scope="module")
def drawn(base: str, model: Any, dynamicid: DynamicID) -> Tensor:
    return sample(apply(model, dynamicid, *two()), base)


def person(seed: int) -> Identity:
    return Identity(**tiny.identity_tensors(seed), name=f"person {seed}")


def two(second: int = 2) -> tuple[tuple[Placement], tuple[Placement]]:
    return (Placement(person(1), LEFT),), (Placement(person(second), RIGHT),)


def apply(model: Any, dynamicid: DynamicID, *people: Any, **changed: Any) -> Any:
    """Without the LoRA, unless a strength of it is given."""
    settings = {
        "weight": 1.0, "start_at": 0.0, "end_at": 1.0, "lora_strength": 0.0, "layout_scale": 4.0, "layout_steps": 3,
        "gate_threshold": 0.3, "gate": True,
    }  # fmt: skip
    wired = {f"person_{i}": who for i, who in enumerate(people)}
    return ApplyAdvanced.execute(model, dynamicid, wired, **settings | changed).args[0]


def test_people_change_the_picture_and_each_another_way(
    base: str, model: Any, dynamicid: DynamicID, plain: Tensor, drawn: Tensor
) -> None:
    other = sample(apply(model, dynamicid, *two(3)), base)
    assert torch.isfinite(drawn).all() and drawn.shape == plain.shape
    assert not torch.allclose(drawn, plain) and not torch.allclose(drawn, other)


def test_weight_zero_is_the_input_model(base: str, model: Any, dynamicid: DynamicID) -> None:
    assert Apply.execute(model, dynamicid, {"person_0": person(1)}, 0.0).args[0] is model
    assert apply(model, dynamicid, person(1), weight=0.0) is model


def test_hooked_blocks_with_nobody_active_are_the_hosts_own(
    base: str, model: Any, dynamicid: DynamicID, plain: Tensor
) -> None:
    """Bit for bit."""
    between_steps = Placement(person(1), Region(), start_at=0.9, end_at=0.9001)
    patched = apply(model, dynamicid, (between_steps,))
    assert patched is not model
    assert torch.equal(sample(patched, base), plain)


def test_people_of_weight_zero_leave_every_bit(base: str, model: Any, dynamicid: DynamicID) -> None:
    """Those who are drawn with values of 0, beside somebody who is not there yet."""
    silent = Placement(person(1), Region(), weight=0.0)
    later = Placement(person(2), Region(), start_at=0.99)
    patched = apply(model, dynamicid, (silent,), (later,))
    assert torch.equal(sample(patched, base, steps=1), sample(model, base, steps=1))


def test_second_run_equals_the_first(base: str, model: Any, dynamicid: DynamicID, drawn: Tensor) -> None:
    patched = apply(model, dynamicid, *two())
    before = contents(patched)
    assert torch.equal(sample(patched, base), drawn)
    assert torch.equal(sample(patched, base), drawn)
    options = patched.model_options["transformer_options"]
    assert RUN not in options and STEP not in options
    assert contents(patched) == before


def contents(patched: Any) -> Any:
    """What the options of a model hold: objects by identity."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        if isinstance(value, list):
            return [named(item) for item in value]
        return (id(getattr(value, "__self__", value)), type(value).__name__)

    return copy.deepcopy(named(patched.model_options))


def test_nothing_piles_up(base: str, model: Any, dynamicid: DynamicID) -> None:
    """The node runs again and again on a cached model that others have patched."""
    cached = theirs(model, base)
    before = contents(cached)
    counts = set()
    for _ in range(3):
        options = apply(cached, dynamicid, *two()).model_options["transformer_options"]
        counts.add(tuple((name, len(patches)) for name, patches in options.get("patches", {}).items()))
        if isinstance(ARCHITECTURES[base], Overridden):
            assert options[OVERRIDE].previous is cached.model_options["transformer_options"][OVERRIDE]
    assert len(counts) == 1 and contents(cached) == before


# What is drawn


def test_exchanging_one_person_leaves_the_others_region_alone(base: str, model: Any, dynamicid: DynamicID) -> None:
    """In the first block, for all tokens but those of the other's half. The gate, which listens to all, is off."""
    a, b = (first_attention(base, apply(model, dynamicid, *two(second), gate=False)) for second in (2, 3))
    small = SMALL[base]
    column = torch.arange(small.cells) % GRID[1]
    exchanged = torch.zeros(a.shape[1], dtype=torch.bool)
    exchanged[small.start : small.start + small.cells] = column >= GRID[1] // 2
    assert torch.equal(a[:, ~exchanged], b[:, ~exchanged])
    changed = (a - b).abs().amax(dim=2) > 1e-4  # (b, tokens); the negative row has tokens of nobody
    assert changed[:, exchanged].any(dim=0).all()


def first_attention(base: str, patched: Any) -> Tensor:
    """What the first block's attention returns in the first call to those who come after us: (b, tokens, c)."""
    seen: list[Tensor] = []

    def note(out: Tensor, options: dict[str, Any]) -> Tensor:
        seen.append(out.clone())
        return out

    sample(behind(patched, base, note), base, steps=1)
    return seen[0]


def behind(patched: Any, base: str, change: Callable[[Tensor, dict[str, Any]], Tensor]) -> Any:
    """A node behind ours that changes the attention that people enter, by the hook that ours takes in this base."""
    clone = patched.clone()
    architecture = ARCHITECTURES[base]
    if not isinstance(architecture, Overridden):
        clone.set_model_attn1_output_patch(change)
        return clone
    options = clone.model_options["transformer_options"]
    previous = options.get(OVERRIDE)

    def override(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = previous(func, *args, **kwargs) if previous else func(*args, **kwargs)
        told = kwargs.get("transformer_options") or {}
        return change(out, told) if entered(base, args, told) else out

    options[OVERRIDE] = override
    return clone


def entered(base: str, args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether an attention is one that people enter, by its shapes: no text is as long as the image here."""
    tokens = [x.shape[-2] for x in args[:2]]
    small = SMALL[base]
    if getattr(ARCHITECTURES[base], "attention", 0) == 1:
        return tokens == [small.cells, transformers.TEXT_TOKENS] and "block_index" in options
    whole = small.start + small.cells + (8 if base == "lumina2" else 0)  # Lumina pads 24 tokens to 32
    return tokens == [whole, whole]


def test_queries_are_the_images_before_rotation(
    base: str, model: Any, dynamicid: DynamicID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the base's own query norm gives, of all image tokens and of these alone."""
    ours: list[Tensor] = []
    add_people = IdentityLayer.add_people

    def note(self: IdentityLayer, out: Any, q: Tensor, *args: Any) -> Tensor:
        if self.key == self.applied.keys[0]:
            ours.append(q.clone())
        return add_people(self, out, q, *args)

    monkeypatch.setattr(IdentityLayer, "add_people", note)
    with transformers.first_queries(base) as theirs:
        sample(apply(model, dynamicid, *two()), base, steps=1)
    assert len(ours) == len(theirs) > 0
    for q, expected in zip(ours, theirs, strict=True):
        assert q.shape == (len(expected), SMALL[base].cells, q.shape[2])
        assert torch.allclose(q, expected.reshape(q.shape), atol=1e-5)


def test_the_result_is_the_papers_formula(base: str, model: Any, dynamicid: DynamicID) -> None:
    """Written down once more in float64, one person alone, outside the layout phase."""
    with transformers.first_queries(base) as seen:
        patched = apply(model, dynamicid, person(1), layout_scale=0.0)
        ours = first_attention(base, patched)
    without = first_attention(base, model)
    q = seen[0].double().reshape(len(ours), SMALL[base].cells, -1)
    tokens = tiny.identity_tensors(1)
    weights = dynamicid.adapter.weights
    layer = dynamicid.adapter.identity_layers[0]
    to_k, to_v = (weights[f"{layer}.{name}.weight"].double() for name in ("to_k_ip", "to_v_ip"))
    heads = HEADS.get(base, 2)
    for row, own in enumerate(q):
        side = [tokens["tokens"], tokens["negative_tokens"]]
        candidates = []
        for who in side:
            k, v = who.double() @ to_k.T, who.double() @ to_v.T
            qh, kh, vh = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (own, k, v))
            scores = qh @ kh.mT / kh.shape[-1] ** 0.5  # (h, n, t)
            w = scores.sum(dim=(0, 2))
            w = (w - w.min()) / (w.max() - w.min())
            w[w < 0.3] = 0
            candidates.append(w[:, None] * (scores.softmax(dim=-1) @ vh).transpose(0, 1).flatten(1))
        start = SMALL[base].start
        added = (ours - without)[row, start : start + SMALL[base].cells].double()
        errors = [float((added - candidate).norm() / candidate.norm()) for candidate in candidates]
        assert min(errors) < 1e-3, errors
        assert max(errors) > 0.1, "positive and negative tokens are alike"


HEADS = {"krea2": 4, "lumina2": 4}
"""Heads of queries, where they are not two."""


@pytest.mark.parametrize("size", [(6, 14), (9, 13)], ids=["wide", "odd"])
def test_any_grid_and_a_batch(base: str, model: Any, dynamicid: DynamicID, size: tuple[int, int]) -> None:
    out = sample(apply(model, dynamicid, *two()), base, size=size, steps=1, batch=2)
    assert out.shape[-2:] == size and len(out) == 2 and torch.isfinite(out).all()


def test_activation_maps_follow_the_regions(base: str, model: Any, dynamicid: DynamicID) -> None:
    latent = {"samples": SMALL[base].latent()}
    maps = activation_maps(apply(model, dynamicid, *two()), transformers.conditioning(base, 1), latent, at=0.5)
    height, width = SMALL[base].size
    assert maps.shape == (2, height, width) and maps.min() >= 0 and maps.max() <= 1
    left, right = (part.sum(dim=(1, 2)) for part in maps.split((width // 2, width // 2), dim=2))
    assert left[0] > 10 * left[1] and right[1] > 10 * right[0]


# The LoRA


def test_the_lora_changes_the_images_own_maps(base: str, model: Any, dynamicid: DynamicID) -> None:
    """Parts of fused weights by their rows or columns, everything else as it was."""
    patched = apply(model, dynamicid, *two(), lora_strength=0.5)
    weights, state = dynamicid.adapter.weights, model.model.state_dict()
    expected: dict[str, Tensor] = {}
    blocks = ARCHITECTURES[base].blocks(model.model.diffusion_model)  # type: ignore[attr-defined]
    for number, maps in enumerate(maps for block in blocks for maps in block.layers):
        for linear, weight in maps.items():
            whole = expected.setdefault(weight.path, state[weight.path].clone())
            part = whole if weight.part is None else whole.narrow(*weight.part)
            up, down = (weights[f"{number}.{linear}_lora.{side}.weight"] for side in ("up", "down"))
            part += 0.5 * up @ down
    assert patched.patches.keys() == expected.keys()
    for path, whole in expected.items():
        merged = comfy.lora.calculate_weight(patched.patches[path], state[path].clone(), path)
        assert torch.allclose(merged, whole, atol=1e-5), path
        assert not torch.allclose(merged, state[path], atol=1e-5), path


def test_fused_weights_are_parted_as_the_blocks_split_them() -> None:
    """Of Flux: a change of one part's rows shows in that part alone of what the block computes with it."""
    network = transformers.model("flux").model.diffusion_model
    double, single = (ARCHITECTURES["flux"].blocks(network)[i].layers[0] for i in (0, 2))  # type: ignore[attr-defined]
    assert {name: (w.path, w.part) for name, w in double.items()} == {
        "to_q": ("diffusion_model.double_blocks.0.img_attn.qkv.weight", (0, 0, 64)),
        "to_k": ("diffusion_model.double_blocks.0.img_attn.qkv.weight", (0, 64, 64)),
        "to_v": ("diffusion_model.double_blocks.0.img_attn.qkv.weight", (0, 128, 64)),
        "to_out": ("diffusion_model.double_blocks.0.img_attn.proj.weight", None),
    }
    assert single["to_v"] == ("diffusion_model.single_blocks.0.linear1.weight", (0, 128, 64))
    assert single["to_out"] == ("diffusion_model.single_blocks.0.linear2.weight", (1, 0, 64))


def test_moving_a_box_merges_nothing_again(base: str, model: Any, dynamicid: DynamicID) -> None:
    here = apply(model, dynamicid, *two(), lora_strength=1.0)
    moved = apply(model, dynamicid, *reversed(two()), lora_strength=1.0)
    assert here.patches_uuid == moved.patches_uuid != model.patches_uuid


# Beside other packs


def tanh(out: Tensor, _: dict[str, Any]) -> Tensor:
    """What another pack adds: it depends on what is there before it."""
    return out + 0.5 * torch.tanh(out)


def theirs(model: Any, base: str) -> Any:
    return behind(model, base, tanh)


@pytest.mark.parametrize("first", [True, False], ids=["before us", "after us"])
def test_another_packs_part_is_kept(
    first: bool, base: str, model: Any, dynamicid: DynamicID, plain: Tensor, drawn: Tensor
) -> None:
    both = apply(theirs(model, base), dynamicid, *two()) if first else theirs(apply(model, dynamicid, *two()), base)
    raw, ours = (first_attention(base, m) for m in (model, apply(model, dynamicid, *two())))
    together = first_attention(base, both)
    expected = tanh(raw, {}) + (ours - raw) if first else tanh(ours, {})
    assert torch.allclose(together, expected, atol=1e-4)
    picture = sample(both, base)
    assert not torch.allclose(picture, drawn) and not torch.allclose(picture, plain)


def test_an_override_that_asks_nobody_is_named(base: str, model: Any, dynamicid: DynamicID, caplog: Any) -> None:
    if not isinstance(ARCHITECTURES[base], Overridden):
        pytest.skip("its patches are lists, from which nobody takes others' out")
    patched = apply(model, dynamicid, *two())
    patched.model_options["transformer_options"][OVERRIDE] = lambda func, *args, **kwargs: func(*args, **kwargs)
    with caplog.at_level("WARNING", "DynamicID"):
        out = sample(patched, base, steps=1)
    layers = len(dynamicid.adapter.identity_layers)
    assert f"replaced DynamicID's attention in {layers} of {layers} layers (block 0, block 1" in caplog.text
    assert torch.equal(out, sample(model, base, steps=1))


@pytest.mark.parametrize("first", [True, False], ids=["before us", "after us"])
def test_a_replaced_block_of_sd3_keeps_its_people(first: bool, tmp_path: Path) -> None:
    """Packs that replace whole blocks and run them; whoever skips a block, skips its people."""
    model = transformers.model("sd3")
    dynamicid = load_dynamicid(transformers.adapter_file(tmp_path / "saa.safetensors", "sd3"))

    def wrapped(patcher: Any) -> Any:
        clone = patcher.clone()
        there = clone.model_options["transformer_options"].get("patches_replace", {}).get("dit", {})
        previous = there.get(("double_block", 0))

        def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
            out = previous(args, extra) if previous else extra["original_block"](args)
            return {**out, "img": out["img"] * 1.5}

        clone.set_model_patch_replace(block, "dit", "double_block", 0)
        return clone

    both = apply(wrapped(model), dynamicid, *two()) if first else wrapped(apply(model, dynamicid, *two()))
    picture = sample(both, "sd3")
    for other in (wrapped(model), apply(model, dynamicid, *two())):
        assert not torch.allclose(picture, sample(other, "sd3"))


@pytest.mark.parametrize("base", ["flux", "qwen_image", "krea2"], indirect=True)
def test_reference_images_carry_nobody(base: str, model: Any, dynamicid: DynamicID) -> None:
    """Their tokens follow the image's, and people enter the image's alone."""
    reference = torch.randn(SMALL[base].latent(size=(4, 6)).shape, generator=torch.Generator().manual_seed(7))
    more: dict[str, Any] = {"reference_latents": [reference], "reference_latents_method": "index"}
    seen: list[Tensor] = []
    for patcher in (model, apply(model, dynamicid, *two())):
        notes: list[Tensor] = []

        def note(out: Tensor, _: dict[str, Any], notes: list[Tensor] = notes) -> Tensor:
            notes.append(out.clone())
            return out

        clone = patcher.clone()
        options = clone.model_options["transformer_options"]
        previous = options.get(OVERRIDE)
        if base == "qwen_image":
            options[OVERRIDE] = lambda func, *args, previous=previous, note=note, **kwargs: note(
                previous(func, *args, **kwargs) if previous else func(*args, **kwargs), {}
            )
        else:
            clone.set_model_attn1_output_patch(note)
        sample(clone, base, steps=1, **more)
        whole = SMALL[base].start + SMALL[base].cells + 6
        first = next(out for out in notes if out.shape[1] == whole)
        seen.append(first)
    without, with_them = seen
    start = SMALL[base].start
    changed = ((without - with_them).abs() > 1e-6).any(dim=2).any(dim=0)
    assert changed[start : start + SMALL[base].cells].any()
    assert not changed[:start].any() and not changed[start + SMALL[base].cells :].any()


# What is refused, before anything is sampled


def test_a_model_of_another_kind_is_refused_by_name(base: str, dynamicid: DynamicID) -> None:
    other = next(name for name in SMALL if name != base)
    with pytest.raises(ValueError, match="This adapter was made for") as caught:
        apply(transformers.model(other), dynamicid, person(1))
    assert f"made for {base_of(dynamicid.adapter)}, but this model is" in str(caught.value)
    with pytest.raises(ValueError, match=r"but this model is a Stable Diffusion UNet\."):
        apply(tiny.tiny_patcher(), dynamicid, person(1))


def test_an_adapter_for_a_unet_is_refused(model: Any, tiny_adapter_file: Path) -> None:
    with pytest.raises(ValueError, match="it is not a UNet with cross-attention"):
        apply(model, load_dynamicid(tiny_adapter_file), person(1))


def test_a_model_of_another_size_is_refused(base: str, model: Any, tmp_path: Path) -> None:
    attentions = 1 + getattr(ARCHITECTURES[base], "attention", 0)
    weights = transformers.adapter_weights(base)
    count = len({name.split(".")[1] for name in weights})
    last = {str(count - 1 - i) for i in range(attentions)}
    shorter = {name: tensor for name, tensor in weights.items() if name.split(".")[1] not in last}
    dynamicid = load_dynamicid(transformers.adapter_file(tmp_path / "saa.safetensors", base, weights=shorter))
    with pytest.raises(ValueError, match="but of another size") as caught:
        apply(model, dynamicid, person(1))
    assert f"it has {count} attention layers" in str(caught.value)
    assert f"made for {count - attentions}," in str(caught.value)


def test_people_in_double_blocks_alone(tmp_path: Path) -> None:
    path = transformers.adapter_file(tmp_path / "saa.safetensors", "flux", carry="double")
    patched = apply(transformers.model("flux"), load_dynamicid(path), *two(), lora_strength=1.0)
    assert patched.get_attachment("dynamicid").keys == (("double", 0), ("double", 1))
    assert "diffusion_model.single_blocks.1.linear1.weight" in patched.patches
    assert not torch.allclose(sample(patched, "flux"), sample(transformers.model("flux"), "flux"))


HOOKS = {
    "flux": (comfy.ldm.flux.layers.DoubleStreamBlock, "forward", "attn1_patch"),
    "chroma": (comfy.ldm.flux.layers.SingleStreamBlock, "forward", "attn1_patch"),
}


@pytest.mark.parametrize("base", HOOKS, indirect=True)
def test_a_host_without_the_hook_is_told_of(
    base: str, model: Any, dynamicid: DynamicID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ComfyUI 0.16.3 is, whose Flux has `attn1_output_patch` alone."""
    owner, function, name = HOOKS[base]
    code = getattr(owner, function).__code__
    consts = tuple("another" if const == name else const for const in code.co_consts)

    def older(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("nothing may be sampled")

    older.__code__ = code.replace(co_consts=consts)
    monkeypatch.setattr(owner, function, older)
    with pytest.raises(ValueError, match=r"ComfyUI 0\.30\.0 does: update ComfyUI") as caught:
        apply(model, dynamicid, person(1))
    assert f"{name} is missing in" in str(caught.value)
