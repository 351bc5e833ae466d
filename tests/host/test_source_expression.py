"""The photograph's own expression: read when a person is encoded, kept with them, and taken out by auto."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from dynamicid_pack.dynamicid_core.expression_classifier import CLASSES, ExpressionClassifier
from dynamicid_pack.dynamicid_core.host import folders
from dynamicid_pack.dynamicid_core.host.encode import encode
from dynamicid_pack.dynamicid_core.host.miniature import Miniature, load_miniature
from dynamicid_pack.dynamicid_core.host.models import DynamicID
from dynamicid_pack.dynamicid_core.identity.identity import Identity, load_identity, mix, save_identity
from dynamicid_pack.mini.world.caption import CaptionSpec, PersonSpec
from dynamicid_pack.mini.world.composition import compose
from dynamicid_pack.mini.world.render import render
from dynamicid_pack.mini.world.world import World
from dynamicid_pack.nodes.animate import AnimateMotion
from dynamicid_pack.nodes.edit import EditFacialMotion
from dynamicid_pack.nodes.encode import EncodeIdentity
from dynamicid_pack.nodes.load import LoadDynamicID
from dynamicid_pack.tests.core.classifiers import classifier_file
from torch import Tensor

from . import tiny
from .test_edit import ASKED, dynamicid, miniature, person

__all__ = ["dynamicid", "miniature", "person"]

FROWN = {"frames": [[{"blendshapes": {"mouthFrownLeft": 0.8, "mouthFrownRight": 0.8, "browInnerUp": 0.7}}]]}
WITHOUT = {name: value for name, value in ASKED.items() if name != "source_expression"}
Made = Callable[..., Tensor]


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What both nodes warn of."""
    told: list[str] = []
    for node in ("edit", "animate"):
        monkeypatch.setattr(f"dynamicid_pack.nodes.{node}.warn", lambda _, message: told.append(message))
    return told


@pytest.fixture(params=["Edit Facial Motion", "Animate Motion"])
def made(request: pytest.FixtureRequest, miniature: Miniature, dynamicid: DynamicID) -> Made:
    """Returns the tokens that a node makes of a person: of Animate Motion, the last frame's."""

    def edited(identity: Identity, **inputs: Any) -> Tensor:
        (one,), _ = EditFacialMotion.execute(identity, dynamicid, miniature.clip, **WITHOUT | inputs).result
        return one.tokens

    def animated(identity: Identity, **inputs: Any) -> Tensor:
        one, _ = AnimateMotion.execute(
            identity, dynamicid, miniature.clip, keyframes="0: sad; 1: happy", frames=2, **inputs
        ).result
        return one.at(1).tokens

    return edited if request.param == "Edit Facial Motion" else animated


def test_auto_takes_out_what_the_identity_shows(made: Made, person: Identity, warned: list[str]) -> None:
    smiling = replace(person, expression="happy")
    assert torch.equal(made(smiling, source_expression="auto"), made(person, source_expression="happy"))
    assert not torch.equal(made(smiling, source_expression="auto"), made(person, source_expression="neutral"))
    assert torch.equal(made(smiling, source_expression="sad"), made(person, source_expression="sad"))
    assert not warned


def test_a_graph_that_leaves_it_out_means_neutral(made: Made, person: Identity, warned: list[str]) -> None:
    assert torch.equal(made(replace(person, expression="happy")), made(person, source_expression="neutral"))
    assert not warned


def test_auto_that_knows_nothing_means_neutral_and_says_so(made: Made, person: Identity, warned: list[str]) -> None:
    assert torch.equal(made(person, source_expression="auto"), made(person, source_expression="neutral"))
    (warning,) = warned
    assert "taken for neutral" in warning and "expression_model" in warning and "source_expression" in warning


