"""IP-Adapter FaceID files in the wrong place: one clear line before anything is sampled, and a server that lives."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from dynamicid_pack.benchmarks.subjects import full_size_model
from dynamicid_pack.dynamicid_core.host.models import DynamicID
from dynamicid_pack.dynamicid_core.identity.encoding import ENCODINGS, RELEASE
from dynamicid_pack.dynamicid_core.saa.adapter import Adapter

from . import faceid, model_files, shapes, tiny
from .bench import Bench, assert_refused, person
from .conftest import PEOPLE
from .graphs import Graph, Scene
from .refusals import QUICK, refusal, still_samples  # noqa: F401 (a fixture)
from .server import Server

pytestmark = pytest.mark.timeout(900)

PLUS, V2 = "FaceID Plus", "FaceID Plus v2"
OURS = faceid.name_of(V2)
"""A file of the server's: the miniature's adapter."""


def drawing(saa: str, people: list[str], **loader: str) -> Scene:
    """The graph for these saved people with this adapter; `loader` are more inputs of Load DynamicID."""
    scene = Scene(QUICK)
    loaded = scene.loader(saa=saa)
    scene[loaded[0]]["inputs"] |= loader
    scene.apply(loaded, [scene.identity(name) for name in people])
    scene.sample()
    scene.save()
    return scene


@contextmanager
def saved(server: Server, kind: str, encoder: str) -> Iterator[str]:
    """The name of an identity of this kind that the server has meanwhile."""
    path = server.models / "dynamicid" / "identities" / "odd.safetensors"
    tiny.identity_file(path, 1, encoder=encoder, metadata={"encoding": ENCODINGS[kind].to_text()})
    yield path.stem
    path.unlink()


@pytest.fixture
def fingerprint(server: Server) -> str:
    """Of the face encoder in all of the server's adapters."""
    return model_files.encoder_fingerprint(server.models / "dynamicid" / Scene.models.adapter)


# Other files of the same publishers

OTHERS = {
    "ip-adapter-faceid-portrait_sd15.bin": "FaceID",
    "ip-adapter-faceid-portrait_sdxl_unnorm.bin": PLUS,
    "Kolors-IP-Adapter-FaceID-Plus.bin": PLUS,
}
"""A file without a LoRA -> the kind that its face encoder looks like."""


@pytest.mark.parametrize("chosen", ["auto", "as it looks"])
@pytest.mark.parametrize("name", OTHERS)
def test_portrait_and_kolors_files(name: str, chosen: str, server: Server) -> None:
    halves = faceid.state(OTHERS[name])
    plain = {key: tensor for key, tensor in halves["ip_adapter"].items() if "_lora" not in key}
    path = server.models / "dynamicid" / name
    torch.save(halves | {"ip_adapter": plain}, path)
    kind = OTHERS[name] if chosen == "as it looks" else chosen
    try:
        message = refusal(server, drawing(name, [PEOPLE[0]], kind=kind), "DynamicIDLoader")
    finally:
        path.unlink()
    assert name in message
    assert "an IP-Adapter without a LoRA (a plain one, a portrait or Kolors one)" in message
    assert "Expected FaceID, FaceID Plus or FaceID Plus v2, for SD1.5 or SDXL" in message


# Files for another base model


def test_a_file_for_another_base_model(server: Server) -> None:
    """The tiny SDXL's, where the model is the miniature."""
    path = faceid.file(server.models / "dynamicid", PLUS, config=shapes.TINY_SDXL)
    path = path.rename(path.with_name("tiny_sdxl.bin"))
    try:
        message = refusal(server, drawing(path.name, [PEOPLE[0]]), "DynamicIDApply")
    finally:
        path.unlink()
    assert "it has 7 cross-attention layers" in message and "was made for 18 cross-attention layers" in message


