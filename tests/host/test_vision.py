"""CLIP's states by the host against transformers' on the same weights."""

import json
from pathlib import Path
from typing import Any

import comfy.cli_args
import comfy.clip_vision
import pytest
import torch
from dynamicid_pack.dynamicid_core.host import vision
from safetensors.torch import save_file

CONFIG: dict[str, Any] = {  # ViT-H's kind, in small
    "model_type": "clip_vision_model", "hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 4,
    "num_attention_heads": 2, "hidden_act": "gelu", "image_size": 224, "patch_size": 14, "projection_dim": 64,
    "num_channels": 3,
}  # fmt: skip


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The host's, and transformers'."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    monkeypatch.setattr(comfy.cli_args.args, "fp32_text_enc", True)
    torch.manual_seed(6)
    with torch.inference_mode(False):
        theirs = CLIPVisionModelWithProjection(CLIPVisionConfig(**CONFIG)).eval()
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    ours = comfy.clip_vision.ClipVisionModel(str(config))
    missing, _ = ours.load_sd(theirs.state_dict())
    assert not missing
    return ours, theirs


def _relative(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.norm(result - expected) / torch.linalg.norm(expected))


def test_states_are_transformers(models) -> None:
    ours, theirs = models
    images = torch.rand(2, 300, 240, 3)
    result = vision.states(ours, images)
    pixels = comfy.clip_vision.clip_preprocess(images, size=224, mean=ours.image_mean, std=ours.image_std, crop=True)
    expected = theirs(pixel_values=pixels.float(), output_hidden_states=True).hidden_states[-2]
    assert result.shape == (2, 257, 160) and _relative(result, expected) < 1e-5


def test_nobodys_states_are_those_of_zero_pixels(models) -> None:
    ours, theirs = models
    expected = theirs(pixel_values=torch.zeros(1, 3, 224, 224), output_hidden_states=True).hidden_states[-2]
    assert _relative(vision.negative_states(ours), expected) < 1e-5
    assert _relative(vision.states(ours, torch.zeros(1, 224, 224, 3)), expected) > 0.01  # black is not zero


def test_the_preprocessing_is_nearly_clips_own(models) -> None:
    """The stated 0.7 %: the host resizes in floating point, and otherwise than Pillow."""
    from transformers import CLIPImageProcessor

    ours, _ = models
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 20, 16), (400, 320), mode="bicubic").clamp(0, 1)
    image = image.mul(255).round().div(255)
    processor = CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=224)
    expected = processor(image[0].permute(1, 2, 0).mul(255).byte().numpy(), return_tensors="pt").pixel_values
    pixels = comfy.clip_vision.clip_preprocess(
        image.permute(0, 2, 3, 1), size=224, mean=ours.image_mean, std=ours.image_std, crop=True
    )
    assert _relative(pixels.float(), expected) < 0.02


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html>", "expected a safetensors file or a PyTorch .bin"),
        (b"", "the file is empty"),
        ((2**40).to_bytes(8, "little") + b'{"a":', "truncated or its header is broken"),
    ],
)
def test_a_file_that_is_none_is_named(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "clip.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=rf"clip\.safetensors: .*{says}"):
        vision.load_vision(tmp_path / "clip.safetensors")


@pytest.mark.parametrize("shape", [(4,), (7, 7), ()])
@pytest.mark.parametrize("layer", ["other", "vision_model.encoder.layers.30.layer_norm1"])
def test_another_model_is_named(layer: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    save_file({f"{layer}.weight": torch.zeros(shape)}, tmp_path / "clip.safetensors")
    with pytest.raises(ValueError, match=r"^clip\.safetensors is not a CLIP vision model"):
        vision.load_vision(tmp_path / "clip.safetensors")
