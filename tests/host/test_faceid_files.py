"""IP-Adapter FaceID files: told apart, applied with identities of their own encoding alone, refused in clear words."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.weight_adapter import LoRAAdapter
from dynamicid_pack.dynamicid_core.checkpoint import load_checkpoint, save_checkpoint
from dynamicid_pack.dynamicid_core.host.apply import KEY
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from dynamicid_pack.dynamicid_core.identity.encoding import ENCODINGS, RELEASE
from dynamicid_pack.dynamicid_core.identity.identity import Identity, load_identity, mix, save_identity
from dynamicid_pack.nodes import apply as apply_node
from dynamicid_pack.nodes.apply import Apply
from safetensors.torch import save_file

from . import faceid, shapes, tiny
from .executor import Executor
from .faceid import KINDS
from .graphs import Graph
from .probe import lora_strengths

pytestmark = pytest.mark.usefixtures("warnings")


def person(kind: str) -> Identity:
    tensors = tiny.identity_tensors(1)
    return Identity(tensors["tokens"], tensors["negative_tokens"], name="Ana", encoding=ENCODINGS[kind])


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_told_apart(kind: str, suffix: str, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(faceid.file(tmp_path, kind, suffix))
    assert checkpoint.kind == kind and checkpoint.adapter is not None
    assert checkpoint.adapter.encoding == ENCODINGS[kind] and checkpoint.adapter.tokens == tiny.TOKENS
    weights = faceid.state(kind)["ip_adapter"]
    assert all(torch.equal(checkpoint.adapter.weights[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("name", ["IP-Adapter FaceID Plus_v2 SD1.5.bin", "my-PlusV2.bin", "v2/faceid-plus.v2.bin"])
def test_plus_v2_is_told_by_its_name_however_that_is_spelled(name: str, tmp_path: Path) -> None:
    path = tmp_path / Path(name).name
    faceid.file(tmp_path, "FaceID Plus").rename(path)
    assert load_checkpoint(path).kind == "FaceID Plus v2"


def test_without_its_mark_it_is_plus_and_the_kind_can_be_chosen(tmp_path: Path) -> None:
    path = faceid.file(tmp_path, "FaceID Plus v2").rename(tmp_path / "mine.bin")
    assert load_checkpoint(path).kind == "FaceID Plus"
    chosen = load_checkpoint(path, kind="FaceID Plus v2")
    assert chosen.adapter is not None and chosen.adapter.encoding.shortcut == 1.0
    with pytest.raises(ValueError, match="has a resampler that reads CLIP's states, which FaceID's has not"):
        load_checkpoint(path, kind="FaceID")
    with pytest.raises(ValueError, match=r"has no resampler .* which FaceID Plus's has one of"):
        load_checkpoint(faceid.file(tmp_path, "FaceID"), kind="FaceID Plus")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_ours_keeps_the_kind(kind: str, tmp_path: Path) -> None:
    save_checkpoint(load_checkpoint(faceid.file(tmp_path, kind)), tmp_path / "ours.safetensors")
    assert load_checkpoint(tmp_path / "ours.safetensors").kind == kind


@pytest.mark.parametrize("portrait", [True, False], ids=["portrait", "Kolors"])
def test_ip_adapters_without_a_lora_are_refused(portrait: bool, tmp_path: Path) -> None:
    halves = faceid.state("FaceID" if portrait else "FaceID Plus")
    plain = {name: tensor for name, tensor in halves["ip_adapter"].items() if "_lora" not in name}
    torch.save(halves | {"ip_adapter": plain}, tmp_path / "other.bin")
    with pytest.raises(ValueError, match=r"other.bin: .*an IP-Adapter without a LoRA .*Expected FaceID"):
        load_dynamicid(tmp_path / "other.bin")


@pytest.mark.parametrize("count", [1, 2])
def test_groups_take_no_gate_and_no_lora_in_the_middle_block(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the miniature's table of such weights says; the node tells both."""
    told: list[str] = []
    monkeypatch.setattr(apply_node, "tell", lambda _, text: told.append(text))
    people = {f"person_{number}": person("FaceID") for number in range(count)}
    (model,) = Apply.execute(tiny.tiny_patcher(), load_dynamicid(faceid.file(tmp_path, "FaceID")), people, 1.0).args
    assert lora_strengths(model) == ({1.0}, {1.0} if count == 1 else set())
    assert not model.get_attachment(KEY).settings.gate
    assert "without the gate" in told[0]
    assert ("LoRA is at 1, in the UNet's middle block at 0: with more" in told[0]) == (count > 1)


def test_groups_take_half_of_the_lora_for_sdxl(tmp_path: Path) -> None:
    """Its deepest level has attention in other blocks than the middle one too, and no table tells of it."""
    wide = dict(tiny.CONFIGS["SDXL"]) | {"context_dim": 2048}
    assert load_dynamicid(faceid.file(tmp_path, "FaceID", config=wide)).lora_for(3) == (0.5, 1.0)


