"""Identity tokens of face crops, made once: CLIP's states of the crop by transformers, then the frozen face encoder."""

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
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ..checkpoint import load_checkpoint
from ..identity.encoder import FaceEncoder
from ..image_inputs import Image, clip_input, clip_normalization
from ..state_dict import Weights, depth, size
from ..tensor_file import read_tensors

_HEAD_DIMS = {1280: 80, 1664: 104}  # by dim: ViT-H/14 and ViT-bigG/14; the others' heads have 64
_OPENAI_DIMS = {768, 1024}  # of ViT-B and ViT-L, which OpenAI trained with an approximate GELU
_BATCH = 8


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
        self._vision, mean, std = load_vision(clip_vision)
        self._vision.to(device)
        self._mean, self._std = mean.to(device), std.to(device)
        self._device, self._threads = device, threads
        dim = self._vision.config.hidden_size
        if dim != self._encoder.clip_dim:
            raise ValueError(
                f"{adapter}: its face encoder reads CLIP states of {self._encoder.clip_dim}, {clip_vision.name} "
                f"makes states of {dim}. Choose the CLIP vision model that it was trained with: ViT-H/14 for the "
                "release."
            )

    @torch.inference_mode()
    def __call__(self, crops: Sequence[Image], embeddings: NDArray[np.float32]) -> NDArray[np.float16]:
        """Return the identity tokens (n, T, D) of n crops (S, S, 3) and their face embeddings (n, 512)."""
        tokens = []
        with _num_threads(self._threads):
            for i in range(0, len(crops), _BATCH):
                images = torch.from_numpy(np.stack(crops[i : i + _BATCH])).to(self._device)
                states = self._states(images.movedim(-1, 1).float() / 255)  # n h w c -> n c h w
                faces = torch.from_numpy(embeddings[i : i + _BATCH]).to(self._device)
                tokens.append(self._encoder(faces, states).half().cpu().numpy())
        return np.concatenate(tokens)

    def _states(self, images: Tensor) -> Tensor:
        """Return CLIP's penultimate hidden states (n, N, D) of square images (n, 3, S, S) in [0, 1]."""
        pixels = clip_input(images, self._vision.config.image_size, self._mean, self._std)
        states: Tensor = self._vision(pixels, output_hidden_states=True).hidden_states[-2]
        return states


def load_vision(path: Path) -> tuple[Any, Tensor, Tensor]:
    """Load a CLIPVisionModelWithProjection of transformers in float32.

    Returns:
        The model, and the mean and deviation (3, 1, 1) of its input.

    Raises ValueError for a folder or file that holds something else.
    """
    model: Any  # transformers' `eval` is not typed
    if path.is_dir():
        try:
            model = CLIPVisionModelWithProjection.from_pretrained(
                path, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{path}: expected a CLIP vision model as transformers saves it (config.json, model.safetensors): "
                f"{error}"
            ) from error
        return (model.eval(), *clip_normalization(path / "preprocessor_config.json"))

    prefixes = ("vision_model.", "visual_projection.")
    weights = {name: tensor.float() for name, tensor in read_tensors(path)[0].items() if name.startswith(prefixes)}
    weights.pop("vision_model.embeddings.position_ids", None)
    sibling = path.with_suffix(".json")
    try:
        config = json.loads(sibling.read_text("utf-8")) if sibling.is_file() else _infer_config(weights)
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**config))
        model.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path}: expected the weights of a CLIP vision model under transformers' names (vision_model.*, "
            f"visual_projection.weight): {error}"
        ) from error
    return (model.eval(), *clip_normalization(sibling))


def _infer_config(weights: Weights) -> dict[str, Any]:
    """Return CLIPVisionConfig's values, from a state dict's shapes, and for the known dims what no shape tells."""
    patches = weights.get("vision_model.embeddings.patch_embedding.weight")
    if patches is None or patches.ndim != 4:
        raise ValueError("there is no vision_model.embeddings.patch_embedding.weight of 4 axes")
    dim, patch = patches.shape[0], patches.shape[3]
    positions = size(weights, "vision_model.embeddings.position_embedding.weight", 0) - 1  # without the class token
    return {
        "hidden_size": dim,
        "patch_size": patch,
        "image_size": patch * round(positions**0.5),
        "num_hidden_layers": depth(weights, "vision_model.encoder.layers."),
        "num_attention_heads": dim // _HEAD_DIMS.get(dim, 64),
        "intermediate_size": size(weights, "vision_model.encoder.layers.0.mlp.fc1.weight", 0),
        "projection_dim": size(weights, "visual_projection.weight", 0),
        "hidden_act": "quick_gelu" if dim in _OPENAI_DIMS else "gelu",
    }


@contextmanager
def _num_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
