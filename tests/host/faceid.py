"""IP-Adapter FaceID files of generated weights, for the tiny models and for full size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dynamicid_pack.dynamicid_core.identity.encoding import ENCODINGS
from safetensors.torch import save_file
from torch import Tensor

from ..support import drawn_weights
from . import shapes, tiny

EMBEDDING, CLIP_DIM, CLIP_TOKENS = 32, 48, 9
KINDS = [kind for kind in ENCODINGS if kind.startswith("FaceID")]
NAMES = dict(zip(KINDS, ("faceid", "faceid-plus", "faceid-plusv2"), strict=True))
"""Kind -> what its publisher calls it in a file's name."""
HALVES = {"proj_module": "image_proj", "SAA_module": "ip_adapter"}
"""What the release calls a part -> what FaceID's files call it."""


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a FaceID file follow from, beside the base model's."""

    rank: int = 4
    embedding: int = EMBEDDING
    hidden: int = 64
    clip_dim: int = CLIP_DIM


REAL = Sizes(rank=128, embedding=512, hidden=1024, clip_dim=1280)


def state(
    kind: str, config: dict[str, Any] = shapes.TINY, sizes: Sizes = Sizes(), dtype: torch.dtype = torch.float32
) -> dict[str, dict[str, Tensor]]:
    """The two halves of a FaceID file of generated weights; one tensor at a time is float32 where `dtype` is not."""
    encoder = shapes.face_encoder(
        config["context_dim"],
        tokens=tiny.TOKENS,
        embedding=sizes.embedding,
        hidden=sizes.hidden,
        clip_dim=sizes.clip_dim,
    )
    if ENCODINGS[kind].crop == "none":
        encoder = {name: shape for name, shape in encoder.items() if "perceiver_resampler" not in name}
    halves: dict[str, dict[str, Tensor]] = {half: {} for half in HALVES.values()}
    for name, tensor in drawn_weights(encoder | shapes.saa(config, sizes.rank), 71):
        part, _, own_name = name.partition(".")
        halves[HALVES[part]][own_name] = tensor.to(dtype)
    return halves


def name_of(kind: str, base: str = "sd15", suffix: str = ".bin") -> str:
    """The publisher's name of a file."""
    return f"ip-adapter-{NAMES[kind]}_{base}{suffix}"


def file(folder: Path, kind: str, suffix: str = ".bin", config: dict[str, Any] = shapes.TINY) -> Path:
    """Write such a file under its publisher's name: nested as a `.bin`, with prefixes as safetensors."""
    path = folder / name_of(kind, "sdxl" if config["adm_in_channels"] else "sd15", suffix)
    halves = state(kind, config)
    if suffix == ".bin":
        torch.save(halves, path)
    else:
        save_file({f"{half}.{name}": tensor for half in halves for name, tensor in halves[half].items()}, path)
    return path
