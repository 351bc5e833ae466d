"""Semantic-Activated Attention in one layer: the paper's own numbers, and what must hold beyond them."""

import json
import math

import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.saa.attention import (
    activation_gate,
    attention,
    layout_terms,
    person_activation,
    region_terms,
    saa,
    split_heads,
)
from dynamicid_pack.dynamicid_core.saa.regions import Region, rasterize
from dynamicid_pack.tests.support import GOLDEN, relative_error
from safetensors import safe_open

HEADS, THRESHOLD, TOKENS = 4, 0.3, 4


def _golden():
    with safe_open(GOLDEN / "saa_attention.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["cases"])


TENSORS, CASES = _golden()


def _linear(name: str, x: torch.Tensor) -> torch.Tensor:
    lora = name.replace(".0", "")
    down, up = TENSORS[f"saa.{lora}_lora.down.weight"], TENSORS[f"saa.{lora}_lora.up.weight"]
    bias = TENSORS.get(f"attn.{name}.bias", torch.zeros(()))
    return x @ TENSORS[f"attn.{name}.weight"].T + bias + x @ down.T @ up.T


@pytest.mark.parametrize("name", CASES)
def test_equals_the_release(name: str) -> None:
    case = CASES[name]
    hidden, text, tokens = (TENSORS[f"{name}.{part}"] for part in ("hidden_states", "text", "id_tokens"))
    q, k, v = _linear("to_q", hidden), _linear("to_k", text), _linear("to_v", text)
    keys = tokens @ TENSORS["saa.to_k_ip.weight"].T
    values = tokens @ TENSORS["saa.to_v_ip.weight"].T * case["id_scale"]

    regions = [Region(box=Box(x0, y0, x1, y1)) for y0, x0, y1, x1 in case["boxes_y0x0y1x1"]]
    log_share, inside = region_terms(rasterize(regions, case["height"], case["width"]))
    if log_share is not None:
        log_share = log_share.repeat_interleave(tokens.shape[1] // len(regions), dim=1)
    mean_key = keys.sum(dim=1)
    if case["mix"] is not None:
        shares = torch.tensor([case["mix"], 1 - case["mix"]]).repeat_interleave(TOKENS)
        keys = keys * shares[:, None]

    k, v, k_id, v_id = (split_heads(x, HEADS) for x in (k, v, keys, values))
    threshold = THRESHOLD if case["gate"] else None
    layout = layout_terms(inside, case["layout_scale"]) if case["layout_scale"] else None
    out = saa(attention(q, k, v), q, k_id, v_id, mean_key, log_share, threshold, layout)
    assert relative_error(_linear("to_out.0", out), TENSORS[f"{name}.output"]) < 1e-5
    # In place of another pack's callback: what the people add, alone.
    delta = saa(None, q, k_id, v_id, mean_key, log_share, threshold, layout)
    assert relative_error(attention(q, k, v) + delta, out) < 1e-6


def _gate(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """The gate of queries of one channel, whose scores are then the queries themselves."""
    return activation_gate(scores[..., None], torch.ones(len(scores), 1), threshold)[..., 0]


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_overlapping_regions_are_shared_and_finite() -> None:
    masks = rasterize([Region(box=Box(0, 0, 0.75, 1)), Region(box=Box(0.25, 0, 1, 1))], 4, 8)
    log_share, inside = region_terms(masks)
    assert log_share is not None
    share = log_share.exp().reshape(4, 8, 2)
    assert torch.allclose(share.sum(dim=-1), torch.ones(4, 8))
    assert torch.equal(share[0, 0], torch.tensor([1.0, 0.0]))
    assert torch.allclose(share[0, 4], torch.tensor([0.5, 0.5]))
    assert torch.equal(inside, torch.ones(32))
    q, keys, values = _random(1, 32, 16), _random(1, 2, 16, seed=1), _random(1, 2, 16, seed=2)
    assert torch.isfinite(attention(q, split_heads(keys, 2), split_heads(values, 2), log_share)).all()


def test_shares_change_continuously_from_box_to_outside() -> None:
    """A soft edge goes from one person alone (1, 0) to everybody alike (1/2, 1/2) without a jump."""
    ramp = torch.linspace(0, 1, 101)[None]
    log_share, _ = region_terms(torch.stack([ramp, torch.zeros_like(ramp)]))
    assert log_share is not None
    share = log_share.exp()[:, 0]
    assert share[0] == 0.5 and share[-1] == 1
    assert (share.diff() > 0).all() and share.diff().max() < 0.01


@pytest.mark.parametrize("masks", [torch.ones(1, 4, 4), torch.rand(1, 4, 4), torch.ones(3, 4, 4), torch.zeros(2, 4, 4)])
def test_regions_that_change_no_share_need_no_mask(masks: torch.Tensor) -> None:
    assert region_terms(masks).log_share is None


def test_alone_inside_a_box_draws_only_that_person() -> None:
    """Hard exclusion: what the other person's tokens hold makes no difference inside the first one's region."""
    masks = rasterize([Region(box=Box(0, 0, 0.5, 1)), Region(box=Box(0.5, 0, 1, 1))], 4, 4)
    log_share, _ = region_terms(masks)
    q, keys, values = _random(1, 16, 8), _random(1, 2, 8, seed=1), _random(1, 2, 8, seed=2)
    out = attention(q, split_heads(keys, 2), split_heads(values, 2), log_share).reshape(4, 4, 8)
    assert torch.allclose(out[:, :2], values[0, 0].expand(4, 2, 8))
    assert torch.allclose(out[:, 2:], values[0, 1].expand(4, 2, 8))


def test_gate_is_zero_where_all_queries_are_alike() -> None:
    assert torch.equal(_gate(torch.full((2, 9), 3.7), THRESHOLD), torch.zeros(2, 9))


def test_gate_spans_zero_to_one_in_each_row_and_cuts_below_the_threshold() -> None:
    gate = _gate(_random(3, 64), THRESHOLD)
    assert torch.equal(gate.amin(dim=1), torch.zeros(3)) and torch.equal(gate.amax(dim=1), torch.ones(3))
    assert not ((gate > 0) & (gate < THRESHOLD)).any()
    assert ((_gate(_random(3, 64), 0.0) > 0).sum(dim=1) == 63).all()


def test_a_value_at_the_threshold_stays() -> None:
    scores = torch.tensor([[0.0, 0.25, 0.249999, 1.0]])
    assert _gate(scores, 0.25).tolist() == [[0.0, 0.25, 0.0, 1.0]]


def test_layout_gate_inside_outside_and_between() -> None:
    """With keys and values of 1, what the people add is the gate."""
    gate = torch.tensor([[0.5, 0.5, 0.5, 0.0, 1.0]])
    layout = layout_terms(torch.tensor([1.0, 0.0, 0.5, 0.0, 0.0]), 4.0)
    one = torch.ones(1, 1, 1, 1)
    out = saa(None, gate[..., None], one, one, torch.ones(1, 1), None, 0.0, layout)[..., 0]
    assert torch.allclose(out, torch.tensor([[4.5, 0.1, 0.5 * (0.5 + 0.1) + 2.0, 0.0, 0.2]]))


def test_gate_equals_that_of_the_sum_over_heads_and_tokens() -> None:
    q, keys = _random(2, 16, 12), _random(2, 8, 12, seed=1)
    per_head = torch.einsum("bnhd,bthd->bhnt", q.unflatten(-1, (3, 4)), keys.unflatten(-1, (3, 4)))
    expected = _gate(per_head.sum(dim=(1, 3)), 0.0)[..., None]
    for factor in (1.0, 1 / 8, 7.0):  # any positive one
        assert relative_error(activation_gate(q, factor * keys.sum(dim=1), 0.0), expected) < 1e-5


HALF = [torch.float16, torch.bfloat16]


def _queries_about(key: torch.Tensor, length: float, cosine: float, spread: float) -> torch.Tensor:
    """Queries (b, 1024, c) of this length; their cosines to the key lie about one value."""
    b, c = key.shape
    direction = key / key.norm(dim=-1, keepdim=True)
    side = _random(b, 1024, c, seed=1)
    side = side - (side @ direction[..., None]) * direction[:, None]
    cosines = cosine + spread * _random(b, 1024, 1, seed=2)
    rest = (1 - cosines**2).sqrt() * side / side.norm(dim=-1, keepdim=True)
    return length * (cosines * direction[:, None] + rest)


# |q|, |summed keys|, cosine: past 65,504, the largest fp16; the scores' common offset 20 times their spread; both
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize(
    ("length", "key_length", "cosine", "spread"),
    [(300, 400, 0.6, 0.05), (1000, 400, -0.6, 0.05), (20, 30, 0.6, 0.03), (20, 30, -0.6, 0.01), (900, 900, 0.6, 0.01)],
)
@pytest.mark.parametrize("channels", [320, 1280])
def test_half_precision_keeps_the_gate(
    dtype: torch.dtype, length: float, key_length: float, cosine: float, spread: float, channels: int
) -> None:
    """Against the gate of the same queries in float32; a query at the threshold itself may fall on either side."""
    key = _random(2, channels)
    key = (key_length * key / key.norm(dim=-1, keepdim=True)).to(dtype)
    q = _queries_about(key.float(), length, cosine, spread).to(dtype)
    gate, expected = activation_gate(q, key, THRESHOLD), activation_gate(q.double(), key.double(), 0.0)
    assert gate.dtype == torch.float32 and (gate > 0).float().mean() > 0.5
    near = (expected - THRESHOLD).abs() < 1e-4
    assert torch.allclose(
        torch.where(near, 0, gate), torch.where(near | (expected < THRESHOLD), 0, expected.float()), atol=1e-4
    )
    assert near.sum() < 10


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_differs_from_float32_by_its_own_rounding_alone(dtype: torch.dtype) -> None:
    """What comes out of the whole formula, where the host samples, in the layout phase and after it."""
    key = 400 * _random(1, 64) / 8
    q = _queries_about(key, 300, 0.6, 0.05).to(dtype)
    k_id, v_id = (
        split_heads((key / 400)[None].to(dtype), HEADS),
        split_heads(_random(1, 1, 64, seed=3).to(dtype), HEADS),
    )
    out, layout = _random(1, 1024, 64, seed=4).to(dtype), layout_terms(torch.linspace(0, 1, 1024), 4.0)
    for terms in (None, layout):
        expected = saa(out.float(), q.float(), k_id.float(), v_id.float(), key, None, THRESHOLD, terms)
        with torch.inference_mode():
            drawn = saa(out.clone(), q, k_id, v_id, key, None, THRESHOLD, terms)
            alone = saa(None, q, k_id, v_id, key, None, THRESHOLD, terms)
        assert drawn.dtype == alone.dtype == dtype
        assert relative_error(drawn.float(), expected) < torch.finfo(dtype).eps
        assert relative_error(alone.float(), expected - out.float()) < 2 * torch.finfo(dtype).eps


def test_without_gradients_the_result_is_the_same_to_the_bit() -> None:
    q, keys, out = _random(2, 32, 16), _random(2, 4, 16, seed=1), _random(2, 32, 16, seed=2)
    k_id = split_heads(keys, HEADS)
    for given, threshold in ((out, THRESHOLD), (None, THRESHOLD), (out, None), (None, None)):
        differentiable = saa(given, q, k_id, k_id, keys.mean(dim=1), None, threshold)
        before = [x.clone() for x in (out, q, keys)]
        with torch.inference_mode():
            assert torch.equal(saa(given, q, k_id, k_id, keys.mean(dim=1), None, threshold), differentiable)
        assert all(torch.equal(*pair) for pair in zip((out, q, keys), before, strict=True)), "an input was changed"


def test_person_activation_adds_up_to_the_gate() -> None:
    q, keys = _random(2, 16, 8), _random(2, 6, 8, seed=1)
    for threshold in (THRESHOLD, None):
        gate = torch.ones(2, 16) if threshold is None else activation_gate(q, keys.mean(dim=1), threshold)[..., 0]
        maps = person_activation(q, split_heads(keys, 2), keys.mean(dim=1), None, threshold, [4, 2])
        assert maps.shape == (2, 2, 16)
        assert torch.allclose(maps.sum(dim=1), gate)
        assert math.isclose(float(maps.amin()), 0, abs_tol=1) and (maps >= 0).all()


def test_gradients_are_finite_where_all_queries_are_alike() -> None:
    q, keys = torch.ones(1, 4, 8, requires_grad=True), _random(1, 2, 8).requires_grad_()
    k_id = split_heads(keys, 2)
    saa(None, q, k_id, k_id, keys.mean(dim=1), None, THRESHOLD).sum().backward()
    assert q.grad is not None and torch.isfinite(q.grad).all() and keys.grad is not None and keys.grad.isfinite().all()
