"""SDXL's model files of full size with generated weights, for the length of a test: 8.4 GB on disk.

Weights are drawn as those of `full_size.py`, each written as soon as it is drawn: the UNet alone is 10 GB in float32.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from ..support import drawn_weights
from . import faceid, shapes
from .full_size import FACEID, faceid_halves

UNET_SEED, TEXT_SEED, VAE_SEED = 20291, 20292, 20293

Part = tuple[str, shapes.Shapes, int]
"""A prefix, the shapes of what stands under it, and its seed."""


@dataclass(frozen=True)
class SDXLFiles:
    """Files in float16, each in the layout in which users have it."""

    checkpoint: Path
    """UNet, CLIP-L, OpenCLIP bigG, VAE; single file."""
    faceid: Path
    """IP-Adapter FaceID Plus v2 for SDXL, under its publisher's name."""


def sdxl_files(folder: Path) -> SDXLFiles:
    """Write the files into a folder."""
    files = SDXLFiles(folder / "generated_sdxl.safetensors", folder / faceid.name_of(FACEID, "sdxl"))
    write_as_drawn(
        files.checkpoint,
        [
            ("model.diffusion_model.", shapes.unet(shapes.SDXL), UNET_SEED),
            ("", shapes.sdxl_text_encoders(), TEXT_SEED),
            ("first_stage_model.", shapes.vae(), VAE_SEED),
        ],
    )
    torch.save(faceid_halves(shapes.SDXL), files.faceid)
    return files


def write_as_drawn(path: Path, parts: Sequence[Part]) -> None:
    """Write generated weights as a safetensors file in float16, one tensor in memory at a time."""
    header, end = {}, 0
    for prefix, of_part, _ in parts:
        for name in sorted(of_part):
            begin, end = end, end + 2 * prod(of_part[name])
            header[prefix + name] = {"dtype": "F16", "shape": list(of_part[name]), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)  # what follows is aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for _, of_part, seed in parts:
            for _, tensor in drawn_weights(of_part, seed):
                file.write(tensor.half().numpy().tobytes())
