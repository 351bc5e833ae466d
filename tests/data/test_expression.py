"""Expressions from texts, names and a classifier."""

import json
from pathlib import Path

import pytest
from dynamicid_pack.dynamicid_core.data.analysis import read_analysis
from dynamicid_pack.dynamicid_core.data.expression import from_name, from_prompt, from_sidecar
from dynamicid_pack.dynamicid_core.data.settings import BuildSettings
from dynamicid_pack.dynamicid_core.data.worker import Worker
from dynamicid_pack.dynamicid_core.imr.motion import EXPRESSIONS
from dynamicid_pack.tests.core.classifiers import classifier_file
from dynamicid_pack.tests.data.drawn import SETTINGS, changed, draw_person, job


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        *((f"in a {name} expression, facing up, in front view", name) for name in EXPRESSIONS),
        ("A photo of a man in an anger expression, in side view", "anger"),
        ("the expression is afraid, the face is front view", "fear"),
        ("The expression is Surprised", "surprise"),
        ("a happy day at the beach", None),
        ("in a puzzled expression", None),
        ("", None),
    ],
)
def test_a_face_prompt_says_the_expression(prompt: str, expected: str | None) -> None:
    assert from_prompt(prompt) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("happy.png", "happy"),
        ("AF01_Angry-left.png", "anger"),
        ("sad/12.png", "sad"),
        ("sad/happy 3.png", "happy"),
        ("happy and sad.png", None),
        ("unhappyness.png", None),
        ("12.png", None),
    ],
)
def test_a_name_says_the_expression(path: str, expected: str | None) -> None:
    assert from_name(path) == expected


def test_a_sidecar_of_any_content_is_read_safely(tmp_path: Path) -> None:
    assert from_sidecar(tmp_path / "none.txt") is None
    (tmp_path / "bytes.txt").write_bytes(bytes(range(256)) + b" in a sad expression")
    assert from_sidecar(tmp_path / "bytes.txt") == "sad"
    (tmp_path / "long.txt").write_text("x" * 5000 + " in a sad expression")
    assert from_sidecar(tmp_path / "long.txt") is None
    assert from_sidecar(tmp_path) is None


@pytest.mark.train
def test_the_text_is_asked_first_then_the_name_then_the_classifier(tmp_path: Path) -> None:
    names = list(draw_person(tmp_path / "source" / "happy", 0, 3))
    folder = tmp_path / "source" / "happy"
    (folder / names[0]).with_suffix(".txt").write_text("in a fear expression, in side view")
    (folder / names[2]).rename(folder / "plain.png")
    task = json.dumps({"sources": [{"path": f"happy/{n}", "stamp": ""} for n in (*names[:2], "plain.png")]})

    def expressions(settings: BuildSettings, **model: Path) -> list[tuple[str, str]]:
        worker = Worker(job(tmp_path / "source", settings, **model))
        records, _ = read_analysis(worker.run("analyze", task))
        return [(record.expression, record.expression_from) for record in records]

    by_name = names[1][3:-4]
    assert expressions(SETTINGS) == [("fear", "sidecar"), (by_name, "name"), ("neutral", "nothing")]
    model = classifier_file(tmp_path / "net.onnx")
    classified = expressions(SETTINGS, expression_model=model)
    assert classified[:2] == [("fear", "sidecar"), (by_name, "name")] and classified[2][1] == "model"
    by_text = expressions(changed(expression_from="sidecar"), expression_model=model)
    assert [by for _, by in by_text] == ["sidecar", "model", "model"]
