"""The miniature's expression model: what it is trained on is what it is shown, and its file says what it says."""

from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.expression_classifier import CLASSES, ExpressionClassifier
from dynamicid_pack.dynamicid_core.image_inputs import classifier_input, normalized_gray
from dynamicid_pack.mini.train import pictures
from dynamicid_pack.mini.train.expression import ExpressionStage
from dynamicid_pack.mini.train.expression_network import ExpressionNet, write_classifier
from dynamicid_pack.mini.train.pictures import NAMES
from dynamicid_pack.mini.train.stage import TrainContext
from numpy.typing import NDArray

pytestmark = pytest.mark.train

LARGEST = 300_000  # bytes


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> ExpressionStage:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "SHARD", 8)
        stage = ExpressionStage(TrainContext(tmp_path_factory.mktemp("expression")), 18)
        stage.held_out.size = 8
        assert stage.faces and stage.held_out.all()
        return stage


def seasoned() -> ExpressionNet:
    """A network whose normalizations are those of no new one."""
    torch.manual_seed(1)
    network = ExpressionNet().eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            assert layer.running_var is not None and layer.running_mean is not None
            torch.nn.init.uniform_(layer.running_var, 0.5, 2.0)
            torch.nn.init.normal_(layer.running_mean)
    return network


def place_of(small: NDArray[np.float32], large: NDArray[np.float32]) -> tuple[float, NDArray[np.int64]]:
    """Return how alike the place in `large` that is most like `small` is (1: the same), and its left upper corner."""
    likeness = cv2.matchTemplate(large, small, cv2.TM_CCOEFF_NORMED)
    y, x = np.unravel_index(likeness.argmax(), likeness.shape)
    return float(likeness[y, x]), np.array([x, y])


def test_a_kept_face_is_what_the_classifier_is_shown(stage: ExpressionStage) -> None:
    faces, labels = stage.faces
    images, truth = stage.portraits.take(np.arange(8))
    assert len(faces) == len(labels) == 18 + 2 * 2 + 2 * 3
    kept = normalized_gray(faces[:8, None] / 255.0)[:, 0].numpy()
    for face, image, box in zip(kept, images, truth.box[:, 0], strict=True):
        likeness, place = place_of(classifier_input(image, Box.of(box))[0, 0], face)
        assert likeness > 0.8 and np.abs(place - (faces.shape[-1] - 64) / 2).max() < 1
    assert [CLASSES[label] for label in labels[:8]] == [NAMES[name] for name in truth.expression[:, 0]]


def test_what_a_step_shows_is_the_face_a_little_changed(stage: ExpressionStage) -> None:
    faces = stage.faces[0][:8]
    seen = stage._seen(faces, torch.Generator().manual_seed(3))
    assert seen.shape == (8, 3, 64, 64) and seen.dtype == torch.float32
    kept = normalized_gray(faces[:, None] / 255.0)[:, 0].numpy()
    for one, face in zip(seen[:, 0].numpy(), kept, strict=True):
        inner = np.ascontiguousarray(one[8:-8, 8:-8])
        likeness, place = max(
            (place_of(inner, np.ascontiguousarray(face[:, ::turn])) for turn in (1, -1)), key=itemgetter(0)
        )
        assert 0.6 < likeness < 0.999
        assert np.abs(place - (faces.shape[-1] - 48) / 2).max() < 6


def test_the_file_says_what_the_network_says(stage: ExpressionStage, tmp_path: Path) -> None:
    network = seasoned()
    write_classifier(network, tmp_path / "expression.onnx")
    assert (tmp_path / "expression.onnx").stat().st_size < LARGEST
    classify = ExpressionClassifier(tmp_path / "expression.onnx", "CPU")
    assert classify.classes == CLASSES
    images, truth = stage.held_out.all()
    for image, box in zip(images, truth.box[:, 0], strict=True):
        with torch.no_grad():
            expected = network(torch.from_numpy(classifier_input(image, Box.of(box))))[0]
        scores = torch.from_numpy(classify._scores(image, Box.of(box))).float()
        assert torch.allclose(scores, expected, atol=0.05 * float(expected.std()) + 0.01)
    measured = stage.report(tmp_path / "expression.onnx")
    predicted = [
        classify(image, Box.of(box)) == NAMES[number]
        for image, box, number in zip(images, truth.box[:, 0], truth.expression[:, 0], strict=True)
    ]
    assert measured["expression"] == np.mean(predicted)