def test_new_nodes_begin_with_auto() -> None:
    for node in (EditFacialMotion, AnimateMotion):
        (widget,) = (one for one in node.define_schema().inputs if one.id == "source_expression")
        assert widget.default == "auto" and widget.options[0] == "auto" and widget.options[1] == "neutral"


def test_blendshapes_tell_where_nothing_was_read(
    miniature: Miniature, dynamicid: DynamicID, person: Identity, warned: list[str]
) -> None:
    def edited(identity: Identity, **inputs: Any) -> Tensor:
        (one,), _ = EditFacialMotion.execute(identity, dynamicid, miniature.clip, **WITHOUT | inputs).result
        return one.tokens

    read, sad = (
        edited(person, source_expression="auto", source_landmarks=FROWN),
        edited(person, source_expression="sad"),
    )
    assert torch.equal(read, sad) and not warned
    smiling = replace(person, expression="happy")
    first = edited(smiling, source_expression="auto", source_landmarks=FROWN)
    assert torch.equal(first, edited(person, source_expression="happy")), "the expression model's goes first"
    assert torch.equal(edited(smiling, source_expression="neutral", source_landmarks=FROWN), sad), "as before"
    edited(person, source_expression="auto", source_prompt="with a grin")
    assert not warned, "one's own words tell"


def test_who_was_edited_shows_what_was_asked_for(
    miniature: Miniature, dynamicid: DynamicID, person: Identity, warned: list[str]
) -> None:
    def edited(identity: Identity, **inputs: Any) -> Identity:
        (one,), _ = EditFacialMotion.execute(identity, dynamicid, miniature.clip, **WITHOUT | inputs).result
        return one

    sad = edited(person, expression="sad", source_expression="happy")
    assert sad.expression == "sad"
    assert edited(person, prompt="fear 1.0, yaw 5", source_expression="happy").expression == "fear"
    mixed = [edited(person, prompt=words, source_expression="happy") for words in ("fear 0.5", "with a grin")]
    assert [one.expression for one in mixed] == ["", ""]
    assert mix(sad, replace(sad, name="other"), 0.5).expression == "sad" and mix(sad, mixed[0], 0.5).expression == ""
    again, told = (edited(sad, source_expression=source).tokens for source in ("auto", "sad"))
    assert torch.equal(again, told) and not warned


def test_the_panel_is_told_what_auto_took(
    miniature: Miniature, dynamicid: DynamicID, person: Identity, warned: list[str]
) -> None:
    asked = WITHOUT | {"source_expression": "auto"}
    smiling = replace(person, expression="happy")
    (told,) = EditFacialMotion.execute(smiling, dynamicid, miniature.clip, **asked).ui["dynamicid_motion"]
    assert told["shown"] == "happy" and told["inputs"]["source_expression"] == "auto"


def portrait(number: int, expression: str) -> Tensor:
    """(1, 128, 128, 3): somebody whom training never showed."""
    look = PersonSpec("blue", "shirt", expression, None, "in front view")
    people = (World(held_out_people=True).person(number),)
    image = render(compose(CaptionSpec((look,), "in a park"), people, number)).image
    return torch.from_numpy(image).float().div(255)[None]


def test_the_miniatures_model_reads_drawn_faces() -> None:
    mini = load_miniature().dynamicid
    said = [encode(portrait(n, name), mini).identity.expression == name for n, name in enumerate(CLASSES * 2)]
    assert sum(said) >= 12


def test_encode_identity_keeps_what_the_model_reads(tmp_path: Path) -> None:
    file = classifier_file(tmp_path / "net.onnx", classes=2, metadata={"classes": "sad, fear"})
    mini = replace(load_miniature().dynamicid, load_expression=partial(ExpressionClassifier, file, "CPU"))
    identity = encode(portrait(0, "happy"), mini).identity
    assert identity.expression in ("sad", "fear")
    assert identity.face_prompt.startswith(f"in a {identity.expression} expression")
    save_identity(identity, tmp_path / "ana.safetensors")
    assert load_identity(tmp_path / "ana.safetensors").expression == identity.expression
    unread = encode(portrait(0, "happy"), replace(mini, load_expression=None)).identity
    assert unread.expression == "" and unread.face_prompt.startswith("in a neutral expression")
    save_identity(unread, tmp_path / "ben.safetensors")
    assert load_identity(tmp_path / "ben.safetensors").expression == ""


