"""Adapter files for transformers: what they say of their base model, and the layers they must have there."""

import re
from pathlib import Path

import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import FORMAT, Checkpoint, load_checkpoint, save_checkpoint
from dynamicid_pack.dynamicid_core.checkpoint_cli import table
from dynamicid_pack.dynamicid_core.saa.adapter import LINEARS, adapter_from_weights
from dynamicid_pack.dynamicid_core.saa.bases import BASES
from safetensors import safe_open
from safetensors.torch import save_file

from .weights import RANK, SAA, TOKEN, Weights, assert_says

JOINT = [name for name, base in BASES.items() if base.attentions == 1]


def joint(layers: int = 3, entered: int = 3, dim: int = 8, inner: int = 12, keys: int = 4) -> Weights:
    """An adapter for joint attention whose first layers carry people; 3 heads of queries share one of keys."""
    weights = {}
    for i in range(layers):
        for name in LINEARS:
            before = inner if name == "to_out" else dim
            after = {"to_q": inner, "to_k": keys, "to_v": keys, "to_out": dim}[name]
            weights[f"{i}.{name}_lora.down.weight"] = torch.randn(RANK, before)
            weights[f"{i}.{name}_lora.up.weight"] = torch.randn(after, RANK)
        if i < entered:
            weights |= {f"{i}.{name}.weight": torch.randn(inner, TOKEN) for name in ("to_k_ip", "to_v_ip")}
    return weights


def write(path: Path, weights: Weights, **metadata: str) -> Path:
    save_file({f"SAA_module.{name}": tensor for name, tensor in weights.items()}, path, {"format": FORMAT, **metadata})
    return path


@pytest.mark.parametrize("base", JOINT)
def test_written_and_read_again(base: str, tmp_path: Path) -> None:
    adapter = adapter_from_weights(joint(), base=base)
    save_checkpoint(Checkpoint(adapter, None, None, None), tmp_path / "out")
    again = load_checkpoint(tmp_path / "out")
    assert again.adapter is not None
    assert (again.adapter.base, again.adapter.identity_blocks) == (base, "all")
    assert again.adapter.fingerprint == adapter.fingerprint
    assert again.adapter.identity_layers == (0, 1, 2)
    assert (again.adapter.token_dim, again.adapter.text_dim) == (TOKEN, None)
    assert BASES[base].title in table(again)


@pytest.mark.parametrize(("layers", "entered"), [(2, 2), (5, 2)], ids=["ends with them", "LoRA alone behind them"])
def test_people_in_double_blocks_alone(layers: int, entered: int, tmp_path: Path) -> None:
    path = write(tmp_path / "saa", joint(layers, entered), base="flux", identity_blocks="double")
    adapter = load_checkpoint(path).adapter
    assert adapter is not None and adapter.identity_blocks == "double"
    assert adapter.identity_layers == (0, 1) and len(adapter.dims) == layers


@pytest.mark.parametrize("base", ["wan", "anima"])
def test_bases_with_cross_attention_number_their_layers_as_a_unet(base: str, tmp_path: Path) -> None:
    adapter = load_checkpoint(write(tmp_path / "saa", SAA, base=base)).adapter
    assert adapter is not None and adapter.base == base and adapter.identity_layers == (1, 3)


def test_a_file_that_says_nothing_is_for_a_unet(tmp_path: Path) -> None:
    save_checkpoint(Checkpoint(adapter_from_weights(SAA), None, None, None), tmp_path / "out")
    with safe_open(tmp_path / "out", framework="pt") as file:
        assert file.metadata() == {"format": FORMAT}
    adapter = load_checkpoint(tmp_path / "out").adapter
    assert adapter is not None and adapter.base == "unet"


def test_another_programs_metadata_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    save_file({f"SAA_module.{name}": tensor for name, tensor in SAA.items()}, path, {"base": "sd_1.5"})
    adapter = load_checkpoint(path).adapter
    assert adapter is not None and adapter.base == "unet"


@pytest.mark.parametrize(
    ("metadata", "weights", "message"),
    [
        ({"base": "sora\n"}, joint(), "made for the base model 'sora\\n', which this version does not know"),
        ({"base": "flux", "identity_blocks": "single"}, joint(), "in the blocks 'single', which flux has none of"),
        ({"base": "krea2", "identity_blocks": "double"}, joint(), "to be all."),
        ({"base": "flux"}, joint(3, 2), "2 missing (2.to_k_ip.weight, 2.to_v_ip.weight)"),
        ({"base": "flux"}, SAA, "4 missing (0.to_k_ip.weight, 0.to_v_ip.weight, 2.to_k_ip.weight"),
        ({}, joint(2, 2), "2 not expected (0.to_k_ip.weight, 0.to_v_ip.weight)"),
        (
            {"base": "flux", "identity_blocks": "double"},
            {name: t for name, t in joint(3, 2).items() if not name.startswith("0.to_k_ip")},
            "1 missing (0.to_k_ip.weight)",
        ),
        ({"base": "flux"}, joint() | {"1.to_v_lora.up.weight": torch.ones(6, RANK)}, "1.to_v_lora.up.weight"),
        ({"base": "flux"}, joint() | {"1.to_k_ip.weight": torch.ones(4, TOKEN)}, "expected (12, 16)"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(
    metadata: dict[str, str], weights: Weights, message: str, tmp_path: Path
) -> None:
    assert_says(write(tmp_path / "saa", weights, **metadata), "SAA_module: ", message)


def test_every_base_is_described() -> None:
    """The names in messages and metadata are short and lower-case, so that they can be typed."""
    assert all(re.fullmatch(r"[a-z0-9_]+", name) and base.attentions in (1, 2) for name, base in BASES.items())
