"""Load DynamicID says what it has loaded, and finds FaceID's files where other packs keep them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths
import pytest
import torch
from dynamicid_pack.dynamicid_core.host import folders, report
from dynamicid_pack.dynamicid_core.host.models import load_dynamicid
from dynamicid_pack.dynamicid_core.identity import installation
from dynamicid_pack.nodes.load import LoadDynamicID
from safetensors.torch import save_file

from . import faceid, tiny
from .faceid import KINDS

Known = Callable[..., str]


@pytest.fixture(name="reported")
def what_is_reported(tmp_path: Path) -> Known:
    """The report of a file of this kind, with what was chosen beside it."""

    def text(kind: str, vision: Path | None = None, pack: Path | None = None) -> str:
        loaded = load_dynamicid(faceid.file(tmp_path, kind) if kind in KINDS else tiny.adapter_file(tmp_path / "a"))
        return report.loaded_report(loaded, vision, pack, "CPU")

    return text


def test_what_is_missing_is_said_with_its_place(reported: Known) -> None:
    ours = reported("DynamicID")
    assert ours.startswith("DynamicID for a UNet of 7 cross-attentions, text of 128: 4 tokens of 128, rank 4\n")
    for words in ("into models/clip_vision", "into models/insightface/models", "IMR: missing. Put the release's"):
        assert words in ours
    theirs = reported("FaceID Plus v2")
    assert theirs.startswith("FaceID Plus v2 for ") and "IMR: none was trained for this kind" in theirs
    assert "CLIP vision: not needed" in reported("FaceID")


@pytest.mark.parametrize(("dim", "words"), [(faceid.CLIP_DIM, "CLIP vision: v.safetensors"), (64, "does not fit")])
def test_a_clip_vision_model_of_other_states_is_said(dim: int, words: str, reported: Known, tmp_path: Path) -> None:
    save_file({"vision_model.encoder.layers.0.layer_norm1.weight": torch.ones(dim)}, tmp_path / "v.safetensors")
    assert words in reported("FaceID Plus", tmp_path / "v.safetensors")


def test_a_damaged_clip_vision_model_is_said(reported: Known, tmp_path: Path) -> None:
    (tmp_path / "v.safetensors").write_bytes(b"nothing")
    (line,) = (line for line in reported("FaceID Plus", tmp_path / "v.safetensors").split("\n") if "CLIP" in line)
    assert "v.safetensors" in line and len(line) < 400


def test_half_a_face_pack_is_said(reported: Known, tmp_path: Path) -> None:
    pack = tmp_path / "buffalo_l"
    pack.mkdir()
    for name in ("det_10g", "w600k_r50", "2d106det"):
        (pack / f"{name}.onnx").touch()
    assert "buffalo_l lacks 1k3d68.onnx" in reported("DynamicID", pack=pack)
    (pack / "1k3d68.onnx").touch()
    assert "Face pack: buffalo_l, on CPU" in reported("DynamicID", pack=pack)


def test_base_models_are_named_by_their_sizes() -> None:
    for (count, dim), name in {(16, 768): "SD1.5", (70, 2048): "SDXL", (16, 1024): "a UNet of 16"}.items():
        adapter: Any = SimpleNamespace(base="unet", dims=(8,) * 2 * count, text_dim=dim)
        assert report.base_of(adapter).startswith(name)


def test_the_node_itself_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    faceid.file(tmp_path, "FaceID Plus v2")
    none = tmp_path / "none"
    for folder, place in ((folders.FOLDER, none), (folders.INSIGHTFACE, none), (folders.IPADAPTER, tmp_path)):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(place)], {".bin"}))
    (tmp_path / "ip-adapter_sd15.bin").touch()
    (name,) = (name for name in folders.adapter_files() if name.startswith("ipadapter/"))
    assert name == "ipadapter/ip-adapter-faceid-plusv2_sd15.bin"
    with caplog.at_level("INFO", "DynamicID"):
        loaded = LoadDynamicID.execute(name).args[0]
    assert loaded.adapter.encoding.kind == "FaceID Plus v2" and not loaded.embeds_rgb and not loaded.gate
    assert "Load DynamicID: FaceID Plus v2 for" in caplog.text
    assert LoadDynamicID.execute(name, kind="FaceID Plus").args[0].adapter.encoding.kind == "FaceID Plus"
    with pytest.raises(FileNotFoundError, match=r"'ipadapter/other\.bin'"):
        LoadDynamicID.execute("ipadapter/other.bin")


INSTALLED = {
    "nothing": (set(), set(), "python -m pip install insightface onnxruntime"),
    "NumPy and protobuf": (
        {"numpy", "Protobuf"},
        {"numpy", "google.protobuf"},
        "python -m pip install insightface onnxruntime numpy==1.2 protobuf==1.2",
    ),
    "onnxruntime-gpu": (
        {"onnxruntime-gpu", "numpy"},
        {"onnxruntime", "numpy", "tqdm", "requests", "scipy"},
        "python -m pip install onnx scikit-image opencv-python numpy==1.2"
        " && python -m pip install --no-deps insightface",
    ),
    "headless OpenCV": (
        {"opencv_python_headless"},
        {"cv2", "numpy", "onnx", "tqdm", "requests", "scipy", "skimage"},
        "python -m pip install onnxruntime && python -m pip install --no-deps insightface",
    ),
    "both, and all that insightface needs": (
        {"onnxruntime-gpu", "opencv-contrib-python"},
        {"cv2", "onnxruntime", "numpy", "onnx", "tqdm", "requests", "scipy", "skimage"},
        "python -m pip install --no-deps insightface",
    ),
}


@pytest.mark.parametrize(("names", "modules", "command"), INSTALLED.values(), ids=INSTALLED)
def test_the_command_puts_nothing_over_a_twin(
    names: set[str], modules: set[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [SimpleNamespace(metadata={"Name": name}, version="1.2") for name in names]
    monkeypatch.setattr(installation, "distributions", lambda: there)
    monkeypatch.setattr(installation, "find_spec", lambda name: name if name in modules else None)
    assert installation.install_command() == command
    assert installation.is_installed() == ({"insightface", "onnxruntime"} <= modules)