def test_another_model_reads_a_photograph_anew(tmp_path: Path) -> None:
    mini, image = load_miniature().dynamicid, portrait(3, "happy")
    said = []
    for names in ("sad, fear", "fear, sad"):  # the same scores, of other classes
        file = classifier_file(tmp_path / f"{names}.onnx", classes=2, metadata={"classes": names})
        dynamicid = replace(mini, load_expression=partial(ExpressionClassifier, file, "CPU"))
        said += [encode(image, dynamicid).identity.expression for _ in range(2)]
    assert said in (["sad", "sad", "fear", "fear"], ["fear", "fear", "sad", "sad"])


@pytest.mark.parametrize("content", [b"not a network", None])
def test_a_model_that_is_none_stops_the_encoding_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "net.onnx"
    if content is None:
        classifier_file(file, (1, 3, 64, 64), 5)
    else:
        file.write_bytes(content)
    mini = replace(load_miniature().dynamicid, load_expression=partial(ExpressionClassifier, file, "CPU"))
    asked: dict[str, Any] = {"face": "largest", "index": 0, "combine": "average", "no_face": "error"}
    with pytest.raises(ValueError, match=r"net\.onnx: (the expression model can't|expected the names)") as error:
        EncodeIdentity.execute(portrait(3, "happy"), mini, **asked)
    assert "\n" not in str(error.value)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """models/dynamicid/expression, beside an adapter `saa.safetensors`; other folders are empty."""
    for folder, suffixes in ((folders.FOLDER, {".safetensors"}), (folders.INSIGHTFACE, set())):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(tmp_path / folder)], suffixes))
    (tmp_path / folders.FOLDER).mkdir()
    tiny.adapter_file(tmp_path / folders.FOLDER / "saa.safetensors")
    return tmp_path / folders.FOLDER / "expression"


def test_load_dynamicid_offers_the_models_of_its_folder(place: Path) -> None:
    for name in ("mine.onnx", "more/ferplus.onnx"):
        classifier_file(place / name)
    (place / "mine.json").write_text('["happy"]')
    (place / "folder.onnx").mkdir()
    widget = LoadDynamicID.define_schema().inputs[-1]
    assert widget.id == "expression_model" and widget.default == "None"
    assert widget.options == ["None", "mine.onnx", "more/ferplus.onnx"]
    with pytest.raises(FileNotFoundError, match=r"no expression model 'other\.onnx' in models/dynamicid/expression"):
        LoadDynamicID.execute("saa.safetensors", expression_model="other.onnx")


def test_load_dynamicid_reads_the_model_when_it_is_first_used(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = classifier_file(place / "net.onnx")
    with caplog.at_level("INFO", "DynamicID"):
        loaded = LoadDynamicID.execute("saa.safetensors", expression_model="net.onnx").args[0]
    assert "Expressions of photographs: read by net.onnx" in caplog.text
    assert loaded.expression_classifier.classes == CLASSES
    assert LoadDynamicID.execute("saa.safetensors").args[0].expression_classifier is None
    versions = [LoadDynamicID.fingerprint_inputs("saa.safetensors", expression_model="net.onnx")]
    model.with_suffix(".json").write_text("[]")
    versions.append(LoadDynamicID.fingerprint_inputs("saa.safetensors", expression_model="net.onnx"))
    os.utime(model, (1, 1))
    versions.append(LoadDynamicID.fingerprint_inputs("saa.safetensors", expression_model="net.onnx"))
    assert len({repr(version) for version in versions}) == 3
