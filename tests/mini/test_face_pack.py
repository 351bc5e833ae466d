"""The face pack: cuts as insightface makes them, truth as its networks are to say it, files that it loads."""

from types import MethodType

import cv2
import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.training.trainer import Trainer
from dynamicid_pack.mini.train import pictures
from dynamicid_pack.mini.train.face_crops import ALIGNED, around_box, enlarged, similarity, to_crop_coords, warp
from dynamicid_pack.mini.train.face_networks import LANDMARK_CROP, STRIDES, FacePack, write_pack
from dynamicid_pack.mini.train.face_pack import CANVAS, FacePackStage, to_input
from dynamicid_pack.mini.train.pictures import Pictures
from dynamicid_pack.mini.train.stage import TrainContext
from dynamicid_pack.mini.world.world import World

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(pictures, "SHARD", 8)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Some portraits and their truth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "SHARD", 8)
        return Pictures(tmp_path_factory.mktemp("seen"), World(seed=4), 1, 16).take(np.arange(16))


def small(context):
    stage = FacePackStage(context, 128)
    stage.config = stage.config.model_copy(update={"steps": 2, "warmup_steps": 1})
    stage.canvases = stage.people = 2
    stage.held_out.size = 8
    stage.samples = MethodType(lambda self, network: None, stage)  # type: ignore[method-assign]
    stage.measures = MethodType(lambda self, network: {}, stage)  # type: ignore[method-assign]
    return stage


def seasoned():
    """A pack whose normalisations are those of no new network."""
    torch.manual_seed(0)
    pack = FacePack().eval()
    for layer in pack.modules():
        if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            assert layer.running_var is not None and layer.running_mean is not None
            for tensor in (layer.weight, layer.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 2.0)
            for tensor in (layer.bias, layer.running_mean):
                torch.nn.init.normal_(tensor)
    return pack


def test_a_similarity_is_found_again():
    turn = np.array([[0.8, -0.6, 5.0], [0.6, 0.8, -3.0]]) * [[1.7, 1.7, 1], [1.7, 1.7, 1]]
    points = np.random.default_rng(0).normal(size=(5, 2)) * 20
    assert np.allclose(similarity(points, to_crop_coords(points, turn)), turn)


def test_a_cut_shows_what_one_of_an_enlarged_picture_would(seen):
    image, box = seen[0][0], seen[1].box[0, 0]
    matrix = around_box(box, 192)
    large = cv2.resize(image, None, fx=4, fy=4)
    of_large = warp(large, around_box(4 * box, 192), 192)
    assert np.abs(warp(image, enlarged(matrix, 4.0), 192).astype(int) - of_large).mean() < 2
    assert np.array_equal(warp(image, enlarged(matrix, 1.0), 192), warp(image, matrix, 192))


