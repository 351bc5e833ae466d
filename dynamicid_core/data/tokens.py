"""Identity tokens of cut-out faces, made once: CLIP's view of the cut by transformers, then the frozen face encoder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import load_checkpoint
from ..identity.encoder import FaceEncoder
from ..image_inputs import Image
from ..state_dict import Weights, depth, size
from ..tensor_file import read_tensors
from .optional import needed

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HEAD_WIDTHS = {1280: 80, 1664: 104}  # ViT-H/14 and ViT-bigG/14; the others' heads are of 64
_OF_OPENAI = {768, 1024}  # widths of ViT-B and ViT-L, which OpenAI trained with an approximate GELU
_TOGETHER = 8


class TokenMaker:
    """The face encoder of an adapter's file, and a CLIP vision model.

    Args:
        adapter: a file that holds the face encoder (proj_module.*), see `checkpoint`.
        clip_vision: a folder as transformers saves it, with safetensors, or a file of its state dict; a .json of the
            same name beside a file says what the shapes don't.
        threads: of PyTorch while tokens are made.

    Raises ValueError for files that hold something else, or two that don't belong together.
    """

    def __init__(self, adapter: Path, clip_vision: Path, device: str = "cpu", threads: int = 1):
        weights = load_checkpoint(adapter).face_encoder
        if weights is None:
            raise ValueError(f"{adapter}: it holds no face encoder (proj_module.*). Choose the release's SAA.bin.")
        self._encoder = FaceEncoder.from_weights(weights).float().to(device).eval()
        self._vision, self._mean, self._std = load_vision(clip_vision)
        self._vision.to(device)
        self._device, self._threads = device, threads
        width = self._vision.config.hidden_size
        if width != self._encoder.clip_dim:
            raise ValueError(
                f"{adapter}: its face encoder reads CLIP states of {self._encoder.clip_dim}, {clip_vision.name} "
                f"makes states of {width}. Choose the CLIP vision model that it was trained with: ViT-H/14 for the "
                "release."
            )

    @torch.inference_mode()
    def __call__(self, crops: Sequence[Image], embeddings: NDArray[np.float32]) -> NDArray[np.float16]:
        """Squares (S, S, 3) RGB and face embeddings (n, 512) to identity tokens (n, T, D)."""
        made = []
        with _threads(self._threads):
            for i in range(0, len(crops), _TOGETHER):
                shown = torch.from_numpy(np.stack(list(crops[i : i + _TOGETHER]))).to(self._device)
                states = self.states(shown.float() / 255)
                faces = torch.from_numpy(embeddings[i : i + _TOGETHER]).to(self._device)
                made.append(self._encoder(faces, states).half().cpu().numpy())
        return np.concatenate(made)

    def states(self, images: Tensor) -> Tensor:
        """Squares (n, S, S, 3) in [0, 1] to CLIP's penultimate hidden states (n, N, width), as the host makes them."""
        side = self._vision.config.image_size
        pixels = images.movedim(-1, 1)
        if pixels.shape[-1] != side:
            pixels = torch.nn.functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
        pixels = (pixels * 255).clamp(0, 255).round() / 255
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (self._mean, self._std))
        states: Tensor = self._vision((pixels - mean) / std, output_hidden_states=True).hidden_states[-2]
        return states


def load_vision(path: Path) -> tuple[Any, Sequence[float], Sequence[float]]:
    """transformers' CLIPVisionModelWithProjection in float32, and the mean and deviation of its pixels.

    Raises ValueError for a folder or file that holds something else.
    """
    transformers = needed("transformers")
    if path.is_dir():
        try:
            model = transformers.CLIPVisionModelWithProjection.from_pretrained(
                path, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{path}: expected a CLIP vision model as transformers saves it (config.json, model.safetensors): "
                f"{error}"
            ) from error
        return (model.eval(), *_pixels(path / "preprocessor_config.json"))

    tensors, _ = read_tensors(path)
    wanted = ("vision_model.", "visual_projection.")
    weights = {name: tensor.float() for name, tensor in tensors.items() if name.startswith(wanted)}
    weights.pop("vision_model.embeddings.position_ids", None)
    beside = path.with_suffix(".json")
    try:
        known = json.loads(beside.read_text("utf-8")) if beside.is_file() else _config(weights)
        model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**known))
        model.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path}: expected the weights of a CLIP vision model under transformers' names (vision_model.*, "
            f"visual_projection.weight): {error}"
        ) from error
    return (model.eval(), *_pixels(beside))


def _config(weights: Weights) -> dict[str, Any]:
    """CLIPVisionConfig's values, from the shapes in a state dict, and what only the known sizes tell."""
    patches = weights.get("vision_model.embeddings.patch_embedding.weight")
    if patches is None or patches.ndim != 4:
        raise ValueError("there is no vision_model.embeddings.patch_embedding.weight of 4 axes")
    width, patch = patches.shape[0], patches.shape[3]
    places = size(weights, "vision_model.embeddings.position_embedding.weight", 0) - 1
    return {
        "hidden_size": width,
        "patch_size": patch,
        "image_size": patch * round(places**0.5),
        "num_hidden_layers": depth(weights, "vision_model.encoder.layers."),
        "num_attention_heads": width // _HEAD_WIDTHS.get(width, 64),
        "intermediate_size": size(weights, "vision_model.encoder.layers.0.mlp.fc1.weight", 0),
        "projection_dim": size(weights, "visual_projection.weight", 0),
        "hidden_act": "quick_gelu" if width in _OF_OPENAI else "gelu",
    }


def _pixels(file: Path) -> tuple[Sequence[float], Sequence[float]]:
    """image_mean and image_std of a JSON file, CLIP's own where it has none."""
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return known.get("image_mean", _MEAN), known.get("image_std", _STD)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