@pytest.mark.parametrize(("file", "model"), [("SDXL", "SD1.5"), ("SD1.5", "SDXL")])
def test_files_of_full_size_and_models_are_called_by_their_names(file: str, model: str, bench: Bench) -> None:
    """On the meta device, where nothing is computed: SDXL's file on SD1.5, and the reverse."""
    config = {"SD1.5": shapes.SD15, "SDXL": shapes.SDXL}[file]
    says = {"SD1.5": "this model is SD15: it has 16 cross", "SDXL": "this model is SDXL: it has 70 cross"}[model]
    weights = {
        name.removeprefix("SAA_module."): torch.empty(shape, device="meta")
        for name, shape in shapes.saa(config, faceid.REAL.rank).items()
    }
    adapter = Adapter(weights, "", "meta", tiny.TOKENS, ENCODINGS[V2])
    loaded = DynamicID(adapter, bench.miniature.dynamicid.checkpoint)
    plain = full_size_model(torch.device("meta"), torch.float32, model)
    ran = bench.run("DynamicIDApply", model=plain, dynamicid=loaded)
    assert_refused(ran, "DynamicIDApply", says, f"while this adapter was made for {file}: ")
    assert not ran.values


# Plus v2 under another name


def test_plus_v2_without_its_mark_is_taken_for_plus_and_the_node_tells(server: Server, fingerprint: str) -> None:
    """Once the kind is chosen, people who were encoded with the wrong one are refused."""
    path = server.models / "dynamicid" / "renamed.bin"
    path.write_bytes((path.parent / OURS).read_bytes())
    begun = len(server.log)
    try:
        with saved(server, PLUS, fingerprint) as name:
            assert server.run(drawing(path.name, [name])).message == ""
            told = server.log[begun:]
            message = refusal(server, drawing(path.name, [name], kind=V2), "DynamicIDApply")
    finally:
        path.unlink()
    assert f"Load DynamicID: {PLUS} for " in told
    assert f"{V2} looks the same but for plusv2 in its name: if this is one, choose it as kind." in told
    assert f"was encoded for {PLUS} (BGR" in message and f"this adapter is for {V2} (BGR" in message
    again = server.log[begun + len(told) :]
    assert f"Load DynamicID: {V2} for " in again and "looks the same" not in again


# People of another kind


@pytest.mark.parametrize("encoder", ["the same encoder", "another encoder"])
@pytest.mark.parametrize(("file", "kind"), [("", V2), (OURS, RELEASE.kind)], ids=["FaceID's", "DynamicID's"])
def test_people_of_another_kind(file: str, kind: str, encoder: str, server: Server, fingerprint: str) -> None:
    """FaceID's people with DynamicID's adapter, and the reverse: the kinds are named, not only fingerprints."""
    with saved(server, kind, fingerprint if encoder == "the same encoder" else "f" * 64) as name:
        message = refusal(server, drawing(file, [name]), "DynamicIDApply")
    needed = ENCODINGS[V2 if file else RELEASE.kind]
    assert f"'odd' was encoded for {ENCODINGS[kind]}, this adapter is for {needed}. Encode the person again" in message


def test_people_of_two_kinds_in_one_mix(server: Server, fingerprint: str) -> None:
    graph = Graph()
    with saved(server, V2, fingerprint) as name:
        pair = [graph.add("DynamicIDLoadIdentity", name=each)[0] for each in (PEOPLE[0], name)]
        mixed = graph.add("DynamicIDMix", identity_a=pair[0], identity_b=pair[1], mix=0.5)
        graph.add("DynamicIDSaveIdentity", identity=mixed[0], name="mixed")
        message = refusal(server, graph, "DynamicIDMix")
    assert "same face encoder" in message and str(ENCODINGS[V2]) in message
    assert not (server.models / "dynamicid" / "identities" / "mixed.safetensors").exists()


def test_people_of_another_kind_are_not_edited(bench: Bench) -> None:
    """By DynamicID's IMR, which would make tokens that no adapter knows; FaceID has none of its own."""
    theirs = replace(person(), encoding=ENCODINGS[V2], name="Ana")
    ran = bench.run("DynamicIDEditMotion", identity=theirs)
    assert_refused(ran, "DynamicIDEditMotion", "'Ana' was encoded for FaceID Plus v2", "this IMR is for DynamicID (RGB")
    loaded = bench.miniature.dynamicid
    parts = replace(loaded.checkpoint, imr=None, keypoint_encoder=None, kind=V2)
    of_faceid = replace(loaded, adapter=replace(loaded.adapter, encoding=ENCODINGS[V2]), checkpoint=parts)
    ran = bench.run("DynamicIDEditMotion", identity=theirs, dynamicid=of_faceid)
    assert_refused(ran, "DynamicIDEditMotion", "No IMR changes expression or pose", f"{V2}'s identities")
