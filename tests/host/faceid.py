"""IP-Adapter FaceID files of generated weights, for the tiny models."""

from pathlib import Path
from typing import Any

import torch
from dynamicid_pack.dynamicid_core.identity.encoding import ENCODINGS
from safetensors.torch import save_file
from torch import Tensor

from ..support import generated_weights
from . import shapes, tiny

EMBEDDING, CLIP_DIM, CLIP_TOKENS = 32, 48, 9
KINDS = [kind for kind in ENCODINGS if kind.startswith("FaceID")]
NAMES = dict(zip(KINDS, ("faceid", "faceid-plus", "faceid-plusv2"), strict=True))
"""Kind -> what its publisher calls it in a file's name."""


def state(kind: str, config: dict[str, Any] = shapes.TINY) -> dict[str, dict[str, Tensor]]:
    """The two halves of a FaceID file of generated weights."""
    encoder = shapes.face_encoder(tiny.WIDTH, tokens=tiny.TOKENS, embedding=EMBEDDING, hidden=64, clip_dim=CLIP_DIM)
    if ENCODINGS[kind].crop == "none":
        encoder = {name: shape for name, shape in encoder.items() if "perceiver_resampler" not in name}
    weights = generated_weights(encoder | shapes.saa(config, 4), 71)
    halves = {"image_proj": "proj_module.", "ip_adapter": "SAA_module."}
    return {
        half: {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        for half, prefix in halves.items()
    }


def file(folder: Path, kind: str, suffix: str = ".bin", config: dict[str, Any] = shapes.TINY) -> Path:
    """Write such a file under its publisher's name: nested as a `.bin`, with prefixes as safetensors."""
    path = folder / f"ip-adapter-{NAMES[kind]}_sd15{suffix}"
    halves = state(kind, config)
    if suffix == ".bin":
        torch.save(halves, path)
    else:
        save_file({f"{half}.{name}": tensor for half in halves for name, tensor in halves[half].items()}, path)
    return path
