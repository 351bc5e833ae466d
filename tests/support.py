"""What several test modules share: where golden data lies, the rule that generates weights, the error measure."""

from collections.abc import Iterator, Mapping
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
    """Float32 weights drawn by the golden data's rule."""
    return dict(drawn_weights(shapes, seed))


def drawn_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the same, one by one: of one generator, names in sorted order, scaled by fan-in."""
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        if name.endswith("num_batches_tracked"):
            yield name, torch.zeros(shape, dtype=torch.int64)
            continue
        drawn = torch.randn(shape, generator=generator)
        if name.endswith("running_var"):
            yield name, 1 + 0.1 * drawn.abs()
        elif name.endswith("running_mean"):
            yield name, 0.1 * drawn
        elif len(shape) >= 2:
            yield name, drawn / prod(shape[1:]) ** 0.5
        elif name.endswith("weight"):
            yield name, 1 + 0.02 * drawn
        else:
            yield name, 0.02 * drawn