@pytest.mark.parametrize(("file", "model"), [("SDXL", "SD1.5"), ("SD1.5", "SDXL")])
def test_a_file_for_another_base_names_both(file: str, model: str, tmp_path: Path) -> None:
    adapter = load_dynamicid(faceid.file(tmp_path, KINDS[2], config=tiny.CONFIGS[file]))
    of_model, of_adapter = ("7", "18") if model == "SD1.5" else ("18", "7")
    with pytest.raises(ValueError, match=f"it has {of_model} cross-attention .* was made for {of_adapter} cross-att"):
        Apply.execute(tiny.tiny_patcher(base=model), adapter, {"person_0": person(KINDS[2])}, 1.0)


@pytest.mark.parametrize("theirs", [RELEASE.kind, *KINDS])
def test_identities_of_another_encoding_are_refused(theirs: str, tmp_path: Path) -> None:
    """Nothing but the encoding tells Plus from Plus v2: their encoders may be the same."""
    adapter = load_dynamicid(faceid.file(tmp_path, "FaceID Plus"))
    model = tiny.tiny_patcher()
    if theirs == "FaceID Plus":
        assert Apply.execute(model, adapter, {"person_0": person(theirs)}, 1.0).args[0] is not model
        return
    with pytest.raises(ValueError, match=r"'Ana' was encoded for .*this adapter is for FaceID Plus \(BGR") as caught:
        Apply.execute(model, adapter, {"person_0": person(theirs)}, 1.0)
    assert str(ENCODINGS[theirs]) in str(caught.value)
    with pytest.raises(ValueError, match="same face encoder"):
        mix(person(theirs), person("FaceID Plus"), 0.5)


def test_identity_files_keep_their_encoding(tmp_path: Path) -> None:
    for kind in ENCODINGS:
        save_identity(person(kind), tmp_path / "ana.safetensors")
        assert load_identity(tmp_path / "ana.safetensors").encoding == ENCODINGS[kind]
    doubled = replace(ENCODINGS[KINDS[2]], shortcut=2.0)
    save_identity(replace(person(KINDS[2]), encoding=doubled), tmp_path / "ana.safetensors")
    assert load_identity(tmp_path / "ana.safetensors").encoding == doubled


WRONG: dict[str, Any] = {
    "no JSON": "FaceID",
    "a list": "[]",
    "unknown kind": json.dumps({"kind": "Kolors", "channels": "BGR", "crop": "aligned", "shortcut": None}),
    "another channel order": json.dumps({"kind": "FaceID", "channels": "RGB", "crop": "none", "shortcut": None}),
    "a text for a number": json.dumps(
        {"kind": "FaceID Plus v2", "channels": "BGR", "crop": "aligned", "shortcut": "1"}
    ),
    "NaN": '{"kind": "FaceID Plus v2", "channels": "BGR", "crop": "aligned", "shortcut": NaN}',
    "nested": "[" * 150,
    "a list for a name": '{"kind": ["FaceID"]}',
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_an_identity_file_of_no_encoding_is_refused(text: str, tmp_path: Path) -> None:
    tensors = tiny.identity_tensors(1)
    save_file(tensors, tmp_path / "x.safetensors", {"format": "dynamicid-identity-1", "encoding": text})
    with pytest.raises(ValueError, match=r"x.safetensors: the metadata `encoding` is .*Encode the person again"):
        load_identity(tmp_path / "x.safetensors")


def test_an_imr_is_told_not_to_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No IMR changes expression or pose of FaceID's identities"):
        _ = load_dynamicid(faceid.file(tmp_path, "FaceID")).imr


@pytest.mark.parametrize("node", ["DynamicIDApply", "DynamicIDApplyAdvanced"])
@pytest.mark.parametrize("own", [True, False])
def test_a_lora_that_a_loader_brought_already_is_told_on_the_node(
    own: bool, node: str, tmp_path: Path, executor: Executor, warnings: list[str]
) -> None:
    """FaceID's graphs load it from a file beside the adapter's; other packs ignore the one inside."""
    adapter, model = load_dynamicid(faceid.file(tmp_path, "FaceID")), tiny.tiny_patcher().clone()
    first = shapes.transformer_blocks(shapes.TINY)[0]
    weights = faceid.state("FaceID")["ip_adapter"]
    up, down = (weights[f"0.to_q_lora.{side}.weight"] * (1 if own else 2) for side in ("up", "down"))
    path = f"diffusion_model.{first}attn1.to_q.weight"
    assert model.add_patches({path: LoRAAdapter(set(), (up, down, None, None, None, None))})
    graph = Graph()
    values = {"model": model, "dynamicid": adapter, "people.person_0": person("FaceID")}
    executor.keep(graph, graph.add(node, {name: executor.value(graph, value) for name, value in values.items()})[0])
    ran = executor.run(graph)
    told = [note for note in ran.notes if "merged twice" in note]
    assert ran.message == "" and len(told) == len(warnings) == own
    if own:
        assert told[0].startswith("\N{WARNING SIGN} this model has") and "Remove that loader" in told[0]
        assert warnings.pop().endswith(told[0].removeprefix("\N{WARNING SIGN} "))
