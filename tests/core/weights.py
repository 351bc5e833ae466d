"""Small weights of every part, and how files of them are compared."""

from pathlib import Path
from typing import Any

import pytest
import torch
from dynamicid_pack.dynamicid_core.checkpoint import Checkpoint, load_checkpoint, parts_of
from dynamicid_pack.dynamicid_core.identity.encoder import FaceEncoder
from dynamicid_pack.dynamicid_core.imr.reconfigurator import IdentityMotionReconfigurator, KeypointEncoder
from dynamicid_pack.dynamicid_core.state_dict import shapes
from dynamicid_pack.tests.support import generated_weights
from torch import Tensor

Weights = dict[str, Tensor]
TEXT, TOKEN, RANK = 12, 16, 3


def saa_shapes(widths: tuple[int, ...] = (8, 10)) -> dict[str, tuple[int, ...]]:
    """A small adapter: one transformer block, of two layers, for each width."""
    named: dict[str, tuple[int, ...]] = {}
    for index, width in enumerate(width for width in widths for _ in range(2)):
        for name in ("to_q", "to_k", "to_v", "to_out"):
            source = TEXT if index % 2 and name in ("to_k", "to_v") else width
            named[f"{index}.{name}_lora.down.weight"] = (RANK, source)
            named[f"{index}.{name}_lora.up.weight"] = (width, RANK)
        if index % 2:
            named[f"{index}.to_k_ip.weight"] = named[f"{index}.to_v_ip.weight"] = (width, TOKEN)
    return named


SAA = generated_weights(saa_shapes(), seed=1)
ENCODER = generated_weights(
    shapes(FaceEncoder(6, hidden_dim=8, clip_dim=10, dim=TOKEN, tokens=2, depth=1, dim_head=8)), seed=2
)
IMR = generated_weights(
    shapes(IdentityMotionReconfigurator(TOKEN, motion_dim=7, dim=8, latents=3, depth=2, dim_head=8)), seed=3
)
KEYPOINTS = generated_weights(shapes(KeypointEncoder((2, 4), (1, 2), output_dim=5)), seed=4)
PARTS = {"SAA_module": SAA, "proj_module": ENCODER, "imr": IMR, "keypoint_encoder": KEYPOINTS}


def flat(parts: dict[str, Weights]) -> Weights:
    return {f"{part}.{name}": tensor for part, weights in parts.items() for name, tensor in weights.items()}


def equal(ours: Any, theirs: Weights) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs
    )


def holds(checkpoint: Checkpoint, parts: dict[str, Weights]) -> bool:
    result = parts_of(checkpoint)
    return result.keys() == parts.keys() and all(equal(result[part], parts[part]) for part in parts)


def assert_says(path: Path, *expected: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        load_checkpoint(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert all(part in str(raised.value) for part in expected), str(raised.value)
