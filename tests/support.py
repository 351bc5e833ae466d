"""What several test modules share: where golden data lies, the rule that generates weights, the error measure."""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"


def relative_error(ours: torch.Tensor, golden: torch.Tensor) -> float:
    """`||ours - golden|| / ||golden||`, in float64."""
    ours, golden = ours.double(), golden.double()
    return float(torch.linalg.vector_norm(ours - golden) / torch.linalg.vector_norm(golden))


def generated_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Float32 weights drawn by the golden data's rule: one generator, names in sorted order, scaled by fan-in."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        drawn = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            weights[name] = 1 + 0.1 * drawn.abs()
        elif name.endswith("running_mean"):
            weights[name] = 0.1 * drawn
        elif len(shape) >= 2:
            weights[name] = drawn / prod(shape[1:]) ** 0.5
        elif name.endswith("weight"):
            weights[name] = 1 + 0.02 * drawn
        else:
            weights[name] = 0.02 * drawn
    return weights
