"""Expression models: which files are taken, what they are shown, and what is said of the others."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.expression_classifier import CLASSES, FERPLUS_CLASSES, ExpressionClassifier
from dynamicid_pack.dynamicid_core.image_inputs import gray_input

from .classifiers import classifier_file, gray_for

FACE = Box(10, 10, 60, 60)
OTHER_ORDER = ("neutral", "angry", "sadness", "happy")


def flat(gray: int) -> np.ndarray:
    return np.full((80, 80, 3), gray, np.uint8)


@pytest.mark.parametrize("number", range(len(CLASSES)))
def test_the_classes_come_in_the_stated_order(tmp_path: Path, number: int) -> None:
    classify = ExpressionClassifier(classifier_file(tmp_path / "net.onnx"), "CPU")
    assert classify(flat(gray_for(number)), FACE) == CLASSES[number]
    expected = ("happy", "surprise", "sad", "anger", "disgust", "fear", "neutral")
    assert CLASSES[number] == expected[number]


@pytest.mark.parametrize(
    ("metadata", "beside"),
    [
        ({"classes": "neutral, angry,sadness , Happy"}, None),
        ({"classes": json.dumps(OTHER_ORDER)}, ["fear", "sad", "happy", "anger"]),
        ({}, OTHER_ORDER),
        ({"author": "somebody"}, {"classes": OTHER_ORDER}),
        ({}, {"model_type": "vit", "id2label": {"1": "angry", "0": "neutral", "3": "happy", "2": "sad"}}),
    ],
)
def test_names_come_from_the_metadata_or_a_json_beside_the_file(
    tmp_path: Path, metadata: dict[str, str], beside: object
) -> None:
    if beside is not None:
        (tmp_path / "net.json").write_text(json.dumps(beside))
    classify = ExpressionClassifier(classifier_file(tmp_path / "net.onnx", classes=4, metadata=metadata), "CPU")
    said = [classify(flat(gray_for(number)), FACE) for number in range(4)]
    assert said == ["neutral", "anger", "sad", "happy"]


def test_ferplus_sees_gray_bytes_and_contempt_is_passed_over(tmp_path: Path) -> None:
    """Of one channel: 0 is nearest to the class of mean 0, neighbours of it are the next best."""
    file = classifier_file(tmp_path / "ferplus.onnx", (1, 1, 64, 64), len(FERPLUS_CLASSES))
    classify = ExpressionClassifier(file, "CPU")
    assert classify.classes == FERPLUS_CLASSES
    assert classify(flat(0), FACE) == "sad"  # the fourth
    assert classify(flat(1), FACE) == "disgust"  # the sixth
    assert classify(flat(200), FACE) == "fear", "contempt, the last, is the nearest"
    image = np.zeros((80, 80, 3), np.uint8)
    image[10:60, 10:60] = (200, 100, 50)
    seen = gray_input(image, FACE, 48)
    assert seen.shape == (1, 1, 48, 48) and seen.dtype == np.float32
    assert seen == pytest.approx(round(0.299 * 200 + 0.587 * 100 + 0.114 * 50), abs=1)


def test_a_classifier_of_another_side_sees_that_many_pixels(tmp_path: Path) -> None:
    classify = ExpressionClassifier(classifier_file(tmp_path / "net.onnx", (1, 3, 48, 48)), "CPU")
    assert classify(flat(gray_for(2)), FACE) == "sad"


@pytest.mark.parametrize(
    ("shape", "classes", "names", "says"),
    [
        ((1, 4, 64, 64), 7, None, r"one input of shape \(n, 3, 64, 64\), or of one channel"),
        ((1, 3, 64, 48), 7, None, r"one input of shape \(n, 3, 64, 64\)"),
        ((1, 3, 4, 4), 7, None, "sides from 16 to 512"),
        ((1, 3, "height", "width"), 7, None, r"one input of shape \(n, 3, 64, 64\)"),
        ((1, 3, 64, 64), 5, None, "expected the names of its 5 classes"),
        ((1, 3, 64, 64), 8, None, "expected the names of its 8 classes"),
        ((1, 3, 64, 64), 3, ["happy", "sad"], "expected 3 names of expressions for as many classes"),
        ((1, 3, 64, 64), 2, ["cat", "dog"], "got 'cat, dog'. Name each class as one of neutral, happy"),
        ((1, 3, 64, 64), 3, ["happy", "happiness", "sad"], "each once, got 'happy, happiness, sad'"),
        ((1, 3, 64, 64), 2, ["happy", "contempt"], "each once"),
        ((1, 3, 64, 64), 2, {"classes": 3}, "net.json: expected a JSON list of the names"),
        ((1, 3, 64, 64), 2, {"id2label": {"1": "happy", "2": "sad"}}, "net.json: expected a JSON list of the names"),
    ],
)
def test_another_network_is_refused_in_one_line(
    tmp_path: Path, shape: tuple, classes: int, names: Sequence[str] | None, says: str
) -> None:
    if names is not None:
        (tmp_path / "net.json").write_text(json.dumps(names))
    with pytest.raises(ValueError, match=says) as error:
        ExpressionClassifier(classifier_file(tmp_path / "net.onnx", shape, classes), "CPU")
    assert "net" in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(ValueError, match=r"text\.onnx: the expression model can't be loaded"):
        ExpressionClassifier(tmp_path / "text.onnx", "CPU")
    (tmp_path / "net.json").write_bytes(b"\xff\xfe nothing")
    with pytest.raises(ValueError, match=r"net\.json: expected a JSON list"):
        ExpressionClassifier(classifier_file(tmp_path / "net.onnx"), "CPU")


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    classify = ExpressionClassifier(classifier_file(tmp_path / "net.onnx"), "CPU")

    class Broken:
        def run(self, *_: object) -> list[np.ndarray]:
            return [np.full((1, 7), np.nan, np.float32)]

    classify._session = Broken()
    with pytest.raises(ValueError, match="NaN or infinity"):
        classify(flat(100), FACE)
