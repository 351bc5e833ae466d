"""Identity tokens made while the set is built, with small networks of generated weights."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from dynamicid_pack.dynamicid_core.data.executors import local_executor
from dynamicid_pack.dynamicid_core.data.pipeline import build
from dynamicid_pack.dynamicid_core.data.tokens import TokenMaker, _infer_config, load_vision
from dynamicid_pack.dynamicid_core.identity.encoder import FaceEncoder
from dynamicid_pack.tests.data.drawn import changed, draw_person, job, portrait
from dynamicid_pack.tests.support import generated_weights
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

pytestmark = pytest.mark.train  # a build runs the miniature's networks for seconds

WIDTH = 128


def _adapter(path: Path, clip_dim: int = WIDTH) -> FaceEncoder:
    encoder = FaceEncoder(clip_dim=clip_dim, dim=64, hidden_dim=32, depth=1)
    weights = generated_weights({name: tuple(t.shape) for name, t in encoder.state_dict().items()}, 5)
    encoder.load_state_dict(weights)
    save_file({f"proj_module.{name}": tensor for name, tensor in weights.items()}, path)
    return encoder.eval()


def _vision(folder: Path) -> CLIPVisionModelWithProjection:
    """Saved as transformers does, and beside it its weights in a file."""
    config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=3, num_attention_heads=2, image_size=56,
        patch_size=14, projection_dim=24, hidden_act="gelu",
    )  # fmt: skip
    model = CLIPVisionModelWithProjection(config).eval()
    names = {name: tuple(t.shape) for name, t in model.state_dict().items() if t.is_floating_point()}
    model.load_state_dict(generated_weights(names, 6), strict=False)
    model.save_pretrained(folder)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, folder.with_suffix(".safetensors"))
    return model


def _states(model: CLIPVisionModelWithProjection, image: np.ndarray) -> Tensor:
    """CLIP's penultimate states of a square, written out."""
    pixels = torch.from_numpy(image).float().permute(2, 0, 1)[None] / 255
    pixels = torch.nn.functional.interpolate(pixels, (56, 56), mode="bicubic", antialias=True)
    pixels = (pixels * 255).clamp(0, 255).round() / 255
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    states: list[Tensor] = []
    layers = [module for name, module in model.named_modules() if name.endswith("encoder.layers.1")]
    hook = layers[0].register_forward_hook(lambda _, __, out: states.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        model((pixels - mean) / std)
    hook.remove()
    return states[0]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_tokens_are_the_face_encoder_on_the_last_layer_but_one(tmp_path: Path, kind: str) -> None:
    encoder, model = _adapter(tmp_path / "adapter.safetensors"), _vision(tmp_path / "clip")
    path = tmp_path / "clip" if kind == "folder" else tmp_path / "clip.safetensors"
    maker = TokenMaker(tmp_path / "adapter.safetensors", path)
    images = [portrait(0, view).image for view in range(9)]  # more than are made together
    faces = np.random.default_rng(0).normal(size=(9, 512)).astype(np.float32)
    threads = torch.get_num_threads()
    tokens = maker(images, faces)
    assert torch.get_num_threads() == threads
    assert tokens.shape == (9, 4, 64) and tokens.dtype == np.float16
    for i in (0, 8):
        with torch.no_grad():
            expected = encoder(torch.from_numpy(faces[i : i + 1]), _states(model, images[i]))[0]
        assert np.abs(tokens[i] - expected.numpy()).max() < 4e-3 * float(expected.abs().max())
    assert np.abs(tokens[0] - tokens[8]).max() > 0.1


def test_a_set_holds_each_pictures_tokens(tmp_path: Path) -> None:
    source = tmp_path / "source"
    draw_person(source / "anna", 0, 2)
    _adapter(tmp_path / "adapter.safetensors")
    _vision(tmp_path / "clip")
    files = {"adapter": tmp_path / "adapter.safetensors", "clip_vision": tmp_path / "clip"}
    with_tokens = job(source, changed(adapter="a", clip_vision="c"), **files)
    build(with_tokens, tmp_path / "set", local_executor(with_tokens))
    maker = TokenMaker(tmp_path / "adapter.safetensors", tmp_path / "clip")
    with tarfile.open(tmp_path / "set" / "shard-000000.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    keys = sorted({name.split(".")[0] for name in members})
    crops = [np.array(Image.open(io.BytesIO(members[f"{key}.png"]))) for key in keys]
    faces = np.stack([np.load(io.BytesIO(members[f"{key}.embedding.npy"])) for key in keys])
    for key, tokens in zip(keys, maker(crops, faces), strict=True):
        stored = np.load(io.BytesIO(members[f"{key}.tokens.npy"]))
        assert stored.dtype == np.float16 and np.array_equal(stored, tokens)


def test_networks_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    _adapter(tmp_path / "other.safetensors", clip_dim=192)
    _vision(tmp_path / "clip")
    with pytest.raises(ValueError, match="CLIP states of 192, clip makes states of 128"):
        TokenMaker(tmp_path / "other.safetensors", tmp_path / "clip")
    _adapter(tmp_path / "adapter.safetensors")
    with pytest.raises(ValueError, match=r"patch_embedding\.weight"):
        load_vision(tmp_path / "adapter.safetensors")
    with pytest.raises(ValueError, match="vision model as transformers saves it"):
        load_vision(tmp_path)
    with pytest.raises(ValueError, match="expected weights of DynamicID"):
        TokenMaker(tmp_path / "clip.safetensors", tmp_path / "clip")


def test_a_file_of_pickled_code_is_never_run(tmp_path: Path) -> None:
    """Neither as CLIP's file nor in a folder of transformers."""
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple:
            return (ran.write_text, ("",))

    torch.save({"vision_model.x": Evil()}, tmp_path / "clip.bin")
    with pytest.raises(ValueError, match="refused and nothing in it was run"):
        load_vision(tmp_path / "clip.bin")
    _vision(tmp_path / "folder")
    (tmp_path / "folder" / "model.safetensors").unlink()
    torch.save({"vision_model.x": Evil()}, tmp_path / "folder" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="as transformers saves it"):
        load_vision(tmp_path / "folder")
    assert not ran.exists()


def test_the_pixels_mean_and_deviation_come_from_beside_the_model(tmp_path: Path) -> None:
    _vision(tmp_path / "clip")
    assert load_vision(tmp_path / "clip")[1].flatten()[0].item() == pytest.approx(0.48145466)
    half = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(half))
    assert [values.flatten().tolist() for values in load_vision(tmp_path / "clip")[1:]] == list(half.values())


@pytest.mark.parametrize(
    ("width", "patch", "side", "layers", "heads", "act"),
    [
        (1280, 14, 224, 32, 16, "gelu"),  # ViT-H/14, laion2B's: what the release was trained with
        (1024, 14, 224, 24, 16, "quick_gelu"),  # ViT-L/14, OpenAI's
        (1024, 14, 336, 24, 16, "quick_gelu"),
        (1664, 14, 224, 48, 16, "gelu"),  # ViT-bigG/14
    ],
)
def test_known_models_are_told_by_their_shapes(
    width: int, patch: int, side: int, layers: int, heads: int, act: str
) -> None:
    shapes = {
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": ((side // patch) ** 2 + 1, width),
        "visual_projection.weight": (1024, width),
        **{f"vision_model.encoder.layers.{i}.mlp.fc1.weight": (4 * width, width) for i in range(layers)},
    }
    assert _infer_config({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}) == {
        "hidden_size": width, "patch_size": patch, "image_size": side, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": 4 * width, "projection_dim": 1024, "hidden_act": act,
    }  # fmt: skip
