"""The judge of real models on files of their formats, the miniature's at other sizes, and which may be named."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.box import Box
from dynamicid_pack.dynamicid_core.evaluation import judges
from dynamicid_pack.dynamicid_core.evaluation.judges import Judge, load_judge
from dynamicid_pack.dynamicid_core.evaluation.models_judge import ModelsJudge
from dynamicid_pack.dynamicid_core.expression_classifier import CLASSES
from dynamicid_pack.dynamicid_core.image_inputs import CLASSIFIER_SIDE
from dynamicid_pack.dynamicid_core.imr.motion import EXPRESSIONS
from PIL import Image

from .conftest import FACE_PACK
from .drawings import draw, stranger

pytestmark = pytest.mark.train  # transformers and insightface are loaded


def _classifier(path: Path, classes: int = len(CLASSES)) -> None:
    """An ONNX file whose class follows from how bright the crop is: class i's logit is highest at i / 6 of white."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    centres = (np.arange(classes) / 6 - np.mean([0.485, 0.456, 0.406])) / np.mean([0.229, 0.224, 0.225])
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("Sub", ["column", "centres"], ["apart"]),
        helper.make_node("Abs", ["apart"], ["far"]),
        helper.make_node("Neg", ["far"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(centres.astype(np.float32)[None], "centres"),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, CLASSIFIER_SIDE, CLASSIFIER_SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


def _clip(folder: Path) -> Any:
    """A small CLIP with weights by chance, saved as transformers saves it."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder.mkdir()
    characters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"eos_token_id": len(tokens) - 1, "bos_token_id": len(tokens) - 2, "pad_token_id": len(tokens) - 1}
    text = shape | ends | {"vocab_size": len(tokens), "max_position_embeddings": 12}
    vision = shape | {"image_size": 32, "patch_size": 16}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    sizes: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessor(**sizes), tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    _clip(folder / "clip")
    _classifier(folder / "fer.onnx")
    return {
        "face_pack": str(FACE_PACK), "clip": str(folder / "clip"), "expressions": str(folder / "fer.onnx"),
        "provider": "CPU",
    }  # fmt: skip


@pytest.fixture(scope="module")
def models(options: dict[str, str]) -> ModelsJudge:
    judge = load_judge("models", options)
    assert isinstance(judge, ModelsJudge)
    return judge


def test_faces_are_where_and_as_they_were_drawn(models: ModelsJudge) -> None:
    picture = draw([stranger(1), stranger(2)], [("happy", 17, 20), ("sad", 0, -40)], 5)
    detected = sorted(models.faces(picture.image), key=lambda face: face.box[0])
    assert len(detected) == 2
    for face, truth in zip(detected, picture.faces, strict=True):
        np.testing.assert_allclose(face.box, truth.box, atol=6)
        np.testing.assert_allclose(face.pose, truth.pose, atol=9)
        assert face.embedding.shape == (512,) and np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
        assert face.expression in EXPRESSIONS
    assert models.faces(np.full((128, 128, 3), 90, np.uint8)) == []


def test_the_classes_come_in_the_stated_order(models: ModelsJudge) -> None:
    for place, name in enumerate(CLASSES):
        assert models.expression(np.full((80, 80, 3), round(place * 255 / 6), np.uint8), Box(10, 10, 70, 70)) == name
    assert sorted(CLASSES) == sorted(EXPRESSIONS)


def test_clips_vectors_are_those_of_its_whole_model(models: ModelsJudge, options: dict[str, str]) -> None:
    from transformers import CLIPModel, CLIPProcessor

    image = draw([stranger(1), stranger(2)], [("happy", 0, 0)] * 2, 1).image
    text = "a park"
    model, processor = CLIPModel.from_pretrained(options["clip"]), CLIPProcessor.from_pretrained(options["clip"])
    with torch.no_grad():
        said = model(**processor(text=[text], images=Image.fromarray(image), return_tensors="pt"))
    for ours, theirs in (
        (models.image_vector(image), said.image_embeds[0]), (models.text_vector(text), said.text_embeds[0])
    ):  # fmt: skip
        np.testing.assert_allclose(ours / np.linalg.norm(ours), theirs.numpy(), atol=1e-5)
    assert np.isfinite(models.text_vector("far more words than this text encoder has places for")).all()


def test_the_fingerprint_follows_from_the_files(models: ModelsJudge, options: dict[str, str], tmp_path: Path) -> None:
    assert ModelsJudge.load(**options).fingerprint == models.fingerprint
    other = tmp_path / "other.onnx"
    other.write_bytes(Path(options["expressions"]).read_bytes())
    assert ModelsJudge.load(**(options | {"expressions": str(other)})).fingerprint == models.fingerprint
    import onnx

    changed = onnx.load(other)
    changed.doc_string = "another"
    onnx.save(changed, other)
    assert ModelsJudge.load(**(options | {"expressions": str(other)})).fingerprint != models.fingerprint


def test_files_that_do_not_fit_are_refused(options: dict[str, str], tmp_path: Path) -> None:
    _classifier(tmp_path / "eight.onnx", 8)
    for change, message in (
        ({"clip": "nowhere"}, "Expected as clip a folder at nowhere"),
        ({"expressions": options["clip"]}, "Expected as expressions a file at"),
        ({"expressions": str(tmp_path / "eight.onnx")}, r"expected the names of its 8 classes .* alone"),
        ({"face_pack": str(tmp_path)}, "lacks det_10g.onnx"),
        ({"weights": "x"}, "can't be made with the options .*weights"),
    ):
        with pytest.raises(ValueError, match=message):
            load_judge("models", options | change)


@pytest.mark.parametrize("missing", ["onnxruntime", "transformers"])
def test_a_package_that_is_missing_is_named_with_the_extra(
    missing: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{missing}.*\[training\]"):
        load_judge("models", options)


@pytest.fixture
def strange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module outside the pack that must not run."""
    (tmp_path / "strange.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "strange:judge"


def test_only_the_packs_own_judges_are_imported(strange: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (strange, "mini.train.judging:MiniatureJudge", "os:system", ""):
        with pytest.raises(ValueError, match=r"Expected the judge models or one of mini\.train\.judging:judge"):
            load_judge(kind, {})
    monkeypatch.setattr(judges, "_PACK", Path("/elsewhere"))
    with pytest.raises(ValueError, match=r"Expected the pack's own mini.train.judging"):
        load_judge("mini.train.judging:judge", {})


def test_a_judge_that_was_not_shipped_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "IN_THE_PACK", ("mini.train.absent:judge",))
    with pytest.raises(ModuleNotFoundError, match="comes with the repository"):
        load_judge("mini.train.absent:judge", {})


def test_the_miniature_sees_pictures_of_other_sizes_alike(judge: Judge) -> None:
    picture = draw([stranger(1), stranger(2)], [("happy", 0, 20), ("sad", 0, 0)], 5)
    large = np.asarray(Image.fromarray(picture.image).resize((1024, 512), Image.Resampling.BICUBIC))
    plain, enlarged = judge.faces(picture.image), judge.faces(large)
    assert len(plain) == len(enlarged) == 2
    for small, big, truth in zip(plain, enlarged, picture.faces, strict=True):
        np.testing.assert_allclose(small.box, truth.box, atol=5)
        np.testing.assert_allclose(np.array(big.box) / 4, small.box, atol=4)
        assert small.expression == big.expression == truth.motion.expression
        assert float(small.embedding @ big.embedding) > 0.9
    assert judge.faces(np.full((128, 128, 3), 90, np.uint8)) == []