def test_detection_truth_leads_back_to_the_boxes():
    stage = FacePackStage.__new__(FacePackStage)
    faces = [
        (np.array([[60.0, 70.0, 110.0, 130.0]]), np.full((1, 5, 2), 80.0)),
        (np.array([[40.0, 50.0, 280.0, 290.0], [300.0, 300.0, 340.0, 340.0]]), np.full((2, 5, 2), 160.0)),
    ]
    near_a_limit = (np.array([[100.0, 100.0, 170.0, 170.0]]), np.full((1, 5, 2), 130.0))
    levels = [stage._targets(level, faces) for level in range(3)]
    assert [int((label[0] == 1).sum()) > 0 for label, _ in levels] == [True, False, False]
    assert [int((label[1] == 1).sum()) > 0 for label, _ in levels] == [False, False, True]
    # a face is found at one level alone, and the others' cells say no; between two levels both find it
    assert [bool((label == -1).any()) for label, _ in levels] == [True, False, True]
    between = [stage._targets(level, [near_a_limit]) for level in range(3)]
    assert [bool((label == 1).any()) for label, _ in between] == [True, True, False]
    for level, (label, target) in enumerate(levels):
        for i, y, x in np.argwhere(label == 1):
            left, up, right, down = target[i, y, x, :4] * STRIDES[level]
            corner = np.array([x, y, x, y]) * STRIDES[level]
            assert np.allclose(corner + np.array([-left, -up, right, down]), faces[i][0][0])
            spots = target[i, y, x, 4:].reshape(5, 2) * STRIDES[level] + corner[:2]
            assert np.allclose(spots, faces[i][1][0])
    assert levels[0][0].shape == (2, CANVAS // 8, CANVAS // 8)


def test_the_truth_of_a_cut_gives_points_and_pose_as_insightface_computes_them(seen):
    pytest.importorskip("insightface")
    from insightface.data import get_object
    from insightface.utils import face_align, transform

    images, truth = seen
    box, points = truth.box[3, 0], truth.points68[3, 0]
    side = (box[2:] - box[:2]).max()
    scale = LANDMARK_CROP / (1.5 * side)
    _, matrix = face_align.transform(images[3], (box[:2] + box[2:]) / 2, LANDMARK_CROP, scale, 0)
    assert np.allclose(matrix, around_box(box, LANDMARK_CROP), atol=1e-3)
    half = LANDMARK_CROP / 2
    said = np.column_stack([to_crop_coords(points[:, :2], matrix) / half - 1, points[:, 2] * scale / half])
    said[:, :2] += 1
    restored = face_align.trans_points(said * half, cv2.invertAffineTransform(matrix))
    assert np.allclose(restored[:, :2], points[:, :2], atol=1e-2)
    affine = transform.estimate_affine_matrix_3d23d(get_object("meanshape_68.pkl"), restored)
    pose = transform.matrix2angle(transform.P2sRt(affine)[1])
    assert np.abs(np.array(pose) - truth.pose[3, 0]).max() < 6


def test_the_stage_resumes_exactly(tmp_path):
    whole, parts = TrainContext(tmp_path / "whole"), TrainContext(tmp_path / "parts")
    Trainer(small(whole), log=lambda line: None).run()
    Trainer(small(parts), log=lambda line: None).run(until=1)
    Trainer(small(parts), log=lambda line: None).run()
    one, other = whole.stored("face-pack"), parts.stored("face-pack")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any(name.startswith("factors.") for name in one)
    assert isinstance(whole.load("face-pack", FacePack()), FacePack)


def test_insightface_loads_the_pack_under_buffalo_ls_names(tmp_path, seen):
    pytest.importorskip("insightface")
    from insightface.app import FaceAnalysis

    torch.manual_seed(0)
    pack = FacePack().eval()
    write_pack(pack, tmp_path)
    names = {"det_10g.onnx", "2d106det.onnx", "1k3d68.onnx", "w600k_r50.onnx"}
    assert {path.name for path in tmp_path.iterdir()} == names
    analysis = FaceAnalysis(name=str(tmp_path), providers=["CPUExecutionProvider"])
    assert set(analysis.models) == {"detection", "landmark_2d_106", "landmark_3d_68", "recognition"}
    analysis.prepare(ctx_id=-1, det_size=(256, 256), det_thresh=0.5)
    assert analysis.get(seen[0][0]) == [] or analysis.get(seen[0][0])[0].embedding.shape == (512,)

    recognition = analysis.models["recognition"]
    assert (recognition.input_mean, recognition.input_std, recognition.input_size) == (127.5, 127.5, (112, 112))
    cut = warp(seen[0][0], similarity(seen[1].keypoints[0, 0], ALIGNED), 112)
    with torch.no_grad():
        expected = pack.recognition(to_input([cut], torch.device("cpu"), 127.5))[0].numpy()
    assert np.allclose(recognition.get_feat(cut[..., ::-1])[0], expected, atol=5e-3)

    for name, said in (("landmark_2d_106", 212), ("landmark_3d_68", 3309)):
        model = analysis.models[name]
        assert (model.input_mean, model.input_std) == (127.5, 128.0)
        assert model.session.run(None, {model.input_name: np.zeros((1, 3, 192, 192), np.float32)})[0].shape == (1, said)
    detector = analysis.models["detection"]
    blob = np.random.default_rng(0).normal(size=(1, 3, 128, 192)).astype(np.float32)
    with torch.no_grad():
        expected = pack.detector(torch.from_numpy(blob))
    outputs = detector.session.run(detector.output_names, {detector.input_name: blob})
    for made, true in zip(outputs, expected, strict=True):
        assert np.allclose(made, true.numpy(), atol=5e-3)
