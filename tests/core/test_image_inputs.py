"""What networks are shown: crops about a face, the expression classifier's input, CLIP's input."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.evaluation.models_judge import ModelsJudge
from dynamicid_pack.dynamicid_core.expression_classifier import ExpressionClassifier
from dynamicid_pack.dynamicid_core.identity.faces import Detection
from dynamicid_pack.dynamicid_core.image_inputs import (
    CropBox,
    classifier_input,
    clip_input,
    clip_normalization,
    crop,
    crop_box,
    face_crop,
    negative_clip_input,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (100, 160, 3), np.uint8)
AT_THE_EDGE = Box(-12, 70, 38, 120)


class FakeSession:
    """An onnxruntime session that keeps what it was given."""

    def __init__(self, *_: object, **__: object):
        self.received = np.empty(0)

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="x", shape=["n", 3, 64, 64])]

    def get_modelmeta(self) -> SimpleNamespace:
        return SimpleNamespace(custom_metadata_map={})

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.received = inputs["x"]
        return [np.zeros((1, 7), np.float32)]


def test_building_and_judging_show_the_classifier_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "InferenceSession", FakeSession)
    judging, building = (ExpressionClassifier(Path("none.onnx"), "CPU") for _ in range(2))
    ModelsJudge(None, None, None, judging, "").expression(IMAGE, AT_THE_EDGE)  # type: ignore[arg-type]
    building(IMAGE, AT_THE_EDGE)
    np.testing.assert_array_equal(judging._session.received, building._session.received)
    inside = classifier_input(IMAGE, Box(0, 50, 50, 100))
    np.testing.assert_array_equal(building._session.received, inside, "the square is moved into the image")


def test_the_classifier_sees_the_face_in_gray_normalized() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[50:130, 100:160] = (200, 100, 50)  # taller than wide: the square about it is seen
    output = classifier_input(image, Box(100, 50, 160, 130))
    assert output.shape == (1, 3, 64, 64) and output.dtype == np.float32
    gray = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    for channel, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        assert output[0, channel, 32, 32] == pytest.approx((gray / 255 - mean) / std, abs=0.02)
        assert output[0, channel, 32, 2] == pytest.approx(-mean / std, abs=0.02)
    flat = np.full((100, 100, 3), 255, np.uint8)
    np.testing.assert_allclose(classifier_input(flat, Box(-50, -50, 20, 20))[0, 0], (1 - 0.485) / 0.229, rtol=1e-6)
    assert classifier_input(flat, Box(-500, -500, 900, 700)).shape == (1, 3, 64, 64), "larger than the image"


def test_a_square_leads_out_of_the_image_or_is_moved_into_it() -> None:
    assert crop_box(AT_THE_EDGE) == CropBox(-12, 70, 50)
    assert crop_box(AT_THE_EDGE, within=(100, 160)) == CropBox(0, 50, 50)
    assert crop_box(AT_THE_EDGE, 0.6) == CropBox(-42, 40, 110)
    assert crop_box(AT_THE_EDGE, 0.6, within=(100, 160)) == CropBox(0, 0, 100)
    leading_out = crop(IMAGE, crop_box(AT_THE_EDGE))
    np.testing.assert_array_equal(leading_out[:30, 12:], IMAGE[70:, :38])
    assert (leading_out[:30, :12] == IMAGE[70:, :1]).all() and (leading_out[30:, 12:] == IMAGE[99:, :38]).all()


def test_a_face_is_found_again_in_its_crop() -> None:
    image = np.zeros((100, 160, 3), np.uint8)
    image[50:60, 90:110] = 255
    output = face_crop(image, CropBox(80, 40, 40), 120)
    detection = Detection(Box(90, 50, 110, 60), np.array([[90, 50]] * 5, np.float32), 0.9)
    moved = detection.in_crop(CropBox(80, 40, 40), 120)
    assert moved.box == (30, 30, 90, 60) and moved.keypoints[0].tolist() == [30, 30] and moved.score == 0.9
    assert output[33:57, 33:87].min() > 220 and output[:25].max() < 30 and output[66:].max() < 30


def test_clips_input_is_resized_rounded_and_normalized(tmp_path: Path) -> None:
    config = tmp_path / "preprocessor_config.json"
    mean, std = clip_normalization(config)
    assert mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    config.write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    mean, std = clip_normalization(config)
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    output = clip_input(images, 32, mean, std)
    assert output.shape == (2, 3, 32, 32)
    levels = (output * std + mean) * 255
    assert float((levels - levels.round()).abs().max()) < 1e-3 and float(levels.min()) >= 0
    free = clip_input(images.requires_grad_(), 32, mean, std, to_bytes=False)
    assert free.requires_grad and float((free - output).detach().abs().max()) <= 0.5 / 255 / 0.25 + 1e-6
    assert torch.equal(clip_input(torch.ones(1, 3, 32, 32), 32, mean, std), torch.full((1, 3, 32, 32), 2.0))
    assert torch.equal(negative_clip_input(8), torch.zeros(1, 3, 8, 8))
