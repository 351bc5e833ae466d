"""Faces in order, packs in folders, analyzers of others: what needs no detector."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.identity.analyzer import FaceAnalyzer, find_packs, load_analyzer
from dynamicid_pack.dynamicid_core.identity.faces import ORDERS, Detection, in_order
from dynamicid_pack.mini.world.world import World


@pytest.mark.parametrize("order", ORDERS)
def test_the_right_face_comes_first_in_every_order(order: str) -> None:
    """On the true boxes of rendered groups, handed over in another order."""
    for number in range(12):
        faces = World(seed=9, held_out_people=True).sample(number, 2 + number % 2).picture().faces
        result = [Detection(Box.of(face.box), face.keypoints, 0.9) for face in faces][::-1]
        size = (128, 256)
        measures = [
            {
                "largest": -(x1 - x0) * (y1 - y0),
                "left to right": (x0 + x1) / 2,
                "centre": np.hypot((x0 + x1) / 2 - 128, (y0 + y1) / 2 - 64),
            }[order]
            for x0, y0, x1, y1 in (face.box for face in in_order(result, order, size))
        ]
        assert measures == sorted(measures)


def test_another_order_is_refused() -> None:
    with pytest.raises(ValueError, match="largest, left to right, centre"):
        in_order([], "smallest", (10, 10))


def _pack(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_packs_are_found_also_one_folder_too_deep(tmp_path: Path) -> None:
    flat = _pack(tmp_path / "models" / "buffalo_l", "det_10g.onnx")
    deep = _pack(tmp_path / "models" / "antelopev2" / "antelopev2", "glintr100.onnx")
    beside = _pack(tmp_path / "own_pack", "det_10g.onnx")
    _pack(tmp_path / "models" / "empty")
    assert find_packs([tmp_path]) == {"buffalo_l": flat, "antelopev2": deep, "own_pack": beside}
    assert find_packs([tmp_path / "nowhere"]) == {}


def test_a_pack_with_a_model_missing_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks w600k_r50.onnx, 1k3d68.onnx"):
        load_analyzer(_pack(tmp_path / "buffalo_l", "det_10g.onnx", "2d106det.onnx"))


def _analysis(recognition: str, *tasks: str) -> SimpleNamespace:
    return SimpleNamespace(models={task: SimpleNamespace(model_file=f"/packs/{recognition}.onnx") for task in tasks})


ALL = ("detection", "recognition", "landmark_2d_106", "landmark_3d_68")


@pytest.mark.parametrize(
    ("analysis", "message"),
    [
        (object(), "Expected insightface's FaceAnalysis, got object"),
        (_analysis("w600k_r50", "detection", "recognition"), "lacks landmark_2d_106"),
        (_analysis("glintr100", *ALL), "glintr100 .antelopev2's."),
        (_analysis("some_other", *ALL), "some_other .another one's."),
    ],
)
def test_an_analyser_of_another_kind_is_refused(analysis: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceAnalyzer(analysis)


def test_buffalo_l_of_another_pack_is_accepted() -> None:
    FaceAnalyzer(_analysis("w600k_r50", *ALL))
