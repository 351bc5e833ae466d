"""Expressions from texts, names and a classifier."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.data.analysis import read_analysis
from dynamicid_pack.dynamicid_core.data.expression import from_name, from_prompt, from_sidecar
from dynamicid_pack.dynamicid_core.data.settings import BuildSettings
from dynamicid_pack.dynamicid_core.data.worker import Worker
from dynamicid_pack.dynamicid_core.expression_classifier import CLASSES, ExpressionClassifier
from dynamicid_pack.dynamicid_core.imr.motion import EXPRESSIONS
from dynamicid_pack.tests.data.drawn import SETTINGS, changed, draw_person, job

SIZE = (1, 3, 64, 64)


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


def classifier_file(path: Path, shape: tuple = SIZE, classes: int = len(CLASSES)) -> Path:
    """A network that tells gray values apart: the kth class is what is nearest to a mean (normalized) of k/2 - 1.5."""
    means = np.arange(classes) / 2 - 1.5
    slope, offset = np.tile(2 * means / 3, (3, 1)).astype(np.float32), -(means**2).astype(np.float32)
    make = onnx.helper
    nodes = [
        make.make_node("GlobalAveragePool", ["x"], ["mean"]),
        make.make_node("Flatten", ["mean"], ["flat"]),
        make.make_node("Gemm", ["flat", "slope", "offset"], ["scores"]),
    ]
    graph = make.make_graph(
        nodes, "classifier",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", *shape[1:]])],
        [make.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["n", classes])],
        [onnx.numpy_helper.from_array(slope, "slope"), onnx.numpy_helper.from_array(offset, "offset")],
    )  # fmt: skip
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("number", range(len(CLASSES)))
def test_the_classes_come_in_the_stated_order(tmp_path: Path, number: int) -> None:
    classify = ExpressionClassifier(classifier_file(tmp_path / "net.onnx"), "CPU")
    gray = round(255 * (0.449 + 0.226 * (number / 2 - 1.5)))
    assert classify(np.full((80, 80, 3), gray, np.uint8), Box(10, 10, 60, 60)) == CLASSES[number]
    expected = ("happy", "surprise", "sad", "anger", "disgust", "fear", "neutral")
    assert CLASSES[number] == expected[number]


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one input of shape \(n, 3, 64, 64\)"):
        ExpressionClassifier(classifier_file(tmp_path / "wide.onnx", (1, 3, 48, 48)), "CPU")
    with pytest.raises(ValueError, match="expected 7 finite scores"):
        ExpressionClassifier(classifier_file(tmp_path / "five.onnx", classes=5), "CPU")
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(ValueError, match=r"text\.onnx: the expression model can't be loaded"):
        ExpressionClassifier(tmp_path / "text.onnx", "CPU")


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
